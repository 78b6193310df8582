"""A server of protocol 1 that does wrong what a test wants done wrong; the right one is tested elsewhere."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

__all__ = ["Handler", "port_of", "reply", "stand_in"]

Handler = Callable[[ServerConnection, dict[str, Any]], Awaitable[None]]
MAX_MESSAGE = 4096


async def reply(socket: ServerConnection, type: str, payload: Any, to: dict[str, Any]) -> None:
    """Answer the message `to`."""
    await socket.send(json.dumps({"type": type, "payload": payload, "id": to.get("id")}))


async def pong(socket: ServerConnection, message: dict[str, Any]) -> None:
    await reply(socket, "pong", None, message)


async def echo(socket: ServerConnection, message: dict[str, Any]) -> None:
    await reply(socket, "echo_response", message.get("payload"), message)


async def unknown(socket: ServerConnection, message: dict[str, Any]) -> None:
    await reply(socket, "error", {"code": "unknown_type", "message": "nobody handles it"}, message)


@asynccontextmanager
async def stand_in(
    *,
    welcome: str = json.dumps({"type": "welcome", "payload": {"maxMessage": MAX_MESSAGE}}),
    limit: int | None = MAX_MESSAGE,
    otherwise: Handler = unknown,
    status: int | None = None,
    **handlers: Handler,
) -> AsyncIterator[str]:
    """Run it on a free port; its address.

    Args:
        welcome: what every client is sent first; nothing if empty.
        limit: larger messages close with 1009.
        otherwise: handles the types that nobody else handles.
        status: answer the handshake with this HTTP status.
        handlers: by message type, beside `ping` and `echo` or in their place.
    """
    known: dict[str, Handler] = {"ping": pong, "echo": echo, **handlers}

    async def talk(socket: ServerConnection) -> None:
        try:
            if welcome:
                await socket.send(welcome)
            async for text in socket:
                message = json.loads(text)
                await known.get(message.get("type"), otherwise)(socket, message)
        except ConnectionClosed:
            return

    def refuse(socket: ServerConnection, request: Request) -> Response | None:
        return None if status is None else socket.respond(status, "no\n")

    async with serve(talk, "127.0.0.1", 0, max_size=limit, process_request=refuse) as server:
        yield f"ws://127.0.0.1:{port_of(server)}/ws"


def port_of(server: Any) -> int:
    """The port a server listens on."""
    port: int = next(iter(server.sockets)).getsockname()[1]
    return port
