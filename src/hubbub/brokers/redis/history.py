"""What Redis has of each channel.

Rules of this file:
1. A past is complete if nothing is between the position and its first publication, which names the offset before it,
   and so on along it: whatever was forgotten, trimmed or deleted shows there.
2. What is too old is not given out, though it may still be there.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count, pairwise
from typing import Any

from hubbub.brokers.redis.body import Body, encode_body, read_entry
from hubbub.brokers.redis.keys import Keys
from hubbub.brokers.redis.scripts import PUBLISH, PURGE, READ, RESET
from hubbub.brokers.redis.servers import Servers
from hubbub.core.namespaces import ANY, Namespace
from hubbub.core.recovery import DEDUPE, Past, Position, Publication

__all__ = ["Histories"]

KEPT = 30 * 24 * 3600 * 1000
"""Milliseconds for which epoch and offset of a channel are kept after its last publication."""
RETRIES = 30_000
"""Milliseconds for which a publication without a name of its publisher's is known."""
MOST = 1 << 53


class Histories:
    """Reads and writes streams.

    Args:
        servers: where they are.
        keys: what they are called.
        namespaces: gives the kinds of channels there are.

    Attributes:
        reads: how many were read, for those who want to know what many clients cost.
    """

    def __init__(self, servers: Servers, keys: Keys, namespaces: Callable[[], Iterable[Namespace]]) -> None:
        self._servers = servers
        self._keys = keys
        self._namespaces = namespaces
        self._own, self._numbers = secrets.token_hex(6), count()
        self.reads = 0

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
        """Store and tell; see `contracts.Broker.publish`."""
        keys, archive = self._keys, namespace.archive
        body = encode_body(Body(event, data, None if tags is None else dict(tags)))
        # A publication always has a name: what was not answered is sent again.
        name = f"\n{self._own}{next(self._numbers)}" if idempotency is None else idempotency
        places = [*self._places(channel, archive), keys.known(channel, archive, name)]
        if archive:
            places.append(keys.archive(channel))
        place: bytes = await self._servers.call(
            places[0],
            *places,
            _epoch(),
            KEPT,
            now,
            namespace.history,
            max(1, round(namespace.history_ttl * 1000)),
            RETRIES if idempotency is None else round(DEDUPE * 1000),
            self._servers.tell,
            keys.live(channel, archive),
            body,
            channel.encode("utf-8", "surrogatepass") if archive else b"",
            script=PUBLISH,
            keys=len(places),
        )
        offset, _, epoch = place.decode("ascii").partition(" ")
        return Position(int(offset), epoch)

    async def past(self, namespace: Namespace, channel: str, since: Position | None, limit: int, now: int) -> Past:
        """See `contracts.Broker.past`."""
        self.reads += 1
        oldest = now - round(namespace.history_ttl * 1000)
        behind = "" if since is None else min(max(since.offset, 0), MOST)
        least = 0 if since is None else 1  # it says whether something is missing
        head, entries = await self._read(namespace.archive, channel, behind, max(least, limit))
        found = [read_entry(entry) for entry in entries]
        if since is None:
            young = [each for each in found if each is not None and each.published_at > oldest]
            return Past(young[::-1], head, True)
        publications = [each for each in found if each is not None]
        if since.epoch != head.epoch or not 0 <= since.offset <= head.offset or len(publications) < len(found):
            return Past([], head, False)
        if since.offset == head.offset:
            return Past([], head, True)
        if not publications or publications[0].published_at <= oldest or not _linked(since.offset, publications):
            return Past([], head, False)
        return Past(publications[:limit], head, True)

    async def head(self, namespace: Namespace, channel: str) -> Position | None:
        """Where a channel ends, if it ever began; asking begins nothing."""
        key = self._keys.head(channel, namespace.archive)
        epoch, offset = await self._servers.call(key, "HMGET", key, "epoch", "offset", long=True)
        return None if epoch is None or offset is None else Position(int(offset), epoch.decode("ascii", "replace"))

    async def purge(self, channel: str) -> None:
        """See `contracts.Broker.purge`."""
        namespace = self._namespace(channel)
        if namespace is None or not namespace.remembers:
            return
        archive = namespace.archive
        places = self._places(channel, archive)
        told = self._keys.live(channel, archive)
        await self._servers.call(
            places[0], *places, _epoch(), KEPT, self._servers.tell, told, script=PURGE, keys=len(places)
        )

    async def reset(self, namespace: Namespace, channel: str, head: Position) -> None:
        """Let a channel begin anew if it has forgotten what is behind its head."""
        places = self._places(channel, namespace.archive)
        await self._servers.call(places[0], *places, head.epoch, head.offset, script=RESET, keys=len(places))

    async def _read(self, archive: bool, channel: str, behind: int | str, limit: int) -> tuple[Position, Sequence[Any]]:
        places = self._places(channel, archive)
        words = (_epoch(), KEPT, behind, limit)
        epoch, offset, entries = await self._servers.call(
            places[0], *places, *words, script=READ, keys=len(places), long=True
        )
        return Position(offset, epoch.decode("ascii", "replace")), entries

    def _places(self, channel: str, archive: bool) -> list[str]:
        return [self._keys.head(channel, archive), self._keys.log(channel, archive)]

    def _namespace(self, channel: str) -> Namespace | None:
        by_name = {namespace.name: namespace for namespace in self._namespaces()}
        return by_name.get(channel.partition(":")[0]) or by_name.get(ANY)


def _linked(behind: int, publications: Sequence[Publication]) -> bool:
    """Whether nothing is missing behind an offset, and between publications."""
    return publications[0].previous <= behind and all(one.offset == two.previous for one, two in pairwise(publications))


def _epoch() -> str:
    return secrets.token_hex(6)
