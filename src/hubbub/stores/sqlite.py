"""Inboxes, journal, archive and revocations in a SQLite file: for one machine, with one process or several.

1. One thread writes, in transactions that take the write lock at once; another reads. Neither is the event loop's.
2. A commit is on the disk when it returns: write-ahead log, `synchronous=FULL`.
3. Nothing but SQLite opens the file: to close any other descriptor of it drops this process's locks (POSIX), and
   another process would take the log away from under us.
4. After a write error the connection is never used again: what SQLite or the kernel still held is not trusted.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

from hubbub.core.inbox import FORGET_DEVICE, MOST_DEVICES, Ack, Draft, Entry, Page, Standing, Stored, full
from hubbub.core.records import Journal, Kept, Record, Revocation
from hubbub.errors import ConfigError, StorageFull, StoreError, StoreUnavailable
from hubbub.stores import windows
from hubbub.stores.batch import Batch
from hubbub.stores.migrations import find_migrations, find_pending

__all__ = ["SqliteStore"]

BUSY = 5.0
"""Seconds to wait for another process that writes."""
PAUSE = 0.02
OLDEST = (3, 37, 0)
"""The first SQLite with STRICT tables."""
CHECKED = 64 << 20
"""Bytes up to which a file is read through when it is opened."""
SEEN = 60 * 60 * 1000
"""Milliseconds for which a device that was seen need not be noted again."""
LARGEST = (1 << 63) - 1
DISTRUSTED = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN}
UNWRITABLE = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}
ELSEWHERE = "Give another file, or move this one away and restore a copy."

T = TypeVar("T")
Database = sqlite3.Connection


class SqliteStore:
    """A store in one file; see `hubbub.contracts.Store` for what its methods promise.

    Args:
        url: `sqlite:///relative/path.db` or `sqlite:////absolute/path.db`.
    """

    def __init__(self, url: str) -> None:
        name = url.partition("://")[2].removeprefix("/")
        if not name:
            raise ConfigError(f"{url} names no file: give a URL like sqlite:///file.db.")
        self._path = Path(name)
        self.place = f"SQLite at {name}"
        self.migrated = (0, 0)
        """The version of the tables before and after `open`."""
        self._writer = _Thread(self._path, self.place)
        self._reader = _Thread(self._path, self.place)

    @property
    def exists(self) -> bool:
        """Whether the file is there."""
        return os.path.exists(self._path)

    async def open(self) -> None:
        """Create the file and its directory if need be, look whether it is sound, bring the tables up to date."""
        self._writer.start()
        self._reader.start()
        try:
            self.migrated = await self._writer.run(self._prepare)
            await self._reader.run(lambda db: None)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End both threads, after what they are doing."""
        await self._reader.close()
        await self._writer.close()

    async def pending(self) -> int:
        """How many migrations `open` would do; a file that is not there needs all."""
        migrations = find_migrations("sqlite")
        return len(find_pending(migrations, await asyncio.to_thread(_applied, self._path, self.place), self.place))

    async def append(self, drafts: Sequence[Draft], cap: int) -> list[Stored]:
        """Put messages into inboxes: one transaction for all."""
        return await self._write(lambda db: _append(db, drafts, cap))

    async def read(self, user_id: str, after: int, limit: int, now: int) -> Page:
        """The next messages of an inbox behind a cursor."""
        rows = await self._read(READ, (user_id, min(after, LARGEST), now, limit))
        return Page([Entry(*row) for row in rows])

    async def ack(self, acks: Sequence[Ack], now: int) -> None:
        """Move devices' cursors forward and forget what all of a user's devices have."""
        await self._write(lambda db: _ack(db, acks, now))

    async def standing(self, user_id: str, device: str, now: int) -> Standing:
        """Where a device stands; written only if the device is new or was not seen for an hour."""
        who = {"user": user_id, "device": device, "now": now}
        rows = await self._read(STANDING, who)
        if not rows or rows[0][0] + SEEN <= now:
            rows = await self._write(lambda db: _see(db, who))
        return Standing(*rows[0][1:])

    async def claim(self, sent_before: int, limit: int, now: int) -> list[tuple[str, Entry]]:
        """Messages nobody has acked, each given out once."""
        rows = await self._write(lambda db: db.execute(CLAIM, (sent_before, now, limit)).fetchall())
        return [(user_id, Entry(*entry)) for user_id, *entry in sorted(rows, key=lambda row: (row[4], row[0], row[1]))]

    async def revoke(self, revocation: Revocation) -> None:
        """Remember a revocation."""
        row = (revocation.subject, revocation.at, revocation.until)
        await self._write(lambda db: _execute(db, (REVOKE, row)))

    async def revocations(self, now: int) -> list[Revocation]:
        """All that have not expired."""
        return [Revocation(*row) for row in await self._read(REVOCATIONS, (now,))]

    async def take_journal(self, owner: str, epoch: str, now: int, until: int, instead_of: str | None) -> Journal:
        """Have the journal, unless another has it."""
        return await self._write(lambda db: _take(db, owner, epoch, now, until, instead_of))

    async def keep(self, owner: str, behind: int, entries: Sequence[Kept]) -> bool:
        """Keep publications: one transaction for all."""
        return await self._write(lambda db: _keep(db, owner, behind, entries))

    async def trim(
        self, owner: str, until: int, watermark: int, floors: Mapping[str, int], *, archived: int, forget: int
    ) -> bool:
        """Go on having the journal, and forget."""
        held = (owner, until, watermark)
        return await self._write(lambda db: _forget(db, held, floors, (archived, forget)))

    async def kept(self, behind: int, limit: int, *, archive: bool = False) -> list[Kept]:
        """What is in the journal behind an offset."""
        return [windows.read_kept(row) for row in await self._read(windows.KEPT, (behind, int(archive), limit))]

    async def archive(self, records: Sequence[Record], position: str) -> None:
        """Keep publications and the archiver's position: one transaction for both."""
        rows = [windows.record_row(record) for record in records]
        await self._write(lambda db: _execute(db, *((ARCHIVE, row) for row in rows), (MOVE, (position,))))

    async def archive_position(self) -> str | None:
        """What the last `archive` was given."""
        rows = await self._read("SELECT position FROM hubbub_archive_position", ())
        return rows[0][0] if rows else None

    async def archived(
        self, channel: str, limit: int, *, after: tuple[str, int] | None = None, since: int = 0, back: bool = False
    ) -> list[Record]:
        """Publications of a channel, oldest first."""
        statement = windows.archived(after=after is not None, back=back)
        rows = await self._read(statement, (channel, since, limit, *(after or ())))
        return [windows.read_record(row) for row in (reversed(rows) if back else rows)]

    async def sweep(self, now: int) -> None:
        """Delete what has expired."""
        await self._write(lambda db: _execute(db, *((statement, (now,)) for statement in SWEEP)))

    async def _write(self, work: Callable[[Database], T]) -> T:
        return await self._writer.run(lambda db: _transact(db, work))

    async def _read(self, statement: str, values: Any) -> list[Any]:
        return await self._reader.run(lambda db: db.execute(statement, values).fetchall())

    def _prepare(self, db: Database) -> tuple[int, int]:
        try:
            return _transact(db, self._update)
        except sqlite3.Error as error:
            if _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL):
                raise
            raise _refuse(self.place, error) from error

    def _update(self, db: Database) -> tuple[int, int]:
        _inspect(db, self._path, self.place)
        return _migrate(db, self.place)


