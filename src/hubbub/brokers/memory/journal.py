"""Channels whose history outlives the process: what is published is in the database before anybody hears of it.

Rules of this file:
1. One task writes. What is published while one write is under way goes into the next one together (group commit).
2. Offsets are taken in the order in which they are committed, told in that order, and never taken twice, also where a
   write failed. `memory` has what is committed, and nothing else.
3. The memory decides what is forgotten; the journal follows it, in passing.
4. One process has the journal at a time. One that lost it has failed writes, not doubled offsets.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context
from dataclasses import dataclass
from functools import partial

from hubbub.brokers.memory.tenure import LEASE, Tenure
from hubbub.contracts import BrokerReceiver, Ledger
from hubbub.core.namespaces import Namespace
from hubbub.core.records import Kept, Record
from hubbub.core.recovery import Memory, Past, Position, Publication
from hubbub.errors import StoreError, StoreUnavailable

__all__ = ["Journal"]

logger = logging.getLogger("hubbub.journal")

BATCH = 256
PAGE = 1000
MOST_WAITING = 10_000
RENEWAL = LEASE // 3
TIDY = 1_000
"""Milliseconds between two times in which what is forgotten is deleted."""
LAST = 1.0
"""Seconds for what is being written at the end."""


@dataclass(slots=True)
class Draft:
    """A publication that waits for its place."""

    namespace: Namespace
    channel: str
    event: str | None
    data: bytes
    tags: Mapping[str, str] | None
    key: str | None
    now: int
    placed: asyncio.Future[Position]


class Journal:
    """The durable channels of the memory broker.

    Args:
        ledger: the database.
        step: gives the distance to the next offset, 1 or more.
    """

    def __init__(self, ledger: Ledger, step: Callable[[], int]) -> None:
        self.memory = Memory(secrets.token_hex(4), step=step)
        self._ledger = ledger
        self._step = step
        self._tenure = Tenure(ledger)
        self._wanted = False
        self._archived = self._unarchived = self._taken = 0
        self._tidied = self._renewed = 0
        self._receiver: BrokerReceiver
        self._reset()

    def _reset(self) -> None:
        """Have nothing, and nobody who waits."""
        self._tenure.held = False
        self._turn = asyncio.Lock()  # one write, or another, at a time
        self._waiting: list[Draft] = []
        self._writer: asyncio.Task[None] | None = None
        self._floors: dict[str, int] = {}

    def keeps(self, namespace: Namespace) -> bool:
        """Whether the channels of a namespace are durable."""
        return namespace.outlives(self._ledger.given)

    def listen(self, receiver: BrokerReceiver) -> None:
        """Tell this receiver."""
        self._receiver = receiver

    async def open(self, namespaces: Iterable[Namespace]) -> None:
        """Take the journal and read it, if there are durable channels; one that does not exist comes with the first.

        Raises:
            StoreError: the database is out of reach, or another process has the journal.
        """
        self._wanted = any(self.keeps(namespace) for namespace in namespaces)
        self._notice(asyncio.get_running_loop())
        if self._wanted and not self._ledger.empty:
            async with self._turn:
                await self._have(patient=True)

    async def close(self) -> None:
        """Finish what is being written, and leave the journal to whoever comes."""
        writer = self._writer
        if writer is not None and not (await asyncio.wait([writer], timeout=LAST))[0]:
            writer.cancel()
            await asyncio.wait([writer], timeout=LAST)
        if self._tenure.held:
            try:
                async with asyncio.timeout(LAST):
                    await self._tenure.trim(self.memory.watermark, self._floors, self._archived, leave=True)
            except (StoreError, TimeoutError):
                logger.warning("the journal could not be left: the next process takes it in %g s", LEASE / 1000)
        self._reset()

    async def publish(
        self,
        namespace: Namespace,
        channel: str,
        event: str | None,
        data: bytes,
        *,
        key: str | None,
        tags: Mapping[str, str] | None,
        now: int,
    ) -> Position:
        """Keep and tell; see `Broker.publish`."""
        if len(self._waiting) >= MOST_WAITING:
            raise StoreUnavailable(f"{MOST_WAITING} publications wait for {self._ledger.store.place} already.")
        self._wanted = True
        loop = asyncio.get_running_loop()
        self._notice(loop)
        placed: asyncio.Future[Position] = loop.create_future()
        self._waiting.append(Draft(namespace, channel, event, data, tags, key, now, placed))
        self._write_soon()
        return await placed

    async def past(self, channel: str, since: Position | None, limit: int, now: int) -> Past:
        """What a channel remembers; see `Broker.past`."""
        await self._read()
        return self.memory.past(channel, since, limit, now)

    async def purge(self, channel: str) -> bool:
        """Forget a channel's history; False if it has none here."""
        if not self._wanted:
            return False
        await self._read()
        async with self._turn:
            if channel not in self.memory:
                return False
            self._taken += self._step()
            await self._tenure.trim(self._taken, {channel: self._taken}, self._archived)
            self.memory.purge(channel, self._taken)
            return True

    async def unarchived(self, position: str | None, limit: int) -> tuple[list[Record], str | None]:
        """What is for the archive; see `Broker.unarchived`."""
        await self._read()
        self._archived = max(self._archived, self._offset(position))
        if self._unarchived <= self._archived:
            return [], position
        head, store = self.memory.counter, self._ledger.store
        found = await self._ledger.call(partial(store.kept, archive=True), self._archived, limit)
        entries = [entry for entry in found if entry.publication.offset <= head]
        if not entries:
            return [], position
        records = [_record(entry, self.memory.epoch) for entry in entries]
        return records, f"{self.memory.epoch} {records[-1].offset}"

    def sweep(self, now: int) -> None:
        """Forget what has expired, delete from time to time, and say that we are here."""
        if not self._tenure.held:
            return
        self._floors.update(self.memory.sweep(now))
        if self._untidy(now):
            self._write_soon()

    # Having it

    def _notice(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin anew where the loop of the last life died without an end."""
        if self._writer is not None and self._writer.get_loop() is not loop:
            self._reset()

    async def _read(self) -> None:
        """Know what was published before, if anything can have been."""
        if not self._tenure.held and not self._ledger.empty:
            async with self._turn:
                await self._have()

    async def _have(self, *, patient: bool = False) -> None:
        """Take the journal and read it, unless we have it."""
        if self._tenure.held:
            return
        state = await self._tenure.take(self.memory.epoch, patient=patient)
        memory = Memory(state.epoch, step=self._step)
        memory.watermark = state.watermark
        self._unarchived = offset = 0
        while entries := await self._ledger.call(self._ledger.store.kept, offset, PAGE):
            for entry in entries:
                offset = entry.publication.offset
                if not entry.gone:
                    memory.restore(entry.channel, entry.publication, entry.ttl / 1000)
                if entry.key is not None:
                    memory.note_key(entry.channel, entry.key, offset, entry.publication.published_at)
                if entry.archive:
                    self._unarchived = offset
        memory.counter = self._taken = max(state.head, state.watermark, offset)
        self._floors = dict(memory.sweep(_now()))
        self._archived = 0
        self.memory, self._tenure.held, self._renewed = memory, True, _now()

    # Writing

    def _write_soon(self) -> None:
        if self._writer is None:
            # Variables of whoever asked are not this task's.
            self._writer = asyncio.get_running_loop().create_task(self._write(), context=Context())

    async def _write(self) -> None:
        batch: list[Draft] = []
        try:
            while self._waiting or (self._tenure.held and self._untidy(_now())):
                async with self._turn:
                    batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                    if batch:
                        await self._commit(batch)
                    batch = []
                    if self._tenure.held and self._untidy(_now()):
                        await self._tidy()
        except (Exception, asyncio.CancelledError) as error:
            left, self._waiting = [*batch, *self._waiting], []
            _fail(left, StoreUnavailable("The hub stopped before this was stored for sure."))
            if isinstance(error, Exception):
                logger.exception("durable channels cannot be kept")
        self._writer = None

    async def _commit(self, batch: list[Draft]) -> None:
        """Keep, then tell, then answer."""
        try:
            await self._have()
            entries, places = self._place(batch)
            if entries:
                await self._tenure.keep(self.memory.counter, entries)
        except Exception as error:
            if not isinstance(error, StoreError):
                logger.exception("a store failed in a way it should not")
            _fail(batch, error)
            return
        drafts = {offset: draft for draft, offset in reversed(places)}  # the first one of those with the same key
        for entry in entries:
            self._tell(entry, drafts[entry.publication.offset])
        for draft, offset in places:
            if not draft.placed.done():
                draft.placed.set_result(Position(offset, self.memory.epoch))

    def _tell(self, entry: Kept, draft: Draft) -> None:
        memory, publication, namespace = self.memory, entry.publication, draft.namespace
        floor = memory.remember(entry.channel, publication, namespace.history, namespace.history_ttl)
        if floor is not None:
            self._floors[entry.channel] = floor
        if entry.key is not None:
            memory.note_key(entry.channel, entry.key, publication.offset, draft.now)
        if entry.archive:
            self._unarchived = publication.offset
        self._receiver.published(entry.channel, publication)

    def _place(self, batch: list[Draft]) -> tuple[list[Kept], list[tuple[Draft, int]]]:
        """Give each draft its offset: a new one, or that of the first with its key."""
        memory = self.memory
        entries: list[Kept] = []
        places: list[tuple[Draft, int]] = []
        last: dict[str, tuple[int, int]] = {}
        keys: dict[tuple[str, str], int] = {}
        for draft in batch:
            channel, key = draft.channel, draft.key
            if key is not None:
                known = keys.get((channel, key)) or memory.known(channel, key, draft.now)
                if known is not None:
                    places.append((draft, known))
                    continue
            previous, at = last.get(channel) or memory.place(channel, draft.now)
            self._taken = offset = self._taken + self._step()
            publication = Publication(offset, previous, max(at, draft.now), draft.event, draft.data, draft.tags)
            last[channel] = (offset, publication.published_at)
            if key is not None:
                keys[channel, key] = offset
            ttl, archive = round(draft.namespace.history_ttl * 1000), draft.namespace.archive
            entries.append(Kept(channel, publication, ttl, key, archive))
            places.append((draft, offset))
        return entries, places

    # Tidying

    def _untidy(self, now: int) -> bool:
        return now >= (self._tidied + TIDY if self._floors else self._renewed + RENEWAL)

    async def _tidy(self) -> None:
        floors, self._floors = self._floors, {}
        self._tidied = self._renewed = _now()  # however it ends: not again at once
        try:
            await self._tenure.trim(self.memory.watermark, floors, self._archived)
        except StoreError:
            self._floors = floors | self._floors
        except Exception:
            logger.exception("a store failed in a way it should not")

    def _offset(self, position: str | None) -> int:
        """The offset in a position of the archiver, 0 if that is of another life."""
        epoch, _, offset = (position or "").partition(" ")
        return int(offset) if epoch == self.memory.epoch else 0


def _record(entry: Kept, epoch: str) -> Record:
    publication = entry.publication
    event, data, tags = publication.event, publication.data, publication.tags
    return Record(entry.channel, epoch, publication.offset, event, data, publication.published_at, tags)


def _fail(batch: list[Draft], error: Exception) -> None:
    """Let each know; one error for all would collect the tracebacks of all."""
    for draft in batch:
        if not draft.placed.done():
            args = error.args if isinstance(error, StoreError) else ("The store failed.",)
            draft.placed.set_exception((type(error) if isinstance(error, StoreError) else StoreUnavailable)(*args))


def _now() -> int:
    return time.time_ns() // 1_000_000
