"""The transactional outbox: what is sent if, and only if, your own transaction is committed.

`publish` and `send_to_user` put a row into the table `hubbub_outbox` of your database, in your transaction; the hub's
relay sends what was committed, in the order of the commits along each channel and each user. The first argument is what
your transaction is: a `Session` or `Connection` of SQLAlchemy, Django's `connection` or the alias of one; for the
functions that are awaited an `AsyncSession` or `AsyncConnection` of SQLAlchemy, or a `Connection` of asyncpg.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from hubbub.core.outbox import Item, message, publication
from hubbub.errors import UsageError
from hubbub.outbox.tables import create, ddl

__all__ = ["create", "ddl", "publish", "publish_async", "send_to_user", "send_to_user_async"]

TAKES = "a Session or Connection of SQLAlchemy, a Connection of asyncpg, or Django's `connection`"


def publish(
    transaction: Any,
    channel: str,
    event: str | None,
    data: Any = None,
    *,
    key: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Publish on a channel once this transaction is committed; see `Hub.publish`.

    Args:
        transaction: whose transaction it is; see above.
        channel: the channel's name; the relay's hub has declared its namespace.
        event: what happened, in a word; None for none.
        data: anything with a JSON form; encoded now.
        key: your name for this publication: with the same key it is published once in 120 s.
        tags: what else there is to say, as short texts by name.

    Raises:
        UsageError: it is not in a transaction, or something given cannot be.
        RequestError: `bad_channel`.
    """
    _insert(transaction, publication(channel, event, data, key, tags))


def send_to_user(
    transaction: Any,
    user_id: str,
    type: str,
    payload: Any = None,
    *,
    durable: bool = True,
    key: str | None = None,
    ttl: float | None = None,
) -> None:
    """Send a message to a user once this transaction is committed; see `Hub.send_to_user`.

    Args:
        transaction: whose transaction it is; see above.
        user_id: the user.
        type: the message's type.
        payload: anything with a JSON form; encoded now.
        durable: keep it in the user's inbox until it is acked.
        key: names a durable message: with the same key it is stored once a day at most.
        ttl: seconds for which a durable message is worth reading, counted from when it is relayed.

    Raises:
        UsageError: it is not in a transaction, or something given cannot be.
        RequestError: `invalid_payload`: not a user's id.
    """
    _insert(transaction, message(user_id, type, payload, durable, key, ttl))


async def publish_async(
    transaction: Any,
    channel: str,
    event: str | None,
    data: Any = None,
    *,
    key: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """See `publish`, for an AsyncSession or AsyncConnection of SQLAlchemy, or a Connection of asyncpg."""
    await _insert_async(transaction, publication(channel, event, data, key, tags))


async def send_to_user_async(
    transaction: Any,
    user_id: str,
    type: str,
    payload: Any = None,
    *,
    durable: bool = True,
    key: str | None = None,
    ttl: float | None = None,
) -> None:
    """See `send_to_user`, for an AsyncSession or AsyncConnection of SQLAlchemy, or a Connection of asyncpg."""
    await _insert_async(transaction, message(user_id, type, payload, durable, key, ttl))


def _insert(transaction: Any, item: Item) -> None:
    adapter = _adapter(transaction)
    if not hasattr(adapter, "insert") or hasattr(transaction, "run_sync"):
        raise UsageError("This transaction is awaited: `await publish_async(...)`, `await send_to_user_async(...)`.")
    adapter.insert(transaction, item)


async def _insert_async(transaction: Any, item: Item) -> None:
    adapter = _adapter(transaction)
    if not hasattr(adapter, "insert_async"):
        raise UsageError("Django's transactions are not awaited: `publish(...)`, `send_to_user(...)` in sync code.")
    await adapter.insert_async(transaction, item)


def _adapter(transaction: Any) -> Any:
    """The module for the library that a transaction is of; whoever has made one has the library."""
    libraries = {kind.__module__.partition(".")[0] for kind in type(transaction).__mro__}
    for library in ("sqlalchemy", "asyncpg", "django"):
        if library in libraries or (library == "django" and isinstance(transaction, str)):
            return importlib.import_module(f"hubbub.outbox.{library}")
    raise UsageError(f"{type(transaction).__name__} is no transaction that the outbox knows: give {TAKES}.")
