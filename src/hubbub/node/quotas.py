"""How many connections there may be: asked before the upgrade, and again when it is known who came."""

from __future__ import annotations

import logging
import math
from ipaddress import AddressValueError, IPv6Address
from time import monotonic
from typing import TYPE_CHECKING, Literal

from hubbub.core.arrival import Arrival, Refusal
from hubbub.core.buckets import Buckets
from hubbub.core.limits import Limits
from hubbub.core.rates import Rates
from hubbub.core.session import ConnectionState
from hubbub.errors import CloseCode

if TYPE_CHECKING:
    from hubbub.node.connection import Connection

__all__ = ["Quotas", "WhenFull", "network_of"]

logger = logging.getLogger("hubbub.quotas")

WhenFull = Literal["refuse", "replace_oldest"]

QUIET = 60.0  # seconds from one line in the log to the next
COME_BACK = 10.0  # seconds, where nobody knows
LONGEST = 64  # characters of what calls itself an address
SUBNET = 64  # bits that name a network: a home has all addresses behind them


class Quotas:
    """Counts connections, of this node, of an address and of a user, and how often they are asked for.

    Args:
        rates: how often.
        limits: how many.
        when_full: what becomes of a user's connection that is one too many, or of the oldest.
    """

    def __init__(self, rates: Rates, limits: Limits, when_full: WhenFull = "refuse") -> None:
        self.rates = rates
        self.refused = 0
        self._limits = limits
        self._replaces = when_full == "replace_oldest"
        self._arrivals: Buckets[str] | None = None if rates.attempts is None else Buckets(rates.attempts)
        self._sign_ins: Buckets[str] | None = None if rates.attempts is None else Buckets(rates.attempts)
        self._quiet_until = 0.0
        self.reset()

    def reset(self) -> None:
        """Have nobody."""
        self._count = 0
        self._by_network: dict[str, int] = {}

    # Before the upgrade

    def admit(self, arrival: Arrival) -> Refusal | None:
        """Let a client ask for a connection with None, or say when it may come back."""
        if self._count >= self._limits.connections:
            self._tell("%d connections are open, as many as Limits.connections allows", self._count)
            return _refusal(503, "The server is full.", COME_BACK)
        network = network_of(arrival.address)
        if network is None:
            return None
        if self._by_network.get(network, 0) >= self._limits.connections_per_address:
            self._tell("%a has as many connections as Limits.connections_per_address allows", network)
            return _refusal(429, "Too many connections from this address.", COME_BACK)
        seconds = 0.0 if self._arrivals is None else self._arrivals.ask(network, 1, monotonic())
        if seconds:
            self._tell("%a asks for connections more often than Rates.attempts allows", network)
            return _refusal(429, "Too many attempts from this address.", seconds)
        return None

    # After it

    def enter(self, connection: Connection, address: str | None) -> bool:
        """Count a connection; False if it is closed, for while it signed in others took the room."""
        connection.network = network = network_of(address)
        self._count += 1
        of_network = 0
        if network is not None:
            of_network = self._by_network[network] = self._by_network.get(network, 0) + 1
        if self._count > self._limits.connections:
            self._close(connection, CloseCode.TRY_AGAIN_LATER, "the server is full")
        elif of_network > self._limits.connections_per_address:
            self._close(connection, CloseCode.CONNECTION_LIMIT, "too many connections from this address")
        else:
            self.join(connection)
        return connection.state is ConnectionState.OPEN

    def leave(self, connection: Connection) -> None:
        """Count a connection no more."""
        self._count -= 1
        network = connection.network
        if network is not None:
            self._by_network[network] -= 1
            if not self._by_network[network]:
                del self._by_network[network]

    def join(self, connection: Connection) -> None:
        """Take in a connection of a user: it, or the user's oldest, is closed where there are too many."""
        user_id = connection.user_id
        if user_id is None:
            return
        if self._sign_ins is not None and self._sign_ins.ask(user_id, 1, monotonic()):
            self._close(connection, CloseCode.RATE_LIMITED, "too many connections in a short time")
            return
        registry = connection.node.registry
        if registry.count_of_user(user_id) < self._limits.connections_per_user:
            return
        others = [each for each in registry.of_user(user_id) if each is not connection]
        surplus = len(others) + 1 - self._limits.connections_per_user
        if surplus > 0 and not self._replaces:
            self._close(connection, CloseCode.CONNECTION_LIMIT, "this user has too many connections")
            return
        for oldest in others[: max(surplus, 0)]:
            oldest.close(CloseCode.REPLACED, "a newer connection took its place")

    def sweep(self, now: float) -> None:
        """Forget who has not come for a while."""
        for buckets in (self._arrivals, self._sign_ins):
            if buckets is not None:
                buckets.sweep(now)

    def shared(self) -> dict[str, Buckets[str]]:
        """The buckets that are one over all nodes, by kind."""
        kinds = {"attempts of addresses": self._arrivals, "attempts of users": self._sign_ins}
        return {kind: buckets for kind, buckets in kinds.items() if buckets is not None}

    def _close(self, connection: Connection, code: CloseCode, reason: str) -> None:
        self.refused += 1
        connection.close(code, reason)

    def _tell(self, text: str, value: object) -> None:
        """Log a refusal, and no other for a while: these come in crowds."""
        now = monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET
            logger.warning("refused a connection: " + text, value)


def network_of(address: str | None) -> str | None:
    """Whom an address is counted as: itself; with IPv6 its network of 64 bits, for that is one customer's."""
    if address is None or ":" not in address:
        return address[:LONGEST] if address else None
    try:
        found = IPv6Address(address)
    except AddressValueError:
        return address[:LONGEST]
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{IPv6Address(int(found) >> SUBNET << SUBNET)}/{SUBNET}"


def _refusal(status: int, reason: str, seconds: float) -> Refusal:
    return Refusal(status, reason, ((b"Retry-After", b"%d" % math.ceil(seconds)),))
