"""Hubs for a crowd."""

from __future__ import annotations

from typing import Any

from hubbub import Connection, Hub, Limits, Timeouts
from hubbub.core.recovery import Position
from tests.consistency.crowd import NAMESPACES, Json
from tests.fakes import PLENTY

__all__ = ["LIMITS", "make_hub", "publish"]

LIMITS = Limits(send_queue=160 * 1024)
"""So little that a client that stalls is sometimes closed."""


def make_hub(**options: Any) -> Hub:
    """A hub with the channels of the crowd."""
    hub = Hub(limits=LIMITS, rates=PLENTY, timeouts=Timeouts(shutdown=0.5), **options)
    for name, namespace in NAMESPACES.items():
        hub.namespace(name, **namespace)

    @hub.on("sign_in", reply="signed_in")
    def sign_in(conn: Connection, user_id: str) -> bool:
        conn.identify(user_id)
        return True

    return hub


async def publish(hub: Hub, channel: str, data: Json, key: str | None) -> Position:
    """Publish from the server."""
    receipt = await hub.publish(channel, "said", data, key=key)
    assert receipt.offset is not None
    assert receipt.epoch is not None
    return Position(receipt.offset, receipt.epoch)
