"""H8-H10: pages of other sites, and clients that do not say where they come from; through both doors."""

from __future__ import annotations

import time

import jwt
import pytest

from tests.integration.bad.app import AUTH
from tests.integration.bad.conftest import Target
from tests.serving import RawClient

BOTH = pytest.mark.parametrize("door", ["native", "asgi"])
LISTED = "https://example.com"
EVIL = "https://evil.example"
SESSION = ("Cookie", "theme=dark; session=ada")


def origin(text: str) -> tuple[str, str]:
    return "Origin", text


def token_cookie() -> tuple[str, str]:
    token = jwt.encode({"sub": "ada", "exp": int(time.time()) + 3600}, str(AUTH.secret), "HS256")
    return "Cookie", f"hubbub_token={token}"


async def refused(target: Target, path: str, *headers: tuple[str, str]) -> None:
    """An HTTP answer of one line, and nothing more."""
    async with RawClient.connect(target, path, headers=headers, status=403) as client:
        assert len(client.answer.body.splitlines()) <= 1, client.answer
        assert await client.expect_end() == b""


# --- H8: a foreign page ----------------------------------------------------------------------------------------------

TRICKS = {
    "another site": EVIL,
    "null": "null",
    "subdomain": "https://evil.example.com",
    "suffix": "https://notexample.com",
    "prefix": "https://example.com.evil.example",
    "scheme": "http://example.com",
    "port": "https://example.com:8443",
    "listed host with another's port": "https://example.com:5173",
    "upper case": "https://EXAMPLE.COM",
    "trailing dot": "https://example.com.",
    "userinfo": "https://example.com@evil.example",
    "path": "https://example.com/",
    "two in one": f"{LISTED} {EVIL}",
    "a list": f"{LISTED}, {EVIL}",
    "not punycode": "https://\xe9xample.com",
    "a tab inside": "https://example\t.com",
    "very long": f"https://{'a' * 7000}.example",
}


@BOTH
@pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS.keys())
async def test_h8_a_foreign_origin(target: Target, trick: str) -> None:
    await refused(target, "/listed", origin(trick))


async def test_h8_two_origin_headers(target: Target) -> None:
    """Under plain uvicorn the server refuses them, with 400."""
    await refused(target, "/listed", origin(LISTED), origin(EVIL))
    await refused(target, "/listed", origin(LISTED), origin(LISTED))


@BOTH
@pytest.mark.parametrize("allowed", [LISTED, "https://example.com:443", "http://localhost:5173"])
async def test_h8_a_listed_origin(target: Target, allowed: str) -> None:
    async with RawClient.join(target, "/listed", headers=[origin(allowed)]) as client:
        assert (await client.ask("echo", 1))["payload"] == 1


@BOTH
async def test_h8_without_a_list_the_page_of_this_very_host(target: Target) -> None:
    target.complaints = 2  # one for each origin
    async with RawClient.join(target, headers=[origin(target.url)]) as client:
        assert (await client.ask("echo", 1))["payload"] == 1
    await refused(target, "/ws", origin(f"http://localhost:{target.port}"))
    await refused(target, "/ws", origin("http://127.0.0.1"))


@BOTH
async def test_h8_a_name_that_resolves_to_this_machine(target: Target) -> None:
    """DNS rebinding: the page, the Host and the port agree, and are not ours."""
    async with RawClient.open(target) as client:
        name = f"evil.example:{target.port}"
        head = f"GET /ws HTTP/1.1\r\nHost: {name}\r\nOrigin: http://{name}\r\nUpgrade: websocket\r\nConnection: Upgrade"
        client.write(f"{head}\r\nSec-WebSocket-Key: {'A' * 22}==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        assert (await client.recv_answer()).status == 403


@BOTH
async def test_h8_a_page_on_another_port_is_told_about_once_with_the_line_that_mends_it(target: Target) -> None:
    """A front end on another local port: every newcomer's case."""
    before, counted = len(target.complained()), (await target.state())["hubs"]["/told"]["refused"]
    for _ in range(3):
        await refused(target, "/told", origin("http://localhost:5173"))
    line = "refused origin http://localhost:5173: to allow it set HUBBUB_ORIGINS=http://localhost:5173"
    told = target.complained()[before:]
    assert len(told) == 1
    assert told[0].endswith(line)
    assert (await target.state())["hubs"]["/told"]["refused"] == counted + 3


# --- H9: no Origin ---------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("path", ["/ws", "/listed", "/auth", "/session"])
async def test_h9_no_origin_and_no_cookie(target: Target, path: str) -> None:
    async with RawClient.join(target, path) as client:
        assert (await client.ask("echo", 1))["payload"] == 1


@BOTH
async def test_h9_no_origin_and_a_cookie_that_signs_in(target: Target) -> None:
    target.complaints = 2  # one for each hub
    await refused(target, "/auth", token_cookie())
    await refused(target, "/session", SESSION)


@BOTH
async def test_h9_no_origin_and_a_cookie_that_signs_nobody_in(target: Target) -> None:
    async with RawClient.join(target, "/auth", headers=[SESSION]) as client:
        assert (await client.ask("members", ...))["payload"]["code"] == "unauthorized"


# --- H10: a cookie, and a foreign page -------------------------------------------------------------------------------


@BOTH
async def test_h10_a_cookie_and_a_foreign_origin(target: Target) -> None:
    target.complaints = 4  # one for each hub and origin
    for path, cookie in {"/auth": token_cookie(), "/session": SESSION}.items():
        await refused(target, path, cookie, origin(EVIL))
        await refused(target, path, cookie, origin("null"))


@BOTH
async def test_h10_a_cookie_and_our_own_page(target: Target) -> None:
    for path, cookie in {"/auth": token_cookie(), "/session": SESSION}.items():
        async with RawClient.join(target, path, headers=[cookie, origin(target.url)]) as client:
            assert (await client.recv_json())["type"] == "authenticated"
            assert (await client.ask("members", ...))["payload"] == "ada"


@BOTH
async def test_h10_a_credential_that_no_browser_sends_by_itself_does_not_help_a_foreign_page(target: Target) -> None:
    _, cookie = token_cookie()
    await refused(target, "/auth", origin(EVIL), ("Authorization", f"Bearer {cookie.partition('=')[2]}"))
