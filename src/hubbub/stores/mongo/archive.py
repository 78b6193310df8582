"""The archive in MongoDB: publications by channel, in the order they were published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields

from pymongo import IndexModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError

from hubbub.core.records import Record
from hubbub.stores.mongo.document import Document
from hubbub.stores.mongo.failures import duplicate

__all__ = ["Archive"]

NAMES = [field.name for field in fields(Record)]
ORDER = ("published_at", "epoch", "offset")


class Archive:
    """The collections of the archive; driver errors go through.

    Args:
        database: where they are.
    """

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self._records: AsyncCollection[Document] = database["hubbub_archive"]
        self._meta: AsyncCollection[Document] = database["hubbub_meta"]

    async def prepare(self) -> None:
        """Make the indexes; those that are there stay."""
        unique = IndexModel([("channel", 1), ("epoch", 1), ("offset", 1)], unique=True)
        await self._records.create_indexes([unique, IndexModel([(name, 1) for name in ("channel", *ORDER)])])

    async def add(self, records: Sequence[Record], position: str) -> None:
        """See `Store.archive`: the records first, so that a position never stands for what is not there."""
        documents = [_document(record) for record in records]
        try:
            if documents:
                await self._records.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            duplicate(error)
        await self._meta.update_one({"_id": "archive"}, {"$set": {"position": position}}, upsert=True)

    async def position(self) -> str | None:
        """See `Store.archive_position`."""
        found = await self._meta.find_one({"_id": "archive"})
        return found["position"] if found else None

    async def read(
        self, channel: str, limit: int, after: tuple[str, int] | None, since: int, back: bool
    ) -> list[Record]:
        """See `Store.archived`."""
        wanted: Document = {"channel": channel, "published_at": {"$gte": since}}
        if after is not None:
            epoch, offset = after
            last = await self._records.find_one({"channel": channel, "epoch": epoch, "offset": offset})
            if last is None:
                return []
            wanted = {**wanted, "$or": _beyond(last, "$lt" if back else "$gt")}
        found = self._records.find(wanted).sort([(name, -1 if back else 1) for name in ORDER]).limit(limit)
        records = [_record(document) async for document in found]
        return records[::-1] if back else records


def _document(record: Record) -> Document:
    # Pairs: the names of tags may have dots and dollars.
    return {**asdict(record), "tags": None if record.tags is None else list(record.tags.items())}


def _record(document: Document) -> Record:
    """The record in a document; its numbers plain ones, not the driver's 64-bit class."""
    values: Document = {name: document.get(name) for name in NAMES}
    tags = None if values["tags"] is None else dict(values["tags"])
    numbers = {name: int(document[name]) for name in ("offset", "published_at")}
    return Record(**{**values, **numbers, "tags": tags})


def _beyond(last: Document, way: str) -> list[Document]:
    """What comes later, by `$gt`, or earlier, by `$lt`, in the order of `ORDER`."""
    return [
        {**{name: last[name] for name in ORDER[:place]}, ORDER[place]: {way: last[ORDER[place]]}}
        for place in range(len(ORDER))
    ]
