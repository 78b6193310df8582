"""FastAPI alone, as its documentation shows it: `app`, and `routed` with routes and a middleware around it."""

from __future__ import annotations

import gc
from itertools import count

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from bench.peers.routes import ServedBy, add_routes
from bench.wire import FIRST_N, WELCOME, now, ticks

__all__ = ["app", "routed"]

subscribers: list[WebSocket] = []
numbers = count(FIRST_N)


async def publish(count: int) -> None:
    """Send the next `count` messages to every subscriber."""
    for text in ticks(count, numbers):
        for subscriber in subscribers:
            await subscriber.send_text(text)


async def converse(websocket: WebSocket) -> None:
    """Answer the messages of one connection."""
    while True:
        match await websocket.receive_json():
            case {"type": "echo", "payload": payload}:
                await websocket.send_json({"type": "echo_response", "payload": payload, "timestamp": now()})
            case {"type": "subscribe", "payload": payload}:
                subscribers.append(websocket)
                await websocket.send_json({"type": "subscribed", "payload": payload})
            case {"type": "burst", "payload": payload}:
                await publish(payload["count"])
            case {"type": "collect"}:
                gc.collect()


async def endpoint(websocket: WebSocket) -> None:
    """One connection from accept to close."""
    await websocket.accept()
    try:
        await websocket.send_text(WELCOME)
        await converse(websocket)
    except WebSocketDisconnect:
        if websocket in subscribers:
            subscribers.remove(websocket)


app = FastAPI()
app.websocket("/ws")(endpoint)
routed = FastAPI()
routed.websocket("/ws")(endpoint)
add_routes(routed)
routed.add_middleware(ServedBy)
