"""Whose pages may open a WebSocket here: a browser lets every page try, and says in Origin where the page came from.

Rules of this file (RFC 6454):
1. An origin is a scheme, a host and a port; all three must be equal. No part of one is ever looked for in another.
2. An Origin that no browser writes (upper case, a path, a user, a dot at the end, two of them) is nobody's.
3. With a list, the list decides. Without one only a loopback client of a loopback host may come, from a page of that
   very host and port; a host that merely resolves to this machine (DNS rebinding) is none.
4. Without an Origin it is no page, so it may come, unless it brings a cookie that may sign in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from hubbub.core.arrival import Arrival
from hubbub.errors import ConfigError

__all__ = ["ANY", "Origin", "Origins", "Verdict", "is_loopback", "parse_origin"]

ANY = "*"
PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
WEB = ("http", "https")

_AUTHORITY = r"(?P<host>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::(?P<port>[1-9][0-9]{0,4}))?"
_ORIGIN = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*)://{_AUTHORITY}")
_HOST = re.compile(_AUTHORITY)


class Origin(NamedTuple):
    """Where a page came from; the port is None where its scheme has no usual one."""

    scheme: str
    host: str
    port: int | None

    def __str__(self) -> str:
        usual = self.port is None or self.port == PORTS.get(self.scheme)
        return f"{self.scheme}://{self.host}" + ("" if usual else f":{self.port}")


class Verdict(NamedTuple):
    """Why a client is turned away.

    Args:
        why: what is wrong, in a few words.
        origin: the one that a list could have, None where none could.
    """

    why: str
    origin: Origin | None = None


class Origins:
    """The rule.

    Args:
        allowed: the list, None for loopback only; `*` in it stands for every origin.

    Raises:
        ConfigError: something in the list is no origin.
    """

    def __init__(self, allowed: Iterable[str] | None) -> None:
        given = None if allowed is None else list(allowed)
        self.given = given is not None
        self.any = ANY in (given or ())
        self.allowed = frozenset(_configured(each) for each in given or () if each != ANY)

    def judge(self, arrival: Arrival) -> Verdict | None:
        """Say whether a client may come; None if it may."""
        if not arrival.origins:
            if arrival.has_cookie and not self.any:
                return Verdict("a client with a cookie must say its Origin")
            return None
        if len(arrival.origins) > 1:
            return Verdict("more than one Origin")
        if self.any:
            return None
        origin = parse_origin(arrival.origins[0])
        if origin is None:
            return Verdict("this Origin is not one")
        if self.given:
            known = origin in self.allowed
        else:
            known = is_loopback(arrival.address) and _is_same_host(origin, arrival.host or "", arrival.secure)
        return None if known else Verdict("this Origin is not allowed", origin)


@lru_cache(maxsize=1024)
def parse_origin(text: str) -> Origin | None:
    """Read an Origin as a browser writes it (RFC 6454 section 6.2); None for `null` and whatever else is none."""
    match = _ORIGIN.fullmatch(text)
    if match is None or len(text) > 512:
        return None
    scheme = match["scheme"]
    found = _authority(match, PORTS.get(scheme))
    return found and Origin(scheme, *found)


@lru_cache(maxsize=1024)
def is_loopback(address: str | None) -> bool:
    """Whether an address is this machine's own: 127.0.0.0/8 or ::1."""
    try:
        ip = ip_address(address or "")
    except ValueError:
        return False
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.is_loopback


@lru_cache(maxsize=1024)
def _is_same_host(origin: Origin, asked: str, secure: bool) -> bool:
    """Whether a page came from the loopback host and port that it asks."""
    match = _HOST.fullmatch(asked.lower())
    if match is None or origin.scheme not in WEB:
        return False
    host = match["host"]
    local = host == "localhost" or host.endswith(".localhost") or is_loopback(host.strip("[]"))
    return local and _authority(match, PORTS["https" if secure else "http"]) == (origin.host, origin.port)


def _authority(match: re.Match[str], usual: int | None) -> tuple[str, int | None] | None:
    """The host and port of a match; None for an address or port that cannot be."""
    host, port = match["host"], int(match["port"]) if match["port"] else usual
    if host[0] == "[":
        try:
            host = f"[{IPv6Address(host[1:-1])}]"
        except ValueError:
            return None
    return None if port is not None and port > 65535 else (host, port)


def _configured(text: str) -> Origin:
    """Read an entry of the list: people may use upper case."""
    origin = parse_origin(text.lower())
    if origin is None:
        raise ConfigError(
            f"{text!r} is not an origin: give scheme, host and the port if it is not the usual one, like "
            "https://example.com or http://localhost:5173; no path, no / at the end, other alphabets in punycode."
        )
    return origin
