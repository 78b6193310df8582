"""A client that does as docs/protocol.md says when its server goes: it comes back, and goes on where it was."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

__all__ = ["Follower"]


class Follower:
    """One user's connection to one channel, again and again.

    Args:
        url: of the hub.
        user: whom it signs in as.
        channel: what it follows.

    Attributes:
        seen: the data of all publications, in the order in which they came.
        recovered: what each subscription but the first said.
        codes: of all closes.
        pid: the process that serves it now.
    """

    def __init__(self, url: str, user: str, channel: str) -> None:
        self._url, self._user, self._channel = url, user, channel
        self._position: dict[str, Any] | None = None
        self._ticket: str | None = None
        self.seen: list[Any] = []
        self.recovered: list[bool] = []
        self.codes: list[int] = []
        self.pid = 0
        self.there = asyncio.Event()
        self.socket: ClientConnection

    @asynccontextmanager
    async def following(self) -> AsyncIterator[Follower]:
        """Follow for the length of the block; it begins when the first subscription stands."""
        task = asyncio.create_task(self._stay())
        try:
            async with asyncio.timeout(10):
                await self.there.wait()
            yield self
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _stay(self) -> None:
        # No bound on what waits to be read: while this client sleeps, it must still notice the end.
        options: dict[str, Any] = {"proxy": None, "ping_interval": None, "open_timeout": 5, "max_queue": None}
        while True:
            ticket, self._ticket = self._ticket, None
            try:
                query = "" if ticket is None else f"?ticket={ticket}"
                async with connect(self._url + query, **options) as socket:
                    self.socket = socket
                    await self._follow(socket, restored=ticket is not None)
            except ConnectionClosed as closed:
                self.codes.append(closed.rcvd.code if closed.rcvd else 1006)
            except (OSError, InvalidHandshake):
                pass
            self.there.clear()
            await self._pause()

    async def _pause(self) -> None:
        """Come back at once where that was asked for, else in a moment."""
        if self._ticket is None:
            await asyncio.sleep(random.uniform(0.05, 0.3))

    async def _follow(self, socket: ClientConnection, *, restored: bool) -> None:
        await socket.send(json.dumps({"type": "where", "id": "where"}))
        if not restored:
            since = {} if self._position is None else {"since": self._position}
            await socket.send(json.dumps({"type": "sign_in", "payload": self._user}))
            await socket.send(json.dumps({"type": "subscribe", "payload": {"channel": self._channel, **since}}))
        async for text in socket:
            message = json.loads(text)
            payload = message.get("payload")
            match message["type"]:
                case "where_response":
                    self.pid = payload
                case "subscribed":
                    self._subscribed(payload)
                case "message":
                    self._take(payload)
                case "reconnect":
                    self._ticket = payload["ticket"] if payload["restores"] else None
                    await asyncio.sleep(payload["delay"] / 1000)
                    return

    def _subscribed(self, payload: dict[str, Any]) -> None:
        if self._position is not None:
            self.recovered.append(payload["recovered"])
        else:
            self._position = {"epoch": payload["epoch"], "offset": payload["offset"]}
        self.there.set()

    def _take(self, payload: dict[str, Any]) -> None:
        assert self._position is not None
        if payload["offset"] > self._position["offset"]:
            self._position["offset"] = payload["offset"]
            self.seen.append(payload["data"])
