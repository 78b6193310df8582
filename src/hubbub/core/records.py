"""What a store keeps besides inboxes: archived publications and revoked tokens."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Record", "Revocation"]


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
    """

    channel: str
    epoch: str
    offset: int
    event: str | None
    data: bytes
    published_at: int


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
