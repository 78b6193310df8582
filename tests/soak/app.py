"""The app that is soaked: channels of each kind, durable messages, a feed that never stops, and `/state`."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from hubbub import Auth, Connection, Hub, Limits, Timeouts
from hubbub.limits import Rate, Rates

__all__ = ["PING", "SECRET", "app"]

SECRET = "a secret that everybody may know, for the soak"
PING = 5.0
FEED = {"feed:close": "x" * 16_384, "loose:drop": "x" * 16_384}
EVERY = 0.2  # seconds from one publication on the feeds to the next
PAGE = os.sysconf("SC_PAGE_SIZE") // 1024
MANY = Rate(1e6)

# Everybody comes from one address. The rates are out of reach, but they are there: their buckets are soaked too.
hub = Hub(
    auth=Auth(secret=SECRET),
    limits=Limits(connections_per_address=20_000, send_queue=64 * 1024),
    timeouts=Timeouts(ping=PING, pong=PING, close=2.0, inbox=30.0),
    rates=Rates(messages=MANY, bytes=Rate(1e9), subscribes=MANY, publishes=MANY, attempts=MANY),
)
hub.namespace("plain")
hub.namespace("room", history=50, history_ttl=20.0, durable=False)
hub.namespace("book", history=50, history_ttl=20.0, durable=True)
hub.namespace("lounge", presence=True)
hub.namespace("once", history=2, history_ttl=5.0, durable=False)
hub.namespace("user", personal=True)
hub.namespace("feed", publish="server")
hub.namespace("loose", publish="server", slow="drop_oldest")


@hub.on("keep", auth=True)
async def keep(conn: Connection, payload: str) -> bool:
    """Send a durable message to a user."""
    return (await hub.send_to_user(payload, "kept", {"from": conn.user_id}, durable=True)).stored


@hub.on("busy")
async def busy(conn: Connection, payload: float) -> float:
    """Wait, in a handler."""
    await asyncio.sleep(payload)
    return payload


async def state(request: Request) -> Response:
    """What must not grow; with `?collect` after a collection, with the numbers of objects."""
    counts = await hub.stats() | {
        "rss": _resident(),
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
    }
    if request.url.query == "collect":
        gc.collect()
        objects = gc.get_objects()
        counts["objects"] = len(objects)
        counts["connection objects"] = sum(type(each) is Connection for each in objects)
    return Response(json.dumps(counts))


def _resident() -> int:
    """KiB of memory that are in use."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * PAGE


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Feed those who read, and those who do not."""

    async def feed() -> None:
        while True:
            for channel, data in FEED.items():
                await hub.publish(channel, "fed", data)
            await asyncio.sleep(EVERY)

    task = asyncio.create_task(feed())
    yield
    task.cancel()


app = Starlette(routes=[Route("/state", state)], lifespan=lifespan)
hub.attach(app)
