"""An app whose clients may do what a server does, for tests of several nodes."""

from __future__ import annotations

from time import monotonic
from typing import Any

from starlette.applications import Starlette

from hubbub import Connection, Hub, Limits
from hubbub.core.rates import Rate, Rates
from tests.fakes import PLENTY

CLAIM = 5.0
"""Seconds for which a name is a node's."""
LIMITED = Rate(5, 3600.0, burst=5)

hub = Hub(
    limits=Limits(send_queue=8 << 20, in_flight=256),
    rates=Rates(
        messages=PLENTY.messages,
        bytes=PLENTY.bytes,
        subscribes=PLENTY.subscribes,
        publishes=PLENTY.publishes,
        attempts=PLENTY.attempts,
        types={"limited": LIMITED},
    ),
)
hub.namespace("room", history=10_000, history_ttl=3600, publish="anyone")
hub.namespace("live", publish="anyone")
hub.namespace("here", presence=True)
app = Starlette()
hub.attach(app)


@hub.on("sign_in", reply="signed_in")
def sign_in(conn: Connection, user_id: str) -> bool:
    conn.identify(user_id)
    return True


@hub.on("limited", reply="allowed")
def limited(conn: Connection) -> bool:
    return True


@hub.on("must_wait")
def must_wait(conn: Connection, user_id: str) -> bool:
    buckets = hub.node.dispatcher.throttle.shared()["type limited of users"]
    return buckets.wait(user_id, 1, monotonic()) > 0


@hub.on("is_connected")
async def is_connected(conn: Connection, user_id: str) -> bool:
    return await hub.is_user_connected(user_id)


@hub.on("count")
async def count(conn: Connection, user_id: str) -> int:
    return await hub.user_connection_count(user_id)


@hub.on("tell_user")
async def tell_user(conn: Connection, user_id: str) -> int:
    return (await hub.send_to_user(user_id, "told", "you")).connections


@hub.on("tell_all")
async def tell_all(conn: Connection) -> int:
    return (await hub.broadcast("told", "all")).connections


@hub.on("revoke")
async def revoke(conn: Connection, user_id: str) -> int:
    return await hub.revoke(user_id=user_id)


@hub.on("who")
async def who(conn: Connection, channel: str) -> list[Any]:
    return sorted(member.user_id or "" for member in await hub.presence(channel))


@hub.on("claim")
async def claim(conn: Connection, name: str) -> bool:
    return await hub.node.broker.claim(name, hub.node.cluster.id, CLAIM)


@hub.on("stats")
async def stats(conn: Connection) -> dict[str, Any]:
    return await hub.stats()
