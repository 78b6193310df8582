"""Reading inboxes in MongoDB, and the devices that do; the rules are those of `messages`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from pymongo import IndexModel, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from hubbub.core.inbox import FORGET_DEVICE, MOST_DEVICES, Ack, Entry, Page, Standing
from hubbub.stores.mongo.document import BURIED, Document, entry, readable
from hubbub.stores.mongo.messages import Messages

__all__ = ["Inbox"]

LARGEST = (1 << 63) - 1


class Inbox:
    """Every user's inbox; driver errors go through.

    Args:
        messages: what is in them.
        database: where the devices are.
    """

    def __init__(self, messages: Messages, database: AsyncDatabase[Document]) -> None:
        self._messages = messages
        self._devices: AsyncCollection[Document] = database["hubbub_devices"]

    async def prepare(self) -> None:
        """Make the indexes; those that are there stay."""
        await self._messages.prepare()
        await self._devices.create_indexes([IndexModel([("user", 1), ("device", 1)], unique=True), IndexModel("seen")])

    async def read(self, user_id: str, after: int, limit: int, now: int) -> Page:
        """See `Store.read`."""
        entries: list[Entry] = []
        start = max(min(after, LARGEST), (await self._messages.head(user_id))["floor"])
        async with aclosing(self._messages.walk(user_id, start, now, batch=limit + 1)) as documents:
            async for document in documents:
                if document is None:
                    return Page(entries, whole=False)
                if len(entries) == limit:
                    break
                if readable(document, now):
                    entries.append(entry(document))
        return Page(entries)

    async def ack(self, acks: Sequence[Ack], now: int) -> None:
        """See `Store.ack`; a cursor that was not given yet counts as the last one that was."""
        users = list({ack.user_id for ack in acks})
        heads = {head["_id"]: head async for head in self._messages.heads.find({"_id": {"$in": users}})}
        changes = [_advance(ack, heads[ack.user_id], now) for ack in acks if ack.user_id in heads]
        if changes:
            await self._devices.bulk_write(changes)
            await asyncio.gather(*map(self._settle, heads))

    async def standing(self, user_id: str, device: str, now: int) -> Standing:
        """See `Store.standing`."""
        head = await self._messages.head(user_id)
        devices = {found["device"]: found async for found in self._devices.find({"user": user_id})}
        told = max((found["told"] for found in devices.values()), default=0)
        own = devices.get(device, {"acked": head["floor"], "told": told})
        seen = {"$max": {"seen": now}, "$setOnInsert": {"acked": own["acked"], "told": own["told"]}}
        await self._devices.update_one({"user": user_id, "device": device}, seen, upsert=True)
        others = sorted(devices.keys() - {device}, key=lambda name: devices[name]["seen"], reverse=True)
        if crowd := others[MOST_DEVICES - 1 :]:
            await self._devices.delete_many({"user": user_id, "device": {"$in": crowd}})
        pending = await self._messages.count(user_id, max(own["acked"], head["floor"]), now)
        return Standing(int(own["acked"]), pending, int(head["dropped"] - own["told"]))

    async def claim(self, sent_before: int, limit: int, now: int) -> list[tuple[str, Entry]]:
        """See `Store.claim`."""
        due = {"claimed": False, "sent_at": {"$lt": sent_before}, "expires_at": {"$gt": now}}
        claimed: list[tuple[str, Entry]] = []
        while room := limit - len(claimed):
            found = await self._messages.documents.find(due).sort([("sent_at", 1), ("cursor", 1)]).limit(room).to_list()
            if not found:
                break
            claimed += [(document["user"], entry(document)) for document in found if await self._claim(document)]
        return claimed

    async def sweep(self, now: int) -> None:
        """See `Store.sweep`."""
        documents, user = self._messages.documents, {"user": 1}
        expired = documents.find({"gone": False, "expires_at": {"$lte": now}}, user)
        forgotten = documents.find({"held": True, "forget_at": {"$lte": now}}, user)
        unseen = self._devices.find({"seen": {"$lte": now - FORGET_DEVICE}}, user)
        for user_id in {found["user"] for cursor in (expired, forgotten, unseen) async for found in cursor}:
            await self._tidy(user_id, now)

    async def _acked(self, user: str) -> list[int]:
        """The cursors that its devices came to."""
        return [device["acked"] async for device in self._devices.find({"user": user}, {"acked": 1})]

    async def _settle(self, user: str) -> None:
        """Forget what every device has acked."""
        await self._messages.rise(user, min(await self._acked(user), default=0))

    async def _claim(self, document: Document) -> bool:
        change = {"$set": {"claimed": True}}
        mine = await self._messages.documents.update_one({"_id": document["_id"], "claimed": False}, change)
        floor: int = (await self._messages.head(document["user"]))["floor"]
        return mine.modified_count == 1 and document["cursor"] > max([*await self._acked(document["user"]), floor])

    async def _tidy(self, user: str, now: int) -> None:
        documents = self._messages.documents
        await self._devices.delete_many({"user": user, "seen": {"$lte": now - FORGET_DEVICE}})
        await documents.update_many({"user": user, "gone": False, "expires_at": {"$lte": now}}, BURIED)
        old = {"user": user, "held": True, "forget_at": {"$lte": now}}
        await self._messages.forget([found["_id"] async for found in documents.find(old, {"_id": 1})])
        cut, _ = await self._messages.reach(user, (await self._messages.head(user))["floor"], 0, now)
        await self._messages.rise(user, cut)
        await self._settle(user)


def _advance(ack: Ack, head: Document, now: int) -> UpdateOne:
    change = {"$max": {"acked": min(ack.cursor, head["head"]), "told": head["dropped"], "seen": now}}
    return UpdateOne({"user": ack.user_id, "device": ack.device}, change, upsert=True)
