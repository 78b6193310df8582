"""The outbox in a transaction of asyncpg."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

from hubbub.core.outbox import COLUMNS, Item
from hubbub.errors import UsageError

__all__ = ["insert_async"]

INSERT = f"INSERT INTO hubbub_outbox ({', '.join(COLUMNS)}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"


async def insert_async(connection: Any, item: Item) -> None:
    """Put an item into the outbox.

    Raises:
        UsageError: not a Connection, or one that is in no transaction.
    """
    if not hasattr(connection, "is_in_transaction"):
        raise UsageError(f"Give a Connection of asyncpg, not a {type(connection).__name__}.")
    if not connection.is_in_transaction():
        raise UsageError("The outbox needs a transaction: `async with connection.transaction():`.")
    await connection.execute(INSERT, *astuple(item))
