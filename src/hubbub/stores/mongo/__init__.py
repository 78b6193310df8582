"""The store on MongoDB, by PyMongo's asyncio client: a standalone server or a replica set."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence, Set
from typing import Any, TypeVar

from pymongo import AsyncMongoClient, IndexModel
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import PyMongoError

from hubbub.core import records
from hubbub.core.inbox import Ack, Draft, Entry, Page, Standing, Stored
from hubbub.core.records import Kept, Record, Revocation
from hubbub.errors import StoreError
from hubbub.stores.mongo.archive import Archive
from hubbub.stores.mongo.document import Document
from hubbub.stores.mongo.failures import named
from hubbub.stores.mongo.inbox import Inbox
from hubbub.stores.mongo.journal import Journal
from hubbub.stores.mongo.messages import Messages
from hubbub.stores.mongo.writer import Writer

__all__ = ["MongoStore"]

VERSION = 2
"""Which documents and indexes this code knows; counted up when they change."""
GRACE = 5.0
"""Seconds that what is under way may take when the store is closed."""
JOURNAL = {"\0journal"}
"""What is locked by who writes to the journal, as users' names are by who writes to inboxes."""
T = TypeVar("T")
OPTIONS: dict[str, Any] = {
    # What was acknowledged is on the disks of a majority, and is what is read; whatever the URL says.
    "w": "majority",
    "journal": True,
    "readConcernLevel": "majority",
    "readPreference": "primary",
    # Milliseconds: a server that is gone is an error soon.
    "serverSelectionTimeoutMS": 3_000,
    "connectTimeoutMS": 3_000,
    "socketTimeoutMS": 10_000,
    "wTimeoutMS": 10_000,
    "waitQueueTimeoutMS": 10_000,
}


