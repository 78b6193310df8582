"""The tutorial in a real browser: two tabs chat, one whispers, a route speaks to both; then with users who sign in."""

from __future__ import annotations

import httpx
import pytest
from playwright.async_api import Dialog, Locator, Page, expect

from tests.browser.conftest import Open
from tests.serving import process

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVE = ("-m", "hubbub.cli", "serve", "examples.tutorial.step4:app", "--port")
SIGNED = ("-m", "hubbub.cli", "serve", "examples.tutorial.step5:app", "--port", "0")


async def join(page: Page, address: str, name: str) -> Page:
    async def answer(dialog: Dialog) -> None:
        await dialog.accept(name)

    page.once("dialog", answer)
    await page.goto(address)
    await expect(page.locator("#messages")).to_contain_text(f"{name} is here.")
    return page


async def say(page: Page, text: str) -> None:
    await page.fill("#text", text)
    await page.press("#text", "Enter")


def last(page: Page) -> Locator:
    return page.locator("#messages li").last


async def test_two_tabs_chat(tab: Open, site: str) -> None:
    # A page without a question first, so that the answer to it is ready.
    ada, brian = [await join(await tab("/openapi.json"), site, name) for name in ("ada", "brian")]
    await say(ada, "hello")
    await expect(last(brian)).to_have_text("ada: hello")
    await say(brian, "@ada psst")
    await expect(last(ada)).to_have_text("brian, only to you: psst")
    await say(brian, "@zed psst")
    await expect(last(brian)).to_have_text("Nobody of that name is here.")
    async with httpx.AsyncClient() as client:
        await client.post(f"{site}/announce", params={"message": "Tea"})
    for page in (ada, brian):
        await expect(last(page)).to_have_text("Tea")
    await ada.close()
    await expect(brian.locator("#messages li")).to_have_text(
        ["brian is here.", "ada: hello", "Nobody of that name is here.", "Tea", "ada has left."]
    )


async def sign_in(page: Page, name: str, password: str) -> None:
    await page.fill("#name", name)
    await page.fill("#password", password)
    await page.press("#password", "Enter")
    await expect(page.locator("#messages")).to_contain_text(f"{name} is here.")


async def test_what_is_said_to_who_is_away_waits(tab: Open) -> None:
    async with process(*SIGNED) as server:
        address = (await server.says("WebSocket")).partition("HTTP")[2].split()[0]
        ada = await tab(address)
        await sign_in(ada, "ada", "1815")
        await say(ada, "@brian psst")
        await expect(last(ada)).to_have_text("brian will see it later.")
        brian = await tab(address)
        await sign_in(brian, "brian", "1942")
        await expect(brian.locator("#messages")).to_contain_text("ada, only to you: psst")
        await say(brian, "@ada seen")
        await expect(last(ada)).to_have_text("brian, only to you: seen")
        await brian.reload()
        await expect(brian.locator("#messages li")).to_have_text(["brian is here."])
