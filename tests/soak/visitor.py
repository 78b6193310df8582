"""A client that comes, does a few things, and goes in one of many ways; it costs its process little."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar, cast

import msgspec

from hubbub.node.tokens import sign
from tests.soak.app import PING, SECRET

__all__ = ["Crowd", "Surprise"]

HEAD = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PATIENCE = 30.0
STALL = 4 * PING
SMALL = 4096  # bytes the kernel keeps for one who does not read
FOR_EVER = 2**31
TEXT, CLOSE, PING_FRAME, PONG = 0x81, 0x88, 0x89, 0x8A
T = TypeVar("T")
GOODBYE = struct.pack("!H", 1000)


class Surprise(Exception):
    """The server did what it should not have."""


class Message(msgspec.Struct):
    """What of a message is looked at."""

    type: str
    payload: msgspec.Raw = msgspec.Raw(b"null")
    id: str | None = None
    cursor: int | None = None


@dataclass
class Crowd:
    """What visitors have in common.

    Args:
        port: the server's, on 127.0.0.1.
        random: where chance comes from.
        pause: the mean time between two actions, in seconds.
    """

    port: int
    random: Random
    pause: float
    done: Counter[str] = field(default_factory=Counter)
    surprises: Counter[str] = field(default_factory=Counter)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def live(self, delay: float) -> None:
        """Come again and again, from some time on until the end."""
        await self.rest(delay)
        while not self.ended.is_set():
            try:
                async with asyncio.timeout(10 * PATIENCE):
                    await Visitor(self).visit()
            except (Surprise, OSError, TimeoutError) as error:
                self.surprises[f"{type(error).__name__}: {error}"] += 1
                await self.rest(1.0)

    async def rest(self, seconds: float) -> None:
        """Wait, no longer than until the end."""
        try:
            async with asyncio.timeout(seconds):
                await self.ended.wait()
        except TimeoutError:
            pass


class Visitor(asyncio.Protocol):
    """One connection, from its beginning to its end."""

    transport: asyncio.Transport

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._random = crowd.random
        self._number = crowd.random.randrange(FOR_EVER)
        # Some users come again and some are never seen again.
        self.user = f"ada-{self._number % 500}" if self._number % 2 else f"guest-{self._number}"
        self.channels: list[str] = []
        self._buffer = b""
        self._upgraded = False
        self._asked = 0
        self._answers: dict[str, asyncio.Future[Message]] = {}
        loop = asyncio.get_running_loop()
        self._welcome: asyncio.Future[None] = loop.create_future()
        self._gone: asyncio.Future[int] = loop.create_future()
        self._code = 1006
        self._cursor = 0
        self._signed_in = False
        self._said_all = False

    async def visit(self) -> None:
        """Come, do a few things, go."""
        rng, crowd = self._random, self._crowd
        stalls = rng.random() < 0.04
        await self._connect(SMALL if stalls else None)
        try:
            await self._within(self._welcome)
            if rng.random() < 0.7:
                await self.sign_in()
            if stalls:
                await self._stall()
                return
            for _ in range(rng.randint(1, 12)):
                await rng.choices(ACTIONS, WEIGHTS)[0](self)
                await crowd.rest(rng.expovariate(1 / crowd.pause))
                if crowd.ended.is_set() or self._gone.done():
                    break
            if self._gone.done():
                raise Surprise(f"closed with {self._code}")
            await self._leave()
        finally:
            self.transport.abort()

    # What a visitor does

    async def sign_in(self) -> None:
        """Say who it is; a second time with a newer token."""
        claims = {"sub": self.user, "exp": FOR_EVER, "jti": str(self._random.random())}
        await self.ask("authenticate", {"token": sign(claims, SECRET.encode())}, "authenticated")

    async def subscribe(self) -> None:
        """Subscribe to a channel of any kind; some with a past, some that nobody else knows."""
        kind = self._random.choice(["plain", "room", "book", "lounge", "once"])
        channel = f"{kind}:{self._number if kind == 'once' else self._random.randrange(100)}"
        await self.ask("subscribe", {"channel": channel}, "subscribed")
        self.channels.append(channel)

    async def listen(self) -> None:
        """Subscribe to a feed with large messages."""
        if self._random.random() < 0.1:
            await self.ask("subscribe", {"channel": "feed:close"}, "subscribed")

    async def unsubscribe(self) -> None:
        """Leave a channel."""
        if self.channels:
            channel = self.channels.pop()
            await self.ask("unsubscribe", {"channel": channel}, "unsubscribed")
            self.channels = [each for each in self.channels if each != channel]

    async def publish(self) -> None:
        """Publish on a channel, half the time with a key."""
        if self.channels:
            key = {"key": str(self._random.random())} if self._random.random() < 0.5 else {}
            payload = {"channel": self._random.choice(self.channels), "event": "said", "data": "x" * 100, **key}
            await self.ask("publish", payload, "published")

    async def look(self) -> None:
        """Ask a channel for its past, or who is there."""
        for channel in self.channels:
            kind = channel.partition(":")[0]
            if kind in ("room", "book"):
                await self.ask("history", {"channel": channel, "limit": 10}, "history")
            elif kind == "lounge":
                await self.ask("presence", {"channel": channel, "state": {"at": self._random.random()}}, "presence")

    async def echo(self) -> None:
        """Have something said back, of any size."""
        await self.ask("echo", "x" * self._random.choice([10, 10, 1000, 20_000]), "echo_response")

    async def keep(self) -> None:
        """Have something kept for a user, and acknowledge what came so far."""
        if self._signed_in:
            await self.ask("keep", f"ada-{self._random.randrange(500)}", "keep_response")
            if self._cursor:
                self.send("ack", {"cursor": self._cursor})

    async def busy(self) -> None:
        """Have a handler wait, and half the time leave before it ends."""
        if self._random.random() < 0.5:
            self.send("busy", 0.5)
        else:
            await self.ask("busy", 0.05, "busy_response")

    async def _stall(self) -> None:
        """Read no more, and see whether the server lets go."""
        for channel in ("feed:close", "loose:drop"):
            await self.ask("subscribe", {"channel": channel}, "subscribed")
        self.transport.pause_reading()
        self._crowd.done["stalled"] += 1
        await self._crowd.rest(self._random.uniform(0, STALL))

    async def _leave(self) -> None:
        way = self._random.choice(["close", "close", "end", "abort"])
        self._crowd.done[f"left by {way}"] += 1
        if way == "close":
            self._write(CLOSE, GOODBYE)
            await self._within(self._gone)
            if self._code != 1000:
                raise Surprise(f"a goodbye was answered with {self._code}")
        elif way == "end":
            self._said_all = True
            self.transport.write_eof()
            await self._within(self._gone)

    # The wire

    async def ask(self, type: str, payload: Any, answer: str) -> Message:
        """Send a message and wait for its answer."""
        self._asked += 1
        number = str(self._asked)
        self._answers[number] = asyncio.get_running_loop().create_future()
        self.send(type, payload, number)
        message = await self._within(self._answers[number])
        if message.type != answer:
            raise Surprise(f"{type} was answered with {message.type} {bytes(message.payload)[:80]!r}")
        self._signed_in = self._signed_in or type == "authenticate"
        self._crowd.done[type] += 1
        return message

    def send(self, type: str, payload: Any, id: str | None = None) -> None:
        """Send a message."""
        self._write(TEXT, json.dumps({"type": type, "payload": payload, "id": id}).encode())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self.transport.write(HEAD)

    def data_received(self, data: bytes) -> None:
        """Read the frames that are whole."""
        data = self._buffer + data
        if not self._upgraded:
            head, found, rest = data.partition(b"\r\n\r\n")
            if found and not head.startswith(b"HTTP/1.1 101 "):
                self._fail(Surprise(f"refused: {head[:40]!r}"))
            self._upgraded, data = bool(found), rest if found else data
        at = 0
        while self._upgraded and len(data) - at >= 2:
            size, head_size = data[at + 1], 2
            if size >= 126:
                head_size = 4 if size == 126 else 10
                size = int.from_bytes(data[at + 2 : at + head_size], "big")
            end = at + head_size + size
            if len(data) < end:
                break
            self._frame(data[at], data[at + head_size : end])
            at = end
        self._buffer = data[at:]

    def connection_lost(self, error: Exception | None) -> None:
        """Wait for nothing more."""
        self._fail(Surprise(f"lost with {self._code}"))
        if not self._gone.done():
            self._gone.set_result(self._code)

    def _frame(self, opcode: int, data: bytes) -> None:
        if opcode == TEXT:
            message = msgspec.json.decode(data, type=Message)
            self._crowd.done["received"] += 1
            if message.cursor is not None:
                self._cursor = max(self._cursor, message.cursor)
            if message.id is not None:
                answer = self._answers.pop(message.id, None)
                if answer is not None and not answer.done():
                    answer.set_result(message)
            elif message.type == "welcome":
                self._welcome.set_result(None)
            elif message.type == "error":
                self._crowd.surprises[f"error {bytes(message.payload)[:80]!r}"] += 1
        elif opcode == PING_FRAME:
            self._write(PONG, data)
        elif opcode == CLOSE:
            self._code = int.from_bytes(data[:2], "big")

    def _fail(self, error: Surprise) -> None:
        waiting: list[asyncio.Future[Any]] = [self._welcome, *self._answers.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(error)
                future.exception()  # nobody may be waiting

    def _write(self, opcode: int, data: bytes) -> None:
        if self._said_all or self.transport.is_closing():
            return
        size = len(data)
        length = bytes([0x80 | size]) if size < 126 else struct.pack("!BH", 0xFE, size)
        self.transport.write(bytes([opcode]) + length + bytes(4) + data)

    async def _connect(self, room: int | None) -> None:
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        try:
            sock.setblocking(False)
            if room is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
            await loop.sock_connect(sock, ("127.0.0.1", self._crowd.port))
            await loop.create_connection(lambda: self, sock=sock)
        except BaseException:
            sock.close()
            raise

    async def _within(self, future: asyncio.Future[T]) -> T:
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.shield(future)
        except TimeoutError:
            raise Surprise(f"nothing in {PATIENCE:g} s") from None


Action = Callable[[Visitor], Coroutine[Any, Any, None]]
DOES: dict[Action, int] = {
    Visitor.subscribe: 6,
    Visitor.publish: 6,
    Visitor.echo: 4,
    Visitor.look: 3,
    Visitor.unsubscribe: 2,
    Visitor.keep: 2,
    Visitor.listen: 1,
    Visitor.busy: 1,
    Visitor.sign_in: 1,
}
ACTIONS, WEIGHTS = list(DOES), list(DOES.values())
