"""Finds the broker for a URL."""

from __future__ import annotations

import importlib
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from hubbub.config import BROKERS
from hubbub.errors import ConfigError

if TYPE_CHECKING:
    from hubbub.contracts import Broker, Ledger

__all__ = ["make_broker"]

USUAL = "/ws"
LONGEST = 23  # characters of a name, to which nine are added


def make_broker(url: str, ledger: Ledger, path: str | None = None) -> Broker:
    """The broker of a URL, not open yet.

    Args:
        url: where it is; `memory://` is this process.
        ledger: the database of durable channels, for a process that is alone.
        path: the hub's, as the app says it: hubs with other paths do not see each other.

    Raises:
        ConfigError: what it needs is not installed, or the URL has options that there are not.
    """
    scheme = url.partition("://")[0]
    module, _, name = BROKERS[scheme].partition(":")
    try:
        make = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("hubbub"):
            raise
        extra = module.rpartition(".")[2]
        raise ConfigError(f'{error.name} is not installed: pip install "hubbub[{extra}]"') from None
    broker: Broker = make(ledger) if scheme == "memory" else make(_apart(url, path))
    return broker


def _apart(url: str, path: str | None) -> str:
    """The URL with a name of its own for a hub that may be the second of its app."""
    if path is None or path == USUAL:
        return url
    place, _, query = url.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    name = options.get("name", "hubbub")
    apart = f"{name[:LONGEST]}-{sha256(f'{name} {path}'.encode()).hexdigest()[:8]}"
    return f"{place}?{urlencode(options | {'name': apart})}"
