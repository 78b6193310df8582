"""`hubbub migrate`: bring the tables of every database up to date, before the new version of an app starts."""

from __future__ import annotations

import asyncio

import typer

from hubbub.config import Settings, load_settings
from hubbub.errors import ConfigError, StoreError
from hubbub.node.database import Database, databases

__all__ = ["migrate"]

PATIENCE = 60.0


def migrate() -> None:
    """Bring the tables of the inbox and the archive up to date; a hub does the same when it starts."""
    try:
        asyncio.run(_migrate(load_settings()))
    except (ConfigError, StoreError) as error:
        typer.echo(f"hubbub: {error}", err=True)
        raise typer.Exit(1) from None


async def _migrate(settings: Settings) -> None:
    roles: dict[Database, list[str]] = {}
    for role, database in databases(settings, PATIENCE).items():
        roles.setdefault(database, []).append(role)
    for database, names in roles.items():
        try:
            await database.open()
            typer.echo(f"{' and '.join(names)}: {database.store.place}, {_progress(database)}")
        finally:
            await database.close()


def _progress(database: Database) -> str:
    """From which version to which; a store whose tables have none is simply ready."""
    before, after = getattr(database.store, "migrated", (0, 0))
    if not after:
        return "ready"
    return f"version {after} already" if before == after else f"from version {before} to {after}"
