"""A message's document in MongoDB, from the draft to what stands where nothing is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bson import ObjectId

from hubbub.core.inbox import FORGET_KEY, Draft, Entry

__all__ = ["BURIED", "Document", "Row", "entry", "readable", "tombstone"]

Document = dict[str, Any]

BURIED = {"$set": {"gone": True, "claimed": True, "payload": b""}}
"""The update that leaves a tombstone of a message."""


@dataclass(slots=True)
class Row:
    """A draft, and what became of it so far; cursor 0 is none yet."""

    draft: Draft
    id: ObjectId = field(default_factory=ObjectId)
    cursor: int = 0
    fresh: bool = True

    @property
    def user(self) -> str:
        """Whose inbox."""
        return self.draft.user_id

    @property
    def key(self) -> str | ObjectId:
        """The sender's name for it, else its own id, which no sender can name."""
        return self.id if self.draft.key is None else self.draft.key

    def document(self) -> Document:
        """What is inserted."""
        draft = self.draft
        return {
            "_id": self.id,
            "user": draft.user_id,
            "cursor": self.cursor,
            "key": self.key,
            "held": draft.key is not None,
            "forget_at": draft.sent_at + FORGET_KEY,
            "type": draft.type,
            "payload": draft.payload,
            "sent_at": draft.sent_at,
            "expires_at": draft.expires_at,
            "gone": False,
            "claimed": False,
        }


def tombstone(user: str, cursor: int, now: int, *, held: bool) -> Document:
    """What stands at a cursor without a message; if `held`, under the floor as well, until a key would be forgotten."""
    stone = Row(Draft(user, "", b"", now, now), cursor=cursor).document()
    return {**stone, "held": held, "gone": True, "claimed": True}


def readable(document: Document, now: int) -> bool:
    """Whether it is a message that has not expired."""
    return not document["gone"] and document["expires_at"] > now


def entry(document: Document) -> Entry:
    """The message in it; its numbers plain ones, not the driver's 64-bit class."""
    return Entry(int(document["cursor"]), document["type"], document["payload"], int(document["sent_at"]))
