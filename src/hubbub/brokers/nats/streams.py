"""The streams of JetStream in which channels are remembered.

Rules of this file:
1. Channels with the same history and the same ttl share a stream, or `shards` of them; all that are archived share one.
2. A stream is born with a random epoch, which is part of its subjects: what is published, read or heard in one epoch
   never meets another, and whoever has the name of a dead stream finds nothing.
3. A stream keeps one publication more than the history, and all for `SLACK` longer than the ttl: a key is known as
   long, and a client whose last one has just been forgotten misses nothing.
4. The stream of archived channels has no limits: who archives forgets what has been.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from hubbub.brokers.nats.address import Address
from hubbub.brokers.nats.link import Link, Refused
from hubbub.brokers.nats.subjects import token
from hubbub.core.namespaces import Namespace
from hubbub.core.recovery import DEDUPE
from hubbub.errors import StoreError

__all__ = ["NANO", "Stream", "Streams"]

logger = logging.getLogger("hubbub.broker")

NANO = 1_000_000_000
SLACK = DEDUPE
NOT_FOUND, NAME_IN_USE = 10059, 10058


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream in one epoch.

    Args:
        name: its name.
        app: what its subjects begin with.
        epoch: which life of it.
        keeps: messages of each channel; 0 for any number.
    """

    name: str
    app: str
    epoch: str
    keeps: int

    @property
    def all(self) -> str:
        """The subjects of all its channels."""
        return f"{self.app}.in.{self.epoch}.>"

    def subject(self, channel: str) -> str:
        """Where a channel's publications are stored."""
        return f"{self.app}.in.{self.epoch}.{token(channel)}"

    def copies(self, channel: str) -> str:
        """Where the server tells of them, in whichever epoch."""
        return f"{self.app}.out.*.{token(channel)}"


class Streams:
    """Finds and makes streams.

    Args:
        link: the connection.
        address: how they are to be.
        gone: called with a stream that is no longer, or has another epoch.
    """

    def __init__(self, link: Link, address: Address, gone: Callable[[Stream], None]) -> None:
        self._link = link
        self._address = address
        self._gone = gone
        self._known: dict[str, Stream] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def open(self, namespaces: Iterable[Namespace]) -> None:
        """Make the streams of these; others are made when they are needed.

        Raises:
            StoreError: there are streams with another number of shards, or NATS cannot make ours.
        """
        await self._check_shards()
        for namespace in list(namespaces):
            for shard in range(self._address.shards if namespace.history and not namespace.archive else 0):
                await self._find(*self._plan(namespace, shard))
        if any(namespace.archive for namespace in namespaces):
            await self.archive()

    async def of(self, namespace: Namespace, channel: str) -> Stream:
        """The stream of a channel with a history."""
        name, keeps, age = self._plan(namespace, zlib.crc32(channel.encode("utf-8", "surrogatepass")))
        return self._known.get(name) or await self._find(name, keeps, age)

    async def archive(self) -> Stream:
        """The stream of all channels that are archived."""
        name = f"{self._address.name}_archive"
        return self._known.get(name) or await self._find(name, 0, 0.0)

    async def keys(self) -> Stream:
        """The stream of publishers' keys on channels without a history."""
        name = f"{self._address.name}_keys"
        return self._known.get(name) or await self._find(name, 0, DEDUPE)

    async def state(self, stream: Stream) -> dict[str, Any] | None:
        """What the leader of a stream says of it; None if it is gone, which then is known from here on."""
        try:
            info = await self._link.api(f"STREAM.INFO.{stream.name}")
        except Refused as error:
            if error.number != NOT_FOUND:
                raise
            info = {}
        if _epoch(info) == stream.epoch:
            return dict(info["state"])
        self.forget(stream)
        return None

    def forget(self, stream: Stream) -> None:
        """Know that a stream is gone."""
        if self._known.get(stream.name) is stream:
            del self._known[stream.name]
            logger.warning("the stream %s of %s was deleted: its history is gone", stream.name, self._address.place)
            self._gone(stream)

    async def ensure(self, config: dict[str, Any]) -> dict[str, Any]:
        """Have a stream of this name, made so if there is none; its description."""
        name = config["name"]
        config = {"storage": "file", "retention": "limits", "num_replicas": self._address.replicas} | config
        try:
            return await self._link.api(f"STREAM.INFO.{name}")
        except Refused as error:
            if error.number != NOT_FOUND:
                raise
        try:
            return await self._link.api(f"STREAM.CREATE.{name}", config)
        except Refused as error:
            if error.number != NAME_IN_USE:
                raise
            return await self._link.api(f"STREAM.INFO.{name}")  # another node was faster

    # Inside

    def _plan(self, namespace: Namespace, number: int) -> tuple[str, int, float]:
        """Name, messages of a channel and seconds of a stream."""
        app, shards = self._address.name, self._address.shards
        if namespace.archive:
            return f"{app}_archive", 0, 0.0
        kind = f"h{namespace.history}_t{round(namespace.history_ttl * 1000)}"
        return f"{app}_{kind}_{number % shards}of{shards}", namespace.history + 1, namespace.history_ttl + SLACK

    async def _find(self, name: str, keeps: int, age: float) -> Stream:
        async with self._turns.setdefault(name, asyncio.Lock()):
            found = self._known.get(name)
            if found is not None:
                return found
            info = await self.ensure(self._config(name, keeps, age))
            if info["config"]["num_replicas"] != self._address.replicas:
                changed = info["config"] | {"num_replicas": self._address.replicas}
                info = await self._link.api(f"STREAM.UPDATE.{name}", changed)
            epoch = _epoch(info)
            if epoch is None:
                raise StoreError(f"{self._address.place} has a stream {name} that is not ours: use another ?name=.")
            self._known[name] = stream = Stream(name, self._address.name, epoch, keeps)
            return stream

    def _config(self, name: str, keeps: int, age: float) -> dict[str, Any]:
        app, epoch = self._address.name, secrets.token_hex(6)
        return {
            "name": name,
            "subjects": [f"{app}.in.{epoch}.>"],
            "republish": {"src": f"{app}.in.{epoch}.>", "dest": f"{app}.out.{epoch}.>"},
            "max_msgs_per_subject": keeps or -1,
            "max_age": round(age * NANO),
            "duplicate_window": round(DEDUPE * NANO),
            "allow_direct": True,
            "discard": "old",
        }

    async def _check_shards(self) -> None:
        """Refuse to look for channels where they are not."""
        app, shards = self._address.name, self._address.shards
        answer = await self._link.api("STREAM.NAMES", {"subject": f"{app}.in.>"})
        for name in answer.get("streams") or ():
            found = re.fullmatch(rf"{app}_h\d+_t\d+_\d+of(\d+)", name)
            if found is not None and int(found[1]) != shards:
                raise StoreError(
                    f"The channels in {self._address.place} are spread over {found[1]} shards, not {shards}: "
                    f"give ?shards={found[1]}, or stop all nodes and delete the streams named {app}_h*: "
                    "the histories then begin anew."
                )


def _epoch(info: dict[str, Any]) -> str | None:
    """The epoch of a stream, as its subjects have it."""
    subjects = info.get("config", {}).get("subjects") or [""]
    parts = str(subjects[0]).split(".")
    return parts[2] if len(parts) == 4 and parts[1] == "in" else None
