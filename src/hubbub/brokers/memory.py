"""The broker of a hub that is alone: everything is in this process."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from hubbub.contracts import BrokerReceiver
from hubbub.core.namespaces import Namespace
from hubbub.core.recovery import Memory, Past, Position, Publication

__all__ = ["MemoryBroker"]

MOST_SKIPPED = 1000


class MemoryBroker:
    """Remembers in memory; what it knew is gone with the process, and its next life has another epoch.

    Args:
        skip: leave out offsets by chance, so that nobody learns to count on the next one (for tests).
    """

    def __init__(self, *, skip: bool = False) -> None:
        step = (lambda: 1 + secrets.randbelow(MOST_SKIPPED)) if skip else (lambda: 1)
        self.memory = Memory(secrets.token_hex(4), step=step)
        self._receiver: BrokerReceiver

    def listen(self, receiver: BrokerReceiver) -> None:
        """Tell this receiver."""
        self._receiver = receiver

    async def open(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to let go of."""

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
        memory = self.memory
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

    async def subscribe(self, channel: str) -> None:
        """Everything is told anyway."""

    async def unsubscribe(self, channel: str) -> None:
        """Everything is told anyway."""

    async def past(self, namespace: Namespace, channel: str, since: Position | None, limit: int, now: int) -> Past:
        """What a channel remembers."""
        return self.memory.past(channel, since, limit, now)

    async def purge(self, channel: str) -> None:
        """Forget a channel's history."""
        self.memory.purge(channel)

    async def flush(self) -> None:
        """Forget everything, as a broker does that lost its data."""
        self.memory.flush(secrets.token_hex(4))

    def sweep(self, now: int) -> None:
        """Forget what has expired."""
        self.memory.sweep(now)
