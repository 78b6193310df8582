"""A publication as NATS carries it: MessagePack, checked on receipt, because anybody may write to a server."""

from __future__ import annotations

from datetime import datetime

import msgspec

from hubbub.brokers.nats.subjects import token
from hubbub.core.recovery import Publication

__all__ = ["Body", "decode_body", "decode_stored", "encode_body", "field", "milliseconds"]


class Body(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """What is in a message of a channel.

    Args:
        channel: its whole name: a subject may have a hash of it only.
        at: milliseconds since 1970, by the publisher's clock; a stream has a time of its own.
        event: the publication's name.
        data: JSON.
        tags: what else its publisher said of it.
        purged: nothing is published; the channel forgets all that is before this.
    """

    channel: str
    at: int
    event: str | None
    data: bytes
    tags: dict[str, str] | None = None
    purged: bool = False

    def publication(self, offset: int, previous: int, at: int) -> Publication:
        """The publication at a place."""
        return Publication(offset, previous, at, self.event, self.data, self.tags)


encode_body = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Body).decode


def decode_body(data: bytes) -> Body | None:
    """What is in a message; None if it is nothing that we wrote."""
    try:
        body = _decode(data)
        if not body.purged:
            msgspec.json.decode(body.data, type=msgspec.Raw)  # subscribers get it as it is
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return body


def decode_stored(data: bytes, subject: str) -> Body | None:
    """What is in a message of a stream; None also if it is another channel's."""
    body = decode_body(data)
    return None if body is None or token(body.channel) != subject.rpartition(".")[2] else body


def field(headers: bytes, name: bytes) -> bytes:
    """The value of a header; empty without one. The server's own are the last of their name."""
    start = headers.rfind(b"\r\n" + name + b": ")
    if start < 0:
        return b""
    start += len(name) + 4
    return headers[start : headers.find(b"\r\n", start)]


def milliseconds(time: str) -> int:
    """Since 1970, of a time as NATS writes it: `2026-01-31T12:00:00.123456789Z`."""
    return int(datetime.fromisoformat(time).timestamp() * 1000)