class _Thread:
    """One thread with one connection, which is opened when needed and closed for good after a disk's error."""

    def __init__(self, path: Path, place: str) -> None:
        self._path = path
        self._place = place
        self._db: Database | None = None
        self._opened = False
        self._pool: ThreadPoolExecutor | None = None

    def start(self) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="hubbub-sqlite")

    async def run(self, work: Callable[[Database], T]) -> T:
        """Do it in the thread; a caller that was cancelled does not stop what has begun."""
        if self._pool is None:
            raise StoreUnavailable(f"{self._place} is not open.")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._call, work)

    async def close(self) -> None:
        if self._pool is not None:
            pool, self._pool = self._pool, None
            pool.submit(self._disconnect)
            await asyncio.to_thread(pool.shutdown)

    def _call(self, work: Callable[[Database], T]) -> T:
        try:
            if self._db is None:
                self._db = self._connect()
            return work(self._db)
        except sqlite3.Error as error:
            if _code(error) in DISTRUSTED or (self._db is not None and self._db.in_transaction):
                self._disconnect()
            raise _translate(self._place, error) from error

    def _connect(self) -> Database:
        try:
            db = _connect(self._path, self._place)
        except StoreError as error:
            if self._opened:
                raise StoreUnavailable(str(error)) from error
            raise
        self._opened = True
        return db

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 if the error is the driver's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _translate(place: str, error: sqlite3.Error) -> Exception:
    code = _code(error)
    if code == sqlite3.SQLITE_FULL:
        return StorageFull(f"{place} has no room left: free some on its disk.")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreUnavailable(f"{place} is locked by another process for more than {BUSY:g} s.")
    if code:
        return StoreUnavailable(f"{place} failed: {error}.")
    return error


