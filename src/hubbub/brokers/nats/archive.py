"""What the archive does not have yet: the stream of archived channels, from where the archiver came to.

Nothing leaves this stream by itself. What is in the archive, and older than any of its channels remembers, is deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from time import monotonic

from hubbub.brokers.nats.history import Histories
from hubbub.brokers.nats.link import Link
from hubbub.brokers.nats.streams import Stream, Streams
from hubbub.core.namespaces import Namespace
from hubbub.core.records import Record

__all__ = ["Archive"]

OFTEN = 10.0
"""Seconds between two deletions."""


class Archive:
    """Hands out what is to be archived.

    Args:
        link: the connection.
        streams: have the stream.
        histories: read it.
        namespaces: gives all there are.
    """

    def __init__(
        self, link: Link, streams: Streams, histories: Histories, namespaces: Callable[[], Iterable[Namespace]]
    ) -> None:
        self._link = link
        self._streams = streams
        self._histories = histories
        self._namespaces = namespaces
        self._due = 0.0

    async def unarchived(self, position: str | None, limit: int) -> tuple[list[Record], str | None]:
        """See `contracts.Broker.unarchived`; a position is the epoch and an offset."""
        ttl = max((namespace.history_ttl for namespace in self._namespaces() if namespace.archive), default=None)
        if ttl is None:
            return [], position
        stream = await self._streams.archive()
        epoch, _, number = (position or "").partition(":")
        behind = int(number) if epoch == stream.epoch and number.isdigit() else 0
        if behind and monotonic() >= self._due:
            self._due = monotonic() + OFTEN
            await self._forget(stream, behind, ttl)
        while found := await self._histories.page(stream, stream.all, behind, limit):
            behind = found[-1].offset
            records = [
                Record(body.channel, stream.epoch, each.offset, body.event, body.data, each.at, body.tags)
                for each in found
                if (body := each.body) is not None and not body.purged
            ]
            if records:
                return records, f"{stream.epoch}:{behind}"
        return [], position

    async def _forget(self, stream: Stream, archived: int, ttl: float) -> None:
        """Delete what was archived and is too old to be remembered."""
        oldest = datetime.now(UTC) - timedelta(seconds=ttl)
        young = await self._histories.first_since(stream, oldest.isoformat())
        upto = archived + 1 if young is None else min(archived + 1, young)
        await self._link.api(f"STREAM.PURGE.{stream.name}", {"seq": upto})
