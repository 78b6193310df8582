"""Other people's clients against the native door: Python's `websockets` and Node's `ws`, with and without deflate."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from hubbub import Connection, Hub, RequestError, Timeouts
from hubbub.core.forms import FRAMES
from tests.serving import DEADLINE, RunningServer, serving, until

PEERS = Path(__file__).parents[1] / "peers"
LINE = 1024 * 1024
TEXTS = {
    "umlauts": "Grüße aus Köln",
    "CJK": "你好,世界",
    "emoji": "👋🏽 👨‍👩‍👧‍👦 🇳🇱",
    "right to left": "\u202e\u05e9\u05dc\u05d5\u05dd",
    "combining": "e\u0301 n\u0303",
    "separators": "a\u2028b\u2029c\u0085d",
    "escapes": '\x00\x1f"\\/\b\f\n\r\t',
    "markup": "<script>alert('1')</script> &amp; '; DROP TABLE users; --",
    "empty": "",
}

Json = dict[str, Any]


class Peer(Protocol):
    """A client of somebody else's making."""

    protocol: str | None
    extensions: str

    async def send(self, *parts: str) -> None:
        """Send a text message, in as many parts."""

    async def receive(self) -> str:
        """Wait for a text message."""

    async def ping(self, text: str) -> str:
        """Send a ping; the pong's payload."""

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye."""

    async def closed(self) -> tuple[int, str]:
        """Wait for the end; the code and the reason of the server."""


class Websockets:
    """Python's `websockets`."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        response = connection.response
        assert response is not None
        self.protocol: str | None = connection.subprotocol
        self.extensions = response.headers.get("Sec-WebSocket-Extensions", "")

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, url: str, deflate: bool) -> AsyncIterator[Peer]:
        """Connect."""
        compression = "deflate" if deflate else None
        async with connect(url, subprotocols=["hubbub.v1"], compression=compression, max_size=None) as connection:  # type: ignore[list-item]  # a str does
            yield cls(connection)

    async def send(self, *parts: str) -> None:
        await self._connection.send(parts[0] if len(parts) == 1 else parts)

    async def receive(self) -> str:
        text = await self._connection.recv()
        assert isinstance(text, str)
        return text

    async def ping(self, text: str) -> str:
        await (await self._connection.ping(text))
        return text

    async def close(self, code: int, reason: str) -> None:
        await self._connection.close(code, reason)

    async def closed(self) -> tuple[int, str]:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self._connection.recv()
        assert self._connection.close_code is not None
        return self._connection.close_code, self._connection.close_reason or ""


