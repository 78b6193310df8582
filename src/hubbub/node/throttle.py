"""How much clients send: counted as it comes, and refused when it is too much.

Rules of this file:
1. A message costs two subtractions. Where there is enough in the buckets of a connection, of its user and of its
   address, it has a little on credit, which is taken from them when it is spent, and when the connection ends.
2. What is refused costs nothing, but patience: whoever goes on is closed with 4005, and gets few errors until then.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING

from hubbub.core.buckets import Buckets
from hubbub.core.envelope import decode
from hubbub.core.rates import Rate, Rates
from hubbub.errors import CloseCode, RequestError

if TYPE_CHECKING:
    from hubbub.core.envelope import Incoming
    from hubbub.node.connection import Connection

__all__ = ["Throttle"]

logger = logging.getLogger("hubbub.throttle")

PATIENCE = Rate(20, burst=100)  # refused messages of one connection
ANSWERS = Rate(10, burst=20)  # of those, answered
CREDIT = 64  # messages, at most
PART = 16  # of a bucket is what may be on credit
QUIET = 60.0  # seconds from one line in the log to the next


class Throttle:
    """Counts what connections send.

    Args:
        rates: how often who may do what.
    """

    def __init__(self, rates: Rates) -> None:
        self.refused = 0
        self._credit = sys.maxsize if rates.messages is None else _part(rates.messages, CREDIT) - 1
        self._byte_credit = sys.maxsize if rates.bytes is None else _part(rates.bytes, sys.maxsize) - 1
        self._messages = _Levels(rates.messages, rates)
        self._bytes = _Levels(rates.bytes, rates)
        subscribes, publishes = _Levels(rates.subscribes, rates), _Levels(rates.publishes, rates)
        own = {type: _Levels(rate, None) for type, rate in rates.types.items()}
        kinds = {"subscribe": subscribes, "publish": publishes, "chat": publishes}
        self.types: dict[str, tuple[_Levels, ...]] = {type: (levels,) for type, levels in kinds.items() if levels}
        """What else the messages of a type are counted by."""
        for type, levels in own.items():
            self.types[type] = (*self.types.get(type, ()), levels)
        # Other nodes know them by these names.
        named = {"messages": self._messages, "bytes": self._bytes, "subscribes": subscribes, "publishes": publishes}
        self._levels = named | {f"type {type}": levels for type, levels in own.items()}
        self._patience: Buckets[str] = Buckets(PATIENCE)
        self._answers: Buckets[str] = Buckets(ANSWERS)
        self._quiet_until = 0.0

    def settle(self, connection: Connection, data: bytes | None) -> bool:
        """Take what a connection spent, this message (None for a ping or pong) included; False if it is refused."""
        now = monotonic()
        messages, size = self._spent(connection)
        seconds = self._messages.wait(connection, messages, now)
        longer = self._bytes.wait(connection, size, now)
        if seconds or longer:
            connection.credit += 1
            connection.byte_credit += len(data or b"")
            self._take(connection, now)
            what = "messages" if seconds >= longer else "bytes"
            self._refuse(connection, f"Too many {what}.", max(seconds, longer), data, now)
            return False
        self._take(connection, now)
        self._trust(connection, now)
        return True

    def permit(self, connection: Connection, message: Incoming) -> bool:
        """Count a message of one of `types`; False if it is refused, and answered."""
        now, every = monotonic(), self.types[message.type]
        seconds = max(levels.wait(connection, 1, now) for levels in every)
        if seconds:
            self._refuse(connection, "Too many messages of this type.", seconds, message, now)
            return False
        for levels in every:
            levels.take(connection, 1, now)
        return True

    def leave(self, connection: Connection) -> None:
        """Take what a connection that is gone had on credit: whoever comes back did not get it for nothing."""
        self._take(connection, monotonic())

    def sweep(self, now: float) -> None:
        """Forget who has not sent for a while."""
        self._patience.sweep(now)
        self._answers.sweep(now)
        for levels in self._levels.values():
            levels.sweep(now)

    def shared(self) -> dict[str, Buckets[str]]:
        """The buckets that are one over all nodes, by kind: those of users and addresses."""
        return {f"{name} of {whom}": each for name, levels in self._levels.items() for whom, each in levels.shared()}

    def _take(self, connection: Connection, now: float) -> None:
        messages, size = self._spent(connection)
        self._messages.take(connection, messages, now)
        self._bytes.take(connection, size, now)
        connection.trusted = False
        connection.credit = connection.byte_credit = 0

    def _spent(self, connection: Connection) -> tuple[int, int]:
        if not connection.trusted:
            return -connection.credit, -connection.byte_credit
        return self._credit - connection.credit, self._byte_credit - connection.byte_credit

    def _trust(self, connection: Connection, now: float) -> None:
        """Give credit, where nobody would mind if it were spent at once."""
        enough = not self._messages.wait(connection, self._credit, now)
        if enough and not self._bytes.wait(connection, self._byte_credit, now):
            connection.trusted = True
            connection.credit, connection.byte_credit = self._credit, self._byte_credit

    def _refuse(
        self, connection: Connection, why: str, seconds: float, message: Incoming | bytes | None, now: float
    ) -> None:
        self.refused += 1
        if self._patience.ask(connection.id, 1, now):
            if now >= self._quiet_until:
                self._quiet_until = now + QUIET
                logger.warning("closed %r, which went on: %s The limits are in Hub(rates=...)", connection, why)
            connection.close(CloseCode.RATE_LIMITED, "too many messages, in spite of the errors sent before")
        elif message is not None and not self._answers.ask(connection.id, 1, now):
            id = _id_of(connection, message) if isinstance(message, bytes) else message.id
            connection.send_error(RequestError("rate_limited", why, retry_after=seconds), id)


class _Levels:
    """The buckets of one kind: of connections, of users, and of addresses.

    Args:
        rate: of one connection; None for no limit.
        rates: which have the factors of the others; None where a user's connections share one bucket of `rate`.
    """

    def __init__(self, rate: Rate | None, rates: Rates | None) -> None:
        per_user, per_address = (1, None) if rates is None else (rates.per_user, rates.per_address)
        self._either = rates is None
        self._own = _buckets(rate, 1)
        self._users = _buckets(rate, per_user)
        self._networks = _buckets(rate, per_address)

    def __bool__(self) -> bool:
        return self._own is not None

    def wait(self, connection: Connection, cost: int, now: float) -> float:
        """Seconds until all of a connection's buckets hold so much."""
        return max((buckets.wait(key, cost, now) for buckets, key in self._of(connection)), default=0.0)

    def take(self, connection: Connection, cost: int, now: float) -> None:
        """Take so much from each."""
        if cost:
            for buckets, key in self._of(connection):
                buckets.take(key, cost, now)

    def sweep(self, now: float) -> None:
        """Forget full buckets."""
        for buckets in (self._own, self._users, self._networks):
            if buckets is not None:
                buckets.sweep(now)

    def shared(self) -> Iterator[tuple[str, Buckets[str]]]:
        """The buckets that other nodes have too, and whose they are."""
        if self._users is not None:
            yield "users", self._users
        if self._networks is not None:
            yield "addresses", self._networks

    def _of(self, connection: Connection) -> Iterator[tuple[Buckets[str], str]]:
        user_id = connection.user_id
        if self._own is not None and not (self._either and user_id is not None):
            yield self._own, connection.id
        if self._users is not None and user_id is not None:
            yield self._users, user_id
        if self._networks is not None and connection.network is not None:
            yield self._networks, connection.network


def _buckets(rate: Rate | None, factor: float | None) -> Buckets[str] | None:
    return None if rate is None or factor is None else Buckets(rate.times(factor))


def _part(rate: Rate, most: int) -> int:
    """How much of a bucket is on credit: little enough that the limit is where it is said to be."""
    return max(1, min(most, int(rate.most) // PART))


def _id_of(connection: Connection, text: bytes) -> str | None:
    """The `id` of a message, if it can be read."""
    try:
        return decode(text, connection.node.limits.depth).id
    except RequestError:
        return None
