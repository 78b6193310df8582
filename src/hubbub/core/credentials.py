"""Where a handshake may carry a token or a ticket, and how neither gets into a log."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote

__all__ = ["LONGEST", "SUBPROTOCOL", "Credential", "Source", "find_credential", "read_cookies", "redact"]

LONGEST = 8 * 1024
"""Characters of the longest token that is looked at."""
SUBPROTOCOL = "bearer."
HIDDEN = "[hidden]"

Source = Literal["header", "subprotocol", "ticket", "query", "cookie"]

_SECRETS = re.compile(r"(?<![^?&;\s\"'])((?:token|ticket)=)[^&\s]*")


@dataclass(frozen=True, slots=True)
class Credential:
    """What a client brought to prove who it is, unchecked.

    Args:
        text: a token or a ticket.
        source: how it came; from `ticket` only a ticket counts.
    """

    text: str = field(repr=False)
    source: Source


def find_credential(
    headers: Sequence[tuple[bytes, bytes]],
    subprotocols: Iterable[str],
    query: bytes,
    cookie: str,
    tokens_in_query: bool,
) -> Credential | None:
    """Find the credential of a handshake; what was sent on purpose goes before the cookie, which comes by itself.

    Args:
        headers: the request's, names in lower case.
        subprotocols: those that the client offers; one may be `bearer.` and a token.
        query: the URL's query string.
        cookie: the name of the cookie that may carry a token.
        tokens_in_query: whether `?token=` counts, beside `?ticket=`.
    """
    cookies = False
    for name, value in headers:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return Credential(value[7:].strip().decode("latin-1"), "header")
        cookies = cookies or name == b"cookie"
    for offered in subprotocols:
        if offered.startswith(SUBPROTOCOL):
            return Credential(offered.removeprefix(SUBPROTOCOL), "subprotocol")
    if query:
        if (ticket := _parameter(query, b"ticket=")) is not None:
            return Credential(ticket, "ticket")
        if tokens_in_query and (token := _parameter(query, b"token=")) is not None:
            return Credential(token, "query")
    if cookies and (found := read_cookies(headers).get(cookie)) is not None:
        return Credential(found, "cookie")
    return None


def read_cookies(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Read the cookies of a request (RFC 6265 section 4.2.1); of two with one name the first counts."""
    cookies: dict[str, str] = {}
    for header, line in headers:
        if header == b"cookie":
            for pair in line.decode("latin-1").split(";"):
                name, equals, value = pair.strip().partition("=")
                if equals:
                    cookies.setdefault(name, value.removeprefix('"').removesuffix('"'))
    return cookies


def redact(text: str) -> str:
    """Hide the values of `token` and `ticket` in a URL or query string, or in a line that has one in it."""
    return _SECRETS.sub(rf"\1{HIDDEN}", text) if "=" in text else text


def _parameter(query: bytes, name: bytes) -> str | None:
    """The first value of a parameter, `name` with its equals sign; the name may not be escaped."""
    for part in query.split(b"&"):
        if part.startswith(name):
            return unquote(part[len(name) :].decode("latin-1"))
    return None
