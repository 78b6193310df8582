"""The messages of all inboxes in MongoDB, with no transaction, replica set, partial index or pipeline update.

A message is two steps: its cursor is taken from its user's head, then its document is inserted. Between them, or for
ever if the writer died, others see a hole. The rules:

1. A document at every cursor above the floor, or nobody passes: readers, the cap and the sweep stop at a hole. So what
   becomes visible does so in the order of the cursors, whoever wrote it and whenever.
2. A hole that is older than `PATIENCE`, by the age of what stands behind it, is filled with a tombstone by whoever
   meets it. Its writer, if it lives, then fails at the unique (user, cursor) and starts again with a new cursor.
3. What vanishes above the floor (expired, or a message that turned out to be known) leaves a tombstone. The floor only
   rises: by acks, which never pass what was read; by the cap; over tombstones. Whoever moved it over a message decided
   what became of it, so it is moved first, and what lies under it is deleted then.
4. A key is known by the unique (user, key). A message without one has its own id there. Under the floor, documents that
   are `held` stay until `forget_at`: those with a key, and fillers, so that no writer comes back to a cursor given up.
5. A batch is inserted in the order of its cursors, so that a writer and a filler of one range meet at its first.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from bson import ObjectId
from pymongo import IndexModel, ReturnDocument, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError

from hubbub.stores.mongo.document import BURIED, Document, readable, tombstone
from hubbub.stores.mongo.failures import duplicate

__all__ = ["PATIENCE", "Messages"]

PATIENCE = 10_000
"""Milliseconds for which a hole may be a message that is still being written."""
SKETCH = {"cursor": 1, "gone": 1, "sent_at": 1, "expires_at": 1}


class Messages:
    """Documents and heads, and how to pass along them.

    Args:
        database: where they are.
    """

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        self.documents: AsyncCollection[Document] = database["hubbub_inbox"]
        self.heads: AsyncCollection[Document] = database["hubbub_heads"]

    async def prepare(self) -> None:
        """Make the indexes; those that are there stay."""
        unique = [IndexModel([("user", 1), (name, 1)], unique=True) for name in ("cursor", "key")]
        pairs = (("gone", "expires_at"), ("held", "forget_at"), ("claimed", "sent_at"))
        await self.documents.create_indexes([*unique, *(IndexModel([(a, 1), (b, 1)]) for a, b in pairs)])

    async def head(self, user: str) -> Document:
        """The last cursor taken (`head`), the one up to which all is gone (`floor`), what the cap took (`dropped`)."""
        return await self.heads.find_one({"_id": user}) or {"head": 0, "floor": 0, "dropped": 0}

    async def count(self, user: str, after: int, now: int) -> int:
        """How many messages behind a cursor have not expired."""
        wanted = {"user": user, "cursor": {"$gt": after}, "gone": False, "expires_at": {"$gt": now}}
        return await self.documents.count_documents(wanted)

    async def walk(
        self, user: str, after: int, now: int, fields: Document | None = None, batch: int = 0
    ) -> AsyncGenerator[Document | None, None]:
        """The documents behind a cursor, one by one; at a hole None, and no more."""
        behind = {"user": user, "cursor": {"$gt": after}}
        async with self.documents.find(behind, fields, batch_size=batch).sort("cursor", 1) as documents:
            async for document in documents:
                after += 1
                if document["cursor"] != after:
                    await self._mend(user, after, document, now)
                    yield None
                    return
                yield document

    async def reach(self, user: str, floor: int, excess: int, now: int) -> tuple[int, int]:
        """Where the floor may rise to, if the `excess` oldest messages go, and how many that are before a hole."""
        cut, count = floor, 0
        async with aclosing(self.walk(user, floor, now, SKETCH)) as documents:
            async for document in documents:
                if document is None or (count >= excess and readable(document, now)):
                    break
                cut = document["cursor"]
                count += readable(document, now)
        return cut, count

    async def rise(self, user: str, floor: int) -> None:
        """Move the floor up, and clear what lies under it."""
        change = {"$max": {"floor": floor}}
        head = await self.heads.find_one_and_update({"_id": user}, change, return_document=ReturnDocument.AFTER)
        if head is not None:
            await self.clear(user, head["floor"])

    async def clear(self, user: str, floor: int) -> None:
        """Delete what lies under the floor, but what is held."""
        under = {"user": user, "cursor": {"$lte": floor}}
        await self.documents.delete_many({**under, "held": False})
        await self.documents.update_many({**under, "gone": False}, BURIED)

    async def forget(self, ids: list[ObjectId]) -> None:
        """Take the keys of messages away; one that is still waiting goes on without."""
        changes = [UpdateOne({"_id": id}, {"$set": {"key": id, "held": False}}) for id in ids]
        if changes:
            await self.documents.bulk_write(changes)

    async def bury(self, stones: list[Document], *, ordered: bool) -> None:
        """Put tombstones where nothing is; `ordered`, up to the first place where something is."""
        try:
            await self.documents.insert_many(stones, ordered=ordered)
        except BulkWriteError as error:
            duplicate(error)

    async def _mend(self, user: str, first: int, behind: Document, now: int) -> None:
        """Fill a hole that is too old; not one that only opened because the floor rose meanwhile."""
        if behind["sent_at"] + PATIENCE <= now and (await self.head(user))["floor"] < first:
            stones = [tombstone(user, cursor, now, held=True) for cursor in range(first, behind["cursor"])]
            await self.bury(stones, ordered=True)
