"""The end of one node of several: its clients are sent to the others, a few at a time.

Rules of this file:
1. Each client is told when to come back, with a ticket that spares it the sign-in and restores its subscriptions;
   whoever is still here a moment later is closed with 1012.
2. A ticket restores all subscriptions, each from where this node has told it, or none: then the client subscribes anew.
"""

from __future__ import annotations

import asyncio
import math
import random
from typing import TYPE_CHECKING, Any

from hubbub.core.session import ConnectionState
from hubbub.errors import CloseCode, ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hubbub.node.connection import Connection
    from hubbub.node.node import Node

__all__ = ["Drain"]

STEP = 0.25
"""Seconds between two batches."""
TELLING = 0.6  # of the time: then all are told
GRACE = 0.2  # of the time: for a client to go by itself
MOST_GRACE = 3.0
JITTER = 1000  # milliseconds
GOOD_FOR = 60.0  # seconds for a ticket, beyond the drain


class Drain:
    """Sends a node's clients away.

    Args:
        node: which.
        seconds: for all of it.
    """

    def __init__(self, node: Node, seconds: float) -> None:
        self._node = node
        self._seconds = seconds

    async def run(self, connections: Sequence[Connection]) -> None:
        """Tell all connections, batch by batch, and close them; returns once the last was told to go."""
        loop = asyncio.get_running_loop()
        waiting = random.sample(connections, len(connections))
        size = math.ceil(len(waiting) * STEP / max(self._seconds * TELLING, STEP)) or 1
        grace = min(self._seconds * GRACE, MOST_GRACE)
        for start in range(0, len(waiting), size):
            if self._node.closing:
                return  # all are told to go
            batch = waiting[start : start + size]
            for connection in batch:
                self._tell(connection)
            loop.call_later(grace, _close, batch)
            await asyncio.sleep(STEP if start + size < len(waiting) else grace)

    def _tell(self, connection: Connection) -> None:
        if connection.state is ConnectionState.OPEN:
            self._node.delivery.drain(connection.outbox)  # what its places say it was told
            connection.send("reconnect", {"delay": random.randrange(JITTER), **self._ticket(connection)})

    def _ticket(self, connection: Connection) -> dict[str, Any]:
        """A ticket for its user, and whether it restores the subscriptions; nothing where there can be none."""
        identity, tickets = connection.identity, self._node.gate.tickets
        if identity is None:
            return {}
        places = self._node.subscriptions.places(connection)
        for resume in (places, None) if places is not None else (None,):
            try:
                ticket = tickets.issue(
                    identity.user_id,
                    identity.claims,
                    identity.device,
                    self._seconds + GOOD_FOR,
                    identity.expires_at,
                    resume or (),
                )
            except UsageError:
                continue  # too long with all of them
            except (ConfigError, TypeError, ValueError):
                break  # nothing to sign with, or claims of the app's own that have no JSON form
            return {"ticket": ticket, "restores": resume is not None}
        return {}


def _close(batch: list[Connection]) -> None:
    for connection in batch:
        connection.close(CloseCode.SERVICE_RESTART, "the server goes, others are there")
