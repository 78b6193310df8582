"""The outbox in a transaction of Django."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

from django.db import connections

from hubbub.core.outbox import COLUMNS, Item
from hubbub.errors import UsageError
from hubbub.outbox.bell import ring

__all__ = ["insert"]

INSERT = f"INSERT INTO hubbub_outbox ({', '.join(COLUMNS)}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"


def insert(connection: Any, item: Item) -> None:
    """Put an item into the outbox.

    Raises:
        UsageError: not a connection, or one that is in no transaction.
    """
    if isinstance(connection, str):
        connection = connections[connection]
    if not hasattr(connection, "in_atomic_block"):
        raise UsageError("Give `django.db.connection`, or the alias of a database.")
    if not connection.in_atomic_block and connection.get_autocommit():
        raise UsageError("The outbox needs a transaction: `with transaction.atomic():`.")
    with connection.cursor() as cursor:
        cursor.execute(INSERT, astuple(item))
    if connection.in_atomic_block:  # Django tells of no other commits
        connection.on_commit(ring)
