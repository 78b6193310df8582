"""What a client puts on the wire, built without the code under test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from hubbub.core.frames import Event, Parser

__all__ = ["MASK", "cut", "feed", "frame", "header"]

MASK = bytes.fromhex("37fa213d")


def header(first: int, length: int, *, masked: bool = True, form: int | None = None) -> bytes:
    """The first bytes of a frame, without the mask; `form` forces 7, 16 or 64 bits of length."""
    form = form or (7 if length < 126 else 16 if length < 65536 else 64)
    short = {7: length, 16: 126, 64: 127}[form]
    return bytes((first, short | 0x80 * masked)) + (b"" if form == 7 else length.to_bytes(form // 8, "big"))


def frame(first: int, payload: bytes = b"", *, mask: bytes = MASK, form: int | None = None) -> bytes:
    """One masked frame; `first` is its whole first byte, 0x81 for a final text."""
    masked = payload if mask == bytes(4) else bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return header(first, len(payload), form=form) + mask + masked


def cut(data: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """Cut into pieces at the places given, in any order; a place too far wraps around."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return (data[start:stop] for start, stop in pairwise(edges))


def feed(parser: Parser, pieces: Iterable[bytes]) -> list[Event]:
    """Everything the parser says to these pieces."""
    return [event for piece in pieces for event in parser.feed(piece)]
