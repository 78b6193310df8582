"""A client's side of a connection that breaks and stalls when told to: in memory, or over a socket."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from hubbub import Connection, Handshake, Hub
from hubbub.core.forms import TEXTS, Form
from hubbub.errors import CloseCode
from tests.fakes import SCOPE

__all__ = ["Hear", "Link", "MemoryLink", "SocketLink"]

ROOM = 4096
"""Characters underway in memory before the hub's side is paused."""

Json = dict[str, Any]
Hear = Callable[[Json], None]


class Link(Protocol):
    """What a client can do with its connection."""

    gone: asyncio.Event
    """Set when it has ended, whoever ended it."""

    def send(self, type: str, payload: Any, id: str) -> None:
        """Send a message, unless it has ended."""

    def drop(self) -> None:
        """Lose it, and what is underway with it."""

    def leave(self) -> None:
        """Say goodbye."""

    def stall(self) -> None:
        """Read nothing more."""

    def flow(self) -> None:
        """Read on."""


class MemoryLink:
    """A link to a hub in the same loop; it is also that hub's `contracts.Transport`.

    Args:
        hub: which runs.
        hear: takes what arrives.
        latency: seconds for which what is written is underway.
    """

    form: Form = TEXTS

    def __init__(self, hub: Hub, hear: Hear, latency: float) -> None:
        self.gone = asyncio.Event()
        self.paused = False
        self.buffered = 0
        self._hear = hear
        self._latency = latency
        self._loop = asyncio.get_running_loop()
        self._underway: list[str] = []
        self._waiting: deque[bytes] = deque()
        self._reading = True
        self._stalled = self._due = self._closing = False
        self._connection = Connection(hub.node)
        self._connection.accept(self, Handshake(SCOPE))

    # The hub's side

    def write(self, data: Any) -> None:
        """Take texts to arrive soon."""
        if self.gone.is_set():
            return
        self._underway.extend(data)
        self.buffered += self.form.size(data)
        if self.buffered > ROOM:
            self.paused = True
            self._connection.pause_writing()
        self._arrive_soon()

    def ping(self) -> bool:
        """Answer, if anybody reads."""
        if not self._stalled:
            self._loop.call_soon(self._connection.touch)
        return True

    def pause_reading(self) -> None:
        """Let what is sent wait."""
        self._reading = False

    def resume_reading(self) -> None:
        """Hand over what waits."""
        self._reading = True
        self._loop.call_soon(self._hand_over)

    def close(self, code: int, reason: str) -> None:
        """End behind what is underway."""
        self._closing = True
        self._arrive_soon()

    def abort(self) -> None:
        """End now."""
        self._end(CloseCode.ABNORMAL)

    def _arrive_soon(self) -> None:
        if not self._stalled and not self._due:
            self._due = True
            self._loop.call_later(self._latency, self._arrive)

    def _arrive(self) -> None:
        self._due = False
        if self._stalled or self.gone.is_set():
            return
        texts, self._underway, self.buffered = self._underway, [], 0
        for text in texts:
            if not self.gone.is_set():
                self._hear(json.loads(text))
        if self._closing:
            self._end(CloseCode.NORMAL)
        elif self.paused and not self.gone.is_set():
            self.paused = False
            self._connection.resume_writing()

    def _hand_over(self) -> None:
        while self._waiting and self._reading and not self.gone.is_set():
            self._connection.receive_text(self._waiting.popleft())

    def _end(self, code: int) -> None:
        if not self.gone.is_set():
            self.gone.set()
            self._loop.call_soon(self._connection.lost, code, "")

    # The client's side

    def send(self, type: str, payload: Any, id: str) -> None:
        """Send a message soon."""
        self._waiting.append(json.dumps({"type": type, "payload": payload, "id": id}).encode())
        self._loop.call_soon(self._hand_over)

    def drop(self) -> None:
        """Lose it."""
        self._end(CloseCode.ABNORMAL)

    def leave(self) -> None:
        """Say goodbye."""
        if not self.gone.is_set():
            self._connection.close_received(CloseCode.NORMAL, "")
            self._end(CloseCode.NORMAL)

    def stall(self) -> None:
        """Read nothing more."""
        self._stalled = True

    def flow(self) -> None:
        """Read on."""
        self._stalled = False
        self._arrive_soon()


class SocketLink:
    """A link over a real socket."""

    def __init__(self, client: ClientConnection, hear: Hear) -> None:
        self.gone = asyncio.Event()
        self._client = client
        self._hear = hear
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._sending: set[asyncio.Task[None]] = set()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, port: int, hear: Hear) -> SocketLink:
        """Connect."""
        # A small queue: what a client that stalls does not read must fill the hub's side, not the client's.
        options: dict[str, Any] = {"ping_interval": None, "max_queue": 2, "close_timeout": 1, "compression": None}
        return cls(await connect(f"ws://127.0.0.1:{port}/ws", proxy=None, **options), hear)

    def send(self, type: str, payload: Any, id: str) -> None:
        """Send a message soon."""
        self._spawn(self._send(json.dumps({"type": type, "payload": payload, "id": id})))

    def drop(self) -> None:
        """Lose it."""
        self._end()
        self._client.transport.abort()

    def leave(self) -> None:
        """Say goodbye."""
        self._end()
        self._spawn(self._client.close())

    def stall(self) -> None:
        """Read nothing more."""
        self._flowing.clear()

    def flow(self) -> None:
        """Read on."""
        self._flowing.set()

    async def done(self) -> None:
        """Wait for what it does."""
        await asyncio.gather(self._reader, *self._sending, return_exceptions=True)

    def _end(self) -> None:
        self.gone.set()
        self._flowing.set()

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, text: str) -> None:
        try:
            await self._client.send(text)
        except ConnectionClosed:
            self._end()

    async def _read(self) -> None:
        try:
            while not self.gone.is_set():
                text = await self._client.recv()
                await self._flowing.wait()
                if not self.gone.is_set():
                    self._hear(json.loads(text))
        except ConnectionClosed:
            self._end()
