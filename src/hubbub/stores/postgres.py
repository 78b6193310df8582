"""Inboxes, journal, archive and revocations in PostgreSQL: for several machines.

1. A write is one transaction with `synchronous_commit` on; one that the server rolled back for another is repeated.
2. Who writes to a user's inbox holds the user's head row until the commit, so what becomes visible comes in order.
   Head rows are locked by user, ascending, and whoever holds none skips what is locked: nobody waits in a circle.
3. Where the caller was cancelled or ran out of time, a transaction ends with its connection; a single statement is
   cancelled on the server, and the connection waits for that.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import asyncpg

from hubbub.core.inbox import FORGET_DEVICE, FORGET_KEY, MOST_DEVICES, Ack, Draft, Entry, Page, Standing, Stored, full
from hubbub.core.records import Journal, Kept, Record, Revocation
from hubbub.errors import StorageFull, StoreError, StoreUnavailable
from hubbub.stores import windows
from hubbub.stores.batch import Batch
from hubbub.stores.dsn import DSN, LOST, PATIENCE, reason, refuse
from hubbub.stores.migrations import find_migrations, find_pending

__all__ = ["PostgresStore"]

CONNECTIONS = 8
MIGRATION = 60.0
"""Seconds for each migration, another process's included."""
TRIES = 10
PAUSE = 0.01
LARGEST = (1 << 63) - 1
LOCK = 0x68756262
"""The advisory lock of migrations: "hubb"."""

T = TypeVar("T")
Connection = Any  # asyncpg's pool gives a proxy of its Connection

ROLLED_BACK = (asyncpg.TransactionRollbackError, asyncpg.UniqueViolationError)
# Ours, not the server's: what was given does not fit the statement.
MISTAKES = (asyncpg.DataError, ValueError)


