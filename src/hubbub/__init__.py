"""Hubbub: a live connection between your Python web app and its users."""

from __future__ import annotations

from hubbub.config import Auth
from hubbub.contracts import Handshake
from hubbub.core.envelope import Message
from hubbub.core.identity import Identity
from hubbub.core.limits import Limits, Timeouts
from hubbub.core.session import ConnectionState
from hubbub.errors import (
    CloseCode,
    ConfigError,
    ConnectionClosed,
    HubbubError,
    RequestError,
    RequestTimeout,
    StoreError,
    UsageError,
)
from hubbub.node.connection import Connection
from hubbub.node.hub import Hub
from hubbub.node.publisher import Publisher
from hubbub.node.receipt import Receipt

__all__ = [
    "Auth",
    "CloseCode",
    "ConfigError",
    "Connection",
    "ConnectionClosed",
    "ConnectionState",
    "Handshake",
    "Hub",
    "HubbubError",
    "Identity",
    "Limits",
    "Message",
    "Publisher",
    "Receipt",
    "RequestError",
    "RequestTimeout",
    "StoreError",
    "Timeouts",
    "UsageError",
    "__version__",
]

__version__ = "0.1.0"
