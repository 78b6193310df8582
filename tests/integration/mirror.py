"""An app that tells a client how the server sees it: what TLS and proxies leave of a connection."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from hubbub import Connection, Handshake, Hub
from hubbub.servers import server

__all__ = ["app", "hub"]

server.TLS_HANDSHAKE = float(os.environ.get("TLS_HANDSHAKE", server.TLS_HANDSHAKE))
SEEN = ("host", "origin", "upgrade", "connection", "x-forwarded-for", "x-forwarded-proto")


async def see(request: Request) -> Response:
    """What an ordinary request looks like."""
    return JSONResponse({"client": request.client and request.client.host, "scheme": request.url.scheme})


app = Starlette(routes=[Route("/", see)])
hub = Hub(deflate=True)
hub.attach(app)
Hub("/silent", heartbeat_interval=3600.0).attach(app)


@hub.on_connect
def note(conn: Connection, handshake: Handshake) -> None:
    """Keep what the hub forgets."""
    headers = {name: handshake.header(name) for name in SEEN}
    conn.metadata.update(client=handshake.client, scheme=handshake.scope["scheme"], headers=headers)


@hub.on("me", reply="you")
def me(conn: Connection) -> dict[str, Any]:
    """Tell it."""
    return conn.metadata


@hub.on("leave")
def leave(conn: Connection, payload: int) -> None:
    """Close with a code."""
    conn.close(payload, "as you wish")


@hub.on("fill")
async def fill(conn: Connection, payload: int) -> None:
    """Send until the client would have to read, and one more."""
    while not conn.outbox.transport.paused:
        conn.send("much", "x" * payload)
        await asyncio.sleep(0)
    conn.send("one more")


@hub.on("flood")
async def flood(conn: Connection, payload: int) -> None:
    """Send more than the queue of a slow client takes."""
    while conn.is_open:
        conn.send("much", "x" * payload)
        await asyncio.sleep(0)