class PostgresStore:
    """A store in a PostgreSQL database; see `hubbub.contracts.Store` for what its methods promise.

    Args:
        url: `postgresql://user:password@host:port/database`, with the options of libpq behind `?`; there
            `statement_cache_size=0` is for a pooler that gives each transaction another connection.
    """

    exists = True

    def __init__(self, url: str) -> None:
        self.place, self._url, self._cached = DSN.read(url)
        self.migrated = (0, 0)
        """The version of the tables before and after `open`."""
        self._pool: asyncpg.Pool[Any] | None = None

    async def open(self) -> None:
        """Connect and bring the tables up to date."""
        try:
            self._pool = await asyncpg.create_pool(
                self._url,
                min_size=0,  # with a floor, asyncpg logs a traceback for each try to hold it during an outage
                max_size=CONNECTIONS,
                timeout=PATIENCE,
                command_timeout=PATIENCE,
                statement_cache_size=self._cached,
                reset=_keep,
            )
            self.migrated = await self._write(lambda db: _migrate(db, self.place))
        except (StoreUnavailable, *LOST) as error:
            await self.close()
            raise refuse(self.place, error) from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let go of the connections, busy ones after a moment."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            try:
                await asyncio.wait_for(pool.close(), PATIENCE)
            except LOST:
                pool.terminate()

    async def pending(self) -> int:
        """How many migrations `open` would do, by a connection of its own."""
        options = {"timeout": PATIENCE, "command_timeout": PATIENCE, "statement_cache_size": self._cached}
        try:
            async with asyncpg.create_pool(self._url, min_size=0, max_size=1, **options) as pool:
                there = await pool.fetchval("SELECT to_regclass('hubbub_migrations')")
                applied = await pool.fetch("SELECT version, checksum FROM hubbub_migrations") if there else ()
        except LOST as error:
            raise refuse(self.place, error) from error
        return len(find_pending(find_migrations("postgres"), dict(applied), self.place))

    async def append(self, drafts: Sequence[Draft], cap: int) -> list[Stored]:
        """Put messages into inboxes: one transaction for all."""
        if not drafts:
            return []
        keyed = any(draft.key is not None for draft in drafts)
        batch, taken = await self._write(lambda db: _append(db, drafts), whole=keyed)
        tight = sorted(user_id for user_id, head, floor in taken if full(head, floor, cap))
        dropped: dict[str, int] = {}
        if tight:
            now = max(draft.sent_at for draft in drafts)
            dropped = await self._write(lambda db: _trim(db, tight, cap, now))
        return batch.stored({user_id: head for user_id, head, _ in taken}, dropped)

    async def read(self, user_id: str, after: int, limit: int, now: int) -> Page:
        """The next messages of an inbox behind a cursor."""
        return Page([Entry(*row) for row in await self._read(READ, user_id, min(after, LARGEST), now, limit)])

    async def ack(self, acks: Sequence[Ack], now: int) -> None:
        """Move devices' cursors forward and forget what all of a user's devices have."""
        if acks:
            await self._write(lambda db: _ack(db, acks, now))

    async def standing(self, user_id: str, device: str, now: int) -> Standing:
        """Where a device stands; an unknown one starts at the oldest message."""
        [row] = await self._write(lambda db: db.fetch(STANDING, user_id, device, now))
        return Standing(*row)

    async def claim(self, sent_before: int, limit: int, now: int) -> list[tuple[str, Entry]]:
        """Messages nobody has acked, each given out once."""
        rows = await self._write(lambda db: db.fetch(CLAIM, sent_before, now, limit))
        return [(user_id, Entry(*entry)) for user_id, *entry in sorted(rows, key=lambda row: (row[4], row[0], row[1]))]

    async def revoke(self, revocation: Revocation) -> None:
        """Remember a revocation."""
        await self._write(lambda db: db.execute(REVOKE, revocation.subject, revocation.at, revocation.until))

    async def revocations(self, now: int) -> list[Revocation]:
        """All that have not expired."""
        return [Revocation(*row) for row in await self._read(REVOCATIONS, now)]

    async def take_journal(self, owner: str, epoch: str, now: int, until: int, instead_of: str | None) -> Journal:
        """Have the journal, unless another has it."""
        return await self._write(lambda db: _take(db, owner, epoch, now, until, instead_of))

    async def keep(self, owner: str, behind: int, entries: Sequence[Kept]) -> bool:
        """Keep publications: one transaction for all."""
        return await self._write(lambda db: _enter(db, owner, behind, entries))

    async def trim(
        self, owner: str, until: int, watermark: int, floors: Mapping[str, int], *, archived: int, forget: int
    ) -> bool:
        """Go on having the journal, and forget."""
        held = (owner, until, watermark)
        return await self._write(lambda db: _forget(db, held, floors, (archived, forget)))

    async def kept(self, behind: int, limit: int, *, archive: bool = False) -> list[Kept]:
        """What is in the journal behind an offset."""
        rows = await self._read(_dollars(windows.KEPT), behind, int(archive), limit)
        return [windows.read_kept(row) for row in rows]

    async def archive(self, records: Sequence[Record], position: str) -> None:
        """Keep publications and the archiver's position: one transaction for both."""
        rows = [windows.record_row(record) for record in records]
        await self._write(lambda db: db.execute(ARCHIVE, *_columns(rows, 7), position))

    async def archive_position(self) -> str | None:
        """What the last `archive` was given."""
        rows = await self._read("SELECT position FROM hubbub_archive_position")
        return rows[0][0] if rows else None

    async def archived(
        self, channel: str, limit: int, *, after: tuple[str, int] | None = None, since: int = 0, back: bool = False
    ) -> list[Record]:
        """Publications of a channel, oldest first."""
        statement = _dollars(windows.archived(after=after is not None, back=back))
        rows = await self._read(statement, channel, since, limit, *(after or ()))
        return [windows.read_record(row) for row in (reversed(rows) if back else rows)]

    async def sweep(self, now: int) -> None:
        """Delete what has expired, but for what somebody is busy with."""
        for table, time in SWEPT.items():
            await self._write(partial(_sweep, SWEEP.format(table=table, time=time), now))

    async def _write(self, work: Callable[[Connection], Awaitable[T]], *, whole: bool = True) -> T:
        """Do it in a transaction, or, where not `whole`, as the single statement that it is."""
        for attempt in range(1, TRIES + 1):
            try:
                async with self._connection() as db:
                    return await (_transact(db, work) if whole else work(db))
            except ROLLED_BACK as error:
                if attempt == TRIES:
                    raise StoreUnavailable(f"{self.place} is too busy: {error}.") from error
                await asyncio.sleep(PAUSE * attempt * (1 + random.random()))
        raise AssertionError("unreachable")

    async def _read(self, statement: str, *values: Any) -> list[Any]:
        async with self._connection() as db:
            return list(await db.fetch(statement, *values))

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        if self._pool is None:
            raise StoreUnavailable(f"{self.place} is not open.")
        try:
            async with self._pool.acquire(timeout=PATIENCE) as db:
                yield db
        except (*ROLLED_BACK, *MISTAKES):
            raise
        except asyncpg.DiskFullError as error:
            raise StorageFull(f"{self.place} has no room left: free some on the server's disk.") from error
        except LOST as error:
            raise StoreUnavailable(f"{self.place} failed: {reason(error)}.") from error


