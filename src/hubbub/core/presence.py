"""Who is in a channel: connections in, members out, and what has changed since the subscribers were last told.

Rules of this file:
1. A member is a user with all its connections, or one anonymous connection. Its state is the last one that any of its
   connections set and still holds.
2. What changes between two tellings is told once, as the difference: who came and went in between is not told.
3. But whoever was shown the list in between may know of a member what nobody else was told: what became of it is told.
4. Where all is told of a few connections, nothing of them is kept: their roster is made again when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import msgspec

__all__ = ["Changes", "Entry", "Key", "Member", "Roster", "Rosters"]

Key = tuple[str | None, str | None]
"""Which member: its user's id, or else its connection's."""
FEW = 4  # connections, of which a roster is soon made


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
    def key(self) -> Key:
        """Which member it belongs to."""
        return (None, self.connection_id) if self.user_id is None else (self.user_id, None)


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
        count: how many there are now.
    """

    left: list[Member]
    updated: list[Member]
    joined: list[Member]
    count: int = 0


class _Touched(NamedTuple):
    """A member that has changed: in which turn, what was told of it, and whether something else was shown since."""

    turn: int
    told: Member | None
    shown: bool


class Roster:
    """The members of one channel: users, oldest first, then anonymous connections.

    Of most it keeps how many connections they have, and makes a `Member` when one is asked for.

    Args:
        entries: the connections that are there, of whom all is told.
    """

    __slots__ = ("_listed", "_listing", "_newcomer", "_shown", "_stated", "_strangers", "_touched", "_turn", "_users")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._users: dict[str, int] = {}
        self._strangers: dict[str, int] = {}
        self._stated: dict[Key, tuple[Entry, ...]] = {}
        self._touched: dict[Key, _Touched] = {}
        self._turn = 0  # the number of changes
        self._shown = 0  # how many there were at the last showing
        self._newcomer = (0, "")  # how many, and who, when the last that came was shown itself
        self._listing: bytes | None = None
        self._listed: frozenset[Key] = frozenset()
        for entry in entries:
            ids, id = self._place(entry.key)
            ids[id] = ids.get(id, 0) + 1
            if entry.state is not None:
                self._stated[entry.key] = (*self._stated.get(entry.key, ()), entry)

    def __len__(self) -> int:
        return len(self._users) + len(self._strangers)

    def __iter__(self) -> Iterator[Key]:
        yield from ((user_id, None) for user_id in self._users)
        yield from ((None, connection_id) for connection_id in self._strangers)

    def get(self, key: Key) -> Member | None:
        """A member, if it is there."""
        ids, id = self._place(key)
        connections = ids.get(id, 0)
        return _member(key, connections, self._stated.get(key, ())) if connections else None

    def members(self, most: int | None = None) -> list[Member]:
        """All members, or the first so many."""
        return [member for key in islice(self, most) if (member := self.get(key)) is not None]

    @property
    def settled(self) -> bool:
        """Whether there is nothing to tell."""
        return not self._touched

    @property
    def few(self) -> bool:
        """Whether these are few connections."""
        return len(self) <= FEW and sum(self._users.values()) + len(self._strangers) <= FEW

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

    def show_itself(self, connection_id: str) -> None:
        """Take note that the connection that came last is shown itself; nobody else is."""
        self._newcomer = (self._turn, connection_id)

    def listing(self, most: int) -> bytes:
        """The JSON of the first `most` members; until the next telling it is made once, as long as it stays the same.

        So a storm of subscriptions to a big channel does not make the same list again and again. That of a few is
        soon made, and not kept.
        """
        if len(self) <= FEW:
            return msgspec.json.encode(self.members(most))
        if self._listing is None or len(self._listed) > most or len(self._listed) < min(most, len(self)):
            self._listed = frozenset(islice(self, most))
            self._listing = msgspec.json.encode(self.members(most))
        listing = self._listing
        if self.settled:
            self._forget()
        return listing

    def tell(self) -> Changes:
        """What has changed since the last time."""
        changes = Changes([], [], [], len(self))
        for key, (_, told, shown) in self._touched.items():
            member = self.get(key)
            if member == told and not shown:
                continue
            if member is None:
                changes.left.append(Member(*key))
            else:
                (changes.joined if told is None else changes.updated).append(member)
        self._touched.clear()
        self._forget()
        return changes

    def _shift(self, key: Key, before: Entry | None, after: Entry | None) -> None:
        member = self.get(key)
        turn, told, shown = self._touched.get(key, (self._turn + 1, member, False))
        gone = None if before is None else before.connection_id
        at, newcomer = self._newcomer
        seen = turn <= self._shown or (turn == at and gone != newcomer)
        shown = shown or (seen and member != told)
        self._turn += 1
        self._touched[key] = _Touched(self._turn, told, shown)
        if key in self._listed:
            self._listing = None
        stated = tuple(entry for entry in self._stated.pop(key, ()) if entry.connection_id != gone)
        if after is not None and after.state is not None:
            stated = (*stated, after)
        if stated:
            self._stated[key] = stated
        ids, id = self._place(key)
        connections = (0 if member is None else member.connections) + (after is not None) - (before is not None)
        if connections:
            ids[id] = connections
        else:
            del ids[id]

    def _place(self, key: Key) -> tuple[dict[str, int], str]:
        user_id, connection_id = key
        if user_id is not None:
            return self._users, user_id
        assert connection_id is not None
        return self._strangers, connection_id

    def _forget(self) -> None:
        self._listing, self._listed = None, frozenset()


class Rosters:
    """The members of all channels; kept are those of many connections, and of whom something is to be told.

    Args:
        entries: gives the connections in a channel.
    """

    def __init__(self, entries: Callable[[str], Iterable[Entry]]) -> None:
        self._entries = entries
        self._by_channel: dict[str, Roster] = {}
        self._changed: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._by_channel)

    def get(self, channel: str) -> Roster:
        """The members of one channel."""
        roster = self._by_channel.get(channel)
        return Roster(self._entries(channel)) if roster is None else roster

    def change(self, channel: str, before: Entry | None, after: Entry | None) -> None:
        """See `Roster.change`; the channel's connections have changed already, and these are all else that did."""
        roster = self._by_channel.get(channel)
        if roster is None:
            roster = self._by_channel[channel] = Roster(self._before(channel, before, after))
        roster.change(before, after)
        self._changed[channel] = None

    def take_changed(self) -> Iterable[str]:
        """The channels where something is to be told, each once; tell them."""
        changed, self._changed = self._changed, {}
        return changed

    def tell(self, channel: str) -> Changes:
        """See `Roster.tell`."""
        roster = self._by_channel.get(channel)
        if roster is None:
            return Changes([], [], [])
        if roster.few:
            del self._by_channel[channel]
        return roster.tell()

    def _before(self, channel: str, before: Entry | None, after: Entry | None) -> Iterator[Entry]:
        """The connections in a channel as they were, when one of them had another entry, or none."""
        for entry in self._entries(channel):
            if after is None or entry.connection_id != after.connection_id:
                yield entry
            elif before is not None:
                yield before
        if after is None and before is not None:
            yield before


def _member(key: Key, connections: int, stated: tuple[Entry, ...]) -> Member:
    if not stated:
        return Member(*key, connections)
    last = max(stated, key=_set_at)
    return Member(*key, connections, None if last.state is None else msgspec.Raw(last.state))


def _set_at(entry: Entry) -> tuple[int, str]:
    return entry.set_at, entry.connection_id
