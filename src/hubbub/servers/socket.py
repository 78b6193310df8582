"""An ordinary ASGI WebSocket over the native transport: for the routes of the app that are not the hub's."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import Any

from hubbub.core.frames import Opcode, build_frame
from hubbub.errors import CloseCode
from hubbub.servers.native import NativeTransport

__all__ = ["AsgiSocket"]

QUEUE = 32
CLOSE_TIMEOUT = 10.0
BURST = 64 * 1024
EARLY = 0.01  # seconds: timers are not exact

Event = dict[str, Any]


class AsgiSocket:
    """Queues what comes until the app receives it, and sends what the app sends.

    Args:
        ping_interval: seconds of silence before a ping, None for no pings.
        ping_timeout: seconds from a ping to any sign of life, None to wait for ever.
    """

    def __init__(self, ping_interval: float | None, ping_timeout: float | None) -> None:
        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._loop = asyncio.get_running_loop()
        self._events: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._transport: NativeTransport
        self._timer: asyncio.TimerHandle | None = None
        self._heard = self._loop.time()
        self._pinged = -math.inf
        self._burst = 0
        self._finished = False
        self.closed = False
        self.gone = False
        """Whether the client said goodbye, broke the protocol or vanished."""

    def open(self, transport: NativeTransport) -> None:
        """Begin: the handshake is done."""
        self._transport = transport
        if not transport.paused:
            self._writable.set()
        if self._ping_interval:
            self._timer = self._loop.call_later(self._ping_interval, self._look)

    # The app's side

    async def receive(self) -> Event:
        """Wait for the next event."""
        while not self._events:
            self._arrived.clear()
            await self._arrived.wait()
        if self._events[0]["type"] == "websocket.disconnect":
            self._arrived.set()  # it is the last event, for everybody who waits
            return self._events[0]
        event = self._events.popleft()
        if len(self._events) < QUEUE:
            self._transport.resume_reading()
        return event

    async def send(self, message: Event) -> None:
        """Send one event of the app; waits while the client does not read.

        Raises:
            OSError: the client is gone, or this side closed by itself.
            RuntimeError: an event that may not come now.
        """
        kind = message["type"]
        if self._finished or kind not in ("websocket.send", "websocket.close"):
            raise RuntimeError(f"Unexpected ASGI message {kind!r} for an open or closed WebSocket.")
        if kind == "websocket.close":
            self._finished = True
            self.close(message.get("code", CloseCode.NORMAL), message.get("reason") or "")
            return
        while self._transport.paused and not self.gone:  # as many wait as the app has tasks that send
            await self._writable.wait()
        if self.gone or self.closed or self._transport.closing:
            raise OSError("the client is gone")
        data, text = message.get("bytes"), message.get("text")
        opcode, payload = (Opcode.BINARY, data) if data is not None else (Opcode.TEXT, (text or "").encode())
        self._transport.write(build_frame(opcode, payload))
        self._burst += len(payload)
        if self._burst > BURST:
            self._burst = 0
            await asyncio.sleep(0)  # a task that only sends must let the loop learn that the client left

    # `contracts.Receiver`

    def receive_text(self, text: bytes) -> None:
        """Queue a text message."""
        self._put({"type": "websocket.receive", "text": text.decode()})

    def receive_binary(self, data: bytes) -> None:
        """Queue a binary message."""
        self._put({"type": "websocket.receive", "bytes": data})

    def receive_control(self) -> None:
        """Note a sign of life."""
        self.touch()

    def touch(self) -> None:
        """Note a sign of life."""
        self._heard = self._loop.time()

    def cork(self) -> None:
        """Nothing to do: the app answers later."""

    def uncork(self) -> None:
        """Nothing to do: the app answers later."""

    def pause_writing(self) -> None:
        """Let senders wait."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let senders go on."""
        self._writable.set()

    def close(self, code: int, reason: str) -> None:
        """Say goodbye; the socket is cut if the client does not agree in time."""
        if not self.closed and not self.gone:
            self.closed = True
            self._events.append({"type": "websocket.disconnect", "code": code, "reason": reason})
            self._arrived.set()
            self._transport.close(code, reason)
            self._cut_later()

    def close_received(self, code: int, reason: str) -> None:
        """Tell the app that the client, or a fault of its, ended this."""
        self._end(code, reason)
        self._cut_later()

    def lost(self, code: int, reason: str) -> None:
        """Tell the app that the socket is gone, and wake whoever waits to write."""
        self._end(code, reason)
        if self._timer is not None:
            self._timer.cancel()

    def _end(self, code: int, reason: str) -> None:
        if not self.gone:
            self.gone = True
            if not self.closed:
                self._events.append({"type": "websocket.disconnect", "code": code, "reason": reason})
            self._arrived.set()
            self._writable.set()

    def _put(self, event: Event) -> None:
        self.touch()
        if not self.closed:
            self._events.append(event)
            self._arrived.set()
            if len(self._events) >= QUEUE:
                self._transport.pause_reading()

    def _look(self) -> None:
        """Ping where it was silent, and end it where a ping brought nothing."""
        assert self._ping_interval is not None
        now = self._loop.time()
        held = len(self._events) >= QUEUE  # we do not read: nothing can be heard
        if self._ping_timeout is not None and self._heard < self._pinged and not held:
            self.close(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
            return
        rest = self._heard + self._ping_interval - now
        if held or rest < EARLY:
            self._transport.ping()
            self._pinged = now
            rest = self._ping_timeout or self._ping_interval
        self._timer = self._loop.call_later(rest, self._look)

    def _cut_later(self) -> None:
        """No more pings; the socket may end by itself for a while."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(CLOSE_TIMEOUT, self._transport.abort)
