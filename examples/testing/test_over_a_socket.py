"""Test the shop as its users meet it: a real server, a real socket, any WebSocket client."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from websockets.asyncio.client import connect

from examples.shop import app, hub


@asynccontextmanager
async def serving() -> AsyncIterator[str]:
    """Serve the app in this very loop, so that the test may use the hub as well."""
    listener = socket.create_server(("127.0.0.1", 0))  # listens from here on: clients need not wait
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="hubbub.servers.uvicorn:WebSocketProtocol"))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    yield f"ws://127.0.0.1:{listener.getsockname()[1]}/ws"
    server.should_exit = True
    await task


async def test_a_client_gets_what_the_hub_publishes() -> None:
    async with serving() as url, connect(url) as client:
        assert json.loads(await client.recv())["type"] == "welcome"
        await client.send(json.dumps({"type": "subscribe", "payload": {"channel": "order:7"}}))
        assert json.loads(await client.recv())["type"] == "subscribed"

        receipt = await hub.publish("order:7", "shipped")

        assert receipt.connections == 1
        assert json.loads(await client.recv())["payload"]["event"] == "shipped"


async def test_code_that_only_publishes_needs_no_server() -> None:
    async with hub.running():
        receipt = await hub.send_to_user("ada", "chat", {"message": "hi"})
    assert not receipt.delivered
