"""`hubbub migrate`: bring the tables of every database up to date, before the new version of an app starts."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from hubbub.config import Settings, load_settings
from hubbub.errors import ConfigError, StoreError
from hubbub.node.database import Database, databases
from hubbub.outbox.tables import create, find_table

__all__ = ["migrate"]

PATIENCE = 60.0


def migrate(
    outbox: Annotated[
        str | None, typer.Option(metavar="URL", help="The outbox in this database, and nothing else.")
    ] = None,
) -> None:
    """Bring the tables of inbox, archive and outbox up to date; a hub does the same when it starts."""
    try:
        asyncio.run(_migrate(load_settings()) if outbox is None else _migrate_outbox(outbox))
    except (ConfigError, StoreError) as error:
        typer.echo(f"hubbub: {error}", err=True)
        raise typer.Exit(1) from None


async def _migrate_outbox(url: str) -> None:
    table = find_table(url)
    typer.echo(f"outbox: {table.place}, {_progress(*await create(url))}")


async def _migrate(settings: Settings) -> None:
    roles: dict[Database, list[str]] = {}
    for role, database in databases(settings, PATIENCE).items():
        roles.setdefault(database, []).append(role)
    for database, names in roles.items():
        try:
            await database.open()
            versions = getattr(database.store, "migrated", (0, 0))
            typer.echo(f"{' and '.join(names)}: {database.store.place}, {_progress(*versions)}")
        finally:
            await database.close()
    if settings.hubbub_outbox_url is not None:
        await _migrate_outbox(settings.hubbub_outbox_url)


def _progress(before: int, after: int) -> str:
    """From which version to which; a store whose tables have none is simply ready."""
    if not after:
        return "ready"
    return f"version {after} already" if before == after else f"from version {before} to {after}"
