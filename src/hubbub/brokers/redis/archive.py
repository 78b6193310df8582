"""Publications that are not in the archive yet: some streams of Redis, over which the channels are spread.

A position is how far each of them was read. Several nodes may read at the same time: what is written twice is there
once, and each deletes only what it has written itself.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from hubbub.brokers.redis.body import read_entry
from hubbub.brokers.redis.keys import Keys
from hubbub.brokers.redis.servers import Servers
from hubbub.core.records import Record

__all__ = ["Archive"]

ID = re.compile(r"\d{1,18}-\d{1,18}")
LEAST = 16


class Archive:
    """Reads what is not archived.

    Args:
        servers: where it is.
        keys: what it is called.
    """

    def __init__(self, servers: Servers, keys: Keys) -> None:
        self._servers = servers
        self._keys = keys

    async def unarchived(self, position: str | None, limit: int) -> tuple[list[Record], str | None]:
        """See `contracts.Broker.unarchived`."""
        places = self._places(position)
        each = min(limit, max(LEAST, limit // 4)) if len(places) > 1 else limit
        pages = await asyncio.gather(
            *(self._page(key, place, each) for key, place in zip(self._keys.archives, places, strict=True))
        )
        found = [(_id(entry), group, entry) for group, page in enumerate(pages) for entry in page]
        records = []
        moved = False
        for _, group, entry in sorted(found, key=itemgetter(0, 1))[:limit]:
            places[group], moved = entry[0].decode("ascii", "replace"), True
            record = _record(entry)
            if record is not None:
                records.append(record)
        return records, json.dumps([*self._keys.archives, *places]) if moved else position

    async def _page(self, key: str, place: str, limit: int) -> Sequence[Any]:
        if place != "0-0":
            time, _, number = place.partition("-")
            await self._servers.call(key, "XTRIM", key, "MINID", "=", f"{time}-{int(number) + 1}")
        page: Sequence[Any] = await self._servers.call(key, "XRANGE", key, f"({place}", "+", "COUNT", limit, long=True)
        return page

    def _places(self, position: str | None) -> list[str]:
        """How far each was read; from the beginning, if it is not a position of ours."""
        try:
            found = json.loads(position or "null")
        except ValueError:
            found = None
        keys = list(self._keys.archives)
        # Another hub may keep its archive in the same database: to go by its place would trim what nobody has read.
        ours = isinstance(found, list) and len(found) == 2 * len(keys) and found[: len(keys)] == keys
        places = found[len(keys) :] if ours else ["0-0"] * len(keys)
        return [str(place) if ID.fullmatch(str(place)) else "0-0" for place in places]


def _id(entry: Sequence[Any]) -> tuple[int, int]:
    """When an entry was written: the oldest are the first, of whatever stream."""
    time, _, number = entry[0].partition(b"-")
    return int(time), int(number)


def _record(entry: Sequence[Any]) -> Record | None:
    """The record of an entry; None if it is none of ours."""
    fields = dict(zip(entry[1][::2], entry[1][1::2], strict=False))
    offset = fields.get(b"o", b"")
    found = read_entry((offset, [b"p", b"0", b"t", fields.get(b"t"), b"b", fields.get(b"b", b"")]))
    channel, epoch = fields.get(b"c"), fields.get(b"e")
    if found is None or channel is None or epoch is None:
        return None
    return Record(
        channel.decode("utf-8", "surrogatepass"),
        epoch.decode("ascii", "replace"),
        found.offset,
        found.event,
        found.data,
        found.published_at,
        found.tags,
    )
