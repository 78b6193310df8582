"""The native door's transport: WebSocket frames straight on an asyncio or uvloop socket.

Rules of this file:
1. Idle costs nothing: no task, timer or buffer; the parser lives only while something is unfinished.
2. The write limit is 0, so `paused` says exactly "something is still buffered". While it is down nothing of ours waits
   in the loop's transport, and the kernel is asked directly.
3. The descriptor is ours until `connection_lost`; the loop closes it after that, never before.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

from hubbub.contracts import Receiver
from hubbub.core.forms import FRAMES, Form
from hubbub.core.frames import Opcode, Parser, build_close, build_frame, parse_close, small_text
from hubbub.core.limits import FrameLimits
from hubbub.errors import CloseCode, ProtocolError

__all__ = ["NativeTransport"]

logger = logging.getLogger("hubbub.native")

BY_HUB = 1
BY_PONG = 2
BY_TURN = 4

TURN = 64 * 1024


class NativeTransport(asyncio.Protocol):
    """One WebSocket after its handshake.

    Args:
        socket: the loop's transport, reading.
        receiver: who gets the messages; it may be exchanged while nothing is being handed over.
        limits: what one message may be.
        form: how messages are wanted: plain frames, or deflated ones.
        inflate: whether the client may compress.
    """

    __slots__ = (
        "_fd",
        "_holds",
        "_inflate",
        "_parser",
        "_pong",
        "_rest",
        "_said",
        "_socket",
        "form",
        "limits",
        "paused",
        "receiver",
        "registered",
    )

    def __init__(
        self,
        socket: asyncio.Transport,
        receiver: Receiver,
        limits: FrameLimits,
        form: Form = FRAMES,
        inflate: bool = False,
    ) -> None:
        self._socket = socket
        self.receiver = receiver
        self.limits = limits
        self.form = form
        self._inflate = inflate
        self._parser: Parser | None = None
        self._holds = 0
        self._pong: bytes | None = None
        self._rest = b""
        self._said = False
        self.paused = socket.get_write_buffer_size() > 0  # what was answered before on this socket
        self.registered: set[Any] | None = None
        self._fd = _descriptor(socket)
        # asyncio's and uvloop's TLS call an empty buffer full where the limit is 0.
        socket.set_write_buffer_limits(high=0 if socket.get_extra_info("sslcontext") is None else 1)

    # `contracts.Transport`

    @property
    def buffered(self) -> int:
        """Bytes that wait in the loop's transport."""
        return self._socket.get_write_buffer_size() if self.paused else 0

    def write(self, data: Any) -> None:
        """Give bytes to the kernel, and what it does not take to the loop."""
        fd = self._fd
        if fd >= 0:
            try:
                sent = os.write(fd, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self.abort()
                return
            if sent == len(data):
                return
            data = data[sent:]
        if self._said:
            return  # nothing comes behind a close frame (section 5.5.1)
        if self._socket.is_closing():
            return  # the loop would log each write to a socket that failed
        self._socket.write(data)

    @property
    def closing(self) -> bool:
        """Whether writing is of no use any more, though `Receiver.lost` may still be to come."""
        return self._socket.is_closing()

    def ping(self) -> bool:
        """Send a ping frame, unless the socket is busy anyway."""
        if not self.paused:
            self.write(PING)
        return True

    def pause_reading(self) -> None:
        """Read no more until `resume_reading`; after our goodbye the peer's must be seen."""
        if not self._said:
            self._hold(BY_HUB)

    def resume_reading(self) -> None:
        """Read again."""
        self._unhold(BY_HUB)

    def close(self, code: int, reason: str) -> None:
        """Send a close frame behind everything; the peer answers it, and the socket ends."""
        if not self._said:
            self._said = True
            self._fd = -1
            # Reading goes on even where the hub had stopped it: the peer's close must be seen.
            self._unhold(BY_HUB | BY_PONG)
            self._socket.write(build_close(code, reason))

    def abort(self) -> None:
        """Cut the socket."""
        self._fd = -1
        self._socket.abort()

    # `asyncio.Protocol`

    def data_received(self, data: bytes) -> None:
        """Read; nearly always one whole text message."""
        if self._parser is None:
            text = small_text(data, self.limits.message_size)
            if text is not None:
                self.receiver.receive_text(text)
                return
            self._parser = Parser(self.limits, self._inflate)
        self._read(data, self._parser)

    def eof_received(self) -> None:
        """Let the loop close the socket: half-open WebSockets are of no use."""

    def pause_writing(self) -> None:
        """The kernel did not take everything."""
        self.paused = True
        self.receiver.pause_writing()

    def resume_writing(self) -> None:
        """The kernel has taken everything."""
        self.paused = False
        if self._pong is not None:
            pong, self._pong = self._pong, None
            self.write(build_frame(Opcode.PONG, pong))
        self._unhold(BY_PONG)
        if not self.paused:
            self.receiver.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._fd = -1
        self._parser = None
        self._rest = b""
        if self.registered is not None:
            self.registered.discard(self)
        self.receiver.lost(CloseCode.ABNORMAL, "")

    def shutdown(self) -> None:
        """The server stops (uvicorn's call; it may come twice)."""
        self.receiver.close(CloseCode.GOING_AWAY, "the server stops")

    # Reading

    def read_later(self, data: bytes) -> None:
        """Keep bytes for the next tick, and read no others until then: a flood must not keep others waiting."""
        self._rest = data
        self._hold(BY_TURN)
        asyncio.get_running_loop().call_soon(self._next_turn)

    def _read(self, data: bytes, parser: Parser) -> None:
        if parser.failure is not None:
            return
        if len(data) > TURN:
            self.read_later(data[TURN:])
            data = data[:TURN]
        self.receiver.touch()
        events = parser.feed(data)
        goodbye: bytes | None = None
        if len(events) > 1:
            self.receiver.cork()
        for opcode, payload in events:
            if opcode is Opcode.TEXT:
                self.receiver.receive_text(payload)
            elif opcode is Opcode.BINARY:
                self.receiver.receive_binary(payload)
            elif opcode is Opcode.PING:
                self.receiver.receive_control()
                self._answer_ping(payload)
            elif opcode is Opcode.PONG:
                self.receiver.receive_control()
            elif opcode is Opcode.CLOSE:
                goodbye = payload
        if len(events) > 1:
            self.receiver.uncork()
        if goodbye is not None:
            self._answer_close(goodbye)
        elif parser.failure is not None:
            self._fail(parser.failure)
        elif parser.idle:
            self._parser = None

    def _answer_ping(self, payload: bytes) -> None:
        """Answer at once, or the latest one only when the client reads again (RFC 6455 section 5.5.3)."""
        if self._said:
            return
        if self.paused:
            self._pong = payload
            self._hold(BY_PONG)
        else:
            self.write(build_frame(Opcode.PONG, payload))

    def _answer_close(self, payload: bytes) -> None:
        """Both sides have said goodbye now: the server closes first (section 7.1.1)."""
        code, reason = parse_close(payload)
        self.receiver.close_received(code, reason)
        self.close(code, reason)
        self._socket.close()

    def _fail(self, failure: ProtocolError) -> None:
        """Say why and stop (section 7.1.7); the rest is read and dropped, or a reset could overtake our word."""
        logger.info("connection failed: %s", failure)
        self.receiver.close_received(failure.code, failure.reason)
        self.close(failure.code, failure.reason)
        if self._socket.can_write_eof() and not self._socket.is_closing():
            self._socket.write_eof()
        else:
            self._socket.close()

    def _next_turn(self) -> None:
        if self._holds == BY_TURN and not self._socket.is_closing():
            data, self._rest = self._rest, b""
            self._unhold(BY_TURN)
            self.data_received(data)

    def _hold(self, reason: int) -> None:
        if not self._holds and not self._socket.is_closing():
            self._socket.pause_reading()
        self._holds |= reason

    def _unhold(self, reason: int) -> None:
        held, self._holds = self._holds, self._holds & ~reason
        if held == self._holds:
            return
        if self._holds == BY_TURN:
            asyncio.get_running_loop().call_soon(self._next_turn)
        elif not self._holds and not self._socket.is_closing():
            self._socket.resume_reading()


PING = build_frame(Opcode.PING, b"")


def _descriptor(socket: asyncio.Transport) -> int:
    """The file descriptor that may be written to directly: plain sockets on uvloop; elsewhere -1."""
    if not type(socket).__module__.startswith("uvloop") or socket.get_extra_info("sslcontext") is not None:
        return -1
    return int(socket.get_extra_info("socket").fileno())
