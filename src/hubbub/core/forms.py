"""What a socket wants its messages as: a message is encoded once for each form, however many sockets it goes to."""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import Protocol

from hubbub.core.deflate import SharedCompressor
from hubbub.core.frames import Opcode, build_frame

__all__ = ["FRAMES", "TEXTS", "Data", "Form", "deflated"]

Data = bytes | tuple[str, ...]
"""One or more messages, ready for a socket's `write`."""

_TEXT = Opcode.TEXT.value
_WORTH_DEFLATING = 200


class Form(Protocol):
    """How messages travel on one kind of socket; compared by identity."""

    def encode(self, text: bytes) -> Data:
        """Turn one JSON message into wire data."""

    def join(self, pieces: list[Data]) -> Data:
        """Put the data of several messages, all of this form, into one write."""

    def size(self, data: Data) -> int:
        """Say what the data weighs in a queue: bytes, or characters where the server underneath frames."""


class _FrameForm:
    """Plain text frames, for a socket whose bytes we write ourselves."""

    __slots__ = ()

    def encode(self, text: bytes) -> Data:
        return build_frame(_TEXT, text)

    def join(self, pieces: list[Data]) -> Data:
        return b"".join(pieces)  # type: ignore[arg-type]  # data of this form is bytes

    def size(self, data: Data) -> int:
        return len(data)


class _DeflatedForm(_FrameForm):
    """Compressed text frames; what is short goes plain, for it would hardly shrink."""

    __slots__ = ("_compressor",)

    def __init__(self, window_bits: int) -> None:
        self._compressor = SharedCompressor(window_bits)

    def encode(self, text: bytes) -> Data:
        if len(text) < _WORTH_DEFLATING:
            return build_frame(_TEXT, text)
        return build_frame(_TEXT, self._compressor.compress(text), compressed=True)


class _TextForm:
    """Text, for a socket that a server underneath frames."""

    __slots__ = ()

    def encode(self, text: bytes) -> Data:
        return (text.decode(),)

    def join(self, pieces: list[Data]) -> Data:
        return tuple(chain.from_iterable(pieces))  # type: ignore[arg-type]  # data of this form is texts

    def size(self, data: Data) -> int:
        return sum(map(len, data))  # type: ignore[arg-type]  # data of this form is texts


FRAMES: Form = _FrameForm()
"""Plain text frames."""

TEXTS: Form = _TextForm()
"""Text that a server underneath frames."""


@cache
def deflated(window_bits: int) -> Form:
    """Return the form of compressed frames for a window of 9 to 15 bits: one a process for each size."""
    return _DeflatedForm(window_bits)
