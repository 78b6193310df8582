"""Hubs in one process that are the nodes of one cluster, over each broker, and over an exchange that can be cut."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest

from hubbub import Hub, Timeouts
from hubbub.config import Auth
from tests.cluster.exchange import Exchange, LinkedBroker
from tests.contract.brokers import SERVERS, Fresh
from tests.serving import until

__all__ = ["Nodes"]

SECRET = "0123456789abcdef0123456789abcdef"
BROKERS = ["exchange", "nats", "redis"]


class Nodes:
    """The nodes of one cluster; each is a hub of its own.

    Args:
        stack: stops them.
        inbox_url: the database they share.
        broker_url: the broker between them; an exchange of their own where there is none.
    """

    def __init__(self, stack: AsyncExitStack, inbox_url: str, broker_url: str | None = None) -> None:
        self.exchange = Exchange()
        self.hubs: list[Hub] = []
        self._stack = stack
        self._inbox_url = inbox_url
        self._broker_url = broker_url

    async def start(self, **options: Any) -> Hub:
        """One more node, which all others know."""
        hub = Hub(
            inbox_url=self._inbox_url,
            broker_url=self._broker_url,
            auth=Auth(secret=SECRET),
            timeouts=Timeouts(shutdown=0.05),
            **options,
        )
        if self._broker_url is None:
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


@pytest.fixture(scope="session")
def fresh() -> Iterator[Callable[[str], str | None]]:
    """Gives the URL of a broker that nobody has used; each server is started with the first test that needs it."""
    with ExitStack() as stack:
        started: dict[str, Fresh] = {}

        def give(kind: str) -> str | None:
            if kind == "exchange":
                return None
            if kind not in started:
                started[kind] = stack.enter_context(SERVERS[kind]())
            return started[kind]()

        yield give


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    """A cluster without nodes yet, whose links can be cut."""
    async with AsyncExitStack() as stack:
        yield Nodes(stack, f"sqlite:///{tmp_path}/inbox.db")


@pytest.fixture
async def pair(nodes: Nodes) -> tuple[Hub, Hub]:
    """Two nodes whose links can be cut."""
    return await nodes.start(), await nodes.start()


@pytest.fixture(params=BROKERS)
async def every(
    request: pytest.FixtureRequest, tmp_path: Path, fresh: Callable[[str], str | None]
) -> AsyncIterator[Nodes]:
    """A cluster without nodes yet, over each kind of broker."""
    async with AsyncExitStack() as stack:
        yield Nodes(stack, f"sqlite:///{tmp_path}/inbox.db", fresh(request.param))


@pytest.fixture
async def anywhere(every: Nodes) -> tuple[Hub, Hub]:
    """Two nodes, over each kind of broker."""
    return await every.start(), await every.start()
