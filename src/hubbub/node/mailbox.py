"""One user's open connections, and how far each of them has come in the user's inbox.

Rules of this file:
1. A message is sent straight away only to a connection that was sent the one before it and keeps up. Any other reads
   it from the store, in order, as fast as its client does: durable messages never overflow a queue.
2. While a connection reads, what arrives is only noted (`again`): the reading finds it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextvars import Context
from typing import TYPE_CHECKING

from hubbub.core.session import ConnectionState
from hubbub.errors import StoreError

if TYPE_CHECKING:
    from hubbub.core.inbox import Entry
    from hubbub.node.connection import Connection
    from hubbub.node.database import Database

__all__ = ["PAGE", "Mailbox", "Reader"]

logger = logging.getLogger("hubbub.inbox")

PAGE = 100
HOLE = 0.05  # seconds to wait for a message that is being written
RETRY = 1.0  # seconds to wait for a database that is down


class Reader:
    """One connection's place in the inbox.

    Attributes:
        device: whose cursor an ack moves.
        sent: up to where it was sent everything.
        seen: the highest cursor it may ack.
        acked: the highest that it did, or another one of its device.
    """

    __slots__ = ("_again", "_connection", "_database", "_page", "_task", "_user_id", "acked", "device", "seen", "sent")

    def __init__(self, connection: Connection, user_id: str, device: str, database: Database, acked: int) -> None:
        self._connection = connection
        self._user_id = user_id
        self._database = database
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._page = PAGE
        self.device = device
        self.sent = self.seen = 0
        self.acked = acked

    @property
    def reading(self) -> bool:
        """Whether it is being sent what the store has."""
        return self._task is not None

    def arrived(self, entry: Entry) -> None:
        """Send a message that was just stored, or see to it that it is found."""
        if self._task is not None:
            self._again = True
        elif entry.cursor == self.sent + 1 and not self._connection.outbox.full:
            self.push(entry)
        else:
            self.read(welcome=False)

    def wake(self, cursor: int | None = None) -> None:
        """Read on, if another node has stored something, up to a cursor; None: it may have."""
        if self._task is not None:
            self._again = True
        elif cursor is None or cursor > self.sent:
            self.read(welcome=False)

    def push(self, entry: Entry) -> None:
        """Send one message, and remember it."""
        self._connection.send_entry(entry)
        self.sent = entry.cursor
        self.seen = max(self.seen, entry.cursor)

    def read(self, welcome: bool) -> None:
        """Send what the store has and this connection has not; from its device's cursor on, at its welcome."""
        # Variables of whoever asked are not this task's.
        self._task = asyncio.get_running_loop().create_task(self._read(welcome), context=Context())

    def stop(self) -> None:
        """Read no more."""
        if self._task is not None:
            self._task.cancel()

    async def _read(self, welcome: bool) -> None:
        try:
            while self._connection.state is ConnectionState.OPEN:
                try:
                    if welcome:
                        waits = await self._begin()
                        welcome = False
                        if not waits and not self._again:
                            break  # whoever signs in costs the store one call, if nothing waits
                    if await self._next_page():
                        break
                except StoreError:
                    await asyncio.sleep(RETRY)
        except Exception:
            logger.exception("the inbox of %r cannot be read", self._connection)
        self._task = None

    async def _begin(self) -> bool:
        """Find the place of the connection's device, and tell the client what waits; whether anything does."""
        database, connection = self._database, self._connection
        standing = await database.call(database.store.standing, self._user_id, self.device, _now())
        # An ack may still be on its way to the database; then this is the least that is left, as what it covers may
        # have expired, and only reading tells whether something is.
        self.sent = self.seen = max(standing.acked, self.acked)
        pending = standing.pending - (self.sent - standing.acked)
        if standing.dropped:
            connection.send("inbox_dropped", {"count": standing.dropped})
        if pending > 0:
            connection.send("inbox", {"cursor": self.sent, "pending": pending})
        return standing.pending > 0

    async def _next_page(self) -> bool:
        """Send a page; True if there is nothing behind it."""
        self._again = False
        database = self._database
        size, outbox = self._page, self._connection.outbox
        page = await database.call(database.store.read, self._user_id, self.sent, size, _now())
        for count, entry in enumerate(page.entries):
            if outbox.full:
                # The rest is read again, in smaller pages, and not kept for as long as a slow client likes.
                self._page = max(count, 1)
                await outbox.room()
                return False
            self.push(entry)
        self._page = min(2 * size, PAGE)
        if not page.whole:
            await asyncio.sleep(HOLE)
        return page.whole and len(page.entries) < size and not self._again


class Mailbox:
    """The connections of one user."""

    __slots__ = ("readers",)

    def __init__(self) -> None:
        self.readers: dict[Connection, Reader] = {}

    def arrived(self, entry: Entry, dropped: int) -> None:
        """Pass a message on to everybody, and how many went to make room for it."""
        for connection, reader in list(self.readers.items()):
            if dropped:
                connection.send("inbox_dropped", {"count": dropped})
            reader.arrived(entry)

    def stored(self, cursor: int, dropped: int) -> None:
        """Let everybody read what another node has stored."""
        for connection, reader in list(self.readers.items()):
            if dropped:
                connection.send("inbox_dropped", {"count": dropped})
            reader.wake(cursor)

    def wake(self) -> None:
        """Let everybody look whether there is more."""
        for reader in list(self.readers.values()):
            reader.wake()

    def reached(self, cursor: int) -> int:
        """How many connections have been sent a message, or are being sent those before it."""
        return sum(reader.sent >= cursor or reader.reading for reader in self.readers.values())

    def acked(self, device: str, cursor: int) -> None:
        """Tell the other connections of a device that it has everything up to a cursor."""
        for connection, reader in list(self.readers.items()):
            if reader.device == device and reader.acked < cursor:
                reader.acked = cursor  # a lower one of its own comes late, and is nobody's news
                connection.send("acked", {"cursor": cursor})


def _now() -> int:
    return time.time_ns() // 1_000_000
