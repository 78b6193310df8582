"""Request heads of `hubbub serve`: a deadline, a size and a count; and HTTP as it was for all that keep to them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from hubbub import Hub
from hubbub.servers import http as http_module
from hubbub.servers import refusal as refusal_module
from hubbub.servers import server as server_module
from tests.servers.places import PLAIN, Place, stop_shared
from tests.serving import RawClient, RunningServer, request, until

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
GET = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module", autouse=True)
def shared() -> Iterator[None]:
    yield
    stop_shared()


@pytest.fixture(params=PLAIN, ids=str)
def plain(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "HEAD_SECONDS", 0.1)


class App:
    """An app that counts its requests; `/slow` waits until it may go."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.go = asyncio.Event()
        self.hub = Hub()
        routes = [
            Route("/hello", self.hello, methods=["GET", "POST"]),
            Route("/slow", self.slow),
            Route("/size", self.size, methods=["POST"]),
        ]
        self.app = Starlette(routes=routes)
        self.hub.attach(self.app)

    async def hello(self, request: Request) -> Response:
        self.requests.append("/hello")
        return PlainTextResponse("hello")

    async def slow(self, request: Request) -> Response:
        self.requests.append("/slow")
        await self.go.wait()
        return PlainTextResponse("slow")

    async def size(self, request: Request) -> Response:
        body = await request.body()
        self.requests.append("/size")
        return PlainTextResponse(f"{len(body)} {len(set(body))}")


def head(*headers: str, start: str = "GET /hello HTTP/1.1") -> bytes:
    return "\r\n".join([start, "Host: x", *headers, "", ""]).encode()


async def healthy(server: RunningServer) -> bool:
    """Whether another client is served."""
    async with RawClient.join(server) as client:
        return bool((await client.ask("ping", ...))["type"] == "pong")


# --- Too slow --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize(
    "start", [b"", b"G", GET[:-2], b"\r\n\r\n"], ids=["nothing", "a byte", "almost all", "nothing yet"]
)
async def test_a_head_that_does_not_come_is_refused(plain: Place, start: bytes) -> None:
    async with plain.sharing(App().app) as server, RawClient.open(server) as client:
        client.write(start)
        answer = await client.recv_answer()
        assert (answer.status, answer.header("connection")) == (408, "close")
        assert await client.expect_end() == b""
        assert await healthy(server)


@pytest.mark.usefixtures("hurry")
async def test_a_head_that_drips_is_refused(plain: Place) -> None:
    app = App()
    async with plain.sharing(app.app) as server, RawClient.open(server) as client:

        async def drip() -> None:
            for byte in GET * 10:
                client.write(bytes([byte]))
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        assert (await client.recv_answer()).status == 408
        dripping.cancel()
    assert app.requests == []


async def test_the_deadline_counts_from_the_connection(plain: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "HEAD_SECONDS", 0.5)
    async with plain.sharing(App().app) as server, RawClient.open(server) as client:
        started = time.monotonic()
        await asyncio.sleep(0.4)
        client.write(b"G")
        assert (await client.recv_answer()).status == 408
        assert time.monotonic() - started < 0.8


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("start", [b"G", GET[:-2], b"\r\n"], ids=["a byte", "almost all", "an empty line"])
async def test_a_second_head_has_a_deadline_too(plain: Place, start: bytes) -> None:
    async with plain.sharing(App().app) as server, RawClient.open(server) as client:
        client.write(GET)
        assert (await client.recv_answer()).status == 200
        client.write(start)
        assert (await client.recv_answer()).status == 408


@pytest.mark.usefixtures("hurry")
async def test_a_second_head_that_begins_with_the_first_has_a_deadline(plain: Place) -> None:
    async with plain.sharing(App().app) as server, RawClient.open(server) as client:
        client.write(GET + b"GET")
        assert (await client.recv_answer()).status == 200
        assert (await client.recv_answer()).status == 408


@pytest.mark.usefixtures("hurry")
async def test_an_idle_connection_may_wait_longer(plain: Place) -> None:
    async with plain.sharing(App().app) as server, RawClient.open(server) as client:
        for _ in range(2):
            client.write(GET)
            assert (await client.recv_answer()).status == 200
            await asyncio.sleep(0.2)


@pytest.mark.usefixtures("hurry")
async def test_a_slow_app_is_not_a_slow_client(plain: Place) -> None:
    """The next head may have begun meanwhile; the answer is not cut off by a refusal of it."""
    app = App()
    async with plain.sharing(app.app) as server, RawClient.open(server) as client:
        client.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\nGET /hel")
        await until(lambda: app.requests)
        await asyncio.sleep(0.25)
        await server.call(app.go.set)
        assert (await client.recv_answer()).body == b"slow"
        assert (await client.recv_answer()).status == 408


