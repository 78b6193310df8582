"""Two hubs in one process that are two nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from hubbub import Hub, Timeouts
from hubbub.config import Auth
from tests.cluster.exchange import Exchange, LinkedBroker
from tests.serving import until

__all__ = ["Nodes"]

SECRET = "0123456789abcdef0123456789abcdef"


class Nodes:
    """The nodes of one cluster; each is a hub of its own.

    Args:
        stack: stops them.
        inbox_url: the database they share.
    """

    def __init__(self, stack: AsyncExitStack, inbox_url: str) -> None:
        self.exchange = Exchange()
        self.hubs: list[Hub] = []
        self._stack = stack
        self._url = inbox_url

    async def start(self, **options: Any) -> Hub:
        """One more node, which all others know."""
        hub = Hub(inbox_url=self._url, auth=Auth(secret=SECRET), timeouts=Timeouts(shutdown=0.05), **options)
        hub.node.broker = LinkedBroker(self.exchange)
        hub.node.broker.listen(hub.node.publishing)
        hub.node.cluster.reset()
        hub.node.presence.reset()
        hub.namespace("room", history=10, presence=True)
        hub.namespace("*")
        await self._stack.enter_async_context(hub.running())
        self.hubs.append(hub)
        await until(lambda: all(len(each.node.cluster.peers) == len(self.hubs) - 1 for each in self.hubs))
        return hub


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    """A cluster without nodes yet."""
    async with AsyncExitStack() as stack:
        yield Nodes(stack, f"sqlite:///{tmp_path}/inbox.db")


@pytest.fixture
async def pair(nodes: Nodes) -> tuple[Hub, Hub]:
    """Two nodes."""
    return await nodes.start(), await nodes.start()
