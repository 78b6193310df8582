"""What does a durable send cost beside a bare loop of the same driver? Elapsed time a message, fsync and all.

The bare loop inserts rows in batches of 64, a commit each, on the same disk with the same pragmas, into the table of
the messages with its indexes: no heads, no order between processes, no JSON, nobody who waits for one message. Another
loop inserts into a table without an index, to show what a database can do at most. Hubbub has 64 sends in flight, to as
many users as there are rows in a batch, and waits for each to be stored.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import asyncpg

from bench.measure import say
from bench.question import Question, Sample
from bench.rounds import Settings
from hubbub import Hub
from services.postgres import Postgres

__all__ = ["measure"]

IN_FLIGHT = 64
SECONDS = 2.0
PAYLOAD = {"from": "ann", "message": "x" * 80}
JSON = b'{"from":"ann","message":"' + b"x" * 80 + b'"}'
PLAIN = """
    CREATE TABLE IF NOT EXISTS plain
    (id {id} PRIMARY KEY, user_id TEXT, cursor BIGINT, type TEXT, payload {bytes}, sent_at BIGINT, expires_at BIGINT)"""
USERS = [f"user-{number}" for number in range(IN_FLIGHT)]
COLUMNS = "cursor, type, payload, sent_at, expires_at"

Contender = Callable[[], Coroutine[Any, Any, Sample]]


def measure(settings: Settings) -> list[Question]:
    """Every contender in every round, one after the other."""
    question = Question("durable", "Durable send, 64 in flight: elapsed time a message", "µs")
    with tempfile.TemporaryDirectory(prefix="hubbub-bench-") as directory, Postgres(fsync=True) as postgres:
        for number in range(settings.rounds):
            for name, contender in _contenders(Path(directory), postgres, number).items():
                sample = asyncio.run(contender())
                question.add(name, sample)
                say(f"durable {number + 1}/{settings.rounds}  {name:<22} {sample.value:8.2f} {question.unit}")
    return [question]


def _contenders(directory: Path, postgres: Postgres, number: int) -> dict[str, Contender]:
    """All of them, each on a database that nobody has used."""

    def file(name: str) -> Path:
        return directory / f"{name}{number}.db"

    def url(name: str) -> str:
        return postgres.url(f"{name}{number}")

    return {
        "hubbub, SQLite": lambda: _send(f"sqlite:///{file('hubbub')}"),
        "sqlite3 loop": lambda: _sqlite(file("bare"), "hubbub_messages", "inbox", range(IN_FLIGHT)),
        "sqlite3 loop, no index": lambda: _sqlite(file("plain"), "plain", "user_id", USERS),
        "hubbub, PostgreSQL": lambda: _send(url("hubbub")),
        "asyncpg loop": lambda: _asyncpg(url("bare"), "hubbub_messages"),
        "asyncpg loop, no index": lambda: _asyncpg(url("plain"), "plain"),
    }


async def _send(url: str) -> Sample:
    """Durable sends through a hub, each of 64 tasks to a user of its own."""
    sent = 0

    async def send(hub: Hub, user_id: str, until: float) -> None:
        nonlocal sent
        while time.perf_counter() < until:
            await hub.send_to_user(user_id, "chat", PAYLOAD, durable=True)
            sent += 1

    async with Hub(inbox_url=url).running() as hub:
        started = time.perf_counter()
        await asyncio.gather(*(send(hub, f"user-{n}", started + SECONDS) for n in range(IN_FLIGHT)))
        return _sample(time.perf_counter() - started, sent)


async def _sqlite(file: Path, table: str, inbox: str, inboxes: Iterable[Any]) -> Sample:
    """The standard library's driver, in the thread that asks."""
    await _make_tables(f"sqlite:///{file}")
    database = sqlite3.connect(file, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute(PLAIN.format(id="INTEGER", bytes="BLOB"))
    [cursor] = database.execute(f"SELECT coalesce(max(cursor), 0) FROM {table}").fetchone()
    sent, started = 0, time.perf_counter()
    insert = f"INSERT INTO {table} ({inbox}, {COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)"
    while time.perf_counter() < started + SECONDS:
        database.execute("BEGIN IMMEDIATE")
        database.executemany(insert, _rows(inboxes, cursor := cursor + 1))
        database.execute("COMMIT")
        sent += IN_FLIGHT
    database.close()
    return _sample(time.perf_counter() - started, sent)


async def _asyncpg(url: str, table: str) -> Sample:
    """asyncpg, on one connection."""
    await _make_tables(url)
    database = await asyncpg.connect(url)
    await database.execute(PLAIN.format(id="BIGSERIAL", bytes="BYTEA"))
    cursor = await database.fetchval(f"SELECT coalesce(max(cursor), 0) FROM {table}")
    sent, started = 0, time.perf_counter()
    insert = f"INSERT INTO {table} (user_id, {COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6)"
    while time.perf_counter() < started + SECONDS:
        async with database.transaction():
            await database.executemany(insert, _rows(USERS, cursor := cursor + 1))
        sent += IN_FLIGHT
    await database.close()
    return _sample(time.perf_counter() - started, sent)


async def _make_tables(url: str) -> None:
    async with Hub(inbox_url=url).running():
        pass


def _rows(inboxes: Iterable[Any], cursor: int) -> list[tuple[Any, int, str, bytes, int, int]]:
    now = time.time_ns() // 1_000_000
    return [(inbox, cursor, "chat", JSON, now, now + 1000) for inbox in inboxes]


def _sample(seconds: float, sent: int) -> Sample:
    return Sample(seconds / sent * 1e6, sent)