async def _keep(connection: Connection) -> None:
    """Leave a connection as it is between two uses: we change nothing on it, and asking costs a round trip."""


async def _transact(db: Connection, work: Callable[[Connection], Awaitable[T]]) -> T:
    try:
        await db.execute(BEGIN)
        result = await work(db)
        await db.execute("COMMIT")
    except asyncpg.PostgresError:
        if not db.is_closed():
            await db.execute("ROLLBACK")
        raise
    except BaseException:
        db.terminate()
        raise
    return result


async def _migrate(db: Connection, place: str) -> tuple[int, int]:
    """Bring the tables up to date; the versions before and after."""
    if await db.fetchval("SHOW server_encoding") != "UTF8":
        raise StoreError(f"{place} does not keep every text: give a database with the encoding UTF8.")
    await db.execute("SELECT pg_advisory_xact_lock($1)", LOCK, timeout=MIGRATION)
    await db.execute(
        "CREATE TABLE IF NOT EXISTS hubbub_migrations"
        " (version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL)"
    )
    applied = dict(await db.fetch("SELECT version, checksum FROM hubbub_migrations"))
    migrations = find_migrations("postgres")
    for migration in find_pending(migrations, applied, place):
        await db.execute(migration.sql, timeout=MIGRATION)
        row = (migration.version, migration.name, migration.checksum)
        await db.execute("INSERT INTO hubbub_migrations VALUES ($1, $2, $3)", *row)
    return max(applied, default=0), migrations[-1].version


async def _append(db: Connection, drafts: Sequence[Draft]) -> tuple[Batch, list[Any]]:
    """Put messages into inboxes; the heads and floors of their users. A single statement where none has a key."""
    batch = Batch(drafts, await _known(db, drafts))
    counts = batch.counts
    users = sorted(counts)
    rows = [
        (draft.user_id, counts[draft.user_id] - place, draft.type, draft.payload, draft.sent_at, draft.expires_at)
        for draft, place in batch.fresh
    ]
    keys = [draft.key for draft, _ in batch.fresh]
    return batch, await db.fetch(APPEND, users, [counts[user] for user in users], *_columns(rows, 6), keys)


async def _trim(db: Connection, users: list[str], cap: int, now: int) -> dict[str, int]:
    """Delete what inboxes hold beyond the cap, expired messages first; how many unexpired ones went, by user."""
    await db.execute(HOLD, users)
    return dict(await db.fetch(TRIM, users, cap, now))


async def _known(db: Connection, drafts: Iterable[Draft]) -> dict[tuple[str, str], int]:
    """The cursors of those keys that are known; looked up behind the lock, as another may be adding them."""
    keyed = [(draft.user_id, draft.key, draft.sent_at) for draft in drafts if draft.key is not None]
    if not keyed:
        return {}
    # All users of the batch, not only these: locks are taken in one order.
    await db.execute(HOLD, sorted({draft.user_id for draft in drafts}))
    return {(user_id, key): cursor for user_id, key, cursor in await db.fetch(KNOWN, *_columns(keyed, 3))}


async def _ack(db: Connection, acks: Sequence[Ack], now: int) -> None:
    furthest: dict[tuple[str, str], int] = {}
    for ack in acks:
        name = (ack.user_id, ack.device)
        furthest[name] = max(min(ack.cursor, LARGEST), furthest.get(name, 0))
    users = sorted({user_id for user_id, _ in furthest})
    rows = [(*name, cursor) for name, cursor in furthest.items()]
    await db.execute(ACK, users, *_columns(rows, 3), now)
    await db.execute(FORGET, users)


async def _take(db: Connection, *values: Any) -> Journal:
    await db.execute(_dollars(windows.TAKE), *values)
    return Journal(*await db.fetchrow(windows.JOURNAL))


