"""The outbox in a transaction of SQLAlchemy, sync or async."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

from sqlalchemy import Boolean, Connection, Float, Text, column, event, table
from sqlalchemy import insert as insert_into
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from hubbub.core.outbox import COLUMNS, Item
from hubbub.errors import UsageError
from hubbub.outbox.bell import ring

__all__ = ["insert", "insert_async"]

TYPES: dict[str, Any] = {"ttl": Float(), "durable": Boolean()}
OUTBOX = table("hubbub_outbox", *(column(name, TYPES.get(name, Text())) for name in COLUMNS))


def insert(transaction: Any, item: Item) -> None:
    """Put an item into the outbox.

    Raises:
        UsageError: neither a Session nor a Connection, or one that commits each statement by itself.
    """
    if isinstance(transaction, scoped_session):
        transaction = transaction()
    if isinstance(transaction, Session):
        connection = transaction.connection()
        if not event.contains(transaction, "after_commit", _committed):
            event.listen(transaction, "after_commit", _committed)
    elif isinstance(transaction, Connection):
        connection = transaction
    else:
        raise UsageError(f"Give a Session or a Connection of SQLAlchemy, not {type(transaction).__name__}.")
    if _commits_by_itself(connection):
        raise UsageError("This connection is in AUTOCOMMIT: the outbox needs a transaction, which may be rolled back.")
    connection.execute(insert_into(OUTBOX).values(dict(zip(COLUMNS, astuple(item), strict=True))))


async def insert_async(transaction: Any, item: Item) -> None:
    """Put an item into the outbox.

    Raises:
        UsageError: neither an AsyncSession nor an AsyncConnection, or one that commits each statement by itself.
    """
    if isinstance(transaction, async_scoped_session):
        transaction = transaction()
    if not isinstance(transaction, AsyncSession | AsyncConnection):
        raise UsageError(f"{type(transaction).__name__} is not awaited: `publish(...)`, `send_to_user(...)`.")
    await transaction.run_sync(insert, item)


def _commits_by_itself(connection: Connection) -> bool:
    if not connection.in_transaction():
        connection.begin()  # as the first statement would
    ours: Any = connection.connection
    try:
        automatic = connection.dialect.detect_autocommit_setting(ours.dbapi_connection)
    except (AttributeError, NotImplementedError):  # an older SQLAlchemy, or a driver that does not say
        automatic = connection.get_isolation_level() == "AUTOCOMMIT"
    # With SQLite an app may say BEGIN itself, and then the driver does not.
    return automatic and not getattr(ours.driver_connection, "in_transaction", False)


def _committed(session: Session) -> None:
    ring()