class Ws:
    """Node's `ws`, in a process that `tests/peers/client.mjs` runs."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        self._stdin, self._stdout = child.stdin, child.stdout
        self.protocol: str | None = None
        self.extensions = ""

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, url: str, deflate: bool) -> AsyncIterator[Peer]:
        """Connect."""
        node = shutil.which("node", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        assert node is not None, "Node is missing: run scripts/setup dev"
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(
            *(node, "client.mjs", url, "deflate" if deflate else "plain"),
            cwd=PEERS,
            stdin=pipe,
            stdout=pipe,
            limit=LINE,
        )
        try:
            peer = cls(child)
            event = await peer._next("open")
            peer.protocol, peer.extensions = event["protocol"], event["extensions"]
            yield peer
        finally:
            if child.returncode is None:
                child.kill()
            await child.communicate()

    async def send(self, *parts: str) -> None:
        self._order("send", parts=parts)

    async def receive(self) -> str:
        return str((await self._next("message"))["text"])

    async def ping(self, text: str) -> str:
        self._order("ping", text=text)
        return str((await self._next("pong"))["text"])

    async def close(self, code: int, reason: str) -> None:
        self._order("close", code=code, reason=reason)

    async def closed(self) -> tuple[int, str]:
        while (event := await self._next())["event"] != "close":
            assert event["event"] == "message"
        return event["code"], event["reason"]

    def _order(self, command: str, **more: Any) -> None:
        self._stdin.write(json.dumps({"command": command, **more}).encode() + b"\n")

    async def _next(self, kind: str | None = None) -> Json:
        async with asyncio.timeout(2 * DEADLINE):
            event: Json = json.loads(await self._stdout.readline())
        assert kind is None or event["event"] == kind, event
        return event


class Hall:
    """A server with a hub, and the way in for a kind of peer."""

    def __init__(self, server: RunningServer, hub: Hub, kind: type[Websockets] | type[Ws], deflate: bool) -> None:
        self.server = server
        self.hub = hub
        self.kind = kind
        self.deflate = deflate
        self.ends: list[tuple[int, str]] = []

    @contextlib.asynccontextmanager
    async def join(self, kind: type[Websockets] | type[Ws] | None = None) -> AsyncIterator[Peer]:
        """Connect and take the welcome."""
        url = self.server.url.replace("http", "ws", 1) + "/ws"
        opened: contextlib.AbstractAsyncContextManager[Peer] = (kind or self.kind).open(url, self.deflate)
        async with opened as peer:
            assert (await receive(peer))["type"] == "welcome"
            yield peer


async def nothing(scope: object, receive: object, send: object) -> None:
    raise NotImplementedError


@pytest.fixture(params=[True, False], ids=["deflate", "plain"])
def deflate(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=[Websockets, Ws], ids=["websockets", "ws"])
async def hall(request: pytest.FixtureRequest, deflate: bool) -> AsyncIterator[Hall]:
    hub = Hub("/ws", deflate=deflate, timeouts=Timeouts(ping=0.2, pong=5.0))

    @hub.on("authenticate", reply="authenticated")
    def authenticate(conn: Connection, payload: str) -> Json:
        conn.identify(payload)
        return {"userId": payload}

    @hub.on("chat", auth=True, reply="chat_received")
    async def chat(conn: Connection, payload: dict[str, str]) -> Json:
        message = {"from": conn.user_id, "message": payload["message"]}
        receipt = await hub.send_to_user(payload["recipientId"], "chat", message)
        return {"message": payload["message"], "delivered": receipt.delivered}

    @hub.on("bye")
    def bye(conn: Connection, payload: int) -> None:
        conn.close(payload, "enough, Müller")

    @hub.on("refuse")
    def refuse(conn: Connection, payload: Any) -> None:
        raise RequestError("no_way", "Not here.", "payload")

    async with serving(hub.wrap(nothing)) as server:
        hall = Hall(server, hub, request.param, deflate)

        @hub.on_close
        def left(conn: Connection, code: int, reason: str) -> None:
            hall.ends.append((code, reason))

        yield hall


async def say(peer: Peer, type: str, payload: Any = None, **more: Any) -> None:
    await peer.send(json.dumps({"type": type, "payload": payload, **more}, ensure_ascii=False))


async def receive(peer: Peer) -> Json:
    message: Json = json.loads(await peer.receive())
    return message


async def ask(peer: Peer, type: str, payload: Any = None, **more: Any) -> Any:
    """Send a message and wait for one; its payload."""
    await say(peer, type, payload, **more)
    return (await receive(peer)).get("payload")


async def test_the_handshake_agrees_on_subprotocol_and_deflate(hall: Hall) -> None:
    async with hall.join() as peer:
        assert peer.protocol == "hubbub.v1"
        assert ("permessage-deflate" in peer.extensions) == hall.deflate
        (connection,) = await hall.server.call(hall.hub.local.connections)
        assert (connection.outbox.transport.form is not FRAMES) == hall.deflate


async def test_echo_ping_and_errors(hall: Hall) -> None:
    async with hall.join() as peer:
        assert await ask(peer, "echo", {"a": [1, None, "x"]}) == {"a": [1, None, "x"]}
        await say(peer, "ping", id="7")
        pong = await receive(peer)
        assert (pong["type"], pong["id"]) == ("pong", "7")
        error = await ask(peer, "refuse")
        assert error == {"code": "no_way", "message": "Not here.", "field": "payload"}
        assert (await ask(peer, "what is this"))["code"] == "unknown_type"


async def test_unicode(hall: Hall) -> None:
    async with hall.join() as peer:
        for text in TEXTS.values():
            assert await ask(peer, "echo", text) == text
            assert await ask(peer, "echo", text * 300) == text * 300


async def test_large_messages_in_one_part_and_in_many(hall: Hall) -> None:
    async with hall.join() as peer:
        for text in ("x" * 60_000, "".join(chr(33 + at * at % 90) for at in range(30_000))):
            assert await ask(peer, "echo", text) == text
        message = json.dumps({"type": "echo", "payload": "ü" * 5000}, ensure_ascii=False)
        await peer.send(*(message[at : at + 100] for at in range(0, len(message), 100)))
        assert (await receive(peer))["payload"] == "ü" * 5000


async def test_many_messages_at_once_come_back_in_order(hall: Hall) -> None:
    async with hall.join() as peer:
        for number in range(1000):
            await say(peer, "echo", number)
        assert [(await receive(peer))["payload"] for _ in range(1000)] == list(range(1000))


@pytest.mark.parametrize("other", [Websockets, Ws], ids=["to websockets", "to ws"])
async def test_chat_between_peers(hall: Hall, other: type[Websockets] | type[Ws]) -> None:
    async with hall.join() as ann, hall.join(other) as bob:
        assert await ask(ann, "authenticate", "ann") == {"userId": "ann"}
        assert await ask(bob, "authenticate", "Bøb") == {"userId": "Bøb"}
        answer = await ask(ann, "chat", {"recipientId": "Bøb", "message": "höre 👂"})
        assert answer == {"message": "höre 👂", "delivered": True}
        message = await receive(bob)
        assert (message["type"], message["payload"]) == ("chat", {"from": "ann", "message": "höre 👂"})


async def test_a_ping_frame_is_answered(hall: Hall) -> None:
    async with hall.join() as peer:
        for text in ("", "still there?", "x" * 125):
            assert await peer.ping(text) == text


async def test_our_ping_frames_are_answered(hall: Hall) -> None:
    async with hall.join():
        (connection,) = await hall.server.call(hall.hub.local.connections)
        await until(lambda: connection.pinged > 0 and connection.is_alive)


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, ""), (1001, "gone"), (4321, "Tschüß")], ids=["bare", "away", "own"]
)
async def test_the_client_says_goodbye(hall: Hall, code: int, reason: str) -> None:
    async with hall.join() as peer:
        await peer.close(code, reason)
        assert (await peer.closed())[0] == code
        await until(lambda: hall.ends == [(code, reason)], otherwise=lambda: str(hall.ends))


@pytest.mark.parametrize("code", [1000, 1008, 4001, 4999])
async def test_the_server_says_goodbye(hall: Hall, code: int) -> None:
    async with hall.join() as peer:
        await say(peer, "bye", code)
        assert await peer.closed() == (code, "enough, Müller")
        await until(lambda: hall.ends == [(code, "enough, Müller")], otherwise=lambda: str(hall.ends))


async def test_a_message_over_the_limit_ends_with_1009(hall: Hall) -> None:
    async with hall.join() as peer:
        await say(peer, "echo", "".join(chr(33 + at * at % 8999) for at in range(70_000)))
        assert (await peer.closed())[0] == 1009


async def test_the_server_stops(hall: Hall) -> None:
    async with hall.join() as peer:
        stopped = asyncio.create_task(hall.server.run(hall.hub.shutdown()))
        assert (await peer.closed())[0] == 1001
        await stopped
