"""Who is in a channel: connections in, members out, and what has changed since the subscribers were last told.

Rules of this file:
1. A member is a user with all its connections, or one anonymous connection. Its state is the last one that any of its
   connections set and still holds.
2. What changes between two tellings is told once, as the difference: who came and went in between is not told.
3. But whoever was shown the list in between may know of a member what nobody else was told: what became of it is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import msgspec

__all__ = ["Changes", "Entry", "Member", "Roster", "Rosters"]


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One connection in one channel.

    Args:
        connection_id: which.
        user_id: whose, None while anonymous.
        state: the JSON it has set, None for nothing.
        set_at: when, milliseconds since 1970.
    """

    connection_id: str
    user_id: str | None = None
    state: bytes | None = None
    set_at: int = 0

    @property
    def key(self) -> str:
        """Which member it belongs to."""
        return f"connection:{self.connection_id}" if self.user_id is None else f"user:{self.user_id}"


class Member(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename="camel"):
    """Somebody who is in a channel, as clients see it; one who left has neither connections nor a state.

    Args:
        user_id: the user.
        connection_id: in place of it, where nobody has signed in.
        connections: how many.
        state: JSON.
    """

    user_id: str | None = None
    connection_id: str | None = None
    connections: int = 0
    state: msgspec.Raw | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be told.

    Args:
        left: members that are gone.
        updated: members that have another state or number of connections.
        joined: members that are new.
    """

    left: list[Member]
    updated: list[Member]
    joined: list[Member]


class _Touched(NamedTuple):
    """A member that has changed: in which turn, what was told of it, and whether something else was shown since."""

    turn: int
    told: Member | None
    shown: bool


class Roster:
    """The members of one channel, oldest first."""

    __slots__ = ("_listed", "_listing", "_shown", "_stated", "_touched", "_turn", "members")

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self._stated: dict[str, tuple[Entry, ...]] = {}
        self._touched: dict[str, _Touched] = {}
        self._turn = 0  # the number of changes
        self._shown = 0  # how many there were at the last showing
        self._listing: bytes | None = None
        self._listed: frozenset[str] = frozenset()

    @property
    def settled(self) -> bool:
        """Whether there is nothing to tell."""
        return not self._touched

    def change(self, before: Entry | None, after: Entry | None) -> None:
        """Put one connection's entry in another's place; None for the one that was not there, or is not any more."""
        if before is not None and after is not None and before.key == after.key:
            self._shift(before.key, before, after)
            return
        for entry, one in ((before, (before, None)), (after, (None, after))):
            if entry is not None:
                self._shift(entry.key, *one)

    def show(self) -> None:
        """Take note that somebody is shown the members as they are now."""
        self._shown = self._turn

    def listing(self, most: int) -> bytes:
        """The JSON of the oldest `most` members; until the next telling it is made once, as long as it stays the same.

        So a storm of subscriptions to a big channel does not make the same list again and again.
        """
        if self._listing is None or len(self._listed) > most or len(self._listed) < min(most, len(self.members)):
            self._listed = frozenset(islice(self.members, most))
            self._listing = msgspec.json.encode(list(islice(self.members.values(), most)))
        listing = self._listing
        if self.settled:
            self._forget()
        return listing

    def tell(self) -> Changes:
        """What has changed since the last time."""
        changes = Changes([], [], [])
        for key, (_, told, shown) in self._touched.items():
            member = self.members.get(key)
            if member == told and not shown:
                continue
            if member is None:
                changes.left.append(_gone(key))
            else:
                (changes.joined if told is None else changes.updated).append(member)
        self._touched.clear()
        self._forget()
        return changes

    def _shift(self, key: str, before: Entry | None, after: Entry | None) -> None:
        member = self.members.get(key)
        turn, told, shown = self._touched.get(key, (self._turn + 1, member, False))
        shown = shown or (turn <= self._shown and member != told)
        self._turn += 1
        self._touched[key] = _Touched(self._turn, told, shown)
        if key in self._listed:
            self._listing = None
        gone = None if before is None else before.connection_id
        stated = tuple(entry for entry in self._stated.pop(key, ()) if entry.connection_id != gone)
        if after is not None and after.state is not None:
            stated = (*stated, after)
        if stated:
            self._stated[key] = stated
        connections = (0 if member is None else member.connections) + (after is not None) - (before is not None)
        if connections:
            self.members[key] = _member(key, connections, stated)
        else:
            del self.members[key]

    def _forget(self) -> None:
        self._listing, self._listed = None, frozenset()


class Rosters:
    """The members of all channels that have any, or had until the last telling."""

    def __init__(self) -> None:
        self._by_channel: dict[str, Roster] = {}
        self._changed: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._by_channel)

    def get(self, channel: str) -> Roster | None:
        """The members of one channel, if there are any."""
        return self._by_channel.get(channel)

    def change(self, channel: str, before: Entry | None, after: Entry | None) -> None:
        """See `Roster.change`."""
        roster = self._by_channel.get(channel)
        if roster is None:
            roster = self._by_channel[channel] = Roster()
        roster.change(before, after)
        self._changed[channel] = None

    def take_changed(self) -> Iterable[str]:
        """The channels where something is to be told, each once; tell them."""
        changed, self._changed = self._changed, {}
        return changed

    def tell(self, channel: str) -> Changes:
        """See `Roster.tell`; a channel without members is forgotten."""
        roster = self._by_channel.get(channel)
        if roster is None:
            return Changes([], [], [])
        if not roster.members:
            del self._by_channel[channel]
        return roster.tell()


def _member(key: str, connections: int, stated: tuple[Entry, ...]) -> Member:
    kind, _, id = key.partition(":")
    last = max(stated, key=_set_at, default=None)
    state = None if last is None or last.state is None else msgspec.Raw(last.state)
    return Member(id, None, connections, state) if kind == "user" else Member(None, id, connections, state)


def _gone(key: str) -> Member:
    return _member(key, 0, ())


def _set_at(entry: Entry) -> tuple[int, str]:
    return entry.set_at, entry.connection_id