def _refuse(place: str, error: sqlite3.Error) -> StoreError:
    if _code(error) in UNWRITABLE:
        return StoreError(f"{place} cannot be opened for writing: {error}. Check the rights of it and its directory.")
    return StoreError(f"{place} cannot be used: {error}. {ELSEWHERE}")


def _connect(path: Path, place: str) -> Database:
    """Open the file; waits as long as another process is just making it."""
    if sqlite3.sqlite_version_info < OLDEST:
        raise StoreError(f"{place} needs SQLite 3.37 or newer; this Python has {sqlite3.sqlite_version}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{place} cannot be opened: {error.strerror or error}. Give a file that can be.") from error
    until = time.monotonic() + BUSY
    while True:
        try:
            return _configure(sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False), place)
        except sqlite3.Error as error:
            if _code(error) in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, *UNWRITABLE}:
                raise _refuse(place, error) from error
            # Turning the log on does not wait for a lock by itself.
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(PAUSE)


def _configure(db: Database, place: str) -> Database:
    try:
        [mode] = db.execute("PRAGMA journal_mode = WAL").fetchone()
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA temp_store = MEMORY")
        if mode != "wal":
            raise StoreError(f"{place} cannot have a write-ahead log: give a file on a local disk.")
    except BaseException:
        db.close()
        raise
    return db


def _inspect(db: Database, path: Path, place: str) -> None:
    """Refuse a file that is damaged or cut off; where the log is not empty, it may hold the rest."""
    [pages], [size] = (db.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    log = f"{path}-wal"
    if not (os.path.exists(log) and os.path.getsize(log)) and os.path.getsize(path) < pages * size:
        raise StoreError(f"{place} is cut off: {pages * size} bytes were written to it. {ELSEWHERE}")
    if pages * size <= CHECKED:
        [verdict] = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StoreError(f"{place} is damaged: {verdict.splitlines()[-1]}. {ELSEWHERE}")


def _migrate(db: Database, place: str) -> tuple[int, int]:
    """Bring the tables up to date; the versions before and after."""
    db.execute(
        "CREATE TABLE IF NOT EXISTS hubbub_migrations"
        " (version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL) STRICT"
    )
    applied = dict(db.execute("SELECT version, checksum FROM hubbub_migrations").fetchall())
    migrations = find_migrations("sqlite")
    for migration in find_pending(migrations, applied, place):
        for statement in migration.statements:
            db.execute(statement)
        row = (migration.version, migration.name, migration.checksum)
        db.execute("INSERT INTO hubbub_migrations VALUES (?, ?, ?)", row)
    return max(applied, default=0), migrations[-1].version


def _applied(path: Path, place: str) -> dict[int, str]:
    """The checksums of the migrations a file has, by version; it is only read."""
    if not path.exists():
        return {}
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY)) as db:
            there = db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'hubbub_migrations'").fetchone()
            return dict(db.execute("SELECT version, checksum FROM hubbub_migrations").fetchall()) if there else {}
    except sqlite3.Error as error:
        raise _refuse(place, error) from error


def _transact(db: Database, work: Callable[[Database], T]) -> T:
    db.execute("BEGIN IMMEDIATE")
    try:
        result = work(db)
        db.execute("COMMIT")
    except BaseException:
        # A disk that is full has ended the transaction by itself; if this fails, the connection goes.
        if db.in_transaction:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
        raise
    return result


def _execute(db: Database, *statements: tuple[str, tuple[Any, ...]]) -> None:
    for statement, values in statements:
        db.execute(statement, values)


