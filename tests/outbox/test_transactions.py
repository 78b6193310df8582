"""The outbox in the transactions of SQLAlchemy and asyncpg: what is committed is sent, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from hubbub import Hub, RequestError, UsageError, outbox
from hubbub.contracts import OutboxTable
from tests.outbox.ledger import Ledger

DRIVERS = {"sqlite": ("sqlite", "sqlite+aiosqlite"), "postgresql": ("postgresql+psycopg", "postgresql+asyncpg")}


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    scheme, _, rest = url.partition("://")
    engine = create_engine(f"{DRIVERS[scheme][0]}://{rest}")
    yield engine
    engine.dispose()


@pytest.fixture
async def async_engine(url: str) -> AsyncIterator[AsyncEngine]:
    scheme, _, rest = url.partition("://")
    engine = create_async_engine(f"{DRIVERS[scheme][1]}://{rest}")
    yield engine
    await engine.dispose()


async def test_sqlalchemy_session(engine: Engine, ledger: Ledger) -> None:
    def work() -> None:
        for number in range(3):
            with Session(engine) as session:
                outbox.publish(session, "room:1", "said", {"n": number})
                if number != 1:
                    session.commit()
        with Session(engine) as session:
            outbox.publish(session, "room:1", "said", {"n": "rolled back"})
            session.rollback()
            outbox.publish(session, "room:1", "said", {"n": 3}, tags={"color": "red"})
            session.commit()

    await asyncio.to_thread(work)
    await ledger.until(3)
    assert ledger.on("room:1") == [{"n": 0}, {"n": 2}, {"n": 3}]
    past = await ledger.hub.history("room:1")
    assert past.publications[-1].tags == {"color": "red"}
    assert past.publications[-1].event == "said"


async def test_sqlalchemy_savepoint(engine: Engine, ledger: Ledger) -> None:
    def work() -> None:
        with Session(engine) as session:
            outbox.publish(session, "room:1", "said", 1)
            with session.begin_nested() as nested:
                outbox.publish(session, "room:1", "said", 2)
                nested.rollback()
            outbox.publish(session, "room:1", "said", 3)
            session.commit()

    await asyncio.to_thread(work)
    await ledger.until(2)
    assert ledger.on("room:1") == [1, 3]


async def test_sqlalchemy_connection(engine: Engine, ledger: Ledger) -> None:
    def work() -> None:
        with engine.connect() as connection:
            outbox.publish(connection, "room:1", "said", "rolled back")
            connection.rollback()
        with engine.begin() as connection:
            outbox.publish(connection, "room:1", None, None)
            outbox.publish(connection, "room:2", "said", "grüße")

    await asyncio.to_thread(work)
    assert sorted(await ledger.until(2)) == [("room:1", None), ("room:2", "grüße")]


async def test_sqlalchemy_async(async_engine: AsyncEngine, ledger: Ledger) -> None:
    async with AsyncSession(async_engine) as session:
        await outbox.publish_async(session, "room:1", "said", "rolled back")
        await session.rollback()
        await outbox.publish_async(session, "room:1", "said", 1)
        await session.commit()
    async with async_engine.connect() as connection:
        await outbox.publish_async(connection, "room:1", "said", "rolled back")
        await connection.rollback()
        await outbox.publish_async(connection, "room:1", "said", 2)
        await connection.commit()
    await ledger.until(2)
    assert ledger.on("room:1") == [1, 2]


async def test_messages_to_a_user(async_engine: AsyncEngine, ledger: Ledger) -> None:
    async with AsyncSession(async_engine) as session:
        await outbox.send_to_user_async(session, "ada", "order", {"n": 1}, ttl=3600, key="one")
        await outbox.send_to_user_async(session, "ada", "order", {"n": 1}, key="one")
        await outbox.send_to_user_async(session, "ada", "order")
        await outbox.send_to_user_async(session, "ada", "live", durable=False)
        await outbox.send_to_user_async(session, "ada", "late", ttl=0)
        await outbox.publish_async(session, "room:1", "all", 1)
        await session.commit()
    await ledger.until(1)
    await ledger.until_empty()
    store = ledger.hub.node.databases["inbox"].store
    entries = (await store.read("ada", 0, 10, 0)).entries
    assert [(entry.type, entry.payload) for entry in entries] == [("order", b'{"n":1}'), ("order", b"")]


async def test_asyncpg(postgres: str) -> None:
    hub = Hub(outbox_url=postgres)
    async with hub.running():
        ledger = Ledger(hub)
        connection = await asyncpg.connect(postgres)
        with pytest.raises(UsageError, match="transaction"):
            await outbox.publish_async(connection, "room:1", "said", 0)
        async with connection.transaction():
            await outbox.publish_async(connection, "room:1", "said", 1)
        undone = connection.transaction()
        await undone.start()
        await outbox.publish_async(connection, "room:1", "said", 2)
        await undone.rollback()
        async with asyncpg.create_pool(postgres, min_size=1) as pool, pool.acquire() as pooled, pooled.transaction():
            await outbox.publish_async(pooled, "room:1", "said", 3)
        await connection.close()
        await ledger.until(2)
        assert ledger.on("room:1") == [1, 3]


# What is refused


def test_autocommit_is_refused(engine: Engine, table: OutboxTable) -> None:
    automatic = engine.execution_options(isolation_level="AUTOCOMMIT")
    with automatic.connect() as connection, pytest.raises(UsageError, match="AUTOCOMMIT"):
        outbox.publish(connection, "room:1", "said", 1)
    with Session(automatic) as session, pytest.raises(UsageError, match="AUTOCOMMIT"):
        outbox.publish(session, "room:1", "said", 1)


def test_who_says_begin_with_sqlite_is_in_a_transaction(sqlite: str) -> None:
    engine = create_engine(sqlite)
    event.listen(engine, "connect", lambda connection, record: setattr(connection, "isolation_level", None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    with engine.begin() as connection:
        outbox.publish(connection, "room:1", "said", 1)
        assert connection.execute(text("SELECT count(*) FROM hubbub_outbox")).scalar() == 1
    engine.dispose()


async def test_the_other_kind_of_function_is_named(engine: Engine, async_engine: AsyncEngine) -> None:
    async with AsyncSession(async_engine) as session:
        with pytest.raises(UsageError, match="publish_async"):
            outbox.publish(session, "room:1", "said", 1)
    with Session(engine) as plain, pytest.raises(UsageError, match="not awaited"):
        await outbox.publish_async(plain, "room:1", "said", 1)


@pytest.mark.parametrize(
    "strange", [None, 1, object(), create_engine("sqlite://")], ids=["none", "int", "object", "engine"]
)
async def test_what_is_no_transaction_is_refused(strange: Any) -> None:
    with pytest.raises(UsageError):
        outbox.publish(strange, "room:1", "said", 1)
    with pytest.raises(UsageError):
        await outbox.publish_async(strange, "room:1", "said", 1)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        pytest.param(lambda db: outbox.publish(db, "room:*", "said"), RequestError, id="channel"),
        pytest.param(lambda db: outbox.publish(db, "x" * 256, "said"), RequestError, id="long channel"),
        pytest.param(lambda db: outbox.publish(db, "room:1", "a\0b"), UsageError, id="event"),
        pytest.param(lambda db: outbox.publish(db, "room:1", "\ud800"), UsageError, id="event no text"),
        pytest.param(lambda db: outbox.publish(db, "room:1", "said", key=""), UsageError, id="key"),
        pytest.param(lambda db: outbox.publish(db, "room:1", "said", tags={"a": "b" * 256}), UsageError, id="tags"),
        pytest.param(lambda db: outbox.publish(db, "room:1", "said", object()), TypeError, id="data"),
        pytest.param(lambda db: outbox.publish(db, "room:1", "said", "x" * (1 << 20)), UsageError, id="too large"),
        pytest.param(lambda db: outbox.send_to_user(db, "", "order"), RequestError, id="user"),
        pytest.param(lambda db: outbox.send_to_user(db, "ada", "order", ttl=-1), UsageError, id="ttl"),
        pytest.param(lambda db: outbox.send_to_user(db, "ada", "a", durable=False, key="k"), UsageError, id="live key"),
    ],
)
def test_what_could_not_be_sent_is_refused_at_once(sqlite: str, call: Any, error: type[Exception]) -> None:
    engine = create_engine(sqlite)
    with engine.begin() as connection:
        with pytest.raises(error):
            call(connection)
        assert connection.execute(text("SELECT count(*) FROM hubbub_outbox")).scalar() == 0
    engine.dispose()
