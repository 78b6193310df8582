"""Sends what an application has put into its outbox, once it is committed.

1. One relay works at a time, of all processes: it has the lease in the outbox's own database, with a fence that grows
   with each other owner. What it writes there counts only while its fence is the last.
2. Entries of one line (a channel, or a user) are sent one after the other, in the order of their commits; one that
   fails holds up those behind it and nobody else.
3. An entry is deleted once the hub has taken it. A relay that dies in between has it sent again, with the same key.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import secrets
import time
from collections.abc import Mapping
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from hubbub.config import OUTBOX
from hubbub.core.outbox import Counts, Outcome, Refusal
from hubbub.errors import StoreError

if TYPE_CHECKING:
    from hubbub.contracts import OutboxTable
    from hubbub.core.outbox import Entry

__all__ = ["Relay", "Sender"]

logger = logging.getLogger("hubbub.outbox")

BATCH = 256
LEASE = 5.0  # seconds after which another relay goes on for one that died
OFTEN = 1.0  # seconds between two looks where nobody tells of commits
RIPENING = 0.05  # seconds to the first look for what is committed and not ripe yet; twice as many to the next
REST = 1.0  # seconds for which a database that failed is left alone
TRIES = 8  # after so many an entry that the hub refuses is set aside, about half a minute in all
PAUSE, LONGEST_PAUSE = 0.25, 30.0  # seconds for which a line that failed waits; twice as many the next time
MOST_PAUSED = 1000  # lines; beyond it all wait for the first of them
LAST_ENTRY = 1.0  # seconds at the end for what is being sent
LONGEST_ERROR = 500
COUNTED = 10.0  # seconds between two counts
PASSING = (StoreError, OSError, TimeoutError)
"""What is not the fault of the entry: it is tried until it works."""


class Sender(Protocol):
    """What a relay needs of the hub."""

    async def publish(
        self, channel: str, event: str | None, data: Any = None, *, key: str | None, tags: Mapping[str, str] | None
    ) -> Any:
        """See `Hub.publish`."""

    async def send_to_user(
        self, user_id: str, type: str, payload: Any = None, *, durable: bool, key: str | None, ttl: float | None
    ) -> Any:
        """See `Hub.send_to_user`."""


class Relay:
    """Relays one outbox as long as it runs, if no other relay of the same outbox does.

    Args:
        hub: sends.
        url: the application's database: `sqlite:///file.db`, or `postgresql://user:password@host/database`.
        lease: seconds after which another relay goes on for one that died.

    Raises:
        ConfigError: the URL is of something else, or its driver is not installed.
    """

    def __init__(self, hub: Sender, url: str, *, lease: float = LEASE) -> None:
        self._hub = hub
        self._url = url
        self._lease = lease
        self.reset()

    def reset(self) -> None:
        """Begin anew: nothing is connected, in no loop."""
        self._table: OutboxTable = _find(self._url)
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._owner = secrets.token_hex(8)
        self._fence: int | None = None
        self._until = 0.0
        self._ask_at = 0.0
        self._owed: tuple[int, Outcome] | None = None
        self._paused: dict[str, tuple[float, float]] = {}  # until when, and for how long
        self._ripening = RIPENING
        self._reason = ""
        self._counts = Counts(0, 0)
        self._count_at = 0.0

    @property
    def place(self) -> str:
        """Where the outbox is, for people."""
        return self._table.place

    @property
    def state(self) -> dict[str, Any]:
        """Whether it reaches the database, whether it is the one that relays, what waits and what was set aside."""
        counts = self._counts
        return {
            "healthy": not self._reason,
            "relaying": self._leads(),
            "waiting": counts.waiting,
            "failed": counts.failed,
        }

    async def count(self) -> Counts:
        """How much waits and how much was set aside, now.

        Raises:
            StoreError: the database is out of reach.
        """
        return await self._table.counts()

    async def look(self) -> Counts | None:
        """The same without being open, and nothing is changed; None: there are no tables yet.

        Raises:
            StoreError: the database is out of reach.
        """
        return await self._table.look()

    async def open(self) -> None:
        """Connect for the first time.

        Raises:
            StoreError: it cannot.
        """
        await self._table.open()

    def beat(self) -> None:
        """Work from now on."""
        if self._task is None and not self._stopping:
            self._task = asyncio.get_running_loop().create_task(self._run(), context=Context())

    async def stop(self) -> None:
        """Finish what is being sent, and let another relay go on."""
        self._stopping = True
        self._table.wake()
        task = self._task
        if task is not None and not (await asyncio.wait([task], timeout=LAST_ENTRY))[0]:
            task.cancel()
            await asyncio.wait([task])
        await self._table.leave(self._owner)
        await self._table.close()
        self.reset()

    async def _run(self) -> None:
        while not self._stopping:
            try:
                pause = await self._turn()
                self._recovered()
            except StoreError as error:
                pause = self._failed(error)
            except Exception:
                logger.exception("the relay of %s failed", self.place)
                pause = REST
            if pause > 0 and not self._stopping:
                await self._table.wait(pause)

    async def _turn(self) -> float:
        """Send what there is, up to a batch; for how long nothing is to be done."""
        now = monotonic()
        await self._table.open()
        if not await self._lead(now):
            return self._ask_at - now
        await self._count(now)
        paused = {line: until for line, (until, _) in self._paused.items() if until > now}
        if len(paused) >= MOST_PAUSED:
            return min(paused.values()) - now
        entries, ripening = await self._table.read(BATCH, list(paused))
        if entries:
            await self._settle(await self._send(entries))
            return 0.0
        self._ripening = min(self._ripening * 2, OFTEN) if ripening else RIPENING
        return min(self._ripening if ripening else OFTEN, *(until - now for until in paused.values()), self._lease / 4)

    # The lease

    def _leads(self, margin: float = 0.0) -> bool:
        return self._fence is not None and monotonic() < self._until - margin

    async def _lead(self, now: float) -> bool:
        if self._leads(self._lease / 2) and self._owed is None:
            return True
        if self._fence is None and now < self._ask_at:
            return False
        self._ask_at = now + min(OFTEN, self._lease / 4)
        fence = await self._table.lead(self._owner, self._lease)
        if fence is not None and fence != self._fence:
            logger.info("this process relays %s", self.place)
        self._fence, self._until = fence, now + self._lease
        if self._owed is not None:  # from before the database was away
            (owed_to, outcome), self._owed = self._owed, None
            if owed_to == fence:
                await self._settle(outcome)
        return self._fence is not None

    async def _settle(self, outcome: Outcome) -> None:
        assert self._fence is not None
        self._owed, now = (self._fence, outcome), monotonic()
        if await self._table.settle(self._fence, self._lease, outcome):
            self._until = now + self._lease
        else:
            logger.warning("another process relays %s: this one was silent for too long", self.place)
            self._fence = None
        self._owed = None

    # Sending

    async def _send(self, entries: list[Entry]) -> Outcome:
        """Send the entries of each line in turn, all lines at once."""
        lines: dict[str, list[Entry]] = {}
        for entry in entries:
            lines.setdefault(entry.line, []).append(entry)
        sent: list[int] = []
        refused = await asyncio.gather(*(self._send_line(line, each, sent) for line, each in lines.items()))
        return Outcome(sent, [refusal for refusal in refused if refusal is not None])

    async def _send_line(self, line: str, entries: list[Entry], sent: list[int]) -> Refusal | None:
        for entry in entries:
            if self._stopping or not self._leads(self._lease / 4):
                break
            try:
                await self._pass_on(entry)
            except PASSING as error:
                self._pause(line, error)
                break
            except Exception as error:
                return self._refuse(entry, error)
            sent.append(entry.id)
            self._paused.pop(line, None)
        return None

    async def _pass_on(self, entry: Entry) -> None:
        item = entry.item
        data = None if item.data is None else _json(item.data)
        if item.kind == "publish":
            tags = None if item.tags is None else msgspec.json.decode(item.tags, type=dict[str, str])
            await self._hub.publish(item.target, item.event, data, key=entry.key, tags=tags)
        elif not item.durable:
            await self._hub.send_to_user(item.target, item.event or "", data, durable=False, key=None, ttl=None)
        elif (ttl := _left(entry)) is None or ttl > 0:
            await self._hub.send_to_user(item.target, item.event or "", data, durable=True, key=entry.key, ttl=ttl)

    def _refuse(self, entry: Entry, error: Exception) -> Refusal:
        tries, text = entry.tries + 1, f"{type(error).__name__}: {error}"[:LONGEST_ERROR].replace("\0", " ")
        if tries >= TRIES:
            self._paused.pop(entry.line, None)
            logger.error("entry %d of the outbox (%r) is set aside: %r", entry.id, entry.line, text)
        else:
            self._pause(entry.line, error)
        return Refusal(entry.id, tries, text, tries >= TRIES)

    def _pause(self, line: str, error: Exception) -> None:
        _, before = self._paused.get(line, (0.0, 0.0))
        pause = min(before * 2, LONGEST_PAUSE) or PAUSE
        self._paused[line] = (monotonic() + pause, pause)
        if not before:
            logger.warning("the outbox has to wait with %r: %s", line, error)

    # The database

    async def _count(self, now: float) -> None:
        if now >= self._count_at:
            self._counts, self._count_at = await self._table.counts(), now + COUNTED
            self._paused = {line: pause for line, pause in self._paused.items() if pause[0] > now - LONGEST_PAUSE}

    def _failed(self, error: StoreError) -> float:
        if not self._reason:
            logger.error("%s What is in the outbox waits there until it is back.", error)
        self._reason = str(error)
        return REST

    def _recovered(self) -> None:
        if self._reason:
            logger.warning("%s is back.", self.place)
            self._reason = ""


def _json(text: str) -> msgspec.Raw:
    """The text as it is sent; who inserts by SQL may give what no client could read."""
    msgspec.json.decode(text)
    return msgspec.Raw(text.encode())


def _left(entry: Entry) -> float | None:
    """Seconds for which a message is still worth reading."""
    ttl = entry.item.ttl
    return None if ttl is None else ttl - max(0.0, time.time() - entry.created_at / 1000)


def _find(url: str) -> OutboxTable:
    module, _, name = OUTBOX.partition(":")
    table: OutboxTable = getattr(importlib.import_module(module), name)(url)
    return table
