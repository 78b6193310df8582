"""The chat page in a real browser: people talk, come and go, and nothing they write is taken as HTML."""

from __future__ import annotations

import json
import re

import httpx
import pytest
from playwright.async_api import Locator, Page, expect

from hubbub.errors import CLOSE_CODES
from tests.browser.conftest import SERVE, Open
from tests.serving import REPOSITORY, free_port, process

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCRIPT = (REPOSITORY / "examples" / "chat" / "chat.js").read_text("utf-8")


async def join(page: Page, name: str) -> Page:
    await page.fill("#name", name)
    await page.click("#enter")
    await expect(page.locator("#me")).to_have_text(f"You are {name}")
    return page


async def say(page: Page, text: str) -> None:
    await page.fill("#text", text)
    await page.press("#text", "Enter")


def person(page: Page, name: str) -> Locator:
    return page.locator("#conversations button").filter(has=page.get_by_text(name, exact=True))


def messages(page: Page) -> Locator:
    return page.locator("#messages .body")


async def test_two_tabs_talk_in_the_room(tab: Open) -> None:
    ann, bob = await join(await tab("/"), "ann"), await join(await tab("/"), "bob")
    await say(ann, "hello room")
    await say(bob, "hello ann")
    for page in (ann, bob):
        await expect(messages(page)).to_have_text(["hello room", "hello ann"])
    await expect(ann.locator("#messages .mine")).to_have_count(1)
    await expect(bob.locator("#messages .meta").first).to_contain_text("ann")


async def test_two_tabs_talk_to_each_other(tab: Open) -> None:
    ann, bob = await join(await tab("/"), "ann"), await join(await tab("/"), "bob")
    await person(ann, "bob").click()
    await say(ann, "just for you")
    await expect(ann.locator("#messages .meta")).to_contain_text("delivered")
    await expect(person(bob, "ann").locator(".unread")).to_have_text("1")
    await expect(bob.locator(".toast", has_text="just for you")).to_be_visible()
    await expect(messages(bob)).to_have_count(0)
    await person(bob, "ann").click()
    await expect(messages(bob)).to_have_text(["just for you"])
    await expect(person(bob, "ann").locator(".unread")).to_have_count(0)
    await say(bob, "thank you")
    await expect(messages(ann)).to_have_text(["just for you", "thank you"])


async def test_who_is_online(tab: Open) -> None:
    ann, bob = await join(await tab("/"), "ann"), await join(await tab("/"), "bob")
    second = await join(await tab("/"), "bob")
    await expect(person(ann, "bob").get_by_label("online")).to_be_visible()
    await person(ann, "bob").click()
    await say(ann, "to both of your tabs")
    for page in (bob, second):
        await expect(page.locator(".toast", has_text="to both of your tabs")).to_be_visible()
    await bob.close()
    await expect(person(ann, "bob").get_by_label("online")).to_be_visible()
    await second.close()
    await expect(person(ann, "bob").get_by_label("offline")).to_be_visible()
    await say(ann, "are you there?")
    await expect(ann.locator("#messages .failed")).to_contain_text("not delivered: bob is not connected")


async def test_any_route_reaches_everybody(tab: Open, site: str) -> None:
    ann, bob = await join(await tab("/"), "ann"), await join(await tab("/"), "bob")
    await ann.click("#announce")
    await ann.fill("#notice", "Lunch is ready")
    await ann.press("#notice", "Enter")
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{site}/announce", json={"message": "Coffee too"})
        assert answer.json() == {"connections": 2}
        refused = await client.post(f"{site}/announce", json={"message": ""})
        assert refused.status_code == 422
    for page in (ann, bob):
        await expect(page.locator("#messages .system")).to_have_text(["Lunch is ready", "Coffee too"])
        await expect(page.locator(".toast", has_text="Coffee too")).to_be_visible()


async def test_an_announcement_can_be_called_off(tab: Open) -> None:
    ann = await join(await tab("/"), "ann")
    for leave in ("Escape", "#cancel"):
        await ann.click("#announce")
        await ann.fill("#notice", "never mind")
        await (ann.keyboard.press(leave) if leave == "Escape" else ann.click(leave))
        await expect(ann.locator("#announcing")).not_to_be_visible()
    await say(ann, "the end")
    await expect(messages(ann)).to_have_text(["the end"])
    await expect(ann.locator("#messages .system")).to_have_count(0)


async def test_nothing_people_write_is_html(tab: Open) -> None:
    ann, mallory = await join(await tab("/"), "ann"), await join(await tab("/"), "<img src=x onerror=alert(1)>")
    await say(mallory, "<script>alert(1)</script>")
    await expect(messages(ann)).to_have_text(["<script>alert(1)</script>"])
    await expect(person(ann, "<img src=x onerror=alert(1)>")).to_be_visible()
    await expect(ann.locator("img, main script")).to_have_count(0)


async def test_a_name_has_to_be_one(tab: Open) -> None:
    page = await tab("/")
    await page.fill("#name", "   ")
    await page.click("#enter")
    await expect(page.locator("#refused")).to_contain_text("A name has 1 to 32 printable characters.")
    await join(page, "ann")


async def test_a_reload_keeps_the_name(tab: Open) -> None:
    ann = await join(await tab("/"), "ann")
    await ann.reload()
    await expect(ann.locator("#me")).to_have_text("You are ann")
    await expect(ann.locator("#status")).to_have_text(re.compile(r"Connected, \d+ ms"))


async def test_the_page_comes_back_after_a_restart(tab: Open) -> None:
    port = str(free_port())
    async with process(*SERVE, port) as server:
        await server.says("WebSocket")
        ann = await join(await tab(f"http://127.0.0.1:{port}"), "ann")
        server.child.terminate()
        assert await server.end() == 0
        await expect(ann.locator("#status")).to_contain_text("trying again")
    async with process(*SERVE, port) as server:
        await server.says("WebSocket")
        await expect(ann.locator("#status")).to_contain_text("Connected,", timeout=20_000)
        await say(ann, "back again")
        await expect(messages(ann)).to_have_text(["back again"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
async def test_the_page_fits_its_window(tab: Open, width: int, scheme: str) -> None:
    ann = await join(await tab("/", viewport={"width": width, "height": 700}, color_scheme=scheme), "a" * 32)
    await say(ann, "long" * 200)
    await expect(messages(ann)).to_have_count(1)
    assert await ann.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await ann.evaluate("document.documentElement.scrollHeight <= innerHeight")
    await expect(ann.locator("#composer button")).to_be_in_viewport(ratio=1)


async def test_the_page_knows_which_codes_are_final() -> None:
    found = re.search(r"const FINAL = (\[.*\]);", SCRIPT)
    assert found is not None
    final = [code for code, meaning in CLOSE_CODES.items() if not meaning.reconnect]
    assert [*json.loads(found[1]), *(code for code in final if code >= 4500)] == final
    assert all(code not in final for code in CLOSE_CODES if 4000 <= code < 4500)