async def _enter(db: Connection, owner: str, behind: int, entries: Sequence[Kept]) -> bool:
    # Holding this row, one write waits for the one before, however that ends.
    if not await db.fetch(_dollars(windows.HEAD), owner, entries[-1].publication.offset):
        return False
    await db.execute(_dollars(windows.UNDO), behind)
    await db.executemany(_dollars(windows.INSERT), [windows.row_of(entry) for entry in entries])
    return True


async def _forget(db: Connection, held: tuple[Any, ...], floors: Mapping[str, int], done: tuple[int, int]) -> bool:
    if not await db.fetch(_dollars(windows.HOLD), *held):
        return False
    await db.executemany(_dollars(windows.FORGET), list(floors.items()))
    await db.execute(_dollars(windows.CLEAR), *done)
    return True


def _dollars(statement: str) -> str:
    """A statement with its values named as the server wants them."""
    return statement.replace("?", "$")


async def _sweep(statement: str, now: int, db: Connection) -> None:
    await db.execute(statement, now)


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[Any]:
    """Rows as the arrays that `unnest` takes."""
    return [[row[column] for row in rows] for column in range(width)]


BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL synchronous_commit = on"
HOLD = """
    INSERT INTO hubbub_heads AS h (user_id, head)
    SELECT user_id, 0 FROM unnest($1::text[]) WITH ORDINALITY AS u (user_id, nth) ORDER BY nth
    ON CONFLICT (user_id) DO UPDATE SET head = h.head"""
KNOWN = """
    SELECT k.user_id, k.key, k.cursor FROM hubbub_keys k
    JOIN unnest($1::text[], $2::text[], $3::bigint[]) AS d (user_id, key, sent_at)
    ON k.user_id = d.user_id AND k.key = d.key AND k.expires_at > d.sent_at"""
# `behind` counts from the user's last draft, which gets the new head. Alone, it is a transaction of its own.
APPEND = f"""
    WITH head AS (
        INSERT INTO hubbub_heads AS h (user_id, head)
        SELECT user_id, count FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS u (user_id, count, nth)
        ORDER BY nth
        ON CONFLICT (user_id) DO UPDATE SET head = h.head + excluded.head
        RETURNING h.user_id, h.head, h.floor
    ), synchronous AS (
        SELECT set_config('synchronous_commit', 'on', true)
    ), placed AS (
        SELECT user_id, head - behind AS cursor, type, payload, sent_at, expires_at, key
        FROM unnest($3::text[], $4::bigint[], $5::text[], $6::bytea[], $7::bigint[], $8::bigint[], $9::text[])
            AS d (user_id, behind, type, payload, sent_at, expires_at, key)
        JOIN head USING (user_id)
    ), inserted AS (
        INSERT INTO hubbub_messages (user_id, cursor, type, payload, sent_at, expires_at)
        SELECT user_id, cursor, type, payload, sent_at, expires_at FROM placed
    ), remembered AS (
        INSERT INTO hubbub_keys (user_id, key, cursor, expires_at)
        SELECT user_id, key, cursor, sent_at + {FORGET_KEY} FROM placed WHERE key IS NOT NULL
        ON CONFLICT (user_id, key) DO UPDATE SET cursor = excluded.cursor, expires_at = excluded.expires_at
    )
    SELECT user_id, head, floor FROM head, synchronous"""
TRIM = """
    WITH ranked AS (
        SELECT user_id, cursor, expires_at > $3 AS alive,
            row_number() OVER (PARTITION BY user_id, expires_at > $3 ORDER BY cursor DESC) AS nth
        FROM hubbub_messages WHERE user_id = ANY ($1::text[])
    ), kept AS (
        SELECT user_id, min(cursor) FILTER (WHERE alive AND nth <= $2) - 1 AS floor,
            count(*) FILTER (WHERE alive AND nth > $2) AS over
        FROM ranked GROUP BY user_id
    ), gone AS (
        DELETE FROM hubbub_messages m USING ranked r
        WHERE m.user_id = r.user_id AND m.cursor = r.cursor AND NOT (r.alive AND r.nth <= $2)
    )
    UPDATE hubbub_heads h SET floor = coalesce(kept.floor, h.head), dropped = h.dropped + kept.over
    FROM kept WHERE h.user_id = kept.user_id RETURNING h.user_id, kept.over"""
