"""Durable messages: first into the user's inbox, then to the user's connections, in the order of their cursors.

What is sent, and what is acked, while one write is underway goes into the next one together (group commit): 64 senders
cost the disk about as much as one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from contextvars import Context
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import msgspec

from hubbub.core.bus import Acked, user_topic
from hubbub.core.bus import Stored as Said
from hubbub.core.envelope import encode_payload
from hubbub.core.identity import check_user_id
from hubbub.core.inbox import Ack, Draft, Entry, Stored
from hubbub.core.labels import check_key, check_text
from hubbub.core.session import ConnectionState
from hubbub.errors import RequestError, StoreError, StoreUnavailable, UsageError
from hubbub.node.mailbox import Mailbox, Reader
from hubbub.node.receipt import Receipt

if TYPE_CHECKING:
    from hubbub.node.connection import Connection
    from hubbub.node.database import Database
    from hubbub.node.node import Node

__all__ = ["Inbox"]

logger = logging.getLogger("hubbub.inbox")

BATCH = 256
WOKEN = 256  # mailboxes that look at once whether there is more
MOST_WAITING = 10_000
STUBBORN = 0.5  # seconds for a driver that was told to stop; closing the database stops it for sure
LONGEST_TTL = 100 * 365 * 86400.0

Sending = tuple[Draft, "asyncio.Future[Receipt]"]


class Inbox:
    """The inboxes of a node's users.

    Args:
        node: whose users.
        database: where the messages are kept.
        per_device: whether each named device of a user has a cursor of its own.
    """

    def __init__(self, node: Node, database: Database, per_device: bool) -> None:
        self._node = node
        self._database = database
        self._per_device = per_device
        self.reset()

    def reset(self) -> None:
        """Have nobody; what waits in the database stays there."""
        self._mailboxes: dict[str, Mailbox] = {}
        self._sending: list[Sending] = []
        self._acks: dict[tuple[str, str], int] = {}
        self._acking: dict[tuple[str, str], int] = {}  # those that are being written
        self._late: dict[tuple[str, str], int] = {}  # those that the database did not take
        self._writer: asyncio.Task[None] | None = None
        self._to_wake: deque[str] = deque()
        self._telling: set[asyncio.Task[None]] = set()

    # Connections

    def join(self, connection: Connection) -> None:
        """Send a connection what waits for its user, and from now on what is stored."""
        identity = connection.identity
        if identity is None or connection.state is not ConnectionState.OPEN:
            return
        device = identity.device if self._per_device else ""
        mailbox = self._mailboxes.setdefault(identity.user_id, Mailbox())
        acked = max(acks.get((identity.user_id, device), 0) for acks in (self._acks, self._acking, self._late))
        reader = mailbox.readers[connection] = Reader(connection, identity.user_id, device, self._database, acked)
        # That a device is there is worth keeping: what others ack is not forgotten before it has it.
        if self._per_device or not self._database.empty:
            reader.read(welcome=True)

    def leave(self, connection: Connection, user_id: str | None) -> None:
        """Send a connection nothing more of what is stored for a user."""
        mailbox = self._mailboxes.get(user_id or "")
        reader = mailbox.readers.pop(connection, None) if mailbox is not None else None
        if reader is not None:
            reader.stop()
        if mailbox is not None and not mailbox.readers:
            del self._mailboxes[user_id or ""]

    def reader(self, connection: Connection) -> Reader:
        """A connection's place in its user's inbox.

        Raises:
            RequestError: `unauthorized`: it has no user.
        """
        mailbox = self._mailboxes.get(connection.user_id or "")
        if mailbox is None or connection not in mailbox.readers:
            raise RequestError("unauthorized", "Only a signed-in user has an inbox.")
        return mailbox.readers[connection]

    # Messages

    async def send(self, user_id: str, type: str, payload: Any, key: str | None, ttl: float | None) -> Receipt:
        """Store a message for a user and send it; see `Hub.send_to_user`."""
        check_user_id(user_id)
        body = encode_payload(payload)
        self._check(type, body, key, ttl)
        now = time.time_ns() // 1_000_000
        lifetime = self._node.timeouts.inbox if ttl is None else ttl
        draft = Draft(user_id, type, body, now, now + round(lifetime * 1000), key)
        if len(self._sending) >= MOST_WAITING:
            raise StoreUnavailable(f"{MOST_WAITING} durable messages wait for {self._database.store.place} already.")
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self._sending.append((draft, future))
        self._write_soon()
        return await future

    def ack(self, connection: Connection, cursor: int) -> None:
        """Let the inbox forget what a connection has, up to a cursor it was sent.

        Raises:
            RequestError: `unauthorized`, or `bad_cursor`.
        """
        reader = self.reader(connection)
        if cursor > reader.seen:
            raise RequestError("bad_cursor", "This connection was not sent a message with that cursor.", "cursor")
        if cursor > reader.acked:
            reader.acked = cursor
            place = (connection.user_id or "", reader.device)
            self._acks[place] = max(cursor, self._acks.get(place, 0))
            self._write_soon()

    async def pending(self, connection: Connection, after: int | None, limit: int) -> dict[str, Any]:
        """What waits for a connection's user; the built-in `inbox` message."""
        reader, user_id, database = self.reader(connection), connection.user_id or "", self._database
        if database.empty:
            return {"messages": [], "pending": 0, "cursor": 0}
        now, store = time.time_ns() // 1_000_000, database.store
        standing = await database.call(store.standing, user_id, reader.device, now)
        acked = max(standing.acked, reader.acked)  # which may still be on its way to the database
        start = acked if after is None else max(after, acked)
        page = await database.call(store.read, user_id, start, limit, now)
        entries = _fitting(page.entries, self._node.limits.send_queue // 2)
        messages = [_describe(entry) for entry in entries]
        if entries:
            reader.seen = max(reader.seen, entries[-1].cursor)
        pending = max(standing.pending - (acked - standing.acked), len(messages))  # what was acked may have expired
        return {"messages": messages, "pending": pending, "cursor": acked}

    # Other nodes

    def stored_elsewhere(self, user_id: str, cursor: int, dropped: int) -> None:
        """Send a user's connections what another node has stored, as soon as it is read."""
        mailbox = self._mailboxes.get(user_id)
        if mailbox is not None:
            mailbox.stored(cursor, dropped)

    def acked_elsewhere(self, user_id: str, device: str, cursor: int) -> None:
        """Tell a device's connections what one of them has acked."""
        mailbox = self._mailboxes.get(user_id)
        if mailbox is not None:
            mailbox.acked(device, cursor)

    def wake(self, user_id: str | None = None) -> None:
        """Look whether another node has stored something for a user, or for any, that we were not told of."""
        if not self._database.empty:
            self._to_wake += self._mailboxes if user_id is None else [user_id]
            self._wake_some()

    def _wake_some(self) -> None:
        """Let a few look now and the others with the next beats: the database has other work as well."""
        for _ in range(min(WOKEN, len(self._to_wake))):
            mailbox = self._mailboxes.get(self._to_wake.popleft())
            if mailbox is not None:
                mailbox.wake()

    def beat(self) -> None:
        """Try again to let the database know of the acks that it did not take."""
        self._wake_some()
        if self._late:
            late, self._late = self._late, {}
            for place, cursor in late.items():
                self._acks[place] = max(cursor, self._acks.get(place, 0))
            self._write_soon()

    async def stop(self, deadline: float) -> None:
        """Finish what is being stored; what is not by `deadline`, in the loop's seconds, fails."""
        for mailbox in self._mailboxes.values():
            for reader in mailbox.readers.values():
                reader.stop()
        writer = self._writer
        if writer is not None:
            left = deadline - asyncio.get_running_loop().time()
            if not (await asyncio.wait([writer], timeout=max(left, 0.0)))[0]:
                writer.cancel()
                await asyncio.wait([writer], timeout=STUBBORN)
        if self._telling:
            await asyncio.wait(self._telling, timeout=STUBBORN)

    def _check(self, type: str, body: bytes, key: str | None, ttl: float | None) -> None:
        """Refuse what no database could keep: it is stored together with the messages of others."""
        try:
            size = len(check_text(type, "A message's type").encode()) + len(body)
        except UnicodeEncodeError:
            size = 0
        if not size or "\0" in type:
            raise UsageError(f"{type!r} cannot be the type of a durable message.")
        if size > self._node.limits.send_queue // 2:
            raise UsageError(f"A durable message of {size} bytes is too large: no client could be sent it.")
        if key is not None:
            check_key(key)
        if ttl is not None and not 0 <= ttl <= LONGEST_TTL:
            raise UsageError(f"ttl={ttl!r} is not allowed: give seconds, up to {LONGEST_TTL:g}.")

    # Writing

    def _write_soon(self) -> None:
        if self._writer is None:
            # Variables of whoever asked are not this task's.
            self._writer = asyncio.get_running_loop().create_task(self._write(), context=Context())

    async def _write(self) -> None:
        batch: list[Sending] = []
        try:
            while self._sending or self._acks:
                batch, self._sending = self._sending[:BATCH], self._sending[BATCH:]
                self._acking, self._acks = self._acks, {}
                if batch:
                    await self._append(batch)
                if self._acking:
                    await self._forget(self._acking)
                    self._acking = {}
        except (Exception, asyncio.CancelledError) as error:
            left, self._sending = [*batch, *self._sending], []
            _fail(left, StoreUnavailable("The hub stopped before this was stored for sure."))
            if isinstance(error, Exception):
                logger.exception("durable messages cannot be stored")
        self._writer = None

    async def _append(self, batch: list[Sending]) -> None:
        database = self._database
        drafts = [draft for draft, _ in batch]
        try:
            results = await database.call(database.store.append, drafts, self._node.limits.inbox)
        except Exception as error:
            if not isinstance(error, StoreError):
                logger.exception("a store failed in a way it should not")
            _fail(batch, error)
            return
        reached = [self._pass_on(draft, stored) for draft, stored in zip(drafts, results, strict=True)]
        if self._node.broker.shared:
            telling = self._tell_others(batch, results, reached)  # the next batch need not wait
            task = asyncio.get_running_loop().create_task(telling, context=Context())
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)
        else:
            _answer(batch, results, reached)

    def _pass_on(self, draft: Draft, stored: Stored) -> int:
        mailbox = self._mailboxes.get(draft.user_id)
        if mailbox is None:
            return 0
        if stored.fresh:
            mailbox.arrived(Entry(stored.cursor, draft.type, draft.payload, draft.sent_at), stored.dropped)
        return mailbox.reached(stored.cursor)

    async def _tell_others(self, batch: list[Sending], results: list[Stored], reached: list[int]) -> None:
        cluster = self._node.cluster
        try:
            said = [
                Said(draft.user_id, each.cursor, each.dropped) for (draft, _), each in zip(batch, results, strict=True)
            ]
            others = await asyncio.gather(*(cluster.tell(user_topic(each.user_id), each) for each in said))
            reached = [here + there for here, there in zip(reached, others, strict=True)]
        finally:
            _answer(batch, results, reached)  # they are stored, whatever became of the word

    async def _forget(self, acks: dict[tuple[str, str], int]) -> None:
        database = self._database
        rows = [Ack(user_id, device, cursor) for (user_id, device), cursor in acks.items()]
        try:
            await database.call(database.store.ack, rows, time.time_ns() // 1_000_000)
        except StoreError:
            self._late = acks | self._late
            return
        except Exception:
            logger.exception("a store failed in a way it should not")
            return
        for (user_id, device), cursor in acks.items():
            self.acked_elsewhere(user_id, device, cursor)
            if self._node.broker.shared:
                self._node.cluster.say(user_topic(user_id), Acked(user_id, device, cursor))


def _describe(entry: Entry) -> dict[str, Any]:
    """An entry as the built-in `inbox` message shows it."""
    payload = {"payload": msgspec.Raw(entry.payload)} if entry.payload else {}
    return {"type": entry.type, **payload, "timestamp": entry.sent_at, "cursor": entry.cursor}


def _fitting(entries: list[Entry], room: int) -> list[Entry]:
    """As many as fit into one message, but at least one."""
    sizes = accumulate(len(entry.payload) for entry in entries)
    return [entry for index, (entry, size) in enumerate(zip(entries, sizes, strict=True)) if size <= room or not index]


def _answer(batch: list[Sending], results: list[Stored], reached: list[int]) -> None:
    for (_, future), stored, connections in zip(batch, results, reached, strict=True):
        if not future.done():
            future.set_result(Receipt(connections, stored=True, cursor=stored.cursor))


def _fail(batch: list[Sending], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(_copy(error))


def _copy(error: Exception) -> Exception:
    """An error for one of many: a shared one would collect the tracebacks of all."""
    return type(error)(*error.args) if isinstance(error, StoreError) else StoreUnavailable("The store failed.")
