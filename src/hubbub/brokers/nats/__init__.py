"""The broker of many nodes: NATS with JetStream, which stores publications and tells the nodes of them.

What is promised rests on how NATS is run. With three servers, `?replicas=3` and `sync_interval: always`, nothing that
was acknowledged is lost while two of them live. Without `sync_interval: always` a machine that loses its power may
take the last two minutes along; a server that is only killed and started again loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hubbub.brokers.nats.address import parse_address
from hubbub.brokers.nats.archive import Archive
from hubbub.brokers.nats.body import Body
from hubbub.brokers.nats.claims import Claims
from hubbub.brokers.nats.fleeting import Fleeting
from hubbub.brokers.nats.history import Histories
from hubbub.brokers.nats.link import Link
from hubbub.brokers.nats.publisher import Publisher
from hubbub.brokers.nats.streams import Streams
from hubbub.brokers.nats.topics import Topics
from hubbub.brokers.nats.watch import Watch
from hubbub.contracts import BrokerReceiver
from hubbub.core.namespaces import ANY, Namespace
from hubbub.core.records import Record
from hubbub.core.recovery import Past, Position
from hubbub.errors import StoreUnavailable

__all__ = ["NatsBroker"]

TRIES = 3


class NatsBroker:
    """Moves publications through NATS; see `contracts.Broker`.

    Args:
        url: `nats://user:password@one:4222,two:4222`, or `tls://...`; a token in place of user and password. Options:
            `name` for several apps on one NATS, `replicas`, `shards`, `credentials` (a file with a user's JWT and key),
            `ca` (a file with the certificate of who signed the servers').

    Raises:
        ConfigError: the URL cannot be.
    """

    shared = True

    def __init__(self, url: str) -> None:
        self._address = parse_address(url)
        self.place = self._address.place
        self._namespaces: Iterable[Namespace] = ()
        self._receiver: BrokerReceiver
        self._make()

    @property
    def healthy(self) -> bool:
        """Whether it is connected, and answered the last question."""
        return self._link.healthy

    @property
    def reads(self) -> int:
        """Pages of history that were read so far."""
        return self._histories.reads

    def listen(self, receiver: BrokerReceiver) -> None:
        """Tell this receiver."""
        self._receiver = receiver

    async def open(self, namespaces: Iterable[Namespace]) -> None:
        """Connect, and make what is missing."""
        self._namespaces = namespaces
        self._make()
        self._watch.receiver = self._fleeting.receiver = self._topics.receiver = self._receiver
        await self._link.open()
        try:
            await self._streams.open(namespaces)
            await self._claims.open()
        except BaseException:
            await self._link.close()
            raise
        self._watch.start()

    async def close(self) -> None:
        """Send what waits, and go."""
        await self._publisher.finish()
        await self._watch.stop()
        await self._link.close()

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
        body = Body(channel, now, event, data, None if tags is None else dict(tags))
        if not namespace.remembers:
            return await self._fleeting.publish(body, idempotency)
        place = await self._publisher.publish(lambda: self._streams.of(namespace, channel), body, idempotency)
        self._watch.published(channel, place)
        return place

    async def subscribe(self, namespace: Namespace, channel: str) -> None:
        """Listen to a channel."""
        await (self._watch if namespace.remembers else self._fleeting).subscribe(namespace, channel)

    async def unsubscribe(self, channel: str) -> None:
        """Listen no more."""
        await self._watch.unsubscribe(channel)
        await self._fleeting.unsubscribe(channel)

    async def past(self, namespace: Namespace, channel: str, since: Position | None, limit: int, now: int) -> Past:
        """What a channel remembers; of one with a subscriber here, up to where that was told."""
        if not namespace.remembers:
            return self._fleeting.past(since)
        past = await self._watch.past(channel, since, limit, now)
        if past is not None:
            return past
        for _ in range(TRIES):
            stream = await self._streams.of(namespace, channel)
            try:
                return await self._histories.past(stream, namespace, channel, since, limit, now)
            except StoreUnavailable:
                if await self._streams.state(stream) is not None:
                    raise
        raise StoreUnavailable(f"The stream of this channel in {self.place} begins anew: try again.")

    def position(self, namespace: Namespace, channel: str) -> Position | None:
        """How far this node was told of a channel."""
        return self._watch.position(channel) if namespace.remembers else None

    async def purge(self, channel: str) -> None:
        """Leave a mark behind which the history begins, and delete what is before it, if it need not be archived."""
        namespace = self._namespace(channel)
        if namespace is None or not namespace.remembers:
            return
        mark = Body(channel, 0, None, b"", purged=True)
        stream, ack = await self._publisher.store(lambda: self._streams.of(namespace, channel), mark, None)
        if stream.keeps:
            await self._link.api(f"STREAM.PURGE.{stream.name}", {"filter": stream.subject(channel), "seq": ack.seq})

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
        """Say something to other nodes: 1 as soon as the first has it, 0 if none does."""
        return await self._topics.tell(topic, data)

    async def claim(self, name: str, owner: str, ttl: float) -> bool:
        """Have a name for a time."""
        return await self._claims.claim(name, owner, ttl)

    def sweep(self, now: int) -> None:
        """NATS forgets by itself."""

    def _make(self) -> None:
        """Make the parts, which know nothing yet: a broker may be opened again, in another loop too."""
        address = self._address
        self._link = link = Link(address, self._restored)
        self._streams = streams = Streams(link, address, lambda stream: self._watch.gone(stream))
        self._histories = Histories(link, streams)
        self._watch = Watch(link, streams, self._histories)
        self._publisher = Publisher(link, streams, self.place)
        self._fleeting = Fleeting(link, address, streams, self._publisher)
        self._topics = Topics(link, address)
        self._claims = Claims(link, address, streams)
        self._archive = Archive(link, streams, self._histories, lambda: self._namespaces)

    def _restored(self) -> None:
        self._watch.alarm()
        self._receiver.resumed()

    def _namespace(self, channel: str) -> Namespace | None:
        namespaces = {namespace.name: namespace for namespace in self._namespaces}
        return namespaces.get(channel.partition(":")[0]) or namespaces.get(ANY)
