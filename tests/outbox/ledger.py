"""Notes what a hub publishes, in order, and waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from hubbub import Hub
from hubbub.core.outbox import Counts
from hubbub.node.relay import Relay

__all__ = ["Ledger", "eventually"]

PATIENCE = 20.0


class Ledger:
    """What was published by a hub, on channels of any name.

    Args:
        hub: notes from now on.
    """

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.published: list[tuple[str, Any]] = []
        self._noted = asyncio.Event()
        hub.namespace("*", history=1000)
        hub.listen("*")(self._note)

    def on(self, channel: str) -> list[Any]:
        """What was published on one channel."""
        return [data for name, data in self.published if name == channel]

    async def until(self, count: int) -> list[tuple[str, Any]]:
        """Wait until so much was published; all of it."""
        async with asyncio.timeout(PATIENCE):
            while len(self.published) < count:
                self._noted.clear()
                await self._noted.wait()
        return self.published

    async def until_empty(self) -> Counts:
        """Wait until nothing waits in the outbox; what is set aside."""
        relay = self.hub.node.relay
        assert relay is not None
        await eventually(lambda: _nothing_waits(relay))
        return await relay.count()

    def _note(self, channel: str, data: Any) -> None:
        self.published.append((channel, data))
        self._noted.set()


async def eventually(true: Callable[[], Awaitable[Any]]) -> None:
    """Wait for something in a database, which tells nobody."""
    async with asyncio.timeout(PATIENCE):
        while not await true():  # noqa: ASYNC110  # it happens in a database
            await asyncio.sleep(0.01)


async def _nothing_waits(relay: Relay) -> bool:
    return not (await relay.count()).waiting
