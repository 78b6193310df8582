"""For whom a proxy speaks: the client's address and scheme, from headers that anybody could write.

Rules of this file:
1. Nobody is believed but who is trusted by configuration, and a chain of proxies is read from our end: each trusted one
   vouches for the address before it, and the first that is not trusted is the client.
2. What cannot be read is not guessed: then the client is the peer itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from hubbub.errors import ConfigError

__all__ = ["UNIX", "Peer", "Proxies", "is_near"]

UNIX = "unix"
"""Stands for whoever comes through a Unix socket."""
HOPS = 32  # proxies in a chain
SCHEMES = {b"http": False, b"ws": False, b"https": True, b"wss": True}

Header = tuple[bytes, bytes]

_HOP = re.compile(rb"\[([0-9A-Fa-f:.]{2,45})\](?::[0-9]{1,5})?|([0-9.]{7,15})(?::[0-9]{1,5})?|([0-9A-Fa-f:.]{2,45})")


class Peer(NamedTuple):
    """Whom we talk to.

    Args:
        address: None on a Unix socket.
        secure: whether it speaks TLS.
    """

    address: str | None
    secure: bool


class Proxies:
    """The proxies whose word counts.

    Args:
        trusted: addresses and networks, and `unix` for a Unix socket.

    Raises:
        ConfigError: something in the list is neither.
    """

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        given = list(trusted)
        self._unix = UNIX in given
        self._networks = tuple(_network(each) for each in given if each != UNIX)

    def trusts(self, address: str | None) -> bool:
        """Whether an address is a trusted proxy's."""
        if address is None:
            return self._unix
        ip = _parse(address) if self._networks else None
        return ip is not None and any(ip in network for network in self._networks)

    def client(self, peer: Peer, headers: Iterable[Header]) -> Peer:
        """Find the client behind a peer: who a trusted proxy says it is, any other peer itself.

        Args:
            peer: at the other end of the socket.
            headers: the request's, names in lower case.
        """
        if not self.trusts(peer.address):
            return peer
        chain, scheme = [], b""
        for name, value in headers:
            if name == b"x-forwarded-for":
                chain.append(value)
            elif name == b"x-forwarded-proto":
                scheme = value
        address = self._first_stranger(b",".join(chain)) or peer.address
        return Peer(address, SCHEMES.get(scheme.rpartition(b",")[2].strip().lower(), peer.secure))

    def _first_stranger(self, chain: bytes) -> str | None:
        """The last address that is no trusted proxy's, else the first; None where one on the way is not readable."""
        address = None
        for hop in reversed(chain.rsplit(b",", HOPS)[-HOPS:]):
            address = _address(hop)
            if address is None or not self.trusts(address):
                break
        return address


def is_near(address: str | None) -> bool:
    """Whether an address could be that of a proxy of ours: this machine's, or of a private network."""
    ip = _parse(address or "")
    return address is None or (ip is not None and (ip.is_loopback or ip.is_private))


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        ip = ip_address(text)
    except ValueError:
        return None
    return (ip.ipv4_mapped or ip) if isinstance(ip, IPv6Address) else ip


def _address(hop: bytes) -> str | None:
    """One part of X-Forwarded-For: an address, maybe with a port, as `192.0.2.1:4711` or `[2001:db8::1]:4711`."""
    match = _HOP.fullmatch(hop.strip(b" \t"))
    ip = _parse((match[1] or match[2] or match[3]).decode()) if match is not None else None
    return None if ip is None else str(ip)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError:
        why = "give addresses like 10.0.0.5, networks like 10.0.0.0/8, or `unix`, with commas between"
        raise ConfigError(f"{text!r} is no proxy's address: {why}.") from None
