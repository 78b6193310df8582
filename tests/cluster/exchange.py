"""A broker for several hubs in one process: the contract and nothing else, and links that can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from hubbub.brokers.memory import MemoryBroker
from hubbub.contracts import BrokerReceiver
from hubbub.core.namespaces import Namespace
from hubbub.core.records import Record
from hubbub.core.recovery import Past, Position, Publication
from hubbub.errors import StoreUnavailable

__all__ = ["Exchange", "LinkedBroker"]


class Exchange:
    """What the brokers of several nodes share: one memory, and who follows what."""

    def __init__(self) -> None:
        self.core = MemoryBroker()
        self.core.listen(self)
        self.linked: list[LinkedBroker] = []

    def published(self, channel: str, publication: Publication) -> None:
        """Tell every node that is subscribed."""
        for broker in self.linked:
            if not broker.cut and channel in broker.subscribed:
                broker.receiver.published(channel, publication)

    def broken(self, channel: str) -> None:
        """Nothing breaks in memory."""

    def told(self, topic: str, data: bytes) -> None:
        """Nobody tells the memory anything."""

    def resumed(self) -> None:
        """It is always there."""


class LinkedBroker:
    """One node's link to an exchange.

    Attributes:
        cut: whether nothing gets through.
        said: how often something was said.
    """

    place = "an exchange in memory"
    shared = True

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.cut = False
        self.said = 0
        self.subscribed: set[str] = set()
        self.followed: set[str] = set()
        self.receiver: BrokerReceiver
        exchange.linked.append(self)

    @property
    def healthy(self) -> bool:
        """Whether it is not cut."""
        return not self.cut

    def listen(self, receiver: BrokerReceiver) -> None:
        """Tell this receiver."""
        self.receiver = receiver

    async def open(self, namespaces: object) -> None:
        """It is open."""

    async def close(self) -> None:
        """Hear nothing more."""
        self.subscribed.clear()
        self.followed.clear()

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
        """Publish at the exchange."""
        self._reach()
        return await self.exchange.core.publish(
            namespace, channel, event, data, idempotency=idempotency, tags=tags, now=now
        )

    async def subscribe(self, namespace: Namespace, channel: str) -> None:
        """Tell of it."""
        self._reach()
        self.subscribed.add(channel)

    async def unsubscribe(self, channel: str) -> None:
        """Tell no more."""
        self.subscribed.discard(channel)

    async def past(self, namespace: Namespace, channel: str, since: Position | None, limit: int, now: int) -> Past:
        """The exchange's."""
        self._reach()
        return await self.exchange.core.past(namespace, channel, since, limit, now)

    def position(self, namespace: Namespace, channel: str) -> Position | None:
        """The exchange's: it tells at once."""
        return self.exchange.core.position(namespace, channel)

    async def purge(self, channel: str) -> None:
        """Forget it at the exchange."""
        await self.exchange.core.purge(channel)

    async def unarchived(self, position: str | None, limit: int) -> tuple[list[Record], str | None]:
        """Nothing is for the archive."""
        return [], position

    async def follow(self, topic: str) -> None:
        """Hear a topic."""
        self._reach()
        self.followed.add(topic)

    async def unfollow(self, topic: str) -> None:
        """Hear it no more."""
        self.followed.discard(topic)

    async def tell(self, topic: str, data: bytes) -> int:
        """Tell the others, with the next turn of the loop."""
        self._reach()
        self.said += 1
        others = [each for each in self.exchange.linked if each is not self and topic in each.followed and not each.cut]
        for other in others:
            asyncio.get_running_loop().call_soon(other.receiver.told, topic, data)
        return len(others)

    async def claim(self, name: str, owner: str, ttl: float) -> bool:
        """The exchange's."""
        return await self.exchange.core.claim(name, owner, ttl)

    def sweep(self, now: int) -> None:
        """Nothing is kept here."""

    def heal(self) -> None:
        """Let everything through again."""
        self.cut = False
        self.receiver.resumed()

    def _reach(self) -> None:
        if self.cut:
            raise StoreUnavailable("the exchange is out of reach")
