"""Every kind of store with a real database behind it, each test with a fresh one."""

from __future__ import annotations

import importlib
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from urllib.parse import urlsplit, urlunsplit

from pymongo import MongoClient

from hubbub.config import STORES
from hubbub.contracts import Store
from services.mongo import Mongo
from services.postgres import Postgres, create_database, drop_database

__all__ = ["DATABASES", "Fresh", "make"]

Fresh = Callable[[], str]
"""Gives the URL of an empty database, another each time."""
numbers = itertools.count()


def make(url: str) -> Store:
    """The store for a URL, not open yet."""
    module, _, name = STORES[url.partition("://")[0]].partition(":")
    store: Store = getattr(importlib.import_module(module), name)(url)
    return store


def _name() -> str:
    return f"hubbub_contract_{os.getpid()}_{next(numbers)}"


@contextmanager
def _sqlite() -> Iterator[Fresh]:
    with tempfile.TemporaryDirectory() as directory:
        yield lambda: f"sqlite:///{directory}/{_name()}.db"


@contextmanager
def _postgres() -> Iterator[Fresh]:
    if given := os.environ.get("HUBBUB_TEST_POSTGRES_URL"):
        names: list[str] = []

        def fresh() -> str:
            names.append(_name())
            return create_database(given, names[-1])

        yield fresh
        for name in names:
            drop_database(given, name)
        return
    with Postgres() as server:
        yield lambda: server.url(_name())


@contextmanager
def _mongo() -> Iterator[Fresh]:
    with Mongo() as server:
        yield lambda: server.url(_name())


@contextmanager
def _real_mongo() -> Iterator[Fresh]:
    given = os.environ["HUBBUB_TEST_MONGODB_URL"]
    names: list[str] = []

    def fresh() -> str:
        names.append(_name())
        return urlunsplit(urlsplit(given)._replace(path=f"/{names[-1]}"))

    yield fresh
    with MongoClient[dict[str, object]](given) as client:
        for name in names:
            client.drop_database(name)


DATABASES: dict[str, Callable[[], AbstractContextManager[Fresh]]] = {
    "sqlite": _sqlite,
    "postgres": _postgres,
    "mongo": _mongo,
}
if os.environ.get("HUBBUB_TEST_MONGODB_URL"):
    DATABASES["real mongo"] = _real_mongo
