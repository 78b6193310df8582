"""The journal of durable channels in MongoDB.

What lies behind the journal's head was never kept: a write puts the publications there first, and then moves the head
over them. Without transactions this makes it all or none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from pymongo import DeleteMany, IndexModel, UpdateMany
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from hubbub.core import records
from hubbub.core.records import Kept
from hubbub.core.recovery import Publication
from hubbub.stores.mongo.document import Document

__all__ = ["Journal"]

STATE = {"_id": "journal"}


class Journal:
    """The collections of the journal; driver errors go through.

    Args:
        database: where they are.
    """

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._windows: AsyncCollection[Document] = database["hubbub_windows"]
        self._meta: AsyncCollection[Document] = database["hubbub_meta"]

    async def prepare(self) -> None:
        """Make the indexes; those that are there stay."""
        others = [IndexModel([(name, 1), ("offset", 1)]) for name in ("channel", "gone")]
        await self._windows.create_indexes([IndexModel("offset", unique=True), *others])

    async def take(self, owner: str, epoch: str, now: int, until: int, instead_of: str | None) -> records.Journal:
        """See `Store.take_journal`."""
        free = {"$or": [{"owner": {"$in": [owner, instead_of]}}, {"until": {"$lte": now}}]}
        await self._meta.update_one({**STATE, **free}, {"$set": {"owner": owner, "until": until}})
        first = {**STATE, "epoch": epoch, "head": 0, "watermark": 0, "owner": owner, "until": until}
        with suppress(DuplicateKeyError):  # another was first
            await self._meta.update_one(STATE, {"$setOnInsert": first}, upsert=True)
        found = await self._meta.find_one(STATE)
        assert found is not None
        head, watermark, until = (int(found[name]) for name in ("head", "watermark", "until"))
        return records.Journal(found["epoch"], head, watermark, found["owner"], until)

    async def keep(self, owner: str, behind: int, entries: Sequence[Kept]) -> bool:
        """See `Store.keep`."""
        if await self._meta.find_one({**STATE, "owner": owner}, {"_id": 1}) is None:
            return False
        await self._windows.delete_many({"offset": {"$gt": behind}})
        await self._windows.insert_many([_document(entry) for entry in entries])
        moved = {"$set": {"head": entries[-1].publication.offset}}
        return (await self._meta.update_one({**STATE, "owner": owner}, moved)).matched_count > 0

    async def trim(
        self, owner: str, until: int, watermark: int, floors: Mapping[str, int], archived: int, forget: int
    ) -> bool:
        """See `Store.trim`."""
        held = {"$set": {"until": until, "watermark": watermark}}
        if not (await self._meta.update_one({**STATE, "owner": owner}, held)).matched_count:
            return False
        changes = [
            UpdateMany({"channel": channel, "offset": {"$lte": floor}, "gone": False}, {"$set": {"gone": True}})
            for channel, floor in floors.items()
        ]
        if changes:
            await self._windows.bulk_write(changes)
        free: list[Document] = [{"archive": False}, {"offset": {"$lte": archived}}]
        done: list[Document] = [{"key": {"$eq": None}}, {"published_at": {"$lte": forget}}]
        await self._windows.bulk_write([DeleteMany({"gone": True, **one, **two}) for one in free for two in done])
        return True

    async def read(self, behind: int, limit: int, archive: bool) -> list[Kept]:
        """See `Store.kept`."""
        state = await self._meta.find_one(STATE, {"head": 1})
        wanted: Document = {"offset": {"$gt": behind, "$lte": state["head"] if state else 0}}
        if archive:
            wanted["archive"] = True
        return [_kept(document) async for document in self._windows.find(wanted).sort("offset", 1).limit(limit)]


def _document(entry: Kept) -> Document:
    each = entry.publication
    return {
        "offset": each.offset,
        "channel": entry.channel,
        "previous": each.previous,
        "published_at": each.published_at,
        "event": each.event,
        "data": each.data,
        "tags": None if each.tags is None else list(each.tags.items()),  # names may have dots and dollars
        "ttl": entry.ttl,
        "key": entry.key,
        "archive": entry.archive,
        "gone": entry.gone,
    }


def _kept(document: Document) -> Kept:
    """The entry in a document; its numbers plain ones, not the driver's 64-bit class."""
    offset, previous, at = (int(document[name]) for name in ("offset", "previous", "published_at"))
    tags = None if document["tags"] is None else dict(document["tags"])
    publication = Publication(offset, previous, at, document["event"], document["data"], tags)
    archive, gone = bool(document["archive"]), bool(document["gone"])
    return Kept(document["channel"], publication, int(document["ttl"]), document["key"], archive, gone)
