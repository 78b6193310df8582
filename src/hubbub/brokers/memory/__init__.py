"""The broker of a hub that is alone: everything is in this process, durable channels in its database as well."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from time import monotonic

from hubbub.brokers.memory.journal import Journal
from hubbub.contracts import BrokerReceiver, Ledger
from hubbub.core.claims import Claims
from hubbub.core.namespaces import Namespace
from hubbub.core.records import Record
from hubbub.core.recovery import Memory, Past, Position, Publication

__all__ = ["MemoryBroker"]

MOST_SKIPPED = 1000


class MemoryBroker:
    """Remembers in memory; what it knew is gone with the process, and its next life has another epoch.

    Durable channels have an epoch and a counter of their own, which live on in the database.

    Args:
        ledger: the database of durable channels; without one there are none.
        skip: leave out offsets by chance, so that nobody learns to count on the next one (for tests).
    """

    place = "this process"
    shared = False

    def __init__(self, ledger: Ledger | None = None, *, skip: bool = False) -> None:
        step = (lambda: 1 + secrets.randbelow(MOST_SKIPPED)) if skip else (lambda: 1)
        self.memory = Memory(secrets.token_hex(4), step=step)
        self.journal = None if ledger is None else Journal(ledger, step)
        self._receiver: BrokerReceiver
        self._claims = Claims()

    @property
    def healthy(self) -> bool:
        """It is in this process."""
        return True

    def listen(self, receiver: BrokerReceiver) -> None:
        """Tell this receiver."""
        self._receiver = receiver
        if self.journal is not None:
            self.journal.listen(receiver)

    async def open(self, namespaces: Iterable[Namespace]) -> None:
        """Read what the database has of durable channels."""
        if self.journal is not None:
            await self.journal.open(namespaces)

    async def close(self) -> None:
        """Leave the database."""
        if self.journal is not None:
            await self.journal.close()

    async def publish(
        self,
        namespace: Namespace,
        channel: str,
        event: str | None,
        data: bytes,
        *,
        idempotency: str | None,
        tags: Mapping[str, str] | None,
        now: int,
    ) -> Position:
        """Remember and tell."""
        memory, journal = self.memory, self.journal
        if namespace.history and journal is not None and journal.keeps(namespace):
            return await journal.publish(namespace, channel, event, data, key=idempotency, tags=tags, now=now)
        if idempotency is not None:
            known = memory.known(channel, idempotency, now)
            if known is not None:
                return Position(known, memory.epoch)
        if not namespace.remembers:
            if idempotency is not None:
                memory.note_key(channel, idempotency, 0, now)
            self._receiver.published(channel, Publication(0, 0, now, event, data, tags))
            return Position(0, memory.epoch)
        publication = memory.publish(
            channel,
            event,
            data,
            now,
            size=namespace.history,
            ttl=namespace.history_ttl,
            idempotency=idempotency,
            tags=tags,
        )
        self._receiver.published(channel, publication)
        return Position(publication.offset, memory.epoch)

    async def subscribe(self, namespace: Namespace, channel: str) -> None:
        """Everything is told anyway."""

    async def unsubscribe(self, channel: str) -> None:
        """Everything is told anyway."""

    async def past(self, namespace: Namespace, channel: str, since: Position | None, limit: int, now: int) -> Past:
        """What a channel remembers."""
        if self.journal is not None and self.journal.keeps(namespace):
            return await self.journal.past(channel, since, limit, now)
        return self.memory.past(channel, since, limit, now)

    def position(self, namespace: Namespace, channel: str) -> Position | None:
        """Where a channel stands: everything is told at once."""
        if not namespace.remembers:
            return None
        journal = self.journal
        memory = journal.memory if journal is not None and journal.keeps(namespace) else self.memory
        return memory.past(channel, None, 0, 0).head

    async def purge(self, channel: str) -> None:
        """Forget a channel's history."""
        if self.journal is None or not await self.journal.purge(channel):
            self.memory.purge(channel)

    async def unarchived(self, position: str | None, limit: int) -> tuple[list[Record], str | None]:
        """What the archive does not have yet."""
        return ([], position) if self.journal is None else await self.journal.unarchived(position, limit)

    async def follow(self, topic: str) -> None:
        """Nobody else is there."""

    async def unfollow(self, topic: str) -> None:
        """Nobody else is there."""

    async def tell(self, topic: str, data: bytes) -> int:
        """Nobody else is there."""
        return 0

    async def claim(self, name: str, owner: str, ttl: float) -> bool:
        """Have a name for a time."""
        now = monotonic()
        return self._claims.claim(name, owner, now, now + ttl)

    async def flush(self) -> None:
        """Forget everything in memory, as a broker does that lost its data."""
        self.memory.flush(secrets.token_hex(4))

    def sweep(self, now: int) -> None:
        """Forget what has expired."""
        self.memory.sweep(now)
        if self.journal is not None:
            self.journal.sweep(now)
