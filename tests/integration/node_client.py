"""A client of one node, which keeps all it hears."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import count
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from tests.nodes import NodeProcess

__all__ = ["PATIENCE", "Client", "client", "clients"]

PATIENCE = 20.0

Json = dict[str, Any]


class Client:
    """One connection."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.messages: list[Json] = []
        self.ended = asyncio.Event()
        self._ids = count()
        self._came = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    async def send(self, type: str, payload: Any = None, id: str | None = None) -> str:
        """Send a message; its id."""
        id = id or f"{type}-{next(self._ids)}"
        await self.socket.send(json.dumps({"type": type, "payload": payload, "id": id}))
        return id

    async def ask(self, type: str, payload: Any = None) -> Json:
        """Send a message, and wait for the answer."""
        id = await self.send(type, payload)
        return await self.heard(lambda message: message.get("id") == id)

    async def get(self, type: str, payload: Any = None) -> Any:
        """The payload of the answer, which must not be an error."""
        answer = await self.ask(type, payload)
        assert answer["type"] != "error", answer
        return answer.get("payload")

    async def heard(self, fits: Any, seconds: float = PATIENCE) -> Json:
        """Wait for the first message that fits: a function, or the type it must have."""
        test = (lambda message: message["type"] == fits) if isinstance(fits, str) else fits
        async with asyncio.timeout(seconds), self._came:
            while (found := next(filter(test, self.messages), None)) is None:
                if self.ended.is_set():
                    raise ConnectionClosedError(None, None)
                await self._came.wait()
        return found

    async def closed(self, seconds: float = PATIENCE) -> int | None:
        """Wait for the end; its code."""
        async with asyncio.timeout(seconds):
            await self.ended.wait()
        return self.socket.close_code

    def data(self, channel: str) -> list[Any]:
        """What was published on a channel, as far as it came."""
        found = [message["payload"] for message in self.messages if message["type"] == "message"]
        return [payload["data"] for payload in found if payload["channel"] == channel]

    async def leave(self) -> None:
        """Say goodbye."""
        self.socket.transport.abort()
        await self._reader

    async def _read(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                message = json.loads(await self.socket.recv())
                async with self._came:
                    self.messages.append(message)
                    self._came.notify_all()
        async with self._came:
            self.ended.set()
            self._came.notify_all()


@asynccontextmanager
async def client(node: NodeProcess, user: str | None = None, *, token: str | None = None) -> AsyncIterator[Client]:
    """A client, signed in by name or by token if there is one."""
    options: Any = {"ping_interval": None, "max_queue": None, "compression": None, "proxy": None}
    headers = {"Authorization": f"Bearer {token}"} if token else None
    found = Client(await connect(node.address, additional_headers=headers, **options))
    try:
        await found.heard("welcome")
        if user is not None:
            await found.get("sign_in", user)
        yield found
    finally:
        await found.leave()


@asynccontextmanager
async def clients(*at: tuple[NodeProcess, str | None]) -> AsyncIterator[list[Client]]:
    """Several of them."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(client(node, user)) for node, user in at]
