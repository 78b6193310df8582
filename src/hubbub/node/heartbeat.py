"""Find dead peers: one timing wheel for all connections, a ping where it is silent, 4003 where it stays so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubbub.core.session import ConnectionState
from hubbub.core.wheel import Wheel
from hubbub.errors import CloseCode

if TYPE_CHECKING:
    from hubbub.core.limits import Timeouts
    from hubbub.core.registry import Registry
    from hubbub.node.connection import Connection

__all__ = ["Heartbeat"]


class Heartbeat:
    """Whose turn it is to be looked at.

    Anything a client sends counts as a sign of life, not only a pong. While we hold its messages back none is
    expected, and while it does not read none can come: then a second look without progress ends it with 4002.
    """

    def __init__(self, registry: Registry[Connection], timeouts: Timeouts, width: float) -> None:
        self._registry = registry
        self._timeouts = timeouts
        self._wheel: Wheel[str] = Wheel(width)  # ids, for a wheel lets nothing go before its time
        self._closing: Wheel[Connection] = Wheel(width)

    def watch(self, connection: Connection, now: float) -> None:
        """Look at a new connection from now on."""
        self._wheel.add(connection.id, now + self._timeouts.ping)

    def watch_closing(self, connection: Connection, now: float) -> None:
        """Cut a connection that said goodbye if its socket does not end by itself."""
        self._closing.add(connection, now + self._timeouts.close)

    def beat(self, now: float) -> None:
        """Look at all whose turn came, `now` in monotonic seconds."""
        for id in self._wheel.turn(now):
            connection = self._registry.get(id)
            if connection is not None:
                self._wheel.add(id, now + self._look(connection, now))
        for connection in self._closing.turn(now):
            if connection.state is not ConnectionState.CLOSED:
                connection.outbox.transport.abort()

    def _look(self, connection: Connection, now: float) -> float:
        """Decide about one connection; the seconds until the next look."""
        outbox = connection.outbox
        if outbox.transport.paused:
            left = outbox.transport.buffered
            if outbox.stalled is not None and left >= outbox.stalled:
                connection.node.slow_consumers += 1
                connection.close(CloseCode.SLOW_CONSUMER, "stopped reading")
            outbox.stalled = left
        elif not connection.is_alive and connection.reading:
            rest = connection.pinged + self._timeouts.pong - now
            if rest > 0:
                return rest
            connection.close(CloseCode.NO_PONG, "no answer to a ping")
        else:
            rest = connection.heard + self._timeouts.ping - now
            if rest > 0:
                return rest
            if outbox.transport.ping():
                connection.pinged = now
                return min(self._timeouts.ping, self._timeouts.pong)
        return self._timeouts.pong
