"""A publication as Redis carries it: checked on receipt, because anybody may write to a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from hubbub.core.recovery import Position, Publication

__all__ = ["Body", "encode_body", "encode_fleeting", "read_entry", "read_message"]

NUMBER = 18
"""Digits of a number that is believed."""


class Body(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """What is published.

    Args:
        event: its name.
        data: JSON.
        tags: what else its publisher says of it.
    """

    event: str | None
    data: bytes
    tags: dict[str, str] | None = None


encode_body = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Body).decode


def encode_fleeting(body: bytes, now: int) -> bytes:
    """A message of a channel that remembers nothing."""
    return b"- 0 0 %d\n%s" % (now, body)


def read_message(message: bytes) -> tuple[Position, int, Publication | None] | None:
    """The place, the offset before it and the publication of a message; None if it is nothing that we wrote.

    Without a publication it says that the channel was purged at this place.
    """
    head, _, data = message.partition(b"\n")
    parts = head.split(b" ")
    if len(parts) != 4 or not (parts[0].isalnum() or parts[0] == b"-"):
        return None
    offset, previous, at = map(_number, parts[1:])
    publication = _publication(offset, previous, at, data) if data else None
    if offset < 0 or previous < 0 or at < 0 or (data and publication is None):
        return None
    return Position(offset, parts[0].decode("ascii", "replace")), previous, publication


def read_entry(entry: Sequence[Any]) -> Publication | None:
    """The publication of an entry of a channel's stream; None if it is nothing that we wrote."""
    id, fields = entry[0], dict(zip(entry[1][::2], entry[1][1::2], strict=False))
    offset, previous, at = _number(id.partition(b"-")[0]), _number(fields.get(b"p")), _number(fields.get(b"t"))
    if offset < 0 or previous < 0 or at < 0:
        return None
    return _publication(offset, previous, at, fields.get(b"b", b""))


def _publication(offset: int, previous: int, at: int, data: bytes) -> Publication | None:
    try:
        body = _decode(data)
        msgspec.json.decode(body.data, type=msgspec.Raw)  # subscribers get it as it is
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return Publication(offset, previous, at, body.event, body.data, body.tags)


def _number(text: bytes | None) -> int:
    return int(text) if text is not None and text.isdigit() and len(text) <= NUMBER else -1
