"""An ordinary ASGI WebSocket over the native transport: for the routes of the app that are not the hub's."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from hubbub.core.frames import Opcode, build_frame
from hubbub.errors import CloseCode
from hubbub.servers.native import NativeTransport

__all__ = ["AsgiSocket"]

QUEUE = 32
CLOSE_TIMEOUT = 10.0

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
        self._writable.set()
        self._transport: NativeTransport
        self._timer: asyncio.TimerHandle | None = None
        self._heard = self._loop.time()
        self._gone = False
        self.closed = False

    def open(self, transport: NativeTransport) -> None:
        """Begin: the handshake is done."""
        self._transport = transport
        if self._ping_interval:
            self._timer = self._loop.call_later(self._ping_interval, self._ping)

    def hand_over(self) -> list[Event]:
        """End here and give away what nobody has received yet."""
        if self._timer is not None:
            self._timer.cancel()
        return list(self._events)

    # The app's side

    async def receive(self) -> Event:
        """Wait for the next event."""
        while not self._events:
            self._arrived.clear()
            await self._arrived.wait()
        event = self._events.popleft()
        if len(self._events) < QUEUE:
            self._transport.resume_reading()
        return event

    async def send(self, message: Event) -> None:
        """Send one event of the app; waits while the client does not read.

        Raises:
            OSError: the client is gone, as ASGI has it.
            RuntimeError: an event that may not come now.
        """
        if message["type"] == "websocket.close" and not self.closed:
            self.close(message.get("code", 1000), message.get("reason") or "")
            return
        if message["type"] != "websocket.send" or self.closed:
            raise RuntimeError(f"Unexpected ASGI message {message['type']!r} for an open or closed WebSocket.")
        await self._writable.wait()
        if self._gone:
            raise OSError("the client is gone")
        data, text = message.get("bytes"), message.get("text")
        opcode, payload = (Opcode.BINARY, data) if data is not None else (Opcode.TEXT, (text or "").encode())
        self._transport.write(build_frame(opcode, payload))

    # `contracts.Receiver`

    def receive_text(self, text: bytes) -> None:
        """Queue a text message."""
        self._put({"type": "websocket.receive", "text": text.decode()})

    def receive_binary(self, data: bytes) -> None:
        """Queue a binary message."""
        self._put({"type": "websocket.receive", "bytes": data})

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
        if not self.closed and not self._gone:
            self.closed = True
            self._stop_pings()
            self._events.append({"type": "websocket.disconnect", "code": code, "reason": reason})
            self._arrived.set()
            self._transport.close(code, reason)
            self._timer = self._loop.call_later(CLOSE_TIMEOUT, self._transport.abort)

    def close_received(self, code: int, reason: str) -> None:
        """Tell the app that the client, or a fault of its, ended this."""
        self._end(code, reason)

    def lost(self, code: int, reason: str) -> None:
        """Tell the app that the socket is gone, and wake whoever waits to write."""
        self._end(code, reason)
        self._stop_pings()
        self._writable.set()

    def _end(self, code: int, reason: str) -> None:
        if not self._gone:
            self._gone = True
            if not self.closed:
                self._events.append({"type": "websocket.disconnect", "code": code, "reason": reason})
            self._arrived.set()

    def _put(self, event: Event) -> None:
        self._heard = self._loop.time()
        if not self.closed:
            self._events.append(event)
            self._arrived.set()
            if len(self._events) >= QUEUE:
                self._transport.pause_reading()

    def _ping(self) -> None:
        """Ping when it was silent, or end it when it stayed so after the last ping."""
        assert self._ping_interval is not None
        silent = self._loop.time() - self._heard
        if self._ping_timeout is not None and silent >= self._ping_interval + self._ping_timeout:
            self.close(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
            return
        if silent >= self._ping_interval:
            self._transport.ping()
        wait = self._ping_timeout or self._ping_interval
        self._timer = self._loop.call_later(max(self._ping_interval - silent, wait), self._ping)

    def _stop_pings(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
