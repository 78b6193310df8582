"""Names that one node has for a time, in a bucket of JetStream: one message for each, written over by its number.

All times are those of the server that leads the bucket: the clocks of nodes do not count.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import msgspec

from hubbub.brokers.nats.address import Address
from hubbub.brokers.nats.link import Link, Refused, Unanswered
from hubbub.brokers.nats.streams import NANO, Streams
from hubbub.brokers.nats.subjects import token
from hubbub.errors import StoreUnavailable

__all__ = ["Claims"]

LONGEST = 24 * 3600
"""Seconds after which the bucket forgets a name, whatever was claimed."""
NO_MESSAGE, WRONG_LAST = 10037, {10071, 10164}
TRIES = 3


class Claim(msgspec.Struct, array_like=True):
    """Who has a name, and for how many seconds from when it was written."""

    owner: str
    ttl: float


class Claims:
    """Claims names.

    Args:
        link: the connection.
        address: names the bucket.
        streams: make it.
    """

    def __init__(self, link: Link, address: Address, streams: Streams) -> None:
        self._link = link
        self._streams = streams
        self._place = address.place
        self._bucket = f"{address.name}_claims"

    async def open(self) -> None:
        """Have the bucket."""
        await self._streams.ensure(
            {
                "name": f"KV_{self._bucket}",
                "subjects": [f"$KV.{self._bucket}.>"],
                "max_msgs_per_subject": 1,
                "max_age": LONGEST * NANO,
                "allow_msg_ttl": True,
                "allow_rollup_hdrs": True,
                "deny_delete": True,
                "allow_direct": True,
                "discard": "new",
                "duplicate_window": 120 * NANO,
            }
        )

    async def claim(self, name: str, owner: str, ttl: float) -> bool:
        """See `contracts.Broker.claim`."""
        subject = f"$KV.{self._bucket}.{token(name)}"
        data = msgspec.json.encode(Claim(owner, ttl))
        for _ in range(TRIES):
            number, held = await self._find(subject)
            if held is not None and held[0].owner != owner and not await self._ended(*held):
                return False
            headers = {"Nats-Expected-Last-Subject-Sequence": str(number), "Nats-TTL": f"{math.ceil(ttl) + 1}s"}
            try:
                self._link.read((await self._link.ask(subject, data, headers=headers)).data)
            except Unanswered:
                continue  # it may be written: then it is found
            except Refused as error:
                if error.number not in WRONG_LAST:
                    raise
            else:
                return True
        raise StoreUnavailable(f"{self._place} does not say whose {name!r} is.")

    async def _find(self, subject: str) -> tuple[int, tuple[Claim, str] | None]:
        """The number of a name's message, 0 without one; what it says, and when it was written."""
        try:
            answer = await self._link.api(f"STREAM.MSG.GET.KV_{self._bucket}", {"last_by_subj": subject})
        except Refused as error:
            if error.number == NO_MESSAGE:
                return 0, None
            raise
        message: dict[str, Any] = answer["message"]
        try:
            held = msgspec.json.decode(msgspec.convert(message.get("data", ""), bytes), type=Claim)
        except msgspec.DecodeError:
            return message["seq"], None  # a mark that it ended, or none of ours
        return message["seq"], (held, message["time"])

    async def _ended(self, held: Claim, written: str) -> bool:
        info = await self._link.api(f"STREAM.INFO.KV_{self._bucket}")
        passed = datetime.fromisoformat(info["ts"]) - datetime.fromisoformat(written)
        return passed.total_seconds() >= held.ttl
