"""The page of the reference app and its routes: the door, the look, and what they do not let in."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from hubbub.errors import CLOSE_CODES
from tests.browser.conftest import Open
from tests.browser.people import PASSWORD, entry, joined, say, shows, sign
from tests.serving import REPOSITORY

pytestmark = pytest.mark.asyncio(loop_scope="module")

LINK = (REPOSITORY / "examples" / "chat" / "page" / "link.js").read_text("utf-8")
NOT_A_NAME = "A name has 2 to 32 letters"
WRONG = "This name and password do not belong together."
HTML = "<img src=x onerror=alert(1)><script>alert(1)</script>"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def cookie(site: str) -> str:
    """The session of ann, who has signed up."""
    async with httpx.AsyncClient(base_url=site) as client:
        answer = await client.post("/api/sign-up", json={"name": "Ann", "password": PASSWORD})
        assert (answer.status_code, answer.json()["name"]) == (201, "ann")
        given = answer.headers["set-cookie"]
    assert {"httponly", "samesite=lax", "path=/"} <= {part.strip() for part in given.split(";")}
    return str(given.partition(";")[0])


# The door


@pytest.mark.parametrize(
    ("way", "name", "password", "problem"),
    [
        ("sign-up", "a", PASSWORD, NOT_A_NAME),
        ("sign-up", "two words", PASSWORD, NOT_A_NAME),
        ("sign-up", "<b>ann</b>", PASSWORD, NOT_A_NAME),
        ("sign-up", "аnn", PASSWORD, NOT_A_NAME),  # noqa: RUF001  # the first letter is Cyrillic
        ("sign-up", "carl", "7 chars", "A password has 8 characters or more."),
        ("sign-up", "ANN", "anything else", "The name ann is taken."),
        ("sign-in", "ann", "wrong password", WRONG),
        ("sign-in", "nobody", PASSWORD, WRONG),
        ("sign-in", "Ann ", PASSWORD, ""),
    ],
)
async def test_the_door(tab: Open, cookie: str, way: str, name: str, password: str, problem: str) -> None:
    page = await sign(await tab("/"), way, name, password)
    if problem:
        await expect(page.locator("#refused")).to_contain_text(problem)
        await expect(page.locator("#chat")).to_be_hidden()
    else:
        await expect(page.locator("#me")).to_contain_text("ann")


async def test_a_wrong_name_costs_as_much_as_a_wrong_password(site: str, cookie: str) -> None:
    async def fastest(name: str) -> float:
        times = []
        for _ in range(6):
            started = time.perf_counter()
            answer = await client.post("/api/sign-in", json={"name": name, "password": "wrong password"})
            times.append(time.perf_counter() - started)
            assert (answer.status_code, answer.json()) == (401, {"detail": WRONG})
        return min(times)

    async with httpx.AsyncClient(base_url=site) as client:
        assert 0.5 < await fastest("ann") / await fastest("nobody") < 2


# The routes


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/me", None, 200),  # which is nobody
        ("GET", "/api/messages?conversation=room:lobby", None, 401),
        ("POST", "/api/rooms", {"name": "plans"}, 401),
        ("GET", "/api/rooms/lobby/members", None, 401),
        ("DELETE", "/api/rooms/lobby/members/ann", None, 401),
        ("POST", "/api/announce", {"message": "hi"}, 401),
        ("POST", "/api/sign-out", {}, 401),
        ("POST", "/api/sign-in", {"name": ["ann"], "password": {"$gt": ""}}, 422),
        ("POST", "/api/sign-up", {"name": "n\0l", "password": PASSWORD}, 422),
        ("POST", "/api/sign-up", {"name": "carl", "password": "x" * 201}, 422),
        ("POST", "/api/sign-up", "not an object", 422),
    ],
)
async def test_strangers_get_nothing(site: str, method: str, path: str, body: Any, status: int) -> None:
    async with httpx.AsyncClient(base_url=site) as client:
        answer = await client.request(method, path, json=body)
        assert answer.status_code == status
        assert status != 200 or answer.json() is None
        assert "set-cookie" not in answer.headers


async def test_a_foreign_page_may_not_use_a_session(site: str, cookie: str) -> None:
    headers = {"Cookie": cookie, "Origin": "https://evil.example"}
    with pytest.raises(InvalidStatus, match="HTTP 403"):
        await connect(f"{site.replace('http', 'ws')}/ws", additional_headers=headers)


@pytest.mark.parametrize(("session", "type"), [("ann's", "entered"), ("forged", "error")])
async def test_who_may_use_a_session(site: str, cookie: str, session: str, type: str) -> None:
    headers = {"Cookie": cookie if session == "ann's" else f"{cookie[:-3]}xyz", "Origin": site}
    async with connect(f"{site.replace('http', 'ws')}/ws", additional_headers=headers) as socket:
        await socket.send(json.dumps({"type": "enter", "id": "1"}))
        while (answer := json.loads(await socket.recv())).get("id") != "1":
            pass
    assert answer["type"] == type
    assert type == "entered" or answer["payload"]["code"] == "unauthorized"


@pytest.mark.parametrize(
    ("type", "payload", "code"),
    [
        ("publish", {"channel": "room:lobby", "data": " \n"}, "invalid_payload"),
        ("publish", {"channel": "room:lobby", "data": "n\0l"}, "invalid_payload"),
        ("publish", {"channel": "room:lobby", "data": "x" * 4001}, "invalid_payload"),
        ("publish", {"channel": "room:nowhere", "data": "hi"}, "forbidden"),
        ("publish", {"channel": "people", "data": "hi"}, "forbidden"),
        ("subscribe", {"channel": "room:nowhere"}, "forbidden"),
        ("subscribe", {"channel": "pair:ann+bob"}, "bad_channel"),
        ("history", {"channel": "room:nowhere"}, "forbidden"),
        ("presence", {"channel": "room:n\0l"}, "bad_channel"),
        ("chat", {"recipientId": "nobody", "message": "hi"}, "no_such_user"),
        ("chat", {"recipientId": "'; DROP TABLE chat_users; --", "message": "hi"}, "no_such_user"),
        ("chat", {"recipientId": "ann", "message": "hi", "key": "two words"}, "invalid_payload"),
        ("read", {"conversation": "room:lobby", "number": -1}, "invalid_payload"),
    ],
)
async def test_what_cannot_be_said(site: str, cookie: str, type: str, payload: Any, code: str) -> None:
    headers = {"Cookie": cookie, "Origin": site}
    async with connect(f"{site.replace('http', 'ws')}/ws", additional_headers=headers) as socket:
        for each in ({"type": "enter", "id": "1"}, {"type": type, "payload": payload, "id": "2"}):
            await socket.send(json.dumps(each))
        while (answer := json.loads(await socket.recv())).get("id") != "2":
            pass
    assert (answer["type"], answer["payload"]["code"]) == ("error", code)


# The page


async def test_the_page_runs_only_its_own_scripts(site: str) -> None:
    async with httpx.AsyncClient(base_url=site) as client:
        answer = await client.get("/")
    policy = answer.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "require-trusted-types-for 'script'"} <= set(policy)
    assert "unsafe" not in str(policy)
    assert re.search(r"<script(?! src=)|style=| on\w+=", answer.text) is None


async def test_nothing_people_write_is_html(tab: Open) -> None:
    tess, mallory = await joined(tab, "tess"), await joined(tab, "mallory")
    await say(mallory, f"@tess {HTML}")
    await entry(mallory, "user:tess").click()
    await say(mallory, HTML)
    await shows(mallory, HTML)
    await expect(tess.locator(".toast", has_text=HTML)).to_have_count(2)
    await entry(tess, "user:mallory").click()
    await shows(tess, HTML)
    await expect(tess.locator("main img, main script, .toast img")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
async def test_the_page_fits_its_window(tab: Open, width: int, scheme: str) -> None:
    page = await tab("/", viewport={"width": width, "height": 700}, color_scheme=scheme)
    await fits(page)
    name = f"{scheme}-{width}-".ljust(32, "w")
    await sign(page, "sign-up", name)
    await expect(page.locator("#title")).to_have_text("# lobby")
    await fits(page)
    if width < 700:
        await expect(entry(page, f"user:{name}")).to_be_hidden()
        await page.click("#back")
        await fits(page)
    await entry(page, f"user:{name}").click()
    await say(page, "long" * 200)
    await shows(page, "long" * 200)
    await fits(page)
    await expect(page.locator("#composer button")).to_be_in_viewport(ratio=1)


async def fits(page: Page) -> None:
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await page.evaluate("document.documentElement.scrollHeight <= innerHeight")


async def test_it_works_by_keyboard_alone(tab: Open, cookie: str) -> None:
    page = await tab("/")
    await page.focus("#name")
    await page.keyboard.type("kim")
    await page.keyboard.press("Tab")
    await page.keyboard.type(PASSWORD)
    for key in ("Tab", "Tab", "Enter"):  # past "Sign in" to "Sign up"
        await page.keyboard.press(key)
    await expect(page.locator("#text")).to_be_focused()
    await entry(page, "user:ann").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#title")).to_have_text("ann")
    await page.keyboard.type("no mouse")
    await page.keyboard.press("Enter")
    await shows(page, "no mouse")


async def test_the_page_knows_which_codes_are_final() -> None:
    found = re.search(r"const FINAL = (\[.*\]);", LINK)
    assert found is not None
    final = [code for code, meaning in CLOSE_CODES.items() if not meaning.reconnect]
    assert [*json.loads(found[1]), *(code for code in final if code >= 4500)] == final
    assert all(code not in final for code in CLOSE_CODES if 4000 <= code < 4500)
