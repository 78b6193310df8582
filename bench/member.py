"""A client that follows a channel through the restart of its node, as docs/protocol.md says, and keeps what it sees."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bench.client import frame

__all__ = ["Member", "Tally"]

HEAD = (
    "GET /ws{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
BACKOFF = 0.5
decode = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(slots=True)
class Tally:
    """What all members saw; times are monotonic seconds.

    Attributes:
        delays: when a message came, and how long after it was due; without those that were made up for.
        handshakes: when each was answered.
        refusals: when a handshake was refused, with which status, and for how many seconds.
        moves: when somebody was told to go, and when it followed again.
        missed: messages that nobody made up for.
        cut: connections that ended without a word.
    """

    delays: list[tuple[float, float]] = field(default_factory=list)
    handshakes: list[float] = field(default_factory=list)
    refusals: list[tuple[float, int, float]] = field(default_factory=list)
    moves: list[tuple[float, float]] = field(default_factory=list)
    missed: int = 0
    cut: int = 0


class Member:
    """One user and its channel.

    Args:
        port: of 127.0.0.1.
        user: its id.
        channel: what it follows; data is `[number, due]`, and numbers have no gaps.
        tally: shared by all.
        source: see there.
        hasty: whether it comes back at once, and not when it is told to.

    Attributes:
        port: where it connects the next time.
        source: the address it comes from then; None for the usual one.
        following: set once it has its first subscription.
        last: the number of the last message.
    """

    def __init__(
        self, port: int, user: str, channel: str, tally: Tally, *, source: str | None = None, hasty: bool = False
    ) -> None:
        self.port = port
        self.following = asyncio.Event()
        self.last: int | None = None
        self._user, self._channel, self._tally = user, channel, tally
        self.source = source
        self._hasty = hasty
        self._position: dict[str, Any] = {}
        self._link: _Link | None = None
        self._coming: _Link | None = None
        self._told = self._since = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self, ticket: str | None = None) -> None:
        """Open a connection; `following` says when it subscribes."""
        query = "" if ticket is None else f"?ticket={ticket}"
        loop, port = asyncio.get_running_loop(), self.port
        source = None if self.source is None else (self.source, 0)
        try:
            _, link = await loop.create_connection(lambda: _Link(self), "127.0.0.1", port, local_addr=source)
        except OSError:
            self._later(BACKOFF, ticket)
            return
        self._coming, link.ticket = link, ticket
        link.write(HEAD.format(query=query, port=port).encode())

    def leave(self) -> None:
        """End."""
        for link in (self._link, self._coming):
            if link is not None:
                link.transport.abort()
        self._link = self._coming = None

    def say(self, type: str, payload: object) -> None:
        """Send a message; it must follow."""
        assert self._link is not None
        self._link.say(type, payload)

    def refused(self, link: _Link, status: int, seconds: float) -> None:
        """Come back when it is said to; the ticket is as good as before."""
        self._tally.refusals.append((time.monotonic(), status, seconds))
        self._coming = None
        self._later(seconds, link.ticket)

    def opened(self, link: _Link) -> None:
        """Take note of a handshake, and subscribe where no ticket does."""
        self._tally.handshakes.append(time.monotonic())
        if link.ticket is None:
            since = {"since": self._position} if self._position else {}
            link.say("sign_in", self._user)
            link.say("subscribe", {"channel": self._channel, **since})

    def received(self, link: _Link, message: dict[str, Any]) -> None:
        """Take a message."""
        payload: Any = message.get("payload")
        now = time.monotonic()
        match message["type"]:
            case "subscribed":
                self._subscribed(link, payload, now)
            case "message" if link is self._link and not self._told:
                self._take(payload, now)
            case "reconnect" if not self._told:
                self._told = now
                delay = 0 if self._hasty else payload["delay"] / 1000
                self._later(delay, payload["ticket"] if payload["restores"] else None)

    def lost(self, link: _Link) -> None:
        """Come back, if nobody said that it should go."""
        if link is self._coming:  # before it had a subscription
            self._coming = None
        elif link is self._link and not self._told:
            self._told = time.monotonic()
        else:
            return
        self._tally.cut += 1
        self._later(BACKOFF)

    def _later(self, delay: float, ticket: str | None = None) -> None:
        def begin() -> None:
            task = asyncio.get_running_loop().create_task(self.connect(ticket))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        asyncio.get_running_loop().call_later(delay, begin)

    def _subscribed(self, link: _Link, payload: dict[str, Any], now: float) -> None:
        before, self._link, self._coming = self._link, link, None
        if before is None:
            self._position = {"offset": payload["offset"], "epoch": payload["epoch"]}
            self.following.set()
            return
        self._tally.missed += not payload["recovered"]
        self._tally.moves.append((self._told, now))
        self._told, self._since = 0.0, now
        before.transport.close()

    def _take(self, payload: dict[str, Any], now: float) -> None:
        if payload["offset"] <= self._position["offset"]:
            return
        self._position["offset"] = payload["offset"]
        number, due = payload["data"]
        if self.last is not None:
            self._tally.missed += number - self.last - 1
        self.last = number
        if due > self._since:
            self._tally.delays.append((now, now - due))


class _Link(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport
    ticket: str | None = None

    def __init__(self, member: Member) -> None:
        self._member = member
        self._rest = b""
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._member.lost(self)

    def say(self, type: str, payload: object) -> None:
        """Send a message."""
        self.write(frame(json.dumps({"type": type, "payload": payload})))

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._rest += data
        if not self._open:
            head, end, rest = self._rest.partition(b"\r\n\r\n")
            if not end:
                return
            status = int(head.split(b" ", 2)[1])
            if status != 101:
                self._refused(status, head.lower().partition(b"\r\nretry-after:")[2])
                return
            self._open, self._rest = True, rest
            self._member.opened(self)
        self._read()

    def _refused(self, status: int, rest: bytes) -> None:
        self._member.refused(self, status, float(rest.partition(b"\r\n")[0] or BACKOFF))
        self.transport.abort()

    def _read(self) -> None:
        data, at = self._rest, 0
        while len(data) - at >= 2:
            size, head = data[at + 1], 2
            if size >= 126:
                head = 4 if size == 126 else 10
                size = int.from_bytes(data[at + 2 : at + head], "big")
            if len(data) - at < head + size:
                break
            opcode, body = data[at] & 15, data[at + head : at + head + size]
            at += head + size
            if opcode == 1:
                self._member.received(self, decode(body))
            elif opcode == 9:
                self.write(bytes([0x8A, 0x80 | len(body)]) + bytes(4) + body)
            elif opcode == 8:
                self.write(b"\x88\x82" + bytes(4) + body[:2])
                self.transport.close()
        self._rest = data[at:]
