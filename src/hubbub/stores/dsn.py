"""The URL of a PostgreSQL database, and what is wrong with one that cannot be used."""

from __future__ import annotations

import os
import re
from typing import NamedTuple
from urllib.parse import unquote

import asyncpg

from hubbub.errors import ConfigError, StoreError, StoreUnavailable

__all__ = ["DSN", "LOST", "PATIENCE", "reason", "refuse"]

PATIENCE = 5.0
"""Seconds for a connection, and for each statement."""
IMPOSSIBLE = (OverflowError, UnicodeError)
"""What the loop raises for a port, or the name of a host, that there cannot be."""
LOST = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
    *IMPOSSIBLE,
)
"""What may be raised where a database is out of reach or refuses."""
URL = re.compile(
    r"postgres(?:ql)?://(?:[^@/?#]*@)?(?P<hosts>[\w.%\-]*(?::\d+)?(?:,[\w.%\-]+(?::\d+)?)*|\[[\da-fA-F:]+\](?::\d+)?)"
    r"(?:/(?P<database>[^@/?#]*))?(?:\?(?P<options>[^@#]*))?"
)


class DSN(NamedTuple):
    """Where a database is.

    Args:
        place: for people: hosts, ports and database, nothing else of the URL.
        url: for asyncpg.
        cached: statements that a connection may keep prepared.
    """

    place: str
    url: str
    cached: int

    @classmethod
    def read(cls, url: str) -> DSN:
        """Read a URL.

        Raises:
            ConfigError: it is not well formed.
        """
        found = URL.fullmatch(url)
        if found is None:
            raise ConfigError(
                "The URL of PostgreSQL is not well formed: give postgresql://user:password@host:port/database, "
                "and write @ : / ? # % in the password as %40 %3A %2F %3F %23 %25."
            )
        return cls(f"PostgreSQL at {_address(found)}", *_without_cache_size(url))


def reason(error: BaseException) -> str:
    """What went wrong, in a few words."""
    if isinstance(error, TimeoutError):
        return f"no answer in {PATIENCE:g} s"
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__


def refuse(place: str, error: Exception) -> StoreError:
    """What is wrong at the start, and what to do."""
    match error.__cause__ or error:
        case asyncpg.InvalidAuthorizationSpecificationError():
            return StoreError(f"{place} refuses the user or the password: check them in the URL.")
        case asyncpg.InvalidCatalogNameError():
            return StoreError(f"{place} is not there: create the database, or check its name in the URL.")
        case asyncpg.InsufficientPrivilegeError() as cause:
            return StoreError(f"{place} does not let this user make tables: {reason(cause)}.")
        case cause:
            return StoreUnavailable(f"{place} cannot be reached: {reason(cause)}. Start it, or check the URL.")


def _address(found: re.Match[str]) -> str:
    """Hosts, ports and database of a URL, and nothing else of it."""
    options = dict(part.partition("=")[::2] for part in (found["options"] or "").split("&"))
    hosts = found["hosts"] or unquote(options.get("host", "")) or "localhost"
    listed = (host if re.search(r":\d+$", host) else f"{host}:5432" for host in hosts.split(","))
    database = unquote(found["database"] or options.get("dbname") or options.get("database") or "")
    return ",".join(listed) + (f"/{database}" if database else "")


def _without_cache_size(url: str) -> tuple[str, int]:
    """The URL without the option that is asyncpg's and not the server's, and that option."""
    size = re.search(r"(?<=[?&])statement_cache_size=(\d+)(?:&|$)", url)
    return (url, 100) if size is None else ((url[: size.start()] + url[size.end() :]).rstrip("?&"), int(size[1]))
