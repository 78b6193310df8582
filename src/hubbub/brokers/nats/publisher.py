"""Publications on their way into a stream: each is acknowledged, or its publisher is told that it may not be there.

Rules of this file:
1. Every publication has a name that NATS knows for 120 s, the publisher's or one by chance. So what was not answered is
   sent again, and is there once.
2. They go out in the order in which they came. Those of a channel whose last one was not answered wait for it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import sha256
from itertools import count
from time import monotonic
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from hubbub.brokers.nats.body import Body, encode_body
from hubbub.brokers.nats.link import ATTEMPT, PATIENCE, Link, Unanswered
from hubbub.brokers.nats.streams import Stream, Streams
from hubbub.core.recovery import Position
from hubbub.errors import StorageFull, StoreError, StoreUnavailable

__all__ = ["Ack", "Publisher"]

MOST, MOST_BYTES = 16_384, 64 * 1024 * 1024
FULL = {10023, 10047, 10077, 10122}
"""No memory, no room on the disk, limits of the stream or the account."""
TOO_BIG = 10054


class Ack(msgspec.Struct):
    """What JetStream answers to a publication; `error` in place of the rest if it did not take it."""

    seq: int = 0
    duplicate: bool = False
    error: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(Ack).decode


def _name(channel: str, key: str) -> str:
    """How NATS knows a publication of a channel that its publisher has a name for."""
    return sha256(f"{len(channel)}:{channel}{key}".encode("utf-8", "surrogatepass")).hexdigest()


class Publisher:
    """Stores publications.

    Args:
        link: the connection.
        streams: they know which are there.
        place: what NATS is called in messages.
    """

    def __init__(self, link: Link, streams: Streams, place: str) -> None:
        self._link = link
        self._streams = streams
        self._place = place
        self._own, self._numbers = secrets.token_urlsafe(6), count()
        self._waiting = self._bytes = 0
        self._finished: asyncio.Event | None = None
        self._troubled: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def finish(self) -> None:
        """Wait for those that are on their way, not for ever."""
        if self._waiting:
            self._finished = asyncio.Event()
            with suppress(TimeoutError):
                async with asyncio.timeout(ATTEMPT):
                    await self._finished.wait()

    async def publish(self, find: Callable[[], Awaitable[Stream]], body: Body, key: str | None) -> Position:
        """Store a publication; where it is. See `store`."""
        stream, ack = await self.store(find, body, key)
        return Position(ack.seq, stream.epoch)

    async def store(self, find: Callable[[], Awaitable[Stream]], body: Body, key: str | None) -> tuple[Stream, Ack]:
        """Store a message.

        Args:
            find: gives its stream, as it is now.
            body: what is published.
            key: publisher and the publisher's name for it.

        Raises:
            StoreUnavailable: it may be stored or not, or too many wait already.
            StorageFull: it is not stored.
        """
        data, channel = encode_body(body), body.channel
        name = f"{self._own}{next(self._numbers)}" if key is None else _name(channel, key)
        if self._waiting >= MOST or self._bytes + len(data) > MOST_BYTES:
            raise StoreUnavailable(f"{self._place} is too slow: {self._waiting} publications wait for it.")
        self._waiting += 1
        self._bytes += len(data)
        try:
            trouble = self._troubled.get(channel)
            if trouble is None:
                stream = await find()
                ack = await self._try(stream.subject(channel), data, name)
                if ack is not None:
                    return stream, ack
            return await self._insist(find, channel, data, name)
        finally:
            self._waiting -= 1
            self._bytes -= len(data)
            if not self._waiting and self._finished is not None:
                self._finished.set()

    async def _try(self, subject: str, data: bytes, name: str) -> Ack | None:
        """Try to store; None if that may have failed, and may be tried again.

        Raises:
            StorageFull: there is no room.
            StoreError: it will never be stored.
        """
        try:
            answer = await self._link.ask(subject, data, headers={"Nats-Msg-Id": name})
            ack = _decode(answer.data)
        except (Unanswered, msgspec.DecodeError):
            return None
        if ack.error is None:
            return ack if ack.seq else None
        number, text = ack.error.get("err_code"), ack.error.get("description")
        if number in FULL:
            raise StorageFull(f"{self._place} has no room: {text}.")
        if number == TOO_BIG:
            raise StoreError(f"{self._place} does not take a message of {len(data)} bytes: raise max_payload.")
        return None  # a new leader is being chosen, or the same name is on its way

    async def _insist(
        self, find: Callable[[], Awaitable[Stream]], channel: str, data: bytes, name: str
    ) -> tuple[Stream, Ack]:
        until = monotonic() + PATIENCE
        async with self._troubled.setdefault(channel, asyncio.Lock()):
            while monotonic() < until and not self._link.gone:
                stream = await find()
                ack = await self._try(stream.subject(channel), data, name)
                if ack is not None:
                    return stream, ack
                await self._link.pause()
                await self._streams.state(stream)  # it may have been deleted: then `find` makes another
            raise StoreUnavailable(f"{self._place} did not say that it has the publication: it may or may not.")
