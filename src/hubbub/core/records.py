"""What a store keeps besides inboxes: the journal of channels, archived publications and revoked tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hubbub.core.recovery import Publication

__all__ = ["Journal", "Kept", "Record", "Revocation"]


@dataclass(frozen=True, slots=True)
class Journal:
    """The state of a journal: the windows of all channels whose history outlives the process that has it.

    Args:
        epoch: the name of its life.
        head: the last offset that was kept.
        watermark: see `core.recovery`.
        owner: the process that has it.
        until: when it may be taken from that one, milliseconds since 1970.
    """

    epoch: str
    head: int
    watermark: int
    owner: str
    until: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A publication in the journal; no two have one offset.

    Args:
        channel: the channel's name.
        publication: what was published.
        ttl: milliseconds for which the channel remembers it.
        key: publisher and the publisher's name for it, if it was given one.
        archive: whether it must not go before it is in the archive.
        gone: whether its channel has forgotten it, and it is only here for its key or the archive.
    """

    channel: str
    publication: Publication
    ttl: int
    key: str | None = None
    archive: bool = False
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """A publication in the archive, unique by channel, epoch and offset.

    Args:
        channel: the channel's name.
        epoch: which life of the channel.
        offset: its place in that life; growing, not dense.
        event: its name, if it has one.
        data: JSON.
        published_at: milliseconds since 1970; never goes back along a channel.
        tags: what else its publisher said of it.
    """

    channel: str
    epoch: str
    offset: int
    event: str | None
    data: bytes
    published_at: int
    tags: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Revocation:
    """A token, or all tokens of a user up to a moment, that count no more.

    Args:
        subject: `jti:` and a token's id, or `user:` and a user's.
        at: when; a user's later tokens are good.
        until: when every token it means has expired, milliseconds since 1970.
    """

    subject: str
    at: int
    until: int
