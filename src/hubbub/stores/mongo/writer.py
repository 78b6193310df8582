"""How messages get into inboxes in MongoDB; the rules are those of `messages`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from bson import ObjectId
from pymongo import ReturnDocument
from pymongo.errors import BulkWriteError
from pymongo.read_concern import ReadConcern

from hubbub.core.inbox import Draft, Stored, full
from hubbub.errors import StoreUnavailable
from hubbub.stores.mongo.document import Row, tombstone
from hubbub.stores.mongo.failures import duplicate
from hubbub.stores.mongo.messages import Messages

__all__ = ["Writer"]

ATTEMPTS = 8


class Writer:
    """Puts drafts into inboxes and keeps these under their cap.

    Args:
        messages: where they go.
    """

    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    async def append(self, drafts: Sequence[Draft], cap: int) -> list[Stored]:
        """See `Store.append`; a batch that fails in the middle is there in part."""
        rows = [Row(draft) for draft in drafts]
        firsts: dict[tuple[str, object], Row] = {}
        for row in rows:
            firsts.setdefault((row.user, row.key), row)
        await self._recall([row for row in firsts.values() if row.draft.key is not None])
        await self._write([row for row in firsts.values() if row.fresh])
        dropped = await self._make_room([row for row in firsts.values() if row.fresh], cap)
        return [_stored(row, firsts[row.user, row.key], dropped) for row in rows]

    async def _recall(self, rows: list[Row]) -> None:
        """Find the messages whose keys are known already, before a cursor is taken for them."""
        wanted = [{"user": user, "key": {"$in": [row.key for row in own]}} for user, own in _by_user(rows).items()]
        if not wanted:
            return
        fields = {"user": 1, "key": 1, "cursor": 1, "forget_at": 1}
        documents = self._messages.documents.find({"$or": wanted}, fields)
        known = {(found["user"], found["key"]): found async for found in documents}
        stale = []
        for row in rows:
            found = known.get((row.user, row.key))
            if found and found["forget_at"] > row.draft.sent_at:
                row.cursor, row.fresh = found["cursor"], False
            elif found:
                stale.append(found["_id"])
        await self._messages.forget(stale)

    async def _write(self, rows: list[Row]) -> None:
        for _ in range(ATTEMPTS):
            if not rows:
                return
            await asyncio.gather(*(self._take(user, own) for user, own in _by_user(rows).items()))
            rows = await self._insert(rows)
        raise StoreUnavailable("MongoDB is too slow: every place that was taken for a message was given up again.")

    async def _take(self, user: str, rows: list[Row]) -> None:
        """Take the next cursors of an inbox."""
        steps = {"$inc": {"head": len(rows), "floor": 0, "dropped": 0}}
        head: Any = await self._messages.heads.find_one_and_update(
            {"_id": user}, steps, upsert=True, return_document=ReturnDocument.AFTER
        )
        for row, cursor in zip(rows, range(head["head"] - len(rows) + 1, head["head"] + 1), strict=True):
            row.cursor = cursor

    async def _insert(self, rows: list[Row]) -> list[Row]:
        """Insert in order; gives back those that lost their cursors to a reader."""
        lost: list[Row] = []
        while rows:
            try:
                await self._messages.documents.insert_many([row.document() for row in rows])
                break
            except BulkWriteError as error:
                at = duplicate(error)
            row, rows = rows[at], rows[at + 1 :]
            if not await self._give_way(row):
                # Those behind it in the same inbox must not overtake it.
                lost += [row, *(other for other in rows if other.user == row.user)]
                rows = [other for other in rows if other.user != row.user]
        await self._give_up(lost)
        return lost

    async def _give_way(self, row: Row) -> bool:
        """Leave it to the message that has this key already, if that is why the insert failed."""
        if row.draft.key is None:
            return False
        # Not by majority: it may be so new that only the primary has it. The tombstone's majority covers it as well.
        documents = self._messages.documents.with_options(read_concern=ReadConcern("local"))
        first = await documents.find_one({"user": row.user, "key": row.draft.key}, {"cursor": 1})
        if first is None:
            return False
        await self._give_up([row])
        row.cursor, row.fresh = first["cursor"], False
        return True

    async def _give_up(self, rows: list[Row]) -> None:
        """Leave tombstones where messages were to be."""
        if rows:
            stones = [tombstone(row.user, row.cursor, row.draft.sent_at, held=False) for row in rows]
            await self._messages.bury(stones, ordered=False)

    async def _make_room(self, rows: list[Row], cap: int) -> dict[ObjectId, int]:
        """Bring inboxes under the cap; counts what each new message drove out, as if they had come one by one."""
        dropped: dict[ObjectId, int] = {}
        inboxes = _by_user(rows)
        async for head in self._messages.heads.find({"_id": {"$in": list(inboxes)}}):
            if full(head["head"], head["floor"], cap):  # else the cursors alone say that there is room
                own = inboxes[head["_id"]]
                total = await self._trim(head["_id"], cap, max(row.draft.sent_at for row in own))
                dropped |= {row.id: 1 for row in own[-total:] if total}
                dropped[own[0].id] = max(total - len(own) + 1, dropped.get(own[0].id, 0))
        return dropped

    async def _trim(self, user: str, cap: int, now: int) -> int:
        """Move the floor over the oldest messages beyond the cap; says over how many."""
        while True:
            floor = (await self._messages.head(user))["floor"]
            excess = await self._messages.count(user, floor, now) - cap
            cut, count = await self._messages.reach(user, floor, excess, now)
            if cut == floor:
                return 0
            change = {"$set": {"floor": cut}, "$inc": {"dropped": count}}
            if (await self._messages.heads.update_one({"_id": user, "floor": floor}, change)).matched_count:
                await self._messages.clear(user, cut)
                return count


def _by_user(rows: Iterable[Row]) -> dict[str, list[Row]]:
    users: dict[str, list[Row]] = {}
    for row in rows:
        users.setdefault(row.user, []).append(row)
    return users


def _stored(row: Row, first: Row, dropped: dict[ObjectId, int]) -> Stored:
    return Stored(int(first.cursor), row is first and row.fresh, dropped.get(row.id, 0))
