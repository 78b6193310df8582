"""Presence by node: each node answers for its own connections, tells the others what changes, and they believe it for
as long as they hear of it.

Rules of this file:
1. A node is one life of one process, by an id that no other life has. Only it changes what it answers for.
2. Its deltas are numbered from 1. One that is not the next is not applied: ask for a snapshot, which has the number of
   the last delta in it. What is older than what is known changes nothing. Nobody gives a node its own.
3. A node that is not heard of for the time to live takes all that it answers for away, once; heard of again, it is new.
4. What this node answers for is known to its subscriptions. It is not kept here as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec

from hubbub.core.presence import Entry, Rosters

__all__ = ["Change", "Delta", "Leases", "Own", "Snapshot"]


class Change(msgspec.Struct, frozen=True, array_like=True):
    """One connection's entry in one channel, None for no more."""

    channel: str
    connection_id: str
    entry: Entry | None = None


class Delta(msgspec.Struct, frozen=True, tag=True, tag_field="say", array_like=True):
    """What has changed on a node; its number is one above the last one's."""

    node: str
    number: int
    changes: list[Change]


class Snapshot(msgspec.Struct, frozen=True, tag=True, tag_field="say", array_like=True):
    """All that a node answers for, up to the delta of this number."""

    node: str
    version: int
    channels: dict[str, list[Entry]]


class Own(Protocol):
    """What this node answers for."""

    def __iter__(self) -> Iterator[str]:
        """The channels."""

    def entries(self, channel: str) -> Iterable[Entry]:
        """The connections in one."""


class Lease:
    """What another node answers for.

    Attributes:
        version: the number of its last delta in here.
        until: how long to believe it.
        channels: its entries by channel and connection.
    """

    __slots__ = ("channels", "until", "version")

    def __init__(self, version: int, until: float) -> None:
        self.version = version
        self.until = until
        self.channels: dict[str, dict[str, Entry]] = {}

    def put(self, channel: str, connection_id: str, entry: Entry | None) -> Entry | None:
        """Set an entry, or with None take it out; the one before."""
        entries = self.channels.get(channel, {})
        before = entries.get(connection_id)
        if entry is not None:
            self.channels.setdefault(channel, entries)[connection_id] = entry
        elif before is not None:
            del entries[connection_id]
            if not entries:
                del self.channels[channel]
        return before

    def all(self) -> Iterator[tuple[str, str]]:
        """Every channel and connection."""
        return ((channel, id) for channel, entries in self.channels.items() for id in entries)


class Leases:
    """What all nodes answer for, merged into one roster for each channel.

    Args:
        node: the id of this one.
        ttl: seconds for which another one is believed that is not heard of.
        own: what this node answers for.
        shared: whether there are other nodes, which want deltas; else none are kept.

    Attributes:
        version: the number of this node's last delta.
    """

    def __init__(self, node: str, ttl: float, own: Own, *, shared: bool = False) -> None:
        self.node = node
        self.version = 0
        self.rosters = Rosters(self.entries)
        self._ttl = ttl
        self._shared = shared
        self._own = own
        self._changed: dict[tuple[str, str], Entry | None] = {}
        self._others: dict[str, Lease] = {}

    # What this node answers for

    def change(self, channel: str, connection_id: str, before: Entry | None, after: Entry | None) -> None:
        """Take note that a connection's entry is another one now, or with None that it has none."""
        if self._shared:
            self._changed[channel, connection_id] = after
        if before != after:
            self.rosters.change(channel, before, after)

    def take_delta(self) -> Delta | None:
        """What has changed here since the last delta, None if nothing has."""
        if not self._changed:
            return None
        changed, self._changed = self._changed, {}
        self.version += 1
        changes = [Change(channel, id, entry) for (channel, id), entry in changed.items()]
        return Delta(self.node, self.version, changes)

    def snapshot(self) -> Snapshot:
        """All that this node answers for, up to its last delta; what has changed since is in it and in the next one."""
        return Snapshot(self.node, self.version, {channel: list(self._own.entries(channel)) for channel in self._own})

    # What others do

    def apply_delta(self, delta: Delta, now: float) -> bool:
        """Take another node's changes; False where some before them are missing: ask it for a snapshot."""
        lease = self._hear(delta.node, now)
        if lease is None or delta.number > lease.version + 1:
            return False
        if delta.number == lease.version + 1:
            lease.version = delta.number
            for change in delta.changes:
                self._put(lease, change.channel, change.connection_id, change.entry)
        return True

    def apply_snapshot(self, snapshot: Snapshot, now: float) -> None:
        """Take all that another node answers for, in place of what was known of it."""
        lease = self._hear(snapshot.node, now)
        if lease is None:
            lease = self._others[snapshot.node] = Lease(snapshot.version, now + self._ttl)
        elif snapshot.version < lease.version:
            return
        lease.version = snapshot.version
        new = {
            (channel, entry.connection_id): entry for channel, entries in snapshot.channels.items() for entry in entries
        }
        for channel, id in [place for place in lease.all() if place not in new]:
            self._put(lease, channel, id, None)
        for (channel, id), entry in new.items():
            self._put(lease, channel, id, entry)

    def heard(self, node: str, version: int, now: float) -> bool:
        """Learn that another node lives, and its last delta's number; False: some are missing, ask for a snapshot."""
        lease = self._hear(node, now)
        if lease is None:
            self._others[node] = Lease(0, now + self._ttl)  # if it says no more than that, it is missed all the same
            return False
        return lease.version >= version

    def expire(self, now: float) -> list[str]:
        """Take away what nodes answer for that were not heard of; which they were."""
        dead = [node for node, lease in self._others.items() if lease.until <= now]
        for node in dead:
            self.forget(node)
        return dead

    def forgive(self, seconds: float) -> None:
        """Believe all others for longer: for that time nobody here could hear them."""
        for lease in self._others.values():
            lease.until += seconds

    def forget(self, node: str) -> None:
        """Take away what another node answers for, now: it said goodbye."""
        lease = self._others.get(node)
        if lease is not None:
            for channel, id in list(lease.all()):
                self._put(lease, channel, id, None)
            del self._others[node]

    def entries(self, channel: str) -> Iterator[Entry]:
        """The connections in a channel, on all nodes."""
        yield from self._own.entries(channel)
        for lease in self._others.values():
            yield from lease.channels.get(channel, {}).values()

    # Inside

    def _hear(self, node: str, now: float) -> Lease | None:
        lease = self._others.get(node)
        if lease is not None:
            lease.until = now + self._ttl
        return lease

    def _put(self, lease: Lease, channel: str, connection_id: str, entry: Entry | None) -> None:
        before = lease.put(channel, connection_id, entry)
        if before != entry:
            self.rosters.change(channel, before, entry)
