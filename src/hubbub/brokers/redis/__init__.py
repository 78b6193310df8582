"""The broker of many nodes: Redis or Valkey; one server, one with Sentinels, or a Cluster.

What is promised rests on how Redis is run. With `appendonly yes` and `appendfsync always` what was acknowledged is on
the disk of that server, and a server that comes back goes on where it was. With any other setting a server that comes
back may have lost something, so that its channels begin anew: clients are told `recovered: false`. The same is so when
a replica takes a server's place, because replication is behind: what was acknowledged may be lost then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hubbub.brokers.redis.address import parse_address
from hubbub.brokers.redis.archive import Archive
from hubbub.brokers.redis.fleeting import Fleeting
from hubbub.brokers.redis.history import Histories
from hubbub.brokers.redis.keys import GROUPS, Keys
from hubbub.brokers.redis.scripts import CLAIM
from hubbub.brokers.redis.servers import Servers
from hubbub.brokers.redis.topics import Topics
from hubbub.brokers.redis.watch import Watch
from hubbub.contracts import BrokerReceiver
from hubbub.core.namespaces import Namespace
from hubbub.core.records import Record
from hubbub.core.recovery import Past, Position

__all__ = ["RedisBroker"]


class RedisBroker:
    """Moves publications through Redis; see `contracts.Broker`.

    Args:
        url: `redis://user:password@host:6379/0`, or `rediss://...` with TLS; `redis+sentinel://one:26379,two/mymaster`;
            `redis+cluster://one:6379,two`. Options: `name` for several apps on one Redis, `tls=1`, `ca` (a file with
            the certificate of who signed the servers').

    Raises:
        ConfigError: the URL cannot be.
    """

    shared = True

    def __init__(self, url: str) -> None:
        address = parse_address(url)
        self.place = address.place
        self._namespaces: Iterable[Namespace] = ()
        keys = self._keys = Keys(address.name, address.database)
        self._receiver: BrokerReceiver
        servers = self._servers = Servers(address, self._back)
        self._histories = Histories(servers, keys, lambda: self._namespaces)
        self._watch = Watch(servers, keys, self._histories)
        self._fleeting = Fleeting(servers, keys)
        self._topics = Topics(servers, keys)
        self._archive = Archive(servers, keys)

    @property
    def healthy(self) -> bool:
        """Whether all its servers answer and are heard."""
        return self._servers.healthy

    @property
    def reads(self) -> int:
        """How often a history was read so far."""
        return self._histories.reads

    def listen(self, receiver: BrokerReceiver) -> None:
        """Tell this receiver."""
        self._receiver = self._watch.receiver = self._fleeting.receiver = self._topics.receiver = receiver

    async def open(self, namespaces: Iterable[Namespace]) -> None:
        """Connect."""
        self._namespaces = namespaces
        await self._servers.open()
        self.place = self._servers.place  # a single server may be one of a Cluster
        self._keys.groups = GROUPS if self._servers.cluster else 1
        self._watch.start()

    async def close(self) -> None:
        """Go."""
        await self._watch.stop()
        await self._servers.close()

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
        """Store, or pass on where there is no history."""
        if not namespace.remembers:
            return await self._fleeting.publish(channel, event, data, tags, now, idempotency)
        place = await self._histories.publish(
            namespace, channel, event, data, idempotency=idempotency, tags=tags, now=now
        )
        self._watch.published(channel, place)
        return place

    async def subscribe(self, namespace: Namespace, channel: str) -> None:
        """Listen to a channel."""
        if namespace.remembers:
            await self._watch.subscribe(namespace, channel)
        else:
            await self._fleeting.subscribe(channel)

    async def unsubscribe(self, channel: str) -> None:
        """Listen no more."""
        await self._watch.unsubscribe(channel)
        await self._fleeting.unsubscribe(channel)

    async def past(self, namespace: Namespace, channel: str, since: Position | None, limit: int, now: int) -> Past:
        """What a channel remembers; of one with a subscriber here, up to where that was told."""
        if not namespace.remembers:
            return self._fleeting.past(since)
        past = await self._watch.past(channel, since, limit, now)
        return past or await self._histories.past(namespace, channel, since, limit, now)

    def position(self, namespace: Namespace, channel: str) -> Position | None:
        """How far this node was told of a channel."""
        return self._watch.position(channel) if namespace.remembers else None

    async def purge(self, channel: str) -> None:
        """Forget a channel's history, and tell the nodes that have subscribers."""
        await self._histories.purge(channel)

    async def unarchived(self, position: str | None, limit: int) -> tuple[list[Record], str | None]:
        """What the archive does not have yet."""
        return await self._archive.unarchived(position, limit)

    async def follow(self, topic: str) -> None:
        """Listen to a topic."""
        await self._topics.follow(topic)

    async def unfollow(self, topic: str) -> None:
        """Listen no more."""
        await self._topics.unfollow(topic)

    async def tell(self, topic: str, data: bytes) -> int:
        """Say something to other nodes; how many hear it."""
        return await self._topics.tell(topic, data)

    async def claim(self, name: str, owner: str, ttl: float) -> bool:
        """Have a name for a time."""
        key = self._keys.claim(name)
        holder = owner.encode("utf-8", "surrogatepass")
        return bool(await self._servers.call(key, key, holder, max(1, round(ttl * 1000)), script=CLAIM, keys=1))

    def sweep(self, now: int) -> None:
        """Redis forgets by itself."""

    def _back(self) -> None:
        """Redis is heard again: compare, and say so."""
        self._watch.alarm()
        self._receiver.resumed()
