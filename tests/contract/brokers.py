"""Every kind of broker that nodes can share, and the one in memory, with a real server behind it."""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from hubbub.config import BROKERS
from hubbub.contracts import Broker
from services.nats import Nats
from services.valkey import Valkey

__all__ = ["SERVERS", "Fresh", "make"]

Fresh = Callable[[], str]
"""Gives the URL of a broker that nobody has used, another each time."""
numbers = itertools.count()


def make(url: str) -> Broker:
    """The broker for a URL, not open yet."""
    scheme = url.partition("://")[0]
    module, _, name = BROKERS[scheme].partition(":")
    kind = getattr(importlib.import_module(module), name)
    broker: Broker = kind() if scheme == "memory" else kind(url)
    return broker


@contextmanager
def _memory() -> Iterator[Fresh]:
    yield lambda: "memory://"


@contextmanager
def _nats() -> Iterator[Fresh]:
    with Nats() as server:
        yield lambda: f"{server.url}?name=t{os.getpid()}_{next(numbers)}"


@contextmanager
def _redis() -> Iterator[Fresh]:
    with Valkey() as server:
        yield lambda: f"{server.url}?name=t{os.getpid()}_{next(numbers)}"


SERVERS: dict[str, Callable[[], AbstractContextManager[Fresh]]] = {"memory": _memory, "nats": _nats, "redis": _redis}
