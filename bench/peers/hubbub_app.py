"""Hubbub inside FastAPI, with typed handlers: `app`, and `routed` with routes and a middleware around it."""

from __future__ import annotations

import gc
from itertools import count

import msgspec
from fastapi import FastAPI

from bench.peers.routes import ServedBy, add_routes
from bench.wire import FIRST_N, TEXT
from hubbub import Connection, Hub

__all__ = ["app", "routed"]


class Echo(msgspec.Struct):
    """What comes in and goes back."""

    n: int
    text: str


class Burst(msgspec.Struct):
    """How many messages to publish at once."""

    count: int


def serve_hub(app: FastAPI) -> FastAPI:
    """Attach a hub with the handlers of the bench to `app`."""
    hub = Hub(path="/ws")
    hub.namespace("news")
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
            await hub.publish("news", "tick", {"n": next(numbers), "text": TEXT})

    @hub.on("collect")
    def collect(conn: Connection) -> None:
        gc.collect()

    hub.attach(app)
    return app


app = serve_hub(FastAPI())
routed = FastAPI()
add_routes(routed)
routed.add_middleware(ServedBy)
serve_hub(routed)
