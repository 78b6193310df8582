"""The app under attack: hubs with different limits, an ordinary WebSocket route, and `/state` to look inside."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any

import msgspec

from hubbub import Auth, Connection, Hub, Limits, Timeouts
from hubbub.limits import Rate, Rates
from hubbub.servers.asgi import Receive, Scope, Send
from hubbub.servers.server import Server, configure
from tests.fakes import PLENTY
from tests.integration.bad import channels

__all__ = ["AUTH", "BIG", "FEW", "KNOCKS", "NARROW", "PATIENCE", "QUICK", "app"]

BIG = Limits(message_size=2 * 1024 * 1024)
QUICK = Timeouts(ping=0.2, pong=0.2, close=0.5, handler=0.3)
FOR_EVER = 3600.0
PATIENCE = 0.5
PLACE = os.environ.get("HUBBUB_DATA_DIR", tempfile.gettempdir())
KEPT = f"sqlite:///{os.path.join(PLACE, 'auth.db')}"
ALSO_KEPT = f"sqlite:///{os.path.join(PLACE, 'channels.db')}"
NARROW = Limits(send_queue=128 * 1024)
THREE = Limits(connections_per_address=4, connections_per_user=3)
KNOCKS = Rate(0.5, burst=5)
FEW = Rates(
    messages=Rate(50, burst=100), subscribes=Rate(5, burst=10), publishes=Rate(5, burst=10), per_user=1, per_address=20
)
AUTH = Auth(secret="the secret of a server under attack", query=True)

hubs = {
    "/ws": Hub("/ws", rates=PLENTY),
    "/quick": Hub("/quick", rates=PLENTY, timeouts=QUICK),
    "/deflate": Hub("/deflate", rates=PLENTY, deflate=True),
    "/big": Hub("/big", rates=PLENTY, limits=BIG),
    "/auth": Hub("/auth", rates=PLENTY, auth=AUTH, inbox_url=KEPT),
    "/channels": Hub("/channels", rates=PLENTY, auth=AUTH, inbox_url=ALSO_KEPT, archive_url=ALSO_KEPT),
    "/narrow": Hub("/narrow", rates=PLENTY, limits=NARROW),
    "/listed": Hub("/listed", rates=PLENTY, origins=["https://example.com", "http://localhost:5173"]),
    "/told": Hub("/told", rates=PLENTY),
    "/session": Hub("/session", rates=PLENTY, authenticator=lambda handshake: handshake.cookies.get("session")),
    "/rated": Hub("/rated", auth=AUTH, rates=FEW),
    "/few": Hub("/few", auth=AUTH, limits=THREE, rates=PLENTY),
    "/newest": Hub("/newest", auth=AUTH, limits=THREE, rates=PLENTY, when_full="replace_oldest"),
    "/full": Hub("/full", limits=Limits(connections=3), rates=PLENTY),
    "/knocked": Hub("/knocked", rates=Rates(attempts=KNOCKS)),
    "/members": Hub("/members", rates=PLENTY, auth=AUTH, require_auth=True, timeouts=Timeouts(authenticate=PATIENCE)),
}
for each in hubs.values():
    each.namespace("*")
channels.add_channels(hubs["/channels"])
for path in ("/channels", "/narrow", "/quick"):
    channels.add_publishers(hubs[path])
closes: dict[str, list[int]] = {}

# `hubbub serve` has a log of its own; under another server the app's says what the hub complains of.
logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)


class Item(msgspec.Struct):
    """A part of an order."""

    name: str
    count: int


class Order(msgspec.Struct):
    """What `order` takes."""

    item_list: list[Item]
    urgent: bool = False


@dataclass
class Place:
    """What `place` takes."""

    x: float
    y: float


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve what is not a hub's."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif scope["type"] == "websocket":
        await _route(scope, receive, send)
    elif scope["path"] == "/state":
        await _answer(send, 200, json.dumps(await _state()).encode())
    else:
        await _answer(send, 404, b"")


async def _live(receive: Receive, send: Send) -> None:
    for moment in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{moment}.complete"})


async def _route(scope: Scope, receive: Receive, send: Send) -> None:
    """`/route` says back what it hears; `/slow` needs a moment before it accepts; nothing else is known."""
    await receive()
    if scope["path"] not in ("/route", "/slow"):
        await send({"type": "websocket.close", "code": 1000})
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(0.02)
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({**event, "type": "websocket.send"})


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _state() -> dict[str, Any]:
    """What must not grow, and what the hubs say of themselves."""
    return {
        "hubs": {path: await hub.stats() for path, hub in hubs.items()},
        "tasks": len(asyncio.all_tasks()),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "closes": closes,
    }


def _fill(hub: Hub) -> Hub:
    @hub.on_close
    def closed(conn: Connection, code: int, reason: str) -> None:
        closes.setdefault(conn.id, []).append(code)

    @hub.on("sign_in")
    def sign_in(conn: Connection, payload: str) -> str:
        conn.identify(payload)
        return payload

    @hub.on("members", auth=True)
    def members(conn: Connection) -> str | None:
        return conn.user_id

    @hub.on("revoke", auth=True)
    async def revoke(conn: Connection, payload: dict[str, Any]) -> int:
        return await hub.revoke(**payload)

    @hub.on("order")
    def order(conn: Connection, payload: Order) -> int:
        return len(payload.item_list)

    @hub.on("place")
    async def place(conn: Connection, payload: Place) -> float:
        return payload.x

    @hub.on("fail")
    def fail(conn: Connection, payload: Any) -> None:
        raise KeyError("secret")

    @hub.on("fail_async")
    async def fail_async(conn: Connection, payload: Any) -> None:
        await asyncio.sleep(0)
        raise KeyError("secret")

    @hub.on("hang")
    async def hang(conn: Connection, payload: Any) -> None:
        await asyncio.sleep(FOR_EVER)

    @hub.on("no_json")
    def no_json(conn: Connection, payload: Any) -> object:
        return object()

    @hub.on("much")
    def much(conn: Connection, payload: int) -> None:
        """Send until the client would have to read, and one more."""
        while not conn.outbox.transport.paused:
            conn.send("much", "x" * payload)
        conn.send("one more")

    @hub.on("block")
    def block(conn: Connection, payload: float) -> float:
        time.sleep(payload)
        return payload

    return hub


for hub in hubs.values():
    app = _fill(hub).wrap(app)

if __name__ == "__main__":  # what `hubbub serve` runs, on the standard loop
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
        asyncio.run(Server(configure(app)).serve(sockets=[listener]))
