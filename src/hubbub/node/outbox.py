"""What waits for one client: a bounded queue in front of its transport."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from hubbub.core.forms import FRAMES
from hubbub.core.session import UNREAD
from hubbub.errors import CloseCode
from hubbub.node.backlog import Backlog

if TYPE_CHECKING:
    from hubbub.contracts import Transport
    from hubbub.core.channels import Channel
    from hubbub.node.batch import Batch, Publication
    from hubbub.node.connection import Connection

__all__ = ["ENDED", "Outbox"]

CORK = 64 * 1024


class Outbox:
    """The way out to one client, and its place in the channels it is subscribed to.

    While `held`, nothing is written: what is put waits in the queue. An outbox is held by a paused transport, and by
    a cork while many messages of one read are handled. Of what waits for a paused transport, publications may be
    dropped, as their channels say; whatever else is put arrives.
    """

    __slots__ = (
        "channels",
        "connection",
        "farewell",
        "held",
        "limit",
        "queue",
        "seen",
        "stalled",
        "transport",
        "waiter",
    )

    def __init__(self, connection: Connection, transport: Transport, limit: int, seen: int) -> None:
        self.connection = connection
        self.transport = transport
        self.limit = limit
        self.seen = seen
        self.channels: tuple[Channel[Any], ...] = ()
        self.queue: Backlog | None = None
        self.held = transport.paused
        self.stalled: int | None = None
        self.farewell: tuple[int, str] | None = None
        self.waiter: asyncio.Future[None] | None = None

    @property
    def queued(self) -> int:
        """How much waits: bytes, or characters where the server underneath frames."""
        return 0 if self.queue is None else self.queue.size

    @property
    def full(self) -> bool:
        """Whether the client has more to read than should be added to by who can wait."""
        return self.held and self.transport.paused and self.queued + self.transport.buffered > CORK // 2

    async def room(self) -> None:
        """Wait until it is not `full`, or the connection is no longer open."""
        while self.full and self.connection.is_open:
            await self._woken()

    async def drained(self) -> None:
        """Wait until the socket has taken everything, or the connection is no longer open."""
        while self.held and self.transport.paused and self.connection.is_open:
            await self._woken()

    async def _woken(self) -> None:
        if self.waiter is None or self.waiter.done():
            self.waiter = asyncio.get_running_loop().create_future()
        await asyncio.shield(self.waiter)  # others may wait for it too

    def wake(self) -> None:
        """Let those who wait for room look again."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    def put(self, data: Any) -> None:
        """Write, or queue behind what waits; over the limit something is dropped, or the client is closed with 4002."""
        if not self.held:
            self.transport.write(data)
            return
        if self.farewell is not None:
            return
        if self.queue is None:
            self.queue = Backlog(self.transport.form)
        self.queue.add(data, self.transport.form.size(data))
        self._check(self.queue)

    def put_batch(self, batch: Batch) -> None:
        """Put publications; those that may be dropped wait one by one."""
        if not self.held or not batch.droppable:
            self.put(batch.data(self.transport.form))
        elif self.farewell is None:
            if self.queue is None:
                self.queue = Backlog(self.transport.form)
            for publication in batch.publications:
                self._add(self.queue, publication)
            self._check(self.queue)

    def hold(self) -> None:
        """Queue what is put from now on."""
        self.held = True

    def release(self) -> None:
        """Write what waited, unless the transport is paused, and write straight away from now on."""
        if self.transport.paused:
            return
        self.held, self.stalled = False, None
        self.wake()
        if self.queue is not None:
            self._write_queue()
            if self.transport.paused:
                return
        if not self.connection.reading:
            self.connection.resume_reading(UNREAD)
        if self.farewell is not None:
            self.transport.close(*self.farewell)

    def close(self, code: int, reason: str) -> None:
        """Say goodbye behind everything that waits."""
        self.farewell = (code, reason)
        if self.held and not self.transport.paused:
            self.release()
        elif not self.held:
            self.transport.close(code, reason)

    def drop(self) -> None:
        """Forget what waits; nothing more is put."""
        self.queue = None

    def _add(self, queue: Backlog, publication: Publication) -> None:
        data = publication.wire(self.transport.form)
        size = self.transport.form.size(data)
        if publication.slow == "latest_per_key" and self.transport.paused:
            self.connection.node.conflated += queue.conflate(publication, size)
        else:
            queue.add(data if publication.slow == "close" else publication, size)

    def _check(self, queue: Backlog) -> None:
        """See that what waits is not too much."""
        transport = self.transport
        if not transport.paused:
            if queue.size > CORK:
                self._write_queue()  # the cork gives way
            return
        excess = queue.size + transport.buffered - self.limit
        if excess > 0:
            self.connection.node.dropped_publications += queue.drop_oldest(excess)
            if queue.size and queue.size + transport.buffered > self.limit:
                self._overflow()
                return
        if queue.size > CORK:
            self.connection.hold_reading(UNREAD)  # the client must read before it may ask more

    def _write_queue(self) -> None:
        """Write piece by piece: what the transport does not take may still be dropped."""
        now = time.time_ns() // 1_000_000
        while self.queue is not None and not self.transport.paused:
            data = self.queue.take(CORK, now)
            if not self.queue:
                self.queue = None
            self.transport.write(data)

    def _overflow(self) -> None:
        self.drop()
        self.connection.node.slow_consumers += 1
        self.connection.close(CloseCode.SLOW_CONSUMER, "read too slowly")


class _NoTransport:
    """What is left of a socket that is gone."""

    form = FRAMES
    paused = False
    closing = True
    buffered = 0

    def write(self, data: Any) -> None:
        """Nobody reads it."""

    def ping(self) -> bool:
        """Nobody answers it."""
        return False

    def pause_reading(self) -> None:
        """Nothing comes."""

    def resume_reading(self) -> None:
        """Nothing comes."""

    def close(self, code: int, reason: str) -> None:
        """It is closed."""

    def abort(self) -> None:
        """It is cut."""


class _Nowhere(Outbox):
    """The way out to a client that is gone: whatever is put into it is forgotten."""

    __slots__ = ()

    def __init__(self) -> None:
        self.transport = _NoTransport()
        self.channels = ()
        self.queue = self.stalled = self.farewell = self.waiter = None
        self.held = False
        self.limit = self.seen = 0

    def put(self, data: Any) -> None:
        """Forget it."""

    def put_batch(self, batch: Batch) -> None:
        """Forget them."""

    def hold(self) -> None:
        """Nothing waits."""

    def release(self) -> None:
        """Nothing waited."""

    def close(self, code: int, reason: str) -> None:
        """It is closed."""


ENDED = _Nowhere()
"""Every lost connection's: with its own it would be a cycle, and stay until a collector comes."""
