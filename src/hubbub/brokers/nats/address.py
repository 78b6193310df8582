"""Where NATS is, and how it is to be used, as a URL says it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from hubbub.errors import ConfigError

__all__ = ["Address", "parse_address"]

PORT = 4222
NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")
OPTIONS = {"name", "replicas", "shards", "credentials", "ca"}
MOST_SHARDS = 64


@dataclass(frozen=True, slots=True)
class Address:
    """One NATS, of one server or many.

    Args:
        servers: host and port of each.
        scheme: `nats`, or `tls`, which takes no connection without TLS.
        user: a user, or a token if there is no password.
        password: the user's.
        credentials: a file with a user's JWT and key.
        ca: a file with the certificate of who signed the servers'.
        name: what subjects and streams begin with: apps with other names do not see each other.
        replicas: servers that have each stream; what is acknowledged is with most of them.
        shards: streams over which the channels of one kind are spread.
    """

    servers: tuple[str, ...]
    scheme: str = "nats"
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    credentials: str | None = None
    ca: str | None = None
    name: str = "hubbub"
    replicas: int = 1
    shards: int = 1

    @property
    def place(self) -> str:
        """For people, without what is secret."""
        return f"NATS at {','.join(self.servers)}"


def parse_address(url: str) -> Address:
    """What a URL like `nats://user:password@one:4222,two:4222?replicas=3` says.

    Raises:
        ConfigError: it cannot be; the message does not repeat what may be secret.
    """
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    user, colon, password = login.partition(":")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if parts.scheme not in ("nats", "tls") or not hosts or parts.path not in ("", "/"):
        raise ConfigError("The URL of NATS is like nats://user:password@host:4222,other:4222?replicas=3.")
    if unknown := options.keys() - OPTIONS:
        raise ConfigError(f"NATS has no option {min(unknown)!r} in its URL; there are: {', '.join(sorted(OPTIONS))}.")
    name = options.get("name", "hubbub")
    if not NAME.fullmatch(name):
        raise ConfigError(f"?name={name} in the URL of NATS: give up to 32 letters, digits, - and _.")
    return Address(
        servers=tuple(_server(host) for host in hosts.split(",")),
        scheme=parts.scheme,
        user=unquote(user) or None,
        password=unquote(password) if colon else None,
        credentials=options.get("credentials"),
        ca=options.get("ca"),
        name=name,
        replicas=_number(options, "replicas", 5),
        shards=_number(options, "shards", MOST_SHARDS),
    )


def _server(host: str) -> str:
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port or PORT
    except ValueError:
        raise ConfigError(f"{host!r} in the URL of NATS is not a host and a port.") from None
    if not parts.hostname:
        raise ConfigError("The URL of NATS names a host, or several with commas between.")
    return f"{f'[{parts.hostname}]' if ':' in parts.hostname else parts.hostname}:{port}"


def _number(options: dict[str, str], name: str, most: int) -> int:
    text = options.get(name, "1")
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
        raise ConfigError(f"?{name}={text} in the URL of NATS: give a number from 1 to {most}.")
    return int(text)
