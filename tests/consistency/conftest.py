"""A real database of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from services.mongo import Mongo
from services.postgres import Postgres


@pytest.fixture(params=["sqlite", "postgres", "mongo"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of each kind; PostgreSQL with fsync on."""
    makers: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "sqlite": nullcontext,
        "postgres": lambda: Postgres(fsync=True),
        "mongo": Mongo,
    }
    with makers[request.param]() as running:
        yield f"sqlite:///{tmp_path}/inbox.db" if running is None else running.url("kill")
