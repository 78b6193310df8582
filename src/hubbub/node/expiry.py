"""When a connection's time is over: its token expired (4001), or nobody signed in (4505)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hubbub.core.wheel import Wheel
from hubbub.errors import CloseCode

if TYPE_CHECKING:
    from hubbub.core.registry import Registry
    from hubbub.node.connection import Connection

__all__ = ["Expiry"]

ROUND = 30.0  # seconds until a connection is looked at again at the latest; so those that are gone are soon forgotten


class Expiry:
    """Closes connections in time.

    Tokens expire by the wall clock, which may jump; strangers have their seconds by the monotonic one.

    Args:
        registry: the open connections.
        patience: seconds that a stranger has.
        width: seconds by which anything may be late.
    """

    def __init__(self, registry: Registry[Connection], patience: float, width: float) -> None:
        self._registry = registry
        self._patience = patience
        self._width = width
        self._strangers: Wheel[str] = Wheel(width)
        self._wall = -math.inf
        self._begin()

    def _begin(self) -> None:
        self._wheel: Wheel[str] = Wheel(self._width)
        self._looks: dict[str, float] = {}

    def watch(self, connection: Connection, wall: float) -> None:
        """Close a connection when its user's proof ends, if it ever does; `wall` in seconds since 1970."""
        end = None if connection.identity is None else connection.identity.expires_at
        if end is not None:
            look = min(end, wall + ROUND)
            if look < self._looks.get(connection.id, math.inf):
                self._looks[connection.id] = look
                self._wheel.add(connection.id, look)

    def watch_stranger(self, connection: Connection, now: float) -> None:
        """Close a connection that is still nobody's when its time is over; `now` in monotonic seconds."""
        self._strangers.add(connection.id, now + self._patience)

    def beat(self, now: float, wall: float) -> None:
        """Look at those whose turn came, `now` in monotonic seconds and `wall` in seconds since 1970."""
        for id in self._strangers.turn(now):
            connection = self._registry.get(id)
            if connection is not None and connection.identity is None:
                connection.close(CloseCode.AUTH_TIMEOUT, "nobody signed in")
        if wall < self._wall:
            self._turn_back(wall)
        self._wall = wall
        for id in self._wheel.turn(wall):
            if self._looks.get(id, math.inf) <= wall:
                del self._looks[id]
                self._look(id, wall)

    def _look(self, id: str, wall: float) -> None:
        connection = self._registry.get(id)
        if connection is None or connection.identity is None:
            return
        end = connection.identity.expires_at
        if end is not None and end <= wall:
            connection.close(CloseCode.TOKEN_EXPIRED, "the token has expired")
        else:
            self.watch(connection, wall)

    def _turn_back(self, wall: float) -> None:
        """Somebody set the clock back: a wheel does not turn that way."""
        self._begin()
        for connection in self._registry:
            self.watch(connection, wall)
