"""Hubbub as one of several nodes, or alone: what its broker is says the environment."""

from __future__ import annotations

import asyncio
from itertools import count

import msgspec
from starlette.applications import Starlette

from bench.wire import FIRST_N, KEPT, TEXT
from hubbub import Connection, Hub
from hubbub.limits import Limits, Rate, Rates

__all__ = ["app"]

FILLED, AT_ONCE = 1000, 100
"""Offsets begin behind it and so have four digits: a round has fewer than 9,000 publications."""
MANY = Rate(1e6)

app = Starlette()
hub = Hub(
    path="/ws",
    rates=Rates(messages=MANY, bytes=Rate(1e10), subscribes=MANY, publishes=MANY, attempts=MANY),
    limits=Limits(connections=10**6, connections_per_address=10**6),
)
hub.namespace("news")
hub.namespace(KEPT, history=100)
hub.attach(app)
numbers = count(FIRST_N)


class Burst(msgspec.Struct):
    """How many messages to publish at once."""

    count: int
    channel: str = "news"


@hub.on("burst")
async def burst(conn: Connection, payload: Burst) -> None:
    """Publish."""
    for _ in range(payload.count):
        await hub.publish(payload.channel, "tick", {"n": next(numbers), "text": TEXT})


@hub.on("fill", reply="filled")
async def fill(conn: Connection) -> int:
    """Publish what nobody is to get."""
    for _ in range(FILLED // AT_ONCE):
        await asyncio.gather(*(hub.publish(KEPT, "tick", {}) for _ in range(AT_ONCE)))
    return FILLED
