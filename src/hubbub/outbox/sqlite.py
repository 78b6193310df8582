"""The outbox in a SQLite file, as its relay sees it: one thread, which looks from time to time.

The file is the application's: its journal mode and its settings are left as they are.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

from hubbub.core.outbox import Counts, Entry, Item, Outcome
from hubbub.errors import ConfigError, StoreUnavailable
from hubbub.outbox.bell import rung
from hubbub.outbox.tables import MIGRATIONS, applying, find_all
from hubbub.stores.migrations import Migration, find_pending

__all__ = ["SqliteTable"]

BUSY = 5.0
"""Seconds to wait for another transaction that writes."""
OFTEN = 0.25
"""Seconds between two looks: nobody tells of another process's commits."""
T = TypeVar("T")
Database = sqlite3.Connection


class SqliteTable:
    """See `hubbub.contracts.OutboxTable`.

    Args:
        url: `sqlite:///relative/path.db` or `sqlite:////absolute/path.db`; the application's file.
    """

    def __init__(self, url: str) -> None:
        name = url.partition("://")[2].removeprefix("/")
        if not name:
            raise ConfigError(f"{url} names no file: give a URL like sqlite:///file.db.")
        self.place = f"SQLite at {name}"
        self.migrated = (0, 0)
        self._path = Path(name)
        self._db: Database | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._told = asyncio.Event()
        self._unlisten: Callable[[], None] = lambda: None

    async def open(self) -> None:
        """Open the file, make it if need be, bring the tables up to date."""
        if self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="hubbub-outbox")
            self._unlisten = rung(lambda: _wake(loop, self._told))
        if self._db is None:
            await self._run(self._prepare)

    async def lead(self, owner: str, seconds: float) -> int | None:
        """Be the one that relays; nothing is written where another is."""
        return await self._run(lambda db: _lead(db, owner, _now(), round(seconds * 1000)))

    async def read(self, limit: int, without: Sequence[str]) -> tuple[list[Entry], bool]:
        """The next entries; what is committed is ripe: one transaction writes at a time."""
        rows = await self._run(lambda db: db.execute(READ, (json.dumps(without), limit)).fetchall())
        return [_entry(row) for row in rows], False

    async def settle(self, fence: int, seconds: float, outcome: Outcome) -> bool:
        """Delete what was sent and note what was refused, if this fence is still the last."""
        until = _now() + round(seconds * 1000)
        return await self._run(lambda db: _settle(db, fence, until, outcome))

    async def counts(self) -> Counts:
        """How much there is."""
        return await self._run(lambda db: Counts(*db.execute(COUNTS).fetchone()))

    async def look(self) -> Counts | None:
        """How much there is, read from the file as it is."""
        return await asyncio.to_thread(self._look)

    async def leave(self, owner: str) -> None:
        """Lead no longer, if that can be written."""
        with suppress(StoreUnavailable):
            await self._run(lambda db: db.execute(LEAVE, (owner,)))

    async def wait(self, seconds: float) -> None:
        """Wait for a commit of this process, or for another look at the file."""
        with suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, OFTEN)):
                await self._told.wait()
        self._told.clear()

    def wake(self) -> None:
        """End a `wait`."""
        self._told.set()

    async def close(self) -> None:
        """Close the file and end the thread, after what it is doing."""
        self._unlisten()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.submit(self._disconnect)
            await asyncio.to_thread(thread.shutdown)

    async def _run(self, work: Callable[[Database], T]) -> T:
        if self._thread is None:
            raise StoreUnavailable(f"{self.place} is not open.")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._call, work)

    def _call(self, work: Callable[[Database], T]) -> T:
        try:
            if self._db is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._db = sqlite3.connect(self._path, BUSY, isolation_level=None, check_same_thread=False)
            return work(self._db)
        except (sqlite3.Error, OSError) as error:
            self._disconnect()
            raise StoreUnavailable(f"{self.place} failed: {error}.") from error
        except BaseException:
            self._disconnect()
            raise

    def _look(self) -> Counts | None:
        if not self._path.exists():
            return None
        try:
            with closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", BUSY, uri=True)) as db:
                return Counts(*db.execute(COUNTS).fetchone()) if _has_tables(db) else None
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self.place} failed: {error}.") from error

    def _prepare(self, db: Database) -> None:
        if _has_tables(db) and not _pending(db, self.place):  # as mostly: the app's writers are not held up
            self.migrated = (find_all("sqlite")[-1].version,) * 2
        else:
            self.migrated = _transact(db, lambda: _migrate(db, self.place))

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()


def _transact(db: Database, work: Callable[[], T]) -> T:
    db.execute("BEGIN IMMEDIATE")  # whoever fails closes the connection, and with it the transaction
    result = work()
    db.execute("COMMIT")
    return result


def _has_tables(db: Database) -> bool:
    return bool(db.execute("SELECT 1 FROM sqlite_master WHERE name = 'hubbub_outbox_migrations'").fetchall())


def _migrate(db: Database, place: str) -> tuple[int, int]:
    """Bring the tables up to date; the versions before and after."""
    if not _has_tables(db):
        db.execute(MIGRATIONS)
    pending, last = _pending(db, place), find_all("sqlite")[-1].version
    for migration in pending:
        for statement in applying(migration):
            db.execute(statement)
    return last - len(pending), last


def _pending(db: Database, place: str) -> list[Migration]:
    applied = dict(db.execute("SELECT version, checksum FROM hubbub_outbox_migrations").fetchall())
    return find_pending(find_all("sqlite"), applied, place)


def _lead(db: Database, owner: str, now: int, span: int) -> int | None:
    if not db.execute("SELECT 1 FROM hubbub_outbox_relay WHERE owner = ? OR until < ?", (owner, now)).fetchone():
        return None
    rows = db.execute(LEAD, {"owner": owner, "now": now, "until": now + span}).fetchall()
    return int(rows[0][0]) if rows else None


def _settle(db: Database, fence: int, until: int, outcome: Outcome) -> bool:
    def work() -> bool:
        if not db.execute(HOLD, (until, fence)).fetchall():
            return False
        db.execute(
            "DELETE FROM hubbub_outbox WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(outcome.sent),)
        )
        for each in outcome.refused:
            db.execute(REFUSE, (each.tries, each.error, _now() if each.final else None, each.id))
        return True

    return _transact(db, work)


def _entry(row: Sequence[Any]) -> Entry:
    id, created_at, tries, *columns = row
    columns[-1] = bool(columns[-1])
    return Entry(id, created_at, tries, Item(*columns))


def _wake(loop: asyncio.AbstractEventLoop, told: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(told.set)


def _now() -> int:
    return time.time_ns() // 1_000_000


READ = """
    SELECT id, created_at, tries, kind, target, event, data, key, tags, ttl, durable FROM hubbub_outbox
    WHERE failed_at IS NULL AND kind || ' ' || target NOT IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT ?"""
LEAD = """
    UPDATE hubbub_outbox_relay SET owner = :owner, fence = fence + (owner <> :owner), until = :until
    WHERE owner = :owner OR until < :now RETURNING fence"""
HOLD = "UPDATE hubbub_outbox_relay SET until = ? WHERE fence = ? RETURNING fence"
LEAVE = "UPDATE hubbub_outbox_relay SET until = 0 WHERE owner = ?"
DELETE = "DELETE FROM hubbub_outbox WHERE id IN (SELECT value FROM json_each(?))"
REFUSE = "UPDATE hubbub_outbox SET tries = ?, error = ?, failed_at = ? WHERE id = ?"
COUNTS = "SELECT count(*) - count(failed_at), count(failed_at) FROM hubbub_outbox"
