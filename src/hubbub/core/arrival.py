"""A client at the door, before anything is done for it, and how it is turned away."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from msgspec import Struct

from hubbub.core.credentials import read_cookies

__all__ = ["Arrival", "Refusal"]

Header = tuple[bytes, bytes]


class Arrival(Struct, frozen=True):
    """What is known of a client from the head of its request.

    Args:
        host: the Host header as it came, None without one or with several.
        origins: the value of each Origin header as it came; a browser sends one.
        address: the client's, behind trusted proxies the one that they saw; None on a Unix socket.
        secure: whether the client speaks TLS, to us or to a trusted proxy.
        has_cookie: whether a cookie came that may sign in, which a browser sends along for every page that asks.
    """

    host: str | None = None
    origins: tuple[str, ...] = ()
    address: str | None = None
    secure: bool = False
    has_cookie: bool = False

    @classmethod
    def read(cls, headers: Iterable[Header], address: str | None, secure: bool, cookie: str | None) -> Arrival:
        """Take from a request's headers, names in lower case, what matters here.

        Args:
            headers: the request's.
            address: the client's.
            secure: whether the client speaks TLS.
            cookie: the name of the cookie that may sign in, None where any may.
        """
        hosts: list[bytes] = []
        origins: list[str] = []
        cookies: list[Header] = []
        for each in headers:
            name, value = each
            if name == b"host":
                hosts.append(value)
            elif name == b"origin":
                origins.append(value.decode("latin-1"))
            elif name == b"cookie":
                cookies.append(each)
        host = hosts[0].decode("latin-1") if len(hosts) == 1 else None
        has_cookie = bool(cookies) and (cookie is None or cookie in read_cookies(cookies))
        return cls(host, tuple(origins), address, secure, has_cookie)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The HTTP answer in place of a WebSocket.

    Args:
        status: 403, 429 or 503.
        reason: one line, for whoever reads it.
        headers: more of them, as `Retry-After`.
    """

    status: int
    reason: str
    headers: tuple[Header, ...] = ()

    @property
    def body(self) -> bytes:
        """The reason as the answer's plain text."""
        return f"{self.reason}\n".encode()
