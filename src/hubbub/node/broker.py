"""Finds the broker for a URL."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from hubbub.config import BROKERS
from hubbub.errors import ConfigError

if TYPE_CHECKING:
    from hubbub.contracts import Broker, Ledger

__all__ = ["make_broker"]


def make_broker(url: str, ledger: Ledger) -> Broker:
    """The broker of a URL, not open yet.

    Args:
        url: where it is; `memory://` is this process.
        ledger: the database of durable channels, for a process that is alone.

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
    broker: Broker = make(ledger) if scheme == "memory" else make(url)
    return broker
