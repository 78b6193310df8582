"""Stand-ins for what is outside of a node: a client's socket in memory, and a clock that stands still."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from hubbub import Connection, Handshake, Hub
from hubbub.contracts import Receiver
from hubbub.core.deflate import inflate
from hubbub.core.forms import FRAMES, Form
from hubbub.core.rates import Rate, Rates
from hubbub.errors import CloseCode

__all__ = [
    "PLENTY",
    "SCOPE",
    "ManualClock",
    "RecordingTransport",
    "make_hub",
    "open_connection",
    "read_messages",
    "say",
    "tick",
]

SCOPE = {"type": "websocket", "path": "/ws", "headers": [(b"host", b"testserver")], "client": ("127.0.0.1", 50000)}
PATIENCE = 2.0
MANY = Rate(1e6)
PLENTY = Rates(messages=MANY, bytes=Rate(1e10), subscribes=MANY, publishes=MANY, attempts=MANY)
"""For tests that send more than anybody should, so fast that the checks still run."""

Json = dict[str, Any]


class RecordingTransport:
    """A client's socket in memory, which keeps all it is given and may take only a part of it.

    Args:
        form: how messages are wanted.
        room: how much the client's side takes before it is full, None for any amount.
        polite: whether the client agrees to a goodbye; the socket ends then with the next tick.
        pings: whether this socket has pings.
    """

    def __init__(self, form: Form = FRAMES, *, room: int | None = None, polite: bool = True, pings: bool = True):
        self.form = form
        self.room = room
        self.polite = polite
        self.receiver: Receiver
        self.paused = False
        self.buffered = 0
        self.writes: list[Any] = []
        self.closes: list[tuple[int, str]] = []
        self.pinged = 0
        self.reading = True
        self.aborted = False
        self._pings = pings
        self._wrote = asyncio.Event()
        self._messages: list[Json] = []
        self._read = 0

    # `contracts.Transport`

    def write(self, data: Any) -> None:
        """Keep the data; pause when it does not fit."""
        assert not self.paused, "written while paused"
        assert not self.closes, "written behind the goodbye"
        self.writes.append(data)
        self._wrote.set()
        size = self.form.size(data)
        if self.room is None or size <= self.room:
            self.room = None if self.room is None else self.room - size
        else:
            self.pause(size - self.room)

    def ping(self) -> bool:
        """Count the ping."""
        self.pinged += self._pings
        return self._pings

    def pause_reading(self) -> None:
        """Note that nothing should be said any more."""
        self.reading = False

    def resume_reading(self) -> None:
        """Note that something may be said again."""
        self.reading = True

    def close(self, code: int, reason: str) -> None:
        """Keep the first goodbye; a polite client agrees at once."""
        if self.closes:
            return
        self.closes.append((code, reason))
        if self.polite:
            asyncio.get_running_loop().call_soon(self.receiver.lost, code, reason)

    def abort(self) -> None:
        """Cut the socket: as with a real one, the loss is known a tick later."""
        if not self.aborted:
            self.aborted = True
            asyncio.get_running_loop().call_soon(self.receiver.lost, CloseCode.ABNORMAL, "")

    # The client's side

    @property
    def messages(self) -> list[Json]:
        """All messages it was sent, without their timestamps, but for the welcome."""
        new = self.writes[self._read :]
        self._read = len(self.writes)
        self._messages += [each for data in new for each in read_messages(data) if each["type"] != "welcome"]
        return list(self._messages)

    @property
    def types(self) -> list[str]:
        """The types of those messages."""
        return [message["type"] for message in self.messages]

    def payloads(self, type: str) -> list[Any]:
        """The payloads of the messages of one type."""
        return [message.get("payload") for message in self.messages if message["type"] == type]

    def forget(self) -> None:
        """Begin anew, as if nothing had been written."""
        self.writes.clear()
        self._messages.clear()
        self._read = 0

    async def heard(self, type: str, count: int = 1) -> Json:
        """Wait until `count` messages of this type were sent, and give back the last of them."""
        async with asyncio.timeout(PATIENCE):
            while len(found := [message for message in self.messages if message["type"] == type]) < count:
                self._wrote.clear()
                await self._wrote.wait()
        return found[count - 1]

    def pause(self, buffered: int = 1) -> None:
        """Stop taking data, with so much of it underway."""
        self.paused, self.buffered, self.room = True, buffered, 0
        self.receiver.pause_writing()

    def take(self, size: int | None = None, *, room: int | None = None) -> None:
        """Read some of what is underway, or all; then the socket takes data again, up to `room`."""
        self.buffered = 0 if size is None else max(0, self.buffered - size)
        if self.paused and not self.buffered:
            self.paused, self.room = False, room
            self.receiver.resume_writing()


class ManualClock:
    """A clock that moves when told to; it reads seconds, as `time.monotonic` does."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    @classmethod
    def install(cls, monkeypatch: pytest.MonkeyPatch) -> ManualClock:
        """Let the node read this clock; the loop keeps its own."""
        clock = cls()
        for name, module in list(sys.modules.items()):
            if name.startswith("hubbub.node.") and hasattr(module, "monotonic"):
                monkeypatch.setattr(module, "monotonic", clock)
            if name.startswith("hubbub.node.") and getattr(module, "time", None) is time:
                monkeypatch.setattr(module, "time", _Time(clock))
        return clock


class _Time:
    """The module `time`, but for its monotonic clock."""

    def __init__(self, clock: ManualClock) -> None:
        self.monotonic = clock

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def make_hub(*args: Any, **options: Any) -> Hub:
    """A hub with channels of any name, as they come."""
    hub = Hub(*args, **options)
    hub.namespace("*")
    return hub


def open_connection(
    hub: Hub, user_id: str | None = None, transport: RecordingTransport | None = None
) -> tuple[Connection, RecordingTransport]:
    """Connect a client, as a user if one is named."""
    transport = transport or RecordingTransport()
    connection = transport.receiver = Connection(hub.node)
    connection.accept(transport, Handshake(SCOPE))
    if user_id is not None:
        connection.identify(user_id)
    return connection, transport


def say(receiver: Receiver, type: str, payload: Any = ..., id: str | None = None) -> None:
    """Be the client and send one message; without a payload where none is given."""
    message = {"type": type} | ({} if payload is ... else {"payload": payload}) | ({} if id is None else {"id": id})
    receiver.receive_text(json.dumps(message).encode())


async def tick(times: int = 1) -> None:
    """Let the loop turn."""
    for _ in range(times):
        await asyncio.sleep(0)


def read_messages(data: Any) -> Iterator[Json]:
    """Read wire data of any form as the client does."""
    for text in _texts(data) if isinstance(data, bytes) else data:
        message = json.loads(text)
        message.pop("timestamp", None)
        yield message


def _texts(data: bytes) -> Iterable[bytes]:
    """The payloads of whole, unmasked text frames."""
    while data:
        first, size, start = data[0], data[1], 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        payload, data = data[start : start + size], data[start + size :]
        assert first in (0x81, 0xC1)
        assert len(payload) == size
        yield payload if first == 0x81 else inflate(payload, 1 << 20)
