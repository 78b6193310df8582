"""What waits for one client: a bounded queue in front of its transport."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from hubbub.core.session import UNREAD
from hubbub.errors import CloseCode

if TYPE_CHECKING:
    from hubbub.contracts import Transport
    from hubbub.core.channels import Channel
    from hubbub.node.connection import Connection

__all__ = ["Outbox"]

CORK = 64 * 1024


class Outbox:
    """The way out to one client, and its place in the channels it is subscribed to.

    While `held`, nothing is written: what is put waits in the queue. An outbox is held by a paused transport, and by
    a cork while many messages of one read are handled.
    """

    __slots__ = (
        "channels",
        "connection",
        "farewell",
        "held",
        "limit",
        "queue",
        "queued",
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
        self.queue: list[Any] | None = None
        self.queued = 0
        self.held = transport.paused
        self.stalled: int | None = None
        self.farewell: tuple[int, str] | None = None
        self.waiter: asyncio.Future[None] | None = None

    @property
    def full(self) -> bool:
        """Whether the client has more to read than should be added to by who can wait."""
        return self.held and self.transport.paused and self.queued + self.transport.buffered > CORK // 2

    async def room(self) -> None:
        """Wait until it is not `full`; one task at a time."""
        while self.full:
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter

    def put(self, data: Any) -> None:
        """Write, or queue behind what waits; over the limit the client is closed with 4002."""
        if not self.held:
            self.transport.write(data)
            return
        if self.farewell is not None:
            return
        if self.queue is None:
            self.queue = []
        self.queue.append(data)
        self.queued += self.transport.form.size(data)
        if not self.transport.paused:
            if self.queued > CORK:
                self._write_queue()  # the cork gives way
        elif self.queued + self.transport.buffered > self.limit:
            self._overflow()
        elif self.queued > CORK:
            self.connection.hold_reading(UNREAD)  # the client must read before it may ask more

    def hold(self) -> None:
        """Queue what is put from now on."""
        self.held = True

    def release(self) -> None:
        """Write what waited, unless the transport is paused, and write straight away from now on."""
        if self.transport.paused:
            return
        self.held, self.stalled = False, None
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
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
        self.queue, self.queued = None, 0

    def _write_queue(self) -> None:
        queue, self.queue, self.queued = self.queue or [], None, 0
        self.transport.write(self.transport.form.join(queue))

    def _overflow(self) -> None:
        self.drop()
        self.connection.node.slow_consumers += 1
        self.connection.close(CloseCode.SLOW_CONSUMER, "read too slowly")
