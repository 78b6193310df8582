"""`websockets` on uvloop, without compression, publishing by its own `broadcast`."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from itertools import count

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

from bench.wire import FIRST_N, WELCOME, now, ticks

__all__ = ["main"]

subscribers: set[ServerConnection] = set()
numbers = count(FIRST_N)


async def converse(websocket: ServerConnection) -> None:
    """Answer the messages of one connection."""
    async for text in websocket:
        match json.loads(text):
            case {"type": "echo", "payload": payload}:
                await websocket.send(json.dumps({"type": "echo_response", "payload": payload, "timestamp": now()}))
            case {"type": "subscribe", "payload": payload}:
                subscribers.add(websocket)
                await websocket.send(json.dumps({"type": "subscribed", "payload": payload}))
            case {"type": "burst", "payload": payload}:
                for message in ticks(payload["count"], numbers):
                    broadcast(subscribers, message)
            case {"type": "collect"}:
                gc.collect()


async def endpoint(websocket: ServerConnection) -> None:
    """One connection from welcome to close."""
    try:
        await websocket.send(WELCOME)
        await converse(websocket)
    except ConnectionClosed:
        pass
    finally:
        subscribers.discard(websocket)


async def main(port: int) -> None:
    """Serve on `port` until killed."""
    async with serve(endpoint, "127.0.0.1", port, compression=None, backlog=2048):
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
