"""A database of an application, of each kind, with an outbox in it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from hubbub import Hub, outbox
from hubbub.contracts import OutboxTable
from hubbub.outbox.tables import find_table
from services.postgres import Postgres
from tests.outbox.ledger import Ledger

numbers = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture
async def postgres(server: Postgres) -> str:
    """The URL of a PostgreSQL database."""
    url = server.url(f"outbox_{next(numbers)}")
    await outbox.create(url)
    return url


@pytest.fixture
async def sqlite(tmp_path: Path) -> str:
    """The URL of a SQLite file."""
    url = f"sqlite:///{tmp_path}/app.db"
    await outbox.create(url)
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> Any:
    """The URL of a database, of each kind."""
    return request.getfixturevalue(request.param)


@pytest.fixture
async def table(url: str) -> AsyncIterator[OutboxTable]:
    """The outbox, as a relay sees it."""
    table = find_table(url)
    await table.open()
    yield table
    await table.close()


@pytest.fixture
async def ledger(url: str) -> AsyncIterator[Ledger]:
    """Notes what a hub that relays this outbox sends."""
    hub = Hub(outbox_url=url)
    async with hub.running():
        yield Ledger(hub)
