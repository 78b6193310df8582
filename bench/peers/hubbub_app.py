"""Hubbub inside FastAPI, with typed handlers.

`app` has every check on, with limits that refuse nobody here; `routed` is the same with routes and a middleware around
it; `unchecked` has the checks off; `usual` has the limits that come with Hubbub.
"""

from __future__ import annotations

import gc
import time
from itertools import count
from typing import Any

import msgspec
from fastapi import FastAPI

from bench.peers.routes import ServedBy, add_routes
from bench.wire import BUSY, BUSY_TEXT, CROWD, EPOCH, FIRST_N, KEPT, MISSED, MISSED_COUNT, TEXT
from hubbub import Connection, Hub
from hubbub.brokers.memory import MemoryBroker
from hubbub.limits import Limits, Rate, Rates

__all__ = ["app", "routed", "unchecked", "usual"]

MANY = Rate(1e6)
RATES = Rates(messages=MANY, bytes=Rate(1e10), subscribes=MANY, publishes=MANY, attempts=MANY)
"""So much that nobody is refused; all is counted as usual."""
NO_RATES = Rates(
    messages=None, bytes=None, subscribes=None, publishes=None, attempts=None, per_user=None, per_address=None
)
ROOM = Limits(connections=10**6, connections_per_address=10**6)


class Echo(msgspec.Struct):
    """What comes in and goes back."""

    n: int
    text: str


class Burst(msgspec.Struct):
    """How many messages to publish at once."""

    count: int
    channel: str = "news"


def serve_hub(app: FastAPI, **options: Any) -> FastAPI:
    """Attach a hub with these options and the handlers of the bench to `app`."""
    hub = Hub(path="/ws", **options)
    hub.namespace("news")
    hub.namespace(BUSY)
    hub.namespace(CROWD, presence=True)
    hub.namespace(KEPT, history=100)
    hub.namespace(MISSED, history=MISSED_COUNT, history_ttl=3600)
    miss(hub)
    numbers = count(FIRST_N)

    @hub.on("echo", reply="echo_response")
    def echo(conn: Connection, payload: Echo) -> Echo:
        return payload

    @hub.on("echo_async", reply="echo_response")
    async def echo_async(conn: Connection, payload: Echo) -> Echo:
        return payload

    @hub.on("burst")
    async def burst(conn: Connection, payload: Burst) -> None:
        for _ in range(payload.count):
            await hub.publish(payload.channel, "tick", {"n": next(numbers), "text": TEXT})

    @hub.on("flood")
    async def flood(conn: Connection) -> None:
        await hub.publish(BUSY, "tick", {"n": next(numbers), "text": BUSY_TEXT})

    @hub.on("stats", reply="stats_response")
    async def stats(conn: Connection) -> dict[str, Any]:
        return await hub.stats()

    @hub.on("collect")
    def collect(conn: Connection) -> None:
        gc.collect()

    hub.attach(app)
    return app


def miss(hub: Hub) -> None:
    """Let there be something to recover; its offsets, and all later ones, have seven digits like `n`."""
    assert isinstance(hub.node.broker, MemoryBroker)
    memory, now = hub.node.broker.memory, time.time_ns() // 1_000_000
    memory.epoch, memory.counter = EPOCH, FIRST_N
    for number in range(FIRST_N, FIRST_N + MISSED_COUNT):
        data = msgspec.json.encode({"n": number, "text": TEXT})
        memory.publish(MISSED, "tick", data, now, size=MISSED_COUNT, ttl=3600)


app = serve_hub(FastAPI(), rates=RATES, limits=ROOM)
unchecked = serve_hub(FastAPI(), rates=NO_RATES, limits=ROOM, origins=["*"])
usual = serve_hub(FastAPI())
routed = FastAPI()
add_routes(routed)
routed.add_middleware(ServedBy)
serve_hub(routed, rates=RATES, limits=ROOM)