def _append(db: Database, drafts: Sequence[Draft], cap: int) -> list[Stored]:
    batch = Batch(drafts, _known(db, drafts))
    taken = db.execute(TAKE, (json.dumps(batch.counts),)).fetchall()
    heads = {user_id: head for user_id, _, head, _ in taken}
    inboxes = {user_id: inbox for user_id, inbox, _, _ in taken}
    tight = [user_id for user_id, _, head, floor in taken if full(head, floor, cap)]
    db.executemany(INSERT, batch.messages(heads, inboxes))
    db.executemany(REMEMBER, batch.keys(heads))
    now = max((draft.sent_at for draft in drafts), default=0)
    return batch.stored(heads, {user_id: _trim(db, inboxes[user_id], cap, now) for user_id in tight})


def _known(db: Database, drafts: Iterable[Draft]) -> dict[tuple[str, str], int]:
    """The cursors of those keys that are known."""
    known = {}
    for draft in drafts:
        if draft.key is not None:
            for (cursor,) in db.execute(KNOWN, (draft.user_id, draft.key, draft.sent_at)).fetchall():
                known[draft.user_id, draft.key] = cursor
    return known


def _trim(db: Database, inbox: int, cap: int, now: int) -> int:
    """Delete what an inbox holds beyond its cap, expired messages first; how many unexpired ones went."""
    db.execute("DELETE FROM hubbub_messages WHERE inbox = ? AND expires_at <= ?", (inbox, now))
    [count] = db.execute("SELECT count(*) FROM hubbub_messages WHERE inbox = ?", (inbox,)).fetchone()
    over = max(int(count) - cap, 0)
    if over:
        db.execute(TRIM, {"inbox": inbox, "last": over - 1})
    db.execute(LIFT, {"inbox": inbox, "over": over})
    return over


def _ack(db: Database, acks: Sequence[Ack], now: int) -> None:
    for ack in acks:
        db.execute(ACK, {"user": ack.user_id, "device": ack.device, "cursor": min(ack.cursor, LARGEST), "now": now})
    for user_id in dict.fromkeys(ack.user_id for ack in acks):
        [everyone, anyone] = db.execute(ACKED, (user_id,)).fetchone()
        if everyone is not None:
            db.execute(FORGET, (user_id, everyone))
            db.execute(
                "UPDATE hubbub_heads SET floor = max(floor, ?), dropped = 0 WHERE user_id = ?", (everyone, user_id)
            )
        if everyone != anyone:
            db.execute(TAKEN, (user_id, everyone, anyone))


def _see(db: Database, who: dict[str, Any]) -> list[Any]:
    db.execute(SEE, who)
    db.execute(CROWD, who)
    return db.execute(STANDING, who).fetchall()


def _take(db: Database, *values: Any) -> Journal:
    db.execute(windows.TAKE, values)
    return Journal(*db.execute(windows.JOURNAL).fetchone())


def _keep(db: Database, owner: str, behind: int, entries: Sequence[Kept]) -> bool:
    if not db.execute(windows.HEAD, (owner, entries[-1].publication.offset)).fetchall():
        return False
    db.execute(windows.UNDO, (behind,))
    db.executemany(windows.INSERT, map(windows.row_of, entries))
    return True


def _forget(db: Database, held: tuple[Any, ...], floors: Mapping[str, int], done: tuple[int, int]) -> bool:
    if not db.execute(windows.HOLD, held).fetchall():
        return False
    db.executemany(windows.FORGET, floors.items())
    db.execute(windows.CLEAR, done)
    return True


def _mark(after: tuple[str, int]) -> dict[str, Any]:
    return {"epoch": after[0], "offset": after[1]}


# All users in one statement, as JSON; an UPSERT behind a SELECT needs its WHERE.
TAKE = """
    INSERT INTO hubbub_heads (user_id, head) SELECT key, value FROM json_each(?) WHERE true
    ON CONFLICT (user_id) DO UPDATE SET head = head + excluded.head RETURNING user_id, id, head, floor"""
INSERT = """
    INSERT INTO hubbub_messages (inbox, cursor, type, payload, sent_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)"""
KNOWN = "SELECT cursor FROM hubbub_keys WHERE user_id = ? AND key = ? AND expires_at > ?"
REMEMBER = """
    INSERT INTO hubbub_keys (user_id, key, cursor, expires_at) VALUES (?, ?, ?, ?)
    ON CONFLICT (user_id, key) DO UPDATE SET cursor = excluded.cursor, expires_at = excluded.expires_at"""
