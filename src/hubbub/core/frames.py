"""WebSocket frames (RFC 6455 section 5): the ones a server writes, and the ones it reads.

Rules of this file:

1. `Parser.feed` never raises for what a peer sent: the fault ends the stream and is kept as `failure`.
2. A frame is judged by its header: a length is compared with the limit before a byte of it is awaited.
3. Reading costs time in proportion to the bytes that came, however they were cut, and keeps only what is unfinished.
"""

from __future__ import annotations

import struct
from codecs import getincrementaldecoder
from enum import IntEnum

from hubbub.core.deflate import inflate
from hubbub.core.limits import FrameLimits
from hubbub.errors import CloseCode, ProtocolError, UsageError

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without a compiled wheel: the same function in Python
    from websockets.utils import apply_mask

__all__ = [
    "Event",
    "Opcode",
    "Parser",
    "build_close",
    "build_frame",
    "check_code",
    "cut_reason",
    "may_travel",
    "parse_close",
    "small_text",
]


class Opcode(IntEnum):
    """What a frame is (RFC 6455 section 5.2)."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


Event = tuple[Opcode, bytes]
"""A whole message or a control frame, and its payload."""

_FIN, _RSV1, _OPCODE, _CONTROL = 0x80, 0x40, 0x0F, 0x08
_OPCODES = {opcode.value: opcode for opcode in Opcode}

# First bytes a client may send: parts, whole messages, control frames; with deflate also RSV1 on what starts a message.
_PLAIN = frozenset({0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A})
_DEFLATED = _PLAIN | {0x41, 0x42, 0xC1, 0xC2}

_SHORT_TEXT = tuple(bytes((_FIN | Opcode.TEXT, size)) for size in range(126))
_WRITE_16 = struct.Struct("!BBH").pack
_WRITE_64 = struct.Struct("!BBQ").pack
_READ_16 = struct.Struct("!HH4s").unpack_from

_NEVER_SENT = frozenset({CloseCode.NO_STATUS, CloseCode.ABNORMAL, 1015})
_REASON_SIZE = 123


def build_frame(opcode: int, payload: bytes, *, compressed: bool = False) -> bytes:
    """Build one final, unmasked frame (section 5.2); `compressed` says that the payload is deflated (RFC 7692)."""
    size = len(payload)
    if size < 126 and opcode == 1 and not compressed:
        return _SHORT_TEXT[size] + payload
    first = (0xC0 if compressed else 0x80) | opcode
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return _WRITE_16(first, 126, size) + payload
    return _WRITE_64(first, 127, size) + payload


def build_close(code: int | None, reason: str = "") -> bytes:
    """Build a close frame (section 5.5.1).

    Args:
        code: why the connection ends; None, and the codes that never travel (1005, 1006, 1015), leave the frame empty.
        reason: for people; cut to 123 bytes of UTF-8, never inside a character.

    Raises:
        UsageError: a code that section 7.4 does not let an endpoint send.
    """
    if code is None or code in _NEVER_SENT:
        return build_frame(Opcode.CLOSE, b"")
    check_code(code)
    return build_frame(Opcode.CLOSE, code.to_bytes(2, "big") + cut_reason(reason).encode())


def cut_reason(reason: str) -> str:
    """Cut the reason of a close to what a close frame has room for, never inside a character."""
    return reason.encode("utf-8", "replace")[:_REASON_SIZE].decode("utf-8", "ignore")


def parse_close(payload: bytes) -> tuple[int, str]:
    """Read a close frame's payload: the code (1005 where there was none) and the reason.

    Raises:
        ProtocolError: 1002 for half a code or one that may not travel, 1007 for a reason that is not UTF-8.
    """
    if not payload:
        return CloseCode.NO_STATUS.value, ""
    code = int.from_bytes(payload[:2], "big")  # one byte alone gives no valid code
    if not may_travel(code):
        raise _violation("invalid close code")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise ProtocolError(CloseCode.INVALID_DATA, "close reason is not UTF-8") from None


def small_text(data: bytes, limit: int = 65535) -> bytes | None:
    """Return the payload when `data` is exactly one whole text frame, valid UTF-8 and not compressed; else None.

    This is what nearly every read brings, so it has a path of its own; None says nothing but "use a `Parser`".

    Args:
        data: what one read brought, at a moment when nothing unfinished is kept.
        limit: the largest payload to take, in bytes; a frame over 65535 is never taken.
    """
    size = len(data)
    if size > 133:
        head, length, mask = _READ_16(data)
        if head != 0x81FE or length != size - 8 or length > limit:
            return None
        payload = apply_mask(data[8:], mask)
    elif 5 < size < 132 and data[0] == 0x81 and data[1] == size + 122 and size - 6 <= limit:
        payload = apply_mask(data[6:], data[2:6])
    else:
        return None
    if payload.isascii():
        return payload
    try:
        payload.decode()
    except UnicodeDecodeError:
        return None
    return payload


class Parser:
    """Reads one client's frames as they come, in pieces of any size.

    Args:
        limits: what a message may weigh.
        inflate: whether permessage-deflate was agreed on, so that messages may be compressed.
    """

    __slots__ = ("_ended", "_first_bytes", "_kept", "_limits", "_message", "_need", "_room", "failure")

    def __init__(self, limits: FrameLimits, inflate: bool = False) -> None:
        self.failure: ProtocolError | None = None
        """The rule the peer broke, once it has; nothing is read after that."""
        self._limits = limits
        self._first_bytes = _DEFLATED if inflate else _PLAIN
        self._message: _Message | None = None
        self._kept = bytearray()
        self._room = limits.message_size  # bytes that the parts to come may have
        self._need = 2  # bytes to keep until reading on makes sense
        self._ended = False

    @property
    def idle(self) -> bool:
        """Whether this parser holds nothing, so that a new one could take its place; never after the end."""
        return not self._kept and self._message is None and not self._ended

    def feed(self, data: bytes) -> list[Event]:
        """Read on: return the messages and control frames that are complete now, in order.

        Text is valid UTF-8 and a close payload passed `parse_close`. After a CLOSE, or once `failure` is set, the
        rest is ignored (sections 1.4 and 7.1.7).
        """
        events: list[Event] = []
        if self._ended:
            return events
        kept = self._kept
        if kept:
            kept += data
            if len(kept) < self._need:
                return events
        try:
            read = self._read(kept or data, events)
        except ProtocolError as failure:
            # A copy, for the traceback of the one that was raised would keep the peer's data.
            self.failure = ProtocolError(failure.code, failure.reason)
            self._ended = True
        if self._ended:
            self._message = None
            kept.clear()
        elif kept:
            del kept[:read]
        else:
            kept += data[read:]
        return events

    def _read(self, data: bytes | bytearray, events: list[Event]) -> int:
        """Take the whole frames off `data`; return where the first unfinished one starts, and note what it needs."""
        at, end = 0, len(data)
        self._need = 2
        while end - at >= 2 and not self._ended:
            first, length, mask = data[at], data[at + 1] - 0x80, at + 2
            self._check_kind(first, length)
            if length > 125:
                mask += 2 if length == 126 else 8
                if mask > end:
                    self._need = mask - at
                    break
                length = _extended_length(data[at + 2 : mask])
            if length > self._room and not first & _CONTROL:
                raise _too_big(f"message over {self._limits.message_size} bytes")
            start = mask + 4
            stop = start + length
            if stop > end:
                self._need = stop - at
                break
            self._take(first, apply_mask(data[start:stop], data[mask:start]), events)
            at = stop
        return at

    def _check_kind(self, first: int, length: int) -> None:
        """Judge a frame by its first two bytes (sections 5.1, 5.2, 5.4, 5.5)."""
        if first not in self._first_bytes:
            raise _violation(_what_is_wrong(first))
        if length < 0:
            raise _violation("frame is not masked")
        if first & _CONTROL:
            if length > 125:
                raise _violation("control frame over 125 bytes")
        elif first & _OPCODE:
            if self._message is not None:
                raise _violation("new message inside a fragmented one")
        elif self._message is None:
            raise _violation("continuation of no message")
        elif len(self._message.parts) >= self._limits.parts:
            raise _too_big(f"message in more than {self._limits.parts} parts")

    def _take(self, first: int, payload: bytes, events: list[Event]) -> None:
        """Turn one frame into an event, or into a part of one."""
        opcode = _OPCODES[first & _OPCODE]
        if first & _CONTROL:
            if opcode is Opcode.CLOSE:
                parse_close(payload)
                self._ended = True
            events.append((opcode, payload))
        elif first & _FIN and opcode:
            events.append((opcode, self._whole(opcode, first & _RSV1, payload)))
        else:
            message = self._message = self._message or _Message(opcode, first & _RSV1)
            message.add(payload)
            self._room -= len(payload)
            if first & _FIN:
                self._message, self._room = None, self._limits.message_size
                payload = b"".join(message.parts)
                events.append((message.opcode, self._whole(message.opcode, message.compressed, payload)))

    def _whole(self, opcode: Opcode, compressed: int, payload: bytes) -> bytes:
        """Inflate a complete message where it is compressed, and check text."""
        if compressed:
            payload = inflate(payload, self._limits.message_size)
        if opcode is Opcode.TEXT and not payload.isascii():
            try:
                payload.decode()
            except UnicodeDecodeError:
                raise _not_text() from None
        return payload


class _Message:
    """The parts of a fragmented message that have come so far (section 5.4)."""

    __slots__ = ("_decode", "compressed", "opcode", "parts")

    def __init__(self, opcode: Opcode, compressed: int) -> None:
        self.opcode = opcode
        self.compressed = compressed
        self.parts: list[bytes] = []
        # Not for the result, but to fail at the part that is wrong instead of after the last one.
        plain_text = opcode is Opcode.TEXT and not compressed
        self._decode = getincrementaldecoder("utf-8")().decode if plain_text else None

    def add(self, payload: bytes) -> None:
        """Keep one more part; raise when it cannot continue the text."""
        self.parts.append(payload)
        if self._decode is not None:
            try:
                self._decode(payload)
            except UnicodeDecodeError:
                raise _not_text() from None


def _extended_length(field: bytes | bytearray) -> int:
    """Read a 16-bit or 64-bit length, which must be the shortest form and below 2**63 (section 5.2)."""
    length = int.from_bytes(field, "big")
    if length < (126 if len(field) == 2 else 65536):
        raise _violation("length is not in its shortest form")
    if length >> 63:
        raise _violation("length over 63 bits")
    return length


def check_code(code: int) -> None:
    """Refuse a code that section 7.4 does not let an endpoint send.

    Raises:
        UsageError: it is one.
    """
    if not may_travel(code):
        raise UsageError(f"Close code {code} cannot be sent: use 1000-1003, 1007-1014 or 3000-4999.")


def may_travel(code: int) -> bool:
    """Whether an endpoint may send this close code (section 7.4, and the registry since)."""
    return 3000 <= code <= 4999 or 1000 <= code <= 1003 or 1007 <= code <= 1014


def _what_is_wrong(first: int) -> str:
    """Say why a frame may not start with this byte."""
    opcode = first & _OPCODE
    if opcode not in _OPCODES:
        return "reserved opcode"
    if first & 0x70:
        return "reserved bit set"
    return "fragmented control frame"


def _violation(reason: str) -> ProtocolError:
    return ProtocolError(CloseCode.PROTOCOL_ERROR, reason)


def _too_big(reason: str) -> ProtocolError:
    return ProtocolError(CloseCode.MESSAGE_TOO_BIG, reason)


def _not_text() -> ProtocolError:
    return ProtocolError(CloseCode.INVALID_DATA, "text is not UTF-8")