@pytest.mark.usefixtures("hurry")
async def test_a_body_has_no_deadline(plain: Place) -> None:
    async with plain.sharing(App().app) as server, RawClient.open(server) as client:
        client.write(head("Content-Length: 4", start="POST /size HTTP/1.1"))
        for _ in range(4):
            await asyncio.sleep(0.05)
            client.write(b"x")
        assert (await client.recv_answer()).body == b"4 1"


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("before", [b"", GET], ids=["the first request", "a later request"])
async def test_a_deadline_ends_with_its_head(plain: Place, before: bytes) -> None:
    """What waited for the head must not speak into the WebSocket."""
    async with plain.sharing(App().app) as server, RawClient.open(server) as client:
        if before:
            client.write(before)
            assert (await client.recv_answer()).status == 200
        client.write(request(server, "/ws", KEY))
        assert (await client.recv_answer()).status == 101
        await client.recv_json("welcome")
        await asyncio.sleep(0.2)
        assert (await client.ask("echo", 1))["payload"] == 1


async def test_a_tls_handshake_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "TLS_HANDSHAKE", 0.1)
    for loop in ("uvloop", "asyncio"):
        async with Place(loop, tls=True).serving(App().app) as server, RawClient.open(server) as client:
            assert await client.expect_end(2) == b""


# --- Too much --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("upgrade", [False, True], ids=["request", "upgrade"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([f"X-{number}: y" for number in range(2000)], 431),
        ([f"X-{number}: y" for number in range(129)], 431),
        (["X-Big: " + "y" * 100_000], 431),
        (["X-Big: " + "y" * 8200], 431),
        (["X-" + "y" * 8200 + ": big"], 431),
        ([f"X-{number}: {'y' * 8000}" for number in range(9)], 431),
    ],
    ids=["2000 headers", "129 headers", "100 KB in one", "a line over 8 KB", "a name over 8 KB", "over 64 KB in all"],
)
async def test_too_many_or_too_large_headers(plain: Place, headers: list[str], status: int, upgrade: bool) -> None:
    app = App()
    async with plain.sharing(app.app) as server, RawClient.open(server) as client:
        lines = "".join(f"{line}\r\n" for line in headers).encode()
        first = request(server, "/ws", KEY) if upgrade else GET
        client.write(first[:-2] + lines + b"\r\n")
        assert (await client.recv_answer()).status == status
        assert await client.expect_end() == b""
        assert await healthy(server)
    assert app.requests == []


@pytest.mark.parametrize(
    ("size", "status"), [(8000, 404), (8200, 414), (70_000, 414)], ids=["8000 bytes", "8200 bytes", "70 KB"]
)
async def test_a_long_target(plain: Place, size: int, status: int) -> None:
    async with plain.sharing(App().app) as server, RawClient.open(server) as client:
        client.write(head(start=f"GET /{'x' * size} HTTP/1.1"))
        assert (await client.recv_answer()).status == status


async def test_what_keeps_to_the_limits_is_served(plain: Place) -> None:
    app = App()
    async with plain.sharing(app.app) as server, RawClient.open(server) as client:
        headers = [f"X-{number}: y" for number in range(120)] + [f"X-Big{number}: {'y' * 8000}" for number in range(7)]
        client.write(head(*headers))
        assert (await client.recv_answer()).body == b"hello"