TRIM = """
    DELETE FROM hubbub_messages WHERE inbox = :inbox AND cursor <=
        (SELECT cursor FROM hubbub_messages WHERE inbox = :inbox ORDER BY cursor LIMIT 1 OFFSET :last)"""
LIFT = """
    UPDATE hubbub_heads SET dropped = dropped + :over,
        floor = coalesce((SELECT min(cursor) - 1 FROM hubbub_messages WHERE inbox = :inbox), head)
    WHERE id = :inbox"""
READ = """
    SELECT cursor, type, payload, sent_at FROM hubbub_messages
    WHERE inbox = (SELECT id FROM hubbub_heads WHERE user_id = ?) AND cursor > ? AND expires_at > ?
    ORDER BY cursor LIMIT ?"""
# A user without an inbox has no head, and nothing to ack.
ACK = """
    INSERT INTO hubbub_devices (user_id, device, acked, seen_at)
    SELECT user_id, :device, max(min(:cursor, head), 0), :now FROM hubbub_heads WHERE user_id = :user
    ON CONFLICT (user_id, device) DO UPDATE
    SET acked = max(acked, excluded.acked), seen_at = max(seen_at, excluded.seen_at)"""
ACKED = "SELECT min(acked), max(acked) FROM hubbub_devices WHERE user_id = ?"
FORGET = """
    DELETE FROM hubbub_messages WHERE inbox = (SELECT id FROM hubbub_heads WHERE user_id = ?) AND cursor <= ?"""
TAKEN = """
    UPDATE hubbub_messages SET claimed = 1
    WHERE inbox = (SELECT id FROM hubbub_heads WHERE user_id = ?) AND cursor > ? AND cursor <= ? AND claimed = 0"""
SEE = """
    INSERT INTO hubbub_devices (user_id, device, acked, seen_at)
    VALUES (:user, :device, coalesce((SELECT floor FROM hubbub_heads WHERE user_id = :user), 0), :now)
    ON CONFLICT (user_id, device) DO UPDATE SET seen_at = max(seen_at, excluded.seen_at)"""
CROWD = f"""
    DELETE FROM hubbub_devices WHERE user_id = :user AND device IN (
        SELECT device FROM hubbub_devices WHERE user_id = :user AND device <> :device
        ORDER BY seen_at DESC LIMIT -1 OFFSET {MOST_DEVICES - 1})"""
STANDING = """
    SELECT seen_at, acked,
        (SELECT count(*) FROM hubbub_messages
            WHERE inbox = (SELECT id FROM hubbub_heads WHERE user_id = :user) AND cursor > acked AND expires_at > :now),
        coalesce((SELECT dropped FROM hubbub_heads WHERE user_id = :user), 0)
    FROM hubbub_devices WHERE user_id = :user AND device = :device"""
CLAIM = """
    UPDATE hubbub_messages SET claimed = 1 WHERE rowid IN (
        SELECT rowid FROM hubbub_messages WHERE claimed = 0 AND sent_at < ? AND expires_at > ?
        ORDER BY sent_at LIMIT ?)
    RETURNING (SELECT user_id FROM hubbub_heads WHERE id = inbox), cursor, type, payload, sent_at"""
REVOKE = """
    INSERT INTO hubbub_revocations (subject, at, until) VALUES (?, ?, ?)
    ON CONFLICT (subject) DO UPDATE SET at = excluded.at, until = excluded.until"""
REVOCATIONS = "SELECT subject, at, until FROM hubbub_revocations WHERE until > ?"
ARCHIVE = "INSERT OR IGNORE INTO hubbub_archive VALUES (?, ?, ?, ?, ?, ?, ?)"
MOVE = """
    INSERT INTO hubbub_archive_position VALUES (1, ?)
    ON CONFLICT (id) DO UPDATE SET position = excluded.position"""
SWEEP = (
    "DELETE FROM hubbub_messages WHERE expires_at <= ?",
    "DELETE FROM hubbub_keys WHERE expires_at <= ?",
    "DELETE FROM hubbub_revocations WHERE until <= ?",
    f"DELETE FROM hubbub_devices WHERE seen_at <= ? - {FORGET_DEVICE}",
)
