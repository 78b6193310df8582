"""The outbox in PostgreSQL, as its relay sees it: one connection, which is told of commits by NOTIFY."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import astuple
from itertools import takewhile
from typing import Any

import asyncpg

from hubbub.core.outbox import Counts, Entry, Item, Outcome
from hubbub.errors import StoreUnavailable
from hubbub.outbox.tables import MIGRATIONS, applying, find_all
from hubbub.stores.dsn import DSN, LOST, PATIENCE, reason, refuse
from hubbub.stores.migrations import find_pending

__all__ = ["PostgresTable"]

CHANNEL = "hubbub_outbox"
LOCK = 0x6875626F
"""The advisory lock of migrations: "hubo"."""


class PostgresTable:
    """See `hubbub.contracts.OutboxTable`.

    Args:
        url: `postgresql://user:password@host:port/database`.
    """

    def __init__(self, url: str) -> None:
        self.place, self._url, self._cached = DSN.read(url)
        self.migrated = (0, 0)
        self._db: Any = None
        self._turn = asyncio.Lock()
        self._told = asyncio.Event()

    async def open(self) -> None:
        """Connect, bring the tables up to date, listen."""
        async with self._turn:
            if self._db is not None and not self._db.is_closed():
                return
            self._db = None
            try:
                db = await self._connect()
                try:
                    async with db.transaction():
                        self.migrated = await _migrate(db, self.place)
                    await db.add_listener(CHANNEL, lambda *_: self.wake())
                except BaseException:
                    db.terminate()
                    raise
            except LOST as error:
                raise refuse(self.place, error) from error
            self._db = db

    async def lead(self, owner: str, seconds: float) -> int | None:
        """Be the one that relays, by the server's clock."""
        async with self._connection() as db:
            fence: int | None = await db.fetchval(LEAD, owner, seconds)
            return fence

    async def read(self, limit: int, without: Sequence[str]) -> tuple[list[Entry], bool]:
        """The next entries, up to the first that is not ripe: what is behind it may be of its line."""
        async with self._connection() as db:
            rows = await db.fetch(READ, limit, list(without))
        ripe = [_entry(row) for row in takewhile(lambda row: row["ripe"], rows)]
        return ripe, len(ripe) < len(rows)

    async def settle(self, fence: int, seconds: float, outcome: Outcome) -> bool:
        """Delete what was sent and note what was refused, if this fence is still the last."""
        rows = [astuple(each) for each in outcome.refused]
        async with self._connection() as db, db.transaction():
            if not await db.fetch(HOLD, fence, seconds):
                return False
            await db.execute("DELETE FROM hubbub_outbox WHERE id = ANY ($1::bigint[])", outcome.sent)
            if rows:
                await db.execute(REFUSE, *map(list, zip(*rows, strict=True)))
        return True

    async def counts(self) -> Counts:
        """How much there is."""
        async with self._connection() as db:
            return Counts(*await db.fetchrow(COUNTS))

    async def look(self) -> Counts | None:
        """How much there is, by a connection of its own."""
        try:
            db = await self._connect()
            try:
                return Counts(*await db.fetchrow(COUNTS)) if await _has_tables(db) else None
            finally:
                await db.close(timeout=1.0)
        except LOST as error:
            raise refuse(self.place, error) from error

    async def leave(self, owner: str) -> None:
        """Lead no longer, if the server can be told."""
        with suppress(StoreUnavailable):
            async with self._connection() as db:
                await db.execute(LEAVE, owner)

    async def wait(self, seconds: float) -> None:
        """Wait for a NOTIFY."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._told.wait()
        self._told.clear()

    def wake(self) -> None:
        """End a `wait`."""
        self._told.set()

    async def close(self) -> None:
        """Let go of the connection, in order if the server answers soon."""
        db, self._db = self._db, None
        if db is not None:
            try:
                await db.close(timeout=1.0)
            except LOST:
                db.terminate()

    async def _connect(self) -> Any:
        return await asyncpg.connect(
            self._url, timeout=PATIENCE, command_timeout=PATIENCE, statement_cache_size=self._cached
        )

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        async with self._turn:
            if self._db is None or self._db.is_closed():
                raise StoreUnavailable(f"{self.place} is not open.")
            try:
                yield self._db
            except LOST as error:
                self._db.terminate()  # whatever state it is in
                raise StoreUnavailable(f"{self.place} failed: {reason(error)}.") from error
            except asyncio.CancelledError:
                self._db.terminate()
                raise


async def _has_tables(db: Any) -> bool:
    return await db.fetchval("SELECT to_regclass('hubbub_outbox_migrations')") is not None


async def _migrate(db: Any, place: str) -> tuple[int, int]:
    """Bring the tables up to date; the versions before and after."""
    await db.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
    # A user who may not make tables is welcome where they are there.
    if not await _has_tables(db):
        await db.execute(MIGRATIONS)
    applied = dict(await db.fetch("SELECT version, checksum FROM hubbub_outbox_migrations"))
    migrations = find_all("postgres")
    for migration in find_pending(migrations, applied, place):
        for statement in applying(migration):
            await db.execute(statement)
    return max(applied, default=0), migrations[-1].version


def _entry(row: Any) -> Entry:
    id, created_at, tries, *columns, _ = row
    return Entry(id, created_at, tries, Item(*columns))


READ = """
    SELECT id, created_at, tries, kind, target, event, data, key, tags, ttl, durable,
        txid < pg_snapshot_xmin(pg_current_snapshot()) AS ripe
    FROM hubbub_outbox WHERE failed_at IS NULL AND kind || ' ' || target <> ALL ($2::text[]) ORDER BY id LIMIT $1"""
LEAD = """
    UPDATE hubbub_outbox_relay SET owner = $1, fence = fence + CAST(owner <> $1 AS integer),
        until = clock_timestamp() + make_interval(secs => $2)
    WHERE owner = $1 OR until < clock_timestamp() RETURNING fence"""
HOLD = """
    UPDATE hubbub_outbox_relay SET until = clock_timestamp() + make_interval(secs => $2)
    WHERE fence = $1 RETURNING fence"""
LEAVE = "UPDATE hubbub_outbox_relay SET until = '-infinity' WHERE owner = $1"
REFUSE = """
    UPDATE hubbub_outbox o SET tries = r.tries, error = r.error,
        failed_at = CASE WHEN r.final THEN CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint) END
    FROM unnest($1::bigint[], $2::integer[], $3::text[], $4::boolean[]) AS r (id, tries, error, final)
    WHERE o.id = r.id"""
COUNTS = "SELECT count(*) FILTER (WHERE failed_at IS NULL), count(failed_at) FROM hubbub_outbox"
