"""A node as a broker sees it: it publishes, asks, and hears."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from hubbub.contracts import Broker
from hubbub.core.namespaces import ANY, Namespace
from hubbub.core.recovery import Past, Position, Publication

__all__ = ["ANYTHING", "KEPT", "LIVE", "NAMESPACES", "ROOMS", "Ear", "Node", "bodies", "now"]

ROOMS = Namespace("room", history=5, history_ttl=60.0)
LIVE = Namespace("live")
ANYTHING = Namespace(ANY, history=5, history_ttl=60.0)
KEPT = Namespace("kept", history=3, history_ttl=60.0, archive=True)
NAMESPACES = [ROOMS, LIVE, KEPT, ANYTHING]


class Ear:
    """What a node is told, to be waited for."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Publication]] = []
        self.words: list[tuple[str, bytes]] = []
        self.broke: list[str] = []
        self.resumptions = 0
        self._news = asyncio.Event()

    def published(self, channel: str, publication: Publication) -> None:
        self.heard.append((channel, publication))
        self._news.set()

    def broken(self, channel: str) -> None:
        self.broke.append(channel)
        self._news.set()

    def told(self, topic: str, data: bytes) -> None:
        self.words.append((topic, data))
        self._news.set()

    def resumed(self) -> None:
        self.resumptions += 1
        self._news.set()

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait for news until it is so."""
        async with asyncio.timeout(20):
            while not done():
                self._news.clear()
                await self._news.wait()

    def data(self, channel: str) -> list[bytes]:
        return [publication.data for name, publication in self.heard if name == channel]


class Node:
    """A broker with an ear."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.ear = Ear()
        broker.listen(self.ear)

    async def publish(
        self,
        channel: str = "room:1",
        data: object = 1,
        *,
        namespace: Namespace = ROOMS,
        key: str | None = None,
        **more: Any,
    ) -> Position:
        body = data if isinstance(data, bytes) else str(data).encode()
        given = {"event": None, "tags": None, "now": now()} | more
        return await self.broker.publish(namespace, channel, data=body, idempotency=key, **given)

    async def past(
        self,
        since: Position | None = None,
        channel: str = "room:1",
        *,
        limit: int = 100,
        namespace: Namespace = ROOMS,
        later: int = 0,
    ) -> Past:
        return await self.broker.past(namespace, channel, since, limit, now() + later)


def now() -> int:
    return time.time_ns() // 1_000_000


def bodies(past: Past) -> list[bytes]:
    return [publication.data for publication in past.publications]
