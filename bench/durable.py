"""What does a durable send cost beside a bare loop of the same driver? Elapsed time a message, fsync and all.

The bare loop inserts rows in batches of 64, a commit each, on the same disk with the same pragmas; Hubbub has 64 sends
in flight, to as many users as there are rows in a batch, and waits for each to be stored.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Callable, Coroutine
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
ROW = '{"from":"ann","message":"' + "x" * 80 + '"}'
TABLE = """
    CREATE TABLE IF NOT EXISTS bare
    (id {id} PRIMARY KEY, user_id TEXT, type TEXT, payload {bytes}, sent_at BIGINT, expires_at BIGINT)"""
INSERT = "INSERT INTO bare (user_id, type, payload, sent_at, expires_at) VALUES "

Contender = Callable[[], Coroutine[Any, Any, Sample]]


def measure(settings: Settings) -> list[Question]:
    """Every contender in every round, one after the other."""
    question = Question("durable", "Durable send, 64 in flight: elapsed time a message", "µs")
    with tempfile.TemporaryDirectory(prefix="hubbub-bench-") as directory, Postgres(fsync=True) as postgres:
        file, url = Path(directory) / "inbox.db", postgres.url("bench")
        contenders: dict[str, Contender] = {
            "hubbub, SQLite": lambda: _send(f"sqlite:///{file}"),
            "sqlite3 loop": lambda: _sqlite(file.with_name("bare.db")),
            "hubbub, PostgreSQL": lambda: _send(url),
            "asyncpg loop": lambda: _asyncpg(url),
        }
        for number in range(settings.rounds):
            for name, contender in contenders.items():
                sample = asyncio.run(contender())
                question.add(name, sample)
                say(f"durable {number + 1}/{settings.rounds}  {name:<20} {sample.value:8.2f} {question.unit}")
    return [question]


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


async def _sqlite(file: Path) -> Sample:
    """The standard library's driver, in the thread that asks."""
    database = sqlite3.connect(file, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute(TABLE.format(id="INTEGER", bytes="BLOB"))
    rows, sent, started = _rows(), 0, time.perf_counter()
    while time.perf_counter() < started + SECONDS:
        database.execute("BEGIN IMMEDIATE")
        database.executemany(INSERT + "(?, ?, ?, ?, ?)", rows)
        database.execute("COMMIT")
        sent += len(rows)
    database.close()
    return _sample(time.perf_counter() - started, sent)


async def _asyncpg(url: str) -> Sample:
    """asyncpg, on one connection."""
    database = await asyncpg.connect(url)
    await database.execute(TABLE.format(id="BIGSERIAL", bytes="BYTEA"))
    rows, sent, started = _rows(), 0, time.perf_counter()
    while time.perf_counter() < started + SECONDS:
        async with database.transaction():
            await database.executemany(INSERT + "($1, $2, $3, $4, $5)", rows)
        sent += len(rows)
    await database.close()
    return _sample(time.perf_counter() - started, sent)


def _rows() -> list[tuple[str, str, bytes, int, int]]:
    now = time.time_ns() // 1_000_000
    return [(f"user-{n}", "chat", ROW.encode(), now, now + 1000) for n in range(IN_FLIGHT)]


def _sample(seconds: float, sent: int) -> Sample:
    return Sample(seconds / sent * 1e6, sent)
