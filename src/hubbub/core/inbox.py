"""What an inbox is made of: messages for one user, numbered by a cursor, kept until they are acked."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FORGET_DEVICE", "FORGET_KEY", "MOST_DEVICES", "Ack", "Draft", "Entry", "Page", "Standing", "Stored", "full"]

DAY = 24 * 60 * 60 * 1000
FORGET_DEVICE = 30 * DAY
"""Milliseconds after which a device that never came back no longer keeps messages alive."""
MOST_DEVICES = 100
"""Devices of one user; beyond it the one that was not seen for longest is forgotten."""
FORGET_KEY = DAY
"""Milliseconds for which an idempotency key is known, also when its message was acked."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A message on its way into an inbox.

    Args:
        user_id: whose inbox.
        type: the message's type.
        payload: JSON; empty where there is none.
        sent_at: milliseconds since 1970.
        expires_at: when it is no longer worth reading, milliseconds since 1970.
        key: the sender's name for it: a second draft with it, for the same user, is the same message.
    """

    user_id: str
    type: str
    payload: bytes
    sent_at: int
    expires_at: int
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A message in an inbox.

    Args:
        cursor: its place: 1 or more, growing within one inbox; the next one is mostly but not always one more.
        type: the message's type.
        payload: JSON; empty where there is none.
        sent_at: milliseconds since 1970.
    """

    cursor: int
    type: str
    payload: bytes
    sent_at: int


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a draft.

    Args:
        cursor: the message's place, the first one's for a key that was known.
        fresh: False if the key was known: nothing was added.
        dropped: how many of the oldest messages went to make room for it.
    """

    cursor: int
    fresh: bool = True
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """Some messages of an inbox.

    Args:
        entries: by cursor.
        whole: False if they end before a message that is still being written: ask again in a moment.
    """

    entries: list[Entry]
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Ack:
    """One device has everything up to a cursor; `device` is "" where devices are not told apart."""

    user_id: str
    device: str
    cursor: int


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one device stands in its user's inbox.

    Args:
        acked: the last cursor it acked, or from which it starts.
        pending: messages it has not acked, expired ones not counted.
        dropped: messages that went unread because of the cap, since the last ack.
    """

    acked: int
    pending: int
    dropped: int


def full(head: int, floor: int, cap: int) -> bool:
    """Whether it is time to bring an inbox back to its cap: a sixteenth above, so that few messages pay for it.

    Args:
        head: the last cursor given.
        floor: the last cursor below which nothing is left.
        cap: how many messages it may hold.
    """
    return head - floor > cap + cap // 16