class MongoStore:
    """Inboxes, the journal, the archive and revocations in MongoDB; see `Store` for what each call promises.

    A batch that `append` fails in the middle may be there in part: without transactions it cannot be all or none.

    Args:
        url: `mongodb://user:password@host:port/database` or `mongodb+srv://`; the database is `hubbub` without one.
    """

    exists = True

    def __init__(self, url: str) -> None:
        self._url = url
        self.place = f"MongoDB at {_place(url)}"
        self.migrated = (0, 0)
        """The version of the documents before and after `open`."""
        self._client: AsyncMongoClient[Document] | None = None
        self._running: dict[asyncio.Task[Any], Set[str]] = {}

    async def open(self) -> None:
        """Connect, and make the collections' indexes.

        Raises:
            StoreError: the URL is wrong, the server does not answer, or a newer Hubbub has been here.
        """
        database = self._connect()
        self._meta = database["hubbub_meta"]
        self._revocations = database["hubbub_revocations"]
        messages = Messages(database)
        self._writer = Writer(messages)
        self._inbox = Inbox(messages, database)
        self._archive = Archive(database)
        self._journal = Journal(database)
        try:
            await self._run(self._prepare())
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let go of the connections."""
        client, self._client = self._client, None
        try:
            if self._running:
                await asyncio.wait(self._running, timeout=GRACE)
        finally:
            if client is not None:
                await client.close()

    async def pending(self) -> int:
        """One where the documents are of an older version; by a connection of its own."""
        other = MongoStore(self._url)
        other._meta = other._connect()["hubbub_meta"]
        try:
            return int(await other._run(other._version()) < VERSION)
        finally:
            await other.close()

    async def append(self, drafts: Sequence[Draft], cap: int) -> list[Stored]:
        """Put messages into inboxes, in this order, and behind those whose callers were cancelled meanwhile."""
        users = {draft.user_id for draft in drafts}
        await self._settle(users)
        return await self._run(self._writer.append(drafts, cap), users)

    async def read(self, user_id: str, after: int, limit: int, now: int) -> Page:
        """The next messages of an inbox behind a cursor; not whole at one that is still being written."""
        return await self._run(self._inbox.read(user_id, after, limit, now))

    async def ack(self, acks: Sequence[Ack], now: int) -> None:
        """Move devices' cursors forward and forget what all have acked."""
        await self._run(self._inbox.ack(acks, now))

    async def standing(self, user_id: str, device: str, now: int) -> Standing:
        """Where a device stands; a new one starts with the oldest message kept."""
        return await self._run(self._inbox.standing(user_id, device, now))

    async def claim(self, sent_before: int, limit: int, now: int) -> list[tuple[str, Entry]]:
        """Messages that nobody acked, each given out once."""
        return await self._run(self._inbox.claim(sent_before, limit, now))

    async def revoke(self, revocation: Revocation) -> None:
        """Remember a revocation."""
        known = {"at": revocation.at, "until": revocation.until}
        await self._run(self._revocations.update_one({"_id": revocation.subject}, {"$set": known}, upsert=True))

    async def revocations(self, now: int) -> list[Revocation]:
        """All that have not expired."""
        found = await self._run(self._revocations.find({"until": {"$gt": now}}).to_list())
        return [Revocation(document["_id"], int(document["at"]), int(document["until"])) for document in found]

    async def take_journal(
        self, owner: str, epoch: str, now: int, until: int, instead_of: str | None
    ) -> records.Journal:
        """Have the journal, unless another has it."""
        return await self._run(self._journal.take(owner, epoch, now, until, instead_of))

    async def keep(self, owner: str, behind: int, entries: Sequence[Kept]) -> bool:
        """Keep publications, behind those whose callers were cancelled meanwhile."""
        await self._settle(JOURNAL)
        return await self._run(self._journal.keep(owner, behind, entries), JOURNAL)

    async def trim(
        self, owner: str, until: int, watermark: int, floors: Mapping[str, int], *, archived: int, forget: int
    ) -> bool:
        """Go on having the journal, and forget."""
        await self._settle(JOURNAL)
        return await self._run(self._journal.trim(owner, until, watermark, floors, archived, forget), JOURNAL)

    async def kept(self, behind: int, limit: int, *, archive: bool = False) -> list[Kept]:
        """What is in the journal behind an offset."""
        return await self._run(self._journal.read(behind, limit, archive))

    async def archive(self, records: Sequence[Record], position: str) -> None:
        """Keep publications, then how far the archiver came."""
        await self._run(self._archive.add(records, position))

    async def archive_position(self) -> str | None:
        """What the last `archive` was given."""
        return await self._run(self._archive.position())

    async def archived(
        self, channel: str, limit: int, *, after: tuple[str, int] | None = None, since: int = 0, back: bool = False
    ) -> list[Record]:
        """Publications of a channel, oldest first."""
        return await self._run(self._archive.read(channel, limit, after, since, back))

    async def sweep(self, now: int) -> None:
        """Delete what has expired."""
        await self._run(self._revocations.delete_many({"until": {"$lte": now}}))
        await self._run(self._inbox.sweep(now))

    async def _run(self, work: Coroutine[Any, Any, T], users: Set[str] = frozenset()) -> T:
        """Do it to its end, also when the caller is cancelled: half an append is a hole, and half a connect a leak."""
        task = asyncio.create_task(work)
        self._running[task] = frozenset()
        task.add_done_callback(self._running.pop)
        task.add_done_callback(_note)
        try:
            with named(self.place):
                return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task in self._running:
                self._running[task] = users
            raise

    async def _settle(self, users: Set[str]) -> None:
        """Wait for what callers who were cancelled meanwhile began to write for these users."""
        if abandoned := [task for task, theirs in self._running.items() if theirs & users]:
            await asyncio.wait(abandoned)

    def _connect(self) -> AsyncDatabase[Document]:
        try:
            self._client = AsyncMongoClient(self._url, **OPTIONS)
            return self._client.get_default_database("hubbub")
        except (PyMongoError, ValueError, OSError):
            # Without the driver's own words: they may quote the URL, and with it a password.
            raise StoreError(
                f"{self.place}: this URL cannot be used. Give mongodb://user:password@host:port/database, in user and"
                " password with %3A for a colon, %2F for a slash, %40 for an at sign and %25 for a percent sign."
            ) from None

    async def _prepare(self) -> None:
        """Indexes are all the migration there is; making them again does no harm."""
        self.migrated = (await self._version(), VERSION)
        await self._inbox.prepare()
        await self._archive.prepare()
        await self._journal.prepare()
        await self._revocations.create_indexes([IndexModel("until")])
        await self._meta.update_one({"_id": "schema"}, {"$max": {"version": VERSION}}, upsert=True)

    async def _version(self) -> int:
        """Of which version the documents are; 0 where there are none."""
        found = await self._meta.find_one({"_id": "schema"})
        version: int = found["version"] if found else 0
        if version > VERSION:
            raise StoreError(
                f"{self.place} was brought up to version {version} by a newer Hubbub, and this one knows only"
                f" {VERSION}. Update Hubbub."
            )
        return version


def _place(url: str) -> str:
    """The URL's host and database; all before the last `@` may be a password, however it is written."""
    rest = url.partition("://")[2]
    before = rest.partition("?")[0]
    host, _, database = (before if "@" in before else rest).rpartition("@")[2].partition("?")[0].partition("/")
    return f"{host}/{database or 'hubbub'}"


def _note(task: asyncio.Task[Any]) -> None:
    """Take note of a failure for a caller who was cancelled: asyncio would warn of one that nobody saw."""
    if not task.cancelled():
        task.exception()