READ = """
    SELECT cursor, type, payload, sent_at FROM hubbub_messages
    WHERE user_id = $1 AND cursor > $2 AND expires_at > $3 ORDER BY cursor LIMIT $4"""
# A user without an inbox has no head, and nothing to ack.
ACK = """
    WITH held AS (
        SELECT user_id, head FROM hubbub_heads WHERE user_id = ANY ($1::text[]) ORDER BY user_id FOR UPDATE
    )
    INSERT INTO hubbub_devices AS d (user_id, device, acked, seen_at)
    SELECT user_id, device, greatest(least(cursor, head), 0), $5::bigint
    FROM unnest($2::text[], $3::text[], $4::bigint[]) AS a (user_id, device, cursor) JOIN held USING (user_id)
    ON CONFLICT (user_id, device) DO UPDATE
    SET acked = greatest(d.acked, excluded.acked), seen_at = greatest(d.seen_at, excluded.seen_at)"""
FORGET = """
    WITH acked AS (
        SELECT user_id, min(acked) AS everyone, max(acked) AS anyone
        FROM hubbub_devices WHERE user_id = ANY ($1::text[]) GROUP BY user_id
    ), gone AS (
        DELETE FROM hubbub_messages m USING acked a WHERE m.user_id = a.user_id AND m.cursor <= a.everyone
    ), taken AS (
        UPDATE hubbub_messages m SET claimed = true FROM acked a
        WHERE m.user_id = a.user_id AND m.cursor > a.everyone AND m.cursor <= a.anyone AND NOT m.claimed
    )
    UPDATE hubbub_heads h SET floor = greatest(h.floor, a.everyone), dropped = 0
    FROM acked a WHERE h.user_id = a.user_id"""
STANDING = f"""
    WITH head AS (
        SELECT floor, dropped FROM hubbub_heads WHERE user_id = $1
    ), seen AS (
        INSERT INTO hubbub_devices AS d (user_id, device, acked, seen_at)
        VALUES ($1, $2, coalesce((SELECT floor FROM head), 0), $3)
        ON CONFLICT (user_id, device) DO UPDATE SET seen_at = greatest(d.seen_at, excluded.seen_at)
        RETURNING acked
    ), crowd AS (
        DELETE FROM hubbub_devices WHERE user_id = $1 AND device IN (
            SELECT device FROM hubbub_devices WHERE user_id = $1 AND device <> $2
            ORDER BY seen_at DESC OFFSET {MOST_DEVICES - 1} FOR UPDATE SKIP LOCKED)
    )
    SELECT acked,
        (SELECT count(*) FROM hubbub_messages WHERE user_id = $1 AND cursor > acked AND expires_at > $3),
        coalesce((SELECT dropped FROM head), 0)
    FROM seen"""
CLAIM = """
    WITH due AS (
        SELECT user_id, cursor FROM hubbub_messages WHERE NOT claimed AND sent_at < $1 AND expires_at > $2
        ORDER BY sent_at LIMIT $3 FOR UPDATE SKIP LOCKED
    )
    UPDATE hubbub_messages m SET claimed = true FROM due WHERE m.user_id = due.user_id AND m.cursor = due.cursor
    RETURNING m.user_id, m.cursor, m.type, m.payload, m.sent_at"""
REVOKE = """
    INSERT INTO hubbub_revocations (subject, at, until) VALUES ($1, $2, $3)
    ON CONFLICT (subject) DO UPDATE SET at = excluded.at, until = excluded.until"""
REVOCATIONS = "SELECT subject, at, until FROM hubbub_revocations WHERE until > $1"
ARCHIVE = """
    WITH kept AS (
        INSERT INTO hubbub_archive (channel, epoch, "offset", event, data, published_at, tags)
        SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::bytea[], $6::bigint[], $7::text[])
        ON CONFLICT DO NOTHING
    )
    INSERT INTO hubbub_archive_position (id, position) VALUES (1, $8)
    ON CONFLICT (id) DO UPDATE SET position = excluded.position"""
SWEEP = """
    DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE {time} <= $1 FOR UPDATE SKIP LOCKED))"""
SWEPT = {
    "hubbub_messages": "expires_at",
    "hubbub_keys": "expires_at",
    "hubbub_revocations": "until",
    "hubbub_devices": f"{FORGET_DEVICE} + seen_at",
}
