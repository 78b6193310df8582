"""The outbox's tables in the application's database: their SQL, and how they come there."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from hubbub.errors import ConfigError
from hubbub.stores.migrations import Migration, find_migrations

if TYPE_CHECKING:
    from hubbub.contracts import OutboxTable

__all__ = ["MIGRATIONS", "applying", "create", "ddl", "find_all", "find_table"]

MIGRATIONS = (
    "CREATE TABLE hubbub_outbox_migrations (version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL)"
)
REMEMBER = "INSERT INTO hubbub_outbox_migrations VALUES ({version}, '{name}', '{checksum}')"
TABLES = {
    "sqlite": "hubbub.outbox.sqlite:SqliteTable",
    "postgres": "hubbub.outbox.postgres:PostgresTable",
    "postgresql": "hubbub.outbox.postgres:PostgresTable",
}
"""The class that reads the outbox at a URL, by the URL's scheme."""
DIALECTS = {"sqlite": "sqlite", "postgres": "postgres", "postgresql": "postgres"}


def ddl(dialect: str) -> list[str]:
    """The statements that make the outbox's tables in an empty database, for your own migrations.

    Args:
        dialect: `sqlite` or `postgresql`.

    Raises:
        ConfigError: another one.
    """
    if dialect not in DIALECTS:
        raise ConfigError(f"There is no outbox for {dialect!r}: give sqlite or postgresql.")
    return [MIGRATIONS, *(part for migration in find_all(DIALECTS[dialect]) for part in applying(migration))]


def applying(migration: Migration) -> list[str]:
    """The statements of a migration, and the one that remembers it."""
    row = REMEMBER.format(version=migration.version, name=migration.name, checksum=migration.checksum)
    return [*migration.statements, row]


async def create(url: str) -> tuple[int, int]:
    """Make the outbox's tables, or bring them up to date; the versions before and after.

    Args:
        url: the application's database: `sqlite:///file.db`, or `postgresql://user:password@host/database`.

    Raises:
        ConfigError: the URL is of something else, or its driver is not installed.
        StoreError: the database cannot be reached, or refuses.
    """
    table = find_table(url)
    try:
        await table.open()
        return table.migrated
    finally:
        await table.close()


def find_all(dialect: str) -> list[Migration]:
    """The migrations of the outbox's tables, `sqlite` or `postgres`, in order."""
    return find_migrations(dialect, "hubbub.outbox")


def find_table(url: str) -> OutboxTable:
    """The outbox at a URL, not open yet.

    Raises:
        ConfigError: the URL is of something else, or its driver is not installed.
    """
    scheme = url.partition("://")[0]
    if scheme not in TABLES:
        raise ConfigError(
            "The outbox is in SQLite or PostgreSQL: give a URL like sqlite:///file.db, or postgresql://host/database."
        )
    module, _, name = TABLES[scheme].partition(":")
    try:
        table: OutboxTable = getattr(importlib.import_module(module), name)(url)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("hubbub"):
            raise
        raise ConfigError(f'{error.name} is not installed: pip install "hubbub[postgres]"') from None
    return table
