"""The tables, and the one way to them: SQLite in the data directory, PostgreSQL where POSTGRES_DATABASE_URL says so."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Integer, MetaData, String, Table, Text, UniqueConstraint
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.event import listen
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from hubbub.config import load_settings
from hubbub.errors import StoreUnavailable

__all__ = ["DATA", "conversations", "insert_new", "members", "messages", "now", "opened", "reads", "rooms"]
__all__ += ["transaction", "users"]

settings = load_settings()
DATA = settings.hubbub_data_dir
OURS = (DataError, IntegrityError, ProgrammingError)  # what is wrong with a statement, not with the database

tables = MetaData()
users = Table(
    "chat_users",
    tables,
    Column("name", String(32), primary_key=True),
    Column("password", String(255), nullable=False),  # its argon2 hash
    Column("admin", Boolean, nullable=False),
    Column("signed_out", Integer, nullable=False),  # how often: a session that began before the last time is over
    Column("created_at", BigInteger, nullable=False),
)
rooms = Table(
    "chat_rooms",
    tables,
    Column("name", String(32), primary_key=True),
    Column("owner", String(255)),  # who made it
)
members = Table(
    "chat_members",
    tables,
    Column("room", ForeignKey(rooms.c.name), primary_key=True),
    Column("name", String(255), primary_key=True, index=True),  # also of somebody with a token and no account
    Column("read_offset", BigInteger, nullable=False),  # the place of the last message this member has seen
    Column("read_epoch", String(64), nullable=False),
)
conversations = Table(
    "chat_conversations",
    tables,
    Column("name", String(80), primary_key=True),  # pair:ann+bob
    Column("first", String(32), index=True),
    Column("second", String(32), index=True),
    Column("last", BigInteger, nullable=False),  # the number of its last message
)
messages = Table(
    "chat_messages",
    tables,
    Column("conversation", ForeignKey(conversations.c.name), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),  # 1, 2, 3... without a hole
    Column("sender", String(255), nullable=False),
    Column("text", Text, nullable=False),
    Column("sent_at", BigInteger, nullable=False),
    Column("key", String(64), nullable=False),  # the sender's own: sent twice, it is one message
    UniqueConstraint("conversation", "sender", "key"),
)
reads = Table(
    "chat_reads",
    tables,
    Column("name", String(255), primary_key=True),  # also of somebody with a token and no account
    Column("conversation", ForeignKey(conversations.c.name), primary_key=True),
    Column("number", BigInteger, nullable=False),  # the last message this user has seen
)


def _engine() -> AsyncEngine:
    if settings.postgres_database_url is not None:
        url = "postgresql+asyncpg://" + settings.postgres_database_url.partition("://")[2]
        seconds = {"timeout": 5, "command_timeout": 10}
        return create_async_engine(url, pool_pre_ping=True, pool_timeout=5, connect_args=seconds)
    DATA.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(f"sqlite+aiosqlite:///{DATA / 'chat.db'}", pool_timeout=5)
    listen(engine.sync_engine, "connect", _set_up_sqlite)
    return engine


def _set_up_sqlite(connection: Any, record: Any) -> None:
    # Readers beside the writer, and a commit is on the disk when it returns.
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "busy_timeout = 5000"):
        connection.execute(f"PRAGMA {pragma}")


engine = _engine()


@asynccontextmanager
async def opened() -> AsyncIterator[None]:
    """Make the tables that are missing; let go of the database when the block ends."""
    try:
        async with transaction() as db:
            await db.run_sync(tables.create_all)
        yield
    finally:
        await engine.dispose()


@asynccontextmanager
async def transaction() -> AsyncIterator[AsyncConnection]:
    """Do something in the database, all of it or nothing.

    Raises:
        StoreUnavailable: the database cannot be reached, or failed.
    """
    try:
        async with engine.begin() as connection:
            yield connection
    except OURS:
        raise
    except (DBAPIError, NoConnection, OSError) as error:
        raise StoreUnavailable("The database of the chat is out of reach.") from error


def insert_new(table: Table) -> postgresql.Insert | sqlite.Insert:
    """Insert rows, but for those whose primary key is there already."""
    insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
    return insert(table).on_conflict_do_nothing()


def now() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
