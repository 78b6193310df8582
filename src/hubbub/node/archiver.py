"""The archive: every publication of the channels that have one, written behind the broker and read in pages.

The broker holds what is not archived yet, and lets one process at a time ask for it. How far that came is stored with
what was archived: whoever goes on, after a crash too, leaves nothing out, and what is written twice is there once.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from hubbub.errors import RequestError, StoreError

if TYPE_CHECKING:
    from hubbub.core.records import Record
    from hubbub.core.recovery import Position
    from hubbub.node.connection import Connection
    from hubbub.node.database import Database
    from hubbub.node.node import Node

__all__ = ["Archiver"]

logger = logging.getLogger("hubbub.archive")

BATCH = 256
OFTEN = 1.0
"""Seconds after which a publication is in the archive, at most, while the database keeps up."""


NAME = "archiver"
LEASE = 10.0  # seconds after which another node goes on for one that died


class Archiver:
    """Writes and reads a hub's archive.

    Args:
        node: whose channels.
        database: where the archive is.
    """

    def __init__(self, node: Node, database: Database) -> None:
        self._node = node
        self._database = database
        self.reset()

    def reset(self) -> None:
        """Know nothing of how far it came."""
        self._turn = asyncio.Lock()
        self._known = False
        self._position: str | None = None
        self._due = 0.0
        self._task: asyncio.Task[None] | None = None

    def beat(self, now: float) -> None:
        """Archive what was published, `now` in monotonic seconds."""
        wanted = any(namespace.archive for namespace in self._node.subscriptions.namespaces)
        if wanted and now >= self._due and self._task is None:
            self._due = now + OFTEN
            self._task = asyncio.get_running_loop().create_task(self._run(), context=Context())

    async def stop(self) -> None:
        """Archive no more; what is left waits with the broker."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self.reset()

    async def read(self, channel: str, limit: int, after: Position | None, since: int, back: bool) -> list[Record]:
        """Publications of a channel, oldest first, with all that was published before this call; see `Hub.archived`.

        Raises:
            RequestError: `bad_channel`: it has no archive.
            StoreError: the database is out of reach.
        """
        if not self._node.subscriptions.find(channel).archive:
            raise RequestError("bad_channel", "This channel has no archive.", "channel")
        await self._catch_up()
        if self._database.empty:
            return []
        place = None if after is None else (after.epoch, after.offset)
        return await self._database.call(
            partial(self._database.store.archived, channel, limit, after=place, since=since, back=back)
        )

    async def ask(
        self, connection: Connection, channel: str, limit: int, after: Position | None, since: int, back: bool
    ) -> dict[str, Any]:
        """A page for a client, no larger than what it can be sent at once; the payload of `history`."""
        await self._node.subscriptions.permit("history", connection, channel)
        records = await self.read(channel, limit, after, since, back)
        shown: list[dict[str, Any]] = []
        room = self._node.limits.send_queue // 2
        for record in reversed(records) if back else records:
            room -= len(record.data)
            if room < 0 and shown:
                break
            shown.append(_describe(record))
        return {"channel": channel, "archive": True, "publications": shown[::-1] if back else shown}

    async def _run(self) -> None:
        node = self._node
        try:
            if await node.broker.claim(NAME, node.cluster.id, LEASE):  # of several nodes one is enough
                await self._catch_up()
        except StoreError as error:
            logger.debug("the archive has to wait: %s", error)
        except Exception:
            logger.exception("publications cannot be archived")
        finally:
            self._task = None

    async def _catch_up(self) -> None:
        """Archive what there is."""
        database, shared = self._database, self._node.broker.shared
        if database.empty and not shared:  # then no channel was ever written to
            return
        async with self._turn:
            if database.empty:
                self._position = None
            elif not self._known or shared:  # another node may have come further
                self._position = await database.call(database.store.archive_position)
                self._known = True
            while True:
                records, position = await self._node.broker.unarchived(self._position, BATCH)
                if not records or position is None:
                    return
                await database.call(database.store.archive, records, position)
                self._position = position


def _describe(record: Record) -> dict[str, Any]:
    """A publication as the answer to `history` has it."""
    more = {"event": record.event, "tags": record.tags}
    return {
        "offset": record.offset,
        "epoch": record.epoch,
        "timestamp": record.published_at,
        **{name: value for name, value in more.items() if value is not None},
        "data": msgspec.Raw(record.data),
    }
