"""A server that says back what it hears, for the Autobahn cases: `python -m tests.conformance.echo uvloop`.

`/native` is echoed by a receiver that took the socket over, as the hub does; `/asgi` by an ordinary ASGI route. The
argument is the loop it runs on. It first prints its port.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import uvloop

from hubbub.contracts import Handshake, Transport
from hubbub.core.deflate import SharedCompressor
from hubbub.core.forms import FRAMES
from hubbub.core.frames import Opcode, build_frame
from hubbub.core.limits import FrameLimits
from hubbub.servers.asgi import Receive, Scope, Send
from hubbub.servers.server import Server, configure
from hubbub.servers.takeover import takeover_of

__all__ = ["Echo", "app"]

LIMITS = FrameLimits(message_size=32 * 1024 * 1024, parts=100_000)
RSV1 = 0x40
COMPRESSOR = SharedCompressor(9)  # the smallest window is right for every agreement


class Echo:
    """Sends every message back; reads no more while its answers are not taken."""

    def __init__(self) -> None:
        self._transport: Transport
        self._waiting = bytearray()

    def accept(self, transport: Transport, handshake: Handshake, head: bytes) -> None:
        """Begin with the 101."""
        self._transport = transport
        self._send(head)

    def receive_text(self, text: bytes) -> None:
        """Answer as the hub would, but for a short text."""
        data = self._transport.form.encode(text)
        assert isinstance(data, bytes)
        self._send(data if data[0] & RSV1 else self._frame(Opcode.TEXT, text))

    def receive_binary(self, data: bytes) -> None:
        """Answer likewise."""
        self._send(self._frame(Opcode.BINARY, data))

    def receive_control(self) -> None:
        """Nobody counts."""

    def touch(self) -> None:
        """Nobody watches."""

    def cork(self) -> None:
        """Every answer is its own write."""

    def uncork(self) -> None:
        """Every answer is its own write."""

    def pause_writing(self) -> None:
        """Wait for the peer to read."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Write what waited."""
        if self._waiting:
            data, self._waiting = bytes(self._waiting), bytearray()
            self._transport.write(data)
        if not self._transport.paused:
            self._transport.resume_reading()

    def close(self, code: int, reason: str) -> None:
        """The server stops."""
        self._transport.close(code, reason)

    def close_received(self, code: int, reason: str) -> None:
        """The transport answers by itself."""

    def lost(self, code: int, reason: str) -> None:
        """It is over."""
        self._waiting.clear()

    def _frame(self, opcode: Opcode, payload: bytes) -> bytes:
        """Compress even what is not worth it: kosoku 0.1.0 trips over a plain answer in the cases 12 and 13."""
        if self._transport.form is FRAMES:
            return build_frame(opcode, payload)
        return build_frame(opcode, COMPRESSOR.compress(payload), compressed=True)

    def _send(self, data: Any) -> None:
        if self._transport.paused:
            self._waiting += data
        else:
            self._transport.write(data)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one scope."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["path"] == "/native":
        await _take(scope, receive, send)
    else:
        await _answer(receive, send)


async def _live(receive: Receive, send: Send) -> None:
    for moment in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{moment}.complete"})


async def _take(scope: Scope, receive: Receive, send: Send) -> None:
    offer: Any = takeover_of(scope)
    await receive()
    offer.prepare(LIMITS, deflate=True)
    await send({"type": "websocket.accept"})
    offer.take(Echo(), Handshake(scope))


async def _answer(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})


async def _serve(listener: socket.socket) -> None:
    config = configure(app, ws_per_message_deflate=True, ws_max_size=LIMITS.message_size, lifespan="on")
    server = Server(config, started=lambda: print(f"port {listener.getsockname()[1]}", flush=True))
    await server.serve(sockets=[listener])


if __name__ == "__main__":
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        asyncio.Runner(loop_factory=uvloop.new_event_loop if sys.argv[1] == "uvloop" else None) as runner,
    ):
        runner.run(_serve(listener))
