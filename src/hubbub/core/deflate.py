"""permessage-deflate (RFC 7692) without context takeover: compression that costs a connection no memory.

A message never refers to an earlier one, in either direction. So one compressor serves the whole process, what it made
is valid for every client that agreed on the same window, and a message is inflated by a decompressor of its own.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from hubbub.errors import CloseCode, ProtocolError

__all__ = ["Agreement", "SharedCompressor", "inflate", "negotiate"]

_NAME = "permessage-deflate"
_OFFERS_SIZE = 1024
_WINDOW_BITS = frozenset(map(str, range(8, 16)))
_PARAMETERS: dict[str, frozenset[str | None]] = {
    "server_no_context_takeover": frozenset({None}),
    "client_no_context_takeover": frozenset({None}),
    "server_max_window_bits": _WINDOW_BITS - {"8"},  # zlib has no raw stream with a window of 2**8
    "client_max_window_bits": _WINDOW_BITS | {None},
}

_EMPTY_BLOCK = b"\x00\x00\xff\xff"
_FINAL_BLOCK = b"\x01\x00\x00\xff\xff"
_STREAMS = 16  # that a message may consist of: clients send one, and each costs a decompressor
_WINDOW = 32768


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was negotiated: the server's window as a power of two, and whether the client asked for one."""

    window_bits: int
    asked: bool = False

    @property
    def header(self) -> str:
        """The value of Sec-WebSocket-Extensions in the response (section 7.1)."""
        answer = f"{_NAME}; server_no_context_takeover; client_no_context_takeover"
        return f"{answer}; server_max_window_bits={self.window_bits}" if self.asked else answer


def negotiate(offers: str) -> Agreement | None:
    """Accept the first offer we can honour in a Sec-WebSocket-Extensions value, or None (section 5).

    A malformed offer is declined, never an error; a value over 1 KiB (a browser sends 50 bytes) is declined unread.
    """
    # A backslash can only be an escape in a quoted string, and no value of ours needs one.
    if len(offers) > _OFFERS_SIZE or "\\" in offers:
        return None
    for offer in _without_quoted_text(offers).split(","):
        name, *parameters = [item.strip(" \t") for item in offer.split(";")]
        if name == _NAME and (agreement := _agree(parameters)) is not None:
            return agreement
    return None


class SharedCompressor:
    """Deflates messages for any number of connections; safe in any thread.

    Args:
        window_bits: the window as a power of two, 9 to 15.
    """

    __slots__ = ("_free", "_window_bits")

    def __init__(self, window_bits: int = 15) -> None:
        self._window_bits = window_bits
        self._free = [self._new()]

    def compress(self, payload: bytes) -> bytes:
        """Return the payload of a compressed frame (section 7.2.1)."""
        if not payload:
            return b"\x00"  # zlib would not flush nothing: section 7.2.3.6
        # Taken off the list while at work: two threads never write into one stream.
        try:
            deflate = self._free.pop()
        except IndexError:
            deflate = self._new()
        # A full flush also forgets: what follows cannot refer to what was before.
        data = deflate.compress(payload) + deflate.flush(zlib.Z_FULL_FLUSH)
        self._free.append(deflate)
        return data[:-4]

    def _new(self) -> zlib._Compress:
        return zlib.compressobj(wbits=-self._window_bits)


def inflate(payload: bytes, limit: int) -> bytes:
    """Inflate one compressed message, never past the limit (section 7.2.2).

    Args:
        payload: the message as it came, all parts joined.
        limit: bytes the result may have.

    Raises:
        ProtocolError: 1009 for a result over the limit, 1007 for a stream that is corrupt or not complete.
    """
    message, rest = b"", payload
    # A block with BFINAL set ends a stream for zlib, but not the message (7.2.1, 7.2.3.4): the next one follows on.
    for _ in range(_STREAMS):
        stream = zlib.decompressobj(wbits=-15, zdict=message[-_WINDOW:])
        try:
            message += stream.decompress(rest, limit + 1 - len(message))
            if len(message) > limit:
                raise ProtocolError(CloseCode.MESSAGE_TOO_BIG, f"message over {limit} bytes")
            rest = stream.unused_data
            if not rest:
                if stream.eof or _is_complete(stream):
                    return message
                break
        except zlib.error:
            break
    raise ProtocolError(CloseCode.INVALID_DATA, "corrupt compressed message")


def _is_complete(stream: zlib._Decompress) -> bool:
    """Whether a stream stands at the end of its last block, of which the sender cut the last four bytes."""
    # Those bytes must be the end of an empty block, so that a final one of ours can follow: data would swallow both.
    swallowed = stream.decompress(_EMPTY_BLOCK + _FINAL_BLOCK, 1)
    return not swallowed and stream.eof and stream.unused_data in (b"", _FINAL_BLOCK)


def _agree(parameters: list[str]) -> Agreement | None:
    """Judge one offer by its parameters (section 7.1); None declines it."""
    given: dict[str, str | None] = {}
    for parameter in parameters:
        name, equals, value = (part.strip(" \t") for part in parameter.partition("="))
        wanted = _unquoted(value) if equals else None
        if name in given or wanted not in _PARAMETERS.get(name, ()):
            return None
        given[name] = wanted
    window_bits = given.get("server_max_window_bits")
    return Agreement(15) if window_bits is None else Agreement(int(window_bits), asked=True)


def _without_quoted_text(offers: str) -> str:
    """Replace quoted strings that no parameter of ours can have, with the commas and semicolons in them."""
    pieces = offers.split('"')
    pieces[1::2] = [piece if piece in _WINDOW_BITS else "?" for piece in pieces[1::2]]
    return '"'.join(pieces)


def _unquoted(value: str) -> str:
    """Take the quotes off a parameter's value."""
    return value[1:-1] if value[:1] == value[-1:] == '"' else value
