"""H1-H13: requests that never end, are no HTTP, or ask for a WebSocket in a wrong way."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
import time
from collections.abc import Iterable

import pytest

from hubbub import Hub
from hubbub.servers import http
from tests.integration.bad.conftest import Target
from tests.serving import DEADLINE, Header, RawClient, RunningServer, request, serving

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
BUSY = 1000
REPEATS = 10_000
TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(193)


async def refused(client: RawClient, status: int) -> None:
    """Wait for this answer, and for the end."""
    answer = await client.recv_answer()
    assert answer.status == status, answer
    assert await client.expect_end() == b""


# --- H1: slow --------------------------------------------------------------------------------------------------------


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> float:
    """The deadline for a head, which is 10 s, made short."""
    assert http.HEAD_SECONDS == 10
    monkeypatch.setattr(http, "HEAD_SECONDS", 0.3)
    return 0.3


async def nothing(scope: object, receive: object, send: object) -> None:
    raise NotImplementedError


async def test_h1_a_client_that_says_nothing_is_closed_at_the_deadline(soon: float) -> None:
    async with serving(Hub("/ws").wrap(nothing)) as server, RawClient.open(server) as client:
        before = time.monotonic()
        await refused(client, 408)
        assert soon - 0.05 <= time.monotonic() - before < soon + 0.5


async def test_h1_a_byte_now_and_then_does_not_move_the_deadline(soon: float) -> None:
    async with serving(Hub("/ws").wrap(nothing)) as server, RawClient.open(server) as client:
        before = time.monotonic()
        head = iter(request(server, "/ws", KEY))
        while not client.reader._buffer:  # type: ignore[attr-defined]  # whatever came
            client.write(bytes([next(head)]))
            await asyncio.sleep(0.02)
        await refused(client, 408)
        assert time.monotonic() - before < soon + 0.5


async def test_h1_an_open_websocket_has_no_deadline(soon: float) -> None:
    async with serving(Hub("/ws").wrap(nothing)) as server, RawClient.join(server) as client:
        with pytest.raises(TimeoutError):
            await client.expect_end(3 * soon)
        assert (await client.ask("echo", 1))["payload"] == 1


async def test_h1_a_thousand_silent_clients_do_not_delay_a_handshake(target: Target) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(BUSY):
            client = await stack.enter_async_context(RawClient.open(target))
            client.write(b"GET /ws")
        slowest = 0.0
        for _ in range(20):
            before = time.monotonic()
            async with RawClient.join(target):
                slowest = max(slowest, time.monotonic() - before)
        assert slowest < 0.1


# --- H2-H4: no HTTP, or too much of it -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /ws HTTP/1.0", 505),
        (b"GET /ws HTTP/2.0", 505),
        (b"POST /ws HTTP/1.1", 405),
        (b"PUT /ws HTTP/1.1", 405),
        (b"FROB /ws HTTP/1.1", 400),
        (b"GET  /ws HTTP/1.1", 400),
        (b"GET /w\xc3\xa9 HTTP/1.1", 400),
    ],
    ids=lambda value: repr(value),
)
async def test_h2_an_upgrade_that_is_no_get_of_http_1_1(target: Target, head: bytes, status: int) -> None:
    async with RawClient.open(target) as client:
        client.write(head + request(target, "/", KEY).removeprefix(b"GET / HTTP/1.1"))
        await refused(client, status)


@pytest.mark.parametrize(
    "data",
    [b"\x00" * 100, b"hello\r\n\r\n", b"\r\n\r\n\r\nhello there\r\n\r\n", b"\xff" * 5000, TLS_HELLO, b"{}\n" * 100],
    ids=["zeros", "a word", "empty lines and words", "ones", "a TLS hello", "JSON"],
)
async def test_h2_what_is_no_http_is_answered_with_400_and_closed(target: Target, data: bytes) -> None:
    async with RawClient.open(target) as client:
        client.write(data)
        await refused(client, 400)


@pytest.mark.parametrize(
    "line",
    [b"X-Long: " + b"x" * 10_000_000, b"X-Long: " + b"x" * 100_000 + b"\r\n\r\n", b"X: y\r\n" * 2_000_000],
    ids=["one header of 10 MB", "one header of 100 KB", "12 MB of headers"],
)
async def test_h3_a_head_without_end_is_answered_with_431_and_not_kept(target: Target, line: bytes) -> None:
    target.forget_peak()
    before = target.memory()
    async with RawClient.open(target) as client:
        client.write(b"GET /ws HTTP/1.1\r\nHost: x\r\n" + line)
        await refused(client, 431)
    assert target.memory("VmHWM") - before < 1024


@pytest.mark.parametrize("count", [129, 2000])
async def test_h4_too_many_headers_are_answered_with_431(target: Target, count: int) -> None:
    async with RawClient.open(target) as client:
        lines = "".join(f"X-{number}: y\r\n" for number in range(count))
        client.write(request(target, "/ws", KEY).removesuffix(b"\r\n") + lines.encode() + b"\r\n")
        await refused(client, 431)


# --- H5: a wrong upgrade ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("Sec-WebSocket-Key", "")], 400),
        ([("Sec-WebSocket-Key", "c2hvcnQ=")], 400),
        ([("Sec-WebSocket-Key", "x" * 24)], 400),
        ([("Sec-WebSocket-Key", KEY[:-1] + "!")], 400),
        ([("Sec-WebSocket-Key", KEY + KEY)], 400),
        ([("Sec-WebSocket-Key", KEY), ("Sec-WebSocket-Key", KEY)], 400),
        ([("Sec-WebSocket-Version", "")], 400),
        ([("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Version", "13")], 400),
        ([("Sec-WebSocket-Version", "8")], 426),
        ([("Sec-WebSocket-Version", "14")], 426),
        ([("Sec-WebSocket-Version", "13.0")], 426),
        ([("Connection", "")], 400),
        ([("Connection", "close")], 400),
        ([("Host", "")], 400),
        ([("Host", "a"), ("Host", "b")], 400),
        ([("Content-Length", "5")], 400),
        ([("Transfer-Encoding", "chunked")], 400),
    ],
    ids=lambda value: " ".join(f"{k}={v!r}" for k, v in value) if isinstance(value, list) else value,
)
async def test_h5_a_wrong_upgrade(target: Target, headers: Iterable[Header], status: int) -> None:
    async with RawClient.connect(target, headers=headers, status=status) as client:
        assert client.answer.header("sec-websocket-version") == ("13" if status == 426 else None)
        assert await client.expect_end() == b""


@pytest.mark.parametrize("upgrade", ["", "h2c", "web socket"])
async def test_h5_a_request_for_no_websocket_is_told_how(target: Target, upgrade: str) -> None:
    async with RawClient.connect(target, headers=[("Upgrade", upgrade)], status=426) as client:
        assert client.answer.header("upgrade") == "websocket"
        assert client.answer.header("sec-websocket-version") == "13"


async def test_h5_frames_sent_before_the_101_are_refused(target: Target) -> None:
    async with RawClient.open(target) as client:
        client.write(request(target, "/ws", KEY) + b"\x81\x80\x00\x00\x00\x00")
        await refused(client, 400)


# --- H11, H13 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nowhere", 403),
        ("/ws/", 403),
        ("//ws", 403),
        ("/WS", 403),
        ("/%00", 403),
        ("/ws%00", 403),
        ("/../ws", 403),
        ("/x/../ws", 403),
        ("/ws/../ws", 403),
        ("/%2e%2e/ws", 403),
        ("/ws;x", 403),
        ("/%ff%fe", 403),
        ("/ws%", 403),
        ("/" + "x" * 8191, 403),
        ("/" + "x" * 8192, 414),
        ("/ws?" + "x" * 8192, 414),
        ("/ws#x", 403),
        ("ws", 403),
        ("*", 403),
    ],
    ids=lambda value: value if isinstance(value, int) else value[:12],
)
async def test_h11_a_path_that_is_not_the_hubs(target: Target, path: str, status: int) -> None:
    async with RawClient.connect(target, path, status=status) as client:
        assert await client.expect_end() == b""


def ask_and_vanish(server: RunningServer, paths: Iterable[str]) -> None:
    """Send an upgrade and reset the connection, again and again."""
    for path in paths:
        with socket.create_connection((server.host, server.port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(request(server, path, KEY))


async def test_h13_a_client_that_leaves_before_the_101_leaves_nothing_behind(target: Target) -> None:
    target.complaints = 0
    paths = itertools.islice(itertools.cycle(["/ws", "/route", "/slow", "/deflate", "/nowhere"]), REPEATS)
    async with asyncio.timeout(3 * DEADLINE):
        await asyncio.to_thread(ask_and_vanish, target, paths)
