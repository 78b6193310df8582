"""Where Redis is, and how it is to be used, as a URL says it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from hubbub.errors import ConfigError

__all__ = ["Address", "parse_address"]

Kind = Literal["single", "sentinel", "cluster"]
KINDS: dict[str, tuple[Kind, int]] = {
    "redis": ("single", 6379),
    "rediss": ("single", 6379),
    "valkey": ("single", 6379),
    "redis+sentinel": ("sentinel", 26379),
    "redis+cluster": ("cluster", 6379),
}
"""What a scheme means, and its port."""
NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
OPTIONS = {"name", "tls", "ca"}
FORM = "The URL of Redis is like redis://user:password@host:6379/0 or redis+sentinel://one:26379,two/mymaster."


@dataclass(frozen=True, slots=True)
class Address:
    """One Redis: a server, what Sentinels know by a name, or a Cluster.

    Args:
        kind: which of them; a single server may say that it is one of a Cluster.
        servers: host and port of each.
        master: what Sentinels call the server.
        database: the number of the database; a Cluster has only one.
        user: a user, if there are any.
        password: the user's, or the server's.
        tls: whether connections are encrypted.
        ca: a file with the certificate of who signed the servers'.
        name: what keys begin with: apps with other names do not see each other.
    """

    kind: Kind
    servers: tuple[tuple[str, int], ...]
    master: str = ""
    database: int = 0
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca: str | None = None
    name: str = "hubbub"

    @property
    def place(self) -> str:
        """For people, without what is secret."""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.servers)
        known = {"single": "", "sentinel": f", {self.master}", "cluster": ", a cluster"}[self.kind]
        return f"Redis at {hosts}{known}"


def parse_address(url: str) -> Address:
    """What a URL says.

    Raises:
        ConfigError: it cannot be; the message does not repeat what may be secret.
    """
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    user, colon, password = login.partition(":")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme not in KINDS or not hosts:
        raise ConfigError(FORM)
    if unknown := options.keys() - OPTIONS:
        raise ConfigError(f"Redis has no option {min(unknown)!r} in its URL; there are: {', '.join(sorted(OPTIONS))}.")
    name = options.get("name", "hubbub")
    if not NAME.fullmatch(name):
        raise ConfigError(f"?name={name} in the URL of Redis: give up to 32 letters, digits, - and _.")
    kind, port = KINDS[parts.scheme]
    master, database = _path(kind, parts.path.strip("/"))
    servers = tuple(_server(host, port) for host in hosts.split(","))
    if kind == "single" and len(servers) > 1:
        raise ConfigError(
            "The URL of Redis names several servers: it begins with redis+sentinel:// or redis+cluster://."
        )
    return Address(
        kind,
        servers,
        master,
        database,
        user=unquote(user) or None,
        password=unquote(password) if colon else None,
        tls=parts.scheme == "rediss" or options.get("tls") in ("1", "true", "yes"),
        ca=options.get("ca"),
        name=name,
    )


def _path(kind: Kind, path: str) -> tuple[str, int]:
    """The name of the master, and the number of the database."""
    master, _, number = path.partition("/") if kind == "sentinel" else ("", "", path)
    if (kind == "sentinel" and not master) or not (number.isascii() and (number.isdigit() or not number)):
        raise ConfigError(FORM)
    if kind == "cluster" and int(number or 0):
        raise ConfigError("A Cluster of Redis has no numbered databases: leave the number out of the URL.")
    return unquote(master), int(number or 0)


def _server(host: str, port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{host}")
        found = parts.port or port
    except ValueError:
        raise ConfigError(f"{host!r} in the URL of Redis is not a host and a port.") from None
    if not parts.hostname:
        raise ConfigError(FORM)
    return parts.hostname, found