@pytest.mark.parametrize(
    "piece", [b"X-A: b\r\n", b"X-A: " + b"b" * 5000 + b"\r\n", b"x" * 10_000], ids=["short", "long", "one"]
)
async def test_headers_without_end_are_refused_and_the_client_hears_it(plain: Place, piece: bytes) -> None:
    """The client is still writing when it is refused: a reset would reach it before the answer."""
    app = App()
    async with plain.sharing(app.app) as server, RawClient.open(server) as client:
        client.write(b"GET /hello HTTP/1.1\r\n")

        async def flood() -> None:
            for _ in range(10_000_000 // len(piece) // 100):
                client.write(piece * 100)
                await client.writer.drain()

        flooding = asyncio.create_task(flood())
        assert (await client.recv_answer()).status == 431
        flooding.cancel()
        assert await healthy(server)
    assert app.requests == []


async def test_who_stays_after_a_refusal_is_cut(plain: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal_module, "LINGER", 0.1)
    async with plain.sharing(App().app) as server, RawClient.open(server) as client:
        client.write(b"nonsense\r\n\r\n")
        assert (await client.recv_answer()).status == 400
        await until(lambda: not server.server.server_state.connections)


# --- What is no request ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), 400),
        (b"GET /hello HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nX-A: \x01\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET /hello HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ],
    ids=["garbage", "a TLS hello", "space before a colon", "a control character", "two lengths", "length and chunks"],
)
async def test_what_is_no_http(plain: Place, data: bytes, status: int) -> None:
    async with plain.sharing(App().app) as server, RawClient.open(server) as client:
        client.write(data)
        assert (await client.recv_answer()).status == status
        assert await client.expect_end() == b""
        assert await healthy(server)


@pytest.mark.parametrize(
    ("start", "headers", "status"),
    [
        ("GET /ws HTTP/1.0", [], 505),
        ("POST /ws HTTP/1.1", [], 405),
        ("GET /ws HTTP/1.1", [("Sec-WebSocket-Version", "8")], 426),
        ("GET /ws HTTP/1.1", [("Sec-WebSocket-Key", "short")], 400),
        ("GET /ws HTTP/1.1", [("Host", "")], 400),
        ("GET /ws HTTP/1.1", [("Content-Length", "3")], 400),
        ("GET /ws HTTP/1.1", [("Transfer-Encoding", "chunked")], 400),
        ("GET /ws HTTP/1.1", [("Upgrade", "")], 426),
    ],
    ids=["HTTP/1.0", "POST", "version 8", "a short key", "no host", "a length", "chunks", "no upgrade"],
)
async def test_what_is_no_upgrade(plain: Place, start: str, headers: list[tuple[str, str]], status: int) -> None:
    app = App()
    async with plain.sharing(app.app) as server, RawClient.open(server) as client:
        lines = request(server, "/ws", KEY, headers).partition(b"\r\n")[2]
        client.write(start.encode() + b"\r\n" + lines)
        assert (await client.recv_answer()).status == status
        assert app.hub.connection_count == 0


@pytest.mark.parametrize("connection", ["Upgrade", "keep-alive, Upgrade", "upgrade"])
@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket"])
async def test_browsers_write_the_upgrade_each_in_their_way(plain: Place, connection: str, upgrade: str) -> None:
    headers = [("Connection", connection), ("Upgrade", upgrade)]
    async with plain.sharing(App().app) as server, RawClient.join(server, headers=headers):
        pass


async def test_clients_that_vanish_during_the_upgrade_leave_nothing(
    plain: Place, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    async with plain.sharing(app.app) as server:
        for _ in range(100):
            async with RawClient.open(server) as client:
                client.write(request(server, "/ws", KEY))
                await client.drain()
        assert await healthy(server)
        await until(lambda: app.hub.connection_count == 0)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# --- HTTP as ever ----------------------------------------------------------------------------------------------------


async def test_large_bodies(plain: Place) -> None:
    body = bytes(range(256)) * 20_000
    chunks = b"".join(b"%x\r\n%b\r\n" % (100_000, body[at : at + 100_000]) for at in range(0, 5_000_000, 100_000))
    async with plain.sharing(App().app) as server, RawClient.open(server) as client:
        client.write(head(f"Content-Length: {len(body)}", start="POST /size HTTP/1.1") + body)
        assert (await client.recv_answer()).body == b"5120000 256"
        client.write(head("Transfer-Encoding: chunked", start="POST /size HTTP/1.1") + chunks + b"0\r\n\r\n")
        assert (await client.recv_answer()).body == b"5000000 256"


async def test_pipelined_requests_are_answered_in_order(plain: Place) -> None:
    app = App()
    post = head("Content-Length: 3", start="POST /size HTTP/1.1") + b"abc"
    async with plain.sharing(app.app) as server, RawClient.open(server) as client:
        client.write((GET + post) * 10)
        answers = [(await client.recv_answer()).body for _ in range(20)]
        assert answers == [b"hello", b"3 3"] * 10
    assert app.requests == ["/hello", "/size"] * 10


async def test_a_head_in_single_bytes(plain: Place) -> None:
    async with plain.sharing(App().app) as server, RawClient.open(server) as client:
        for byte in GET * 2:
            client.write(bytes([byte]))
            await client.drain()
        assert [(await client.recv_answer()).body for _ in range(2)] == [b"hello", b"hello"]


async def test_a_client_may_ask_before_it_sends_its_body(plain: Place) -> None:
    async with plain.sharing(App().app) as server, RawClient.open(server) as client:
        client.write(head("Expect: 100-continue", "Content-Length: 2", start="POST /size HTTP/1.1"))
        assert await client.read(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.write(b"ab")
        assert (await client.recv_answer()).body == b"2 2"


async def test_http_1_0_is_answered_and_closed(plain: Place) -> None:
    async with plain.sharing(App().app) as server, RawClient.open(server) as client:
        client.write(b"GET /hello HTTP/1.0\r\n\r\n")
        assert (await client.recv_answer()).body == b"hello"
        assert await client.expect_end() == b""


async def test_an_upgrade_to_something_else_is_an_ordinary_request(plain: Place) -> None:
    async with plain.sharing(App().app) as server, RawClient.open(server) as client:
        client.write(head("Connection: Upgrade", "Upgrade: h2c"))
        assert (await client.recv_answer()).body == b"hello"
