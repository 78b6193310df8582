"""What an application puts into its own transaction, to be sent when that is committed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from hubbub.core.channels import check_name
from hubbub.core.envelope import encode_payload
from hubbub.core.identity import check_user_id
from hubbub.core.labels import check_event, check_key, check_tags, check_text
from hubbub.errors import UsageError

__all__ = ["COLUMNS", "Counts", "Entry", "Item", "Outcome", "Refusal", "message", "publication"]

LONGEST_NAME = 255
LARGEST = 1 << 20
"""Bytes of one message: its relay has some hundred of them in memory."""
COLUMNS = ("kind", "target", "event", "data", "key", "tags", "ttl", "durable")
"""The columns that whoever inserts gives; the others have defaults."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to send; the fields are columns of the outbox.

    Args:
        kind: publish on a channel, or send to a user.
        target: which channel or user.
        event: the publication's event, or the message's type.
        data: JSON; None for a message without a payload.
        key: the application's name for it.
        tags: the publication's, as JSON.
        ttl: seconds for which a durable message is worth reading.
        durable: whether a message waits in the user's inbox.
    """

    kind: Literal["publish", "send"]
    target: str
    event: str | None
    data: str | None
    key: str | None = None
    tags: str | None = None
    ttl: float | None = None
    durable: bool = True


@dataclass(frozen=True, slots=True)
class Entry:
    """An item in the outbox.

    Args:
        id: its number; they grow along a target in the order of the commits.
        created_at: when it was put there, milliseconds since 1970.
        tries: how often the hub has refused it.
        item: what is to be sent.
    """

    id: int
    created_at: int
    tries: int
    item: Item

    @property
    def line(self) -> str:
        """Those with one line are sent one after the other."""
        return f"{self.item.kind} {self.item.target}"

    @property
    def key(self) -> str:
        """What tells it from all others, also from one of the same number in another outbox."""
        return self.item.key or f"outbox:{self.id}:{self.created_at}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An entry that the hub has refused: how often by now, why, and whether it is set aside."""

    id: int
    tries: int
    error: str
    final: bool


@dataclass(slots=True)
class Outcome:
    """What became of some entries: the numbers of those that were sent, and what was refused."""

    sent: list[int] = field(default_factory=list)
    refused: Sequence[Refusal] = ()


@dataclass(frozen=True, slots=True)
class Counts:
    """How many entries of an outbox wait, and how many are set aside."""

    waiting: int
    failed: int


def publication(
    channel: str, event: str | None, data: Any, key: str | None = None, tags: Mapping[str, str] | None = None
) -> Item:
    """What `Hub.publish` is to do later.

    Raises:
        RequestError: `bad_channel`.
        UsageError: an event, a key or tags that cannot be, or too large.
        TypeError: the data has no JSON form.
    """
    check_name(channel, LONGEST_NAME)
    labels = None if tags is None else msgspec.json.encode(check_tags(tags)).decode()
    return _checked(Item("publish", channel, check_event(event), _json(data) or "null", key, labels))


def message(
    user_id: str, type: str, payload: Any, durable: bool = True, key: str | None = None, ttl: float | None = None
) -> Item:
    """What `Hub.send_to_user` is to do later.

    Raises:
        RequestError: `invalid_payload`: not a user's id.
        UsageError: a type, key or ttl that cannot be, or too large.
        TypeError: the payload has no JSON form.
    """
    if not durable and (key is not None or ttl is not None):
        raise UsageError("key and ttl are for durable=True: nothing else is kept.")
    if ttl is not None and not ttl >= 0:
        raise UsageError(f"ttl={ttl!r} is not allowed: give seconds, 0 or more.")
    user_id, type = check_user_id(user_id), check_text(type, "A message's type")
    return _checked(Item("send", user_id, type, _json(payload), key, None, ttl, durable))


def _json(value: Any) -> str | None:
    return encode_payload(value).decode() or None


def _checked(item: Item) -> Item:
    """Refuse what no database could keep or no hub could send, while the caller can still do something about it."""
    if item.key is not None:
        check_key(item.key)
    name = item.event or ""
    if "\0" in name or any("\ud800" <= letter <= "\udfff" for letter in name):
        raise UsageError(f"{name!r} cannot be the name of an event or the type of a message.")
    if len(name) + len((item.data or "").encode()) > LARGEST:
        raise UsageError(f"A message in the outbox has at most {LARGEST} bytes.")
    return item
