"""A process that serves nobody: here it is a thread, with a link of its own to the exchange."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hubbub import Hub, Publisher, Receipt, StoreError, Timeouts, UsageError
from hubbub.brokers.memory import MemoryBroker
from hubbub.node import publisher as module
from tests.cluster.exchange import Exchange, LinkedBroker
from tests.fakes import open_connection
from tests.serving import until


class Across:
    """A receiver in another thread.

    Args:
        receiver: the node's side.
        loop: where the node lives.
    """

    def __init__(self, receiver: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._receiver = receiver
        self._loop = loop

    def __getattr__(self, name: str) -> Callable[..., object]:
        return lambda *args: self._loop.call_soon_threadsafe(getattr(self._receiver, name), *args)


class ThreadedBroker(LinkedBroker):
    """A link for nodes that live in several threads."""

    slow = False

    async def open(self, namespaces: object) -> None:
        """Tell this loop from now on."""
        self._reach()
        across: Any = Across(self.receiver, asyncio.get_running_loop())
        self.receiver = across
        if self.slow:
            await asyncio.Event().wait()


def make_hub(exchange: Exchange, place: Path) -> Hub:
    """A hub with a link of its own."""
    hub = Hub(inbox_url=f"sqlite:///{place}/inbox.db", timeouts=Timeouts(shutdown=0.05))
    hub.node.broker = ThreadedBroker(exchange)
    hub.node.broker.listen(hub.node.publishing)
    hub.node.cluster.reset()
    hub.node.presence.reset()
    hub.namespace("room", history=10, presence=True)
    return hub


def link(hub: Hub) -> ThreadedBroker:
    """A hub's link to the exchange."""
    assert isinstance(hub.node.broker, ThreadedBroker)
    return hub.node.broker


@asynccontextmanager
async def ended(publisher: Publisher) -> AsyncIterator[Publisher]:
    """End a publisher behind the block."""
    try:
        yield publisher
    finally:
        await asyncio.to_thread(publisher.close)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[Hub, Publisher]]:
    """A node with users, and a publisher beside it."""
    exchange = Exchange()
    hub = make_hub(exchange, tmp_path)
    async with hub.running(), ended(Publisher(make_hub(exchange, tmp_path))) as publisher:
        yield hub, publisher


Served = tuple[Hub, Publisher]


async def test_it_reaches_who_is_connected_elsewhere(served: Served) -> None:
    hub, publisher = served
    connection, transport = open_connection(hub, "ann")
    await hub.subscribe("ann", "room:1")
    await until(lambda: "user:ann" in link(hub).followed)
    receipt = await asyncio.to_thread(publisher.publish, "room:1", "x", 1, key="k", tags={"a": "b"})
    again = await asyncio.to_thread(publisher.publish, "room:1", "x", 1, key="k")
    assert receipt.offset == again.offset == 1
    message = await transport.heard("message")
    assert (message["payload"]["data"], message["payload"]["tags"]) == (1, {"a": "b"})
    assert (await asyncio.to_thread(publisher.send_to_user, "ann", "hi", 1)).delivered
    await transport.heard("hi")
    assert await asyncio.to_thread(lambda: publisher.notify("ann", "T", "M", durable=True)) == Receipt(1, True, 1)
    await transport.heard("notification")
    await asyncio.to_thread(publisher.broadcast, "all")
    await transport.heard("all")
    await asyncio.to_thread(publisher.send_to_connection, connection.id, "only")
    await transport.heard("only")


Ask = Callable[[Publisher], Any]
ASKED: dict[str, tuple[Ask, Any]] = {
    "presence": (lambda publisher: [each.user_id for each in publisher.presence("room:1")], ["ann"]),
    "history": (lambda publisher: [each.data for each in publisher.history("room:1").publications], [b"1"]),
    "is_user_connected": (lambda publisher: publisher.is_user_connected("ann"), True),
    "user_connection_count": (lambda publisher: publisher.user_connection_count("ann"), 1),
    "user_connections": (lambda publisher: publisher.user_connections("ann")[0].channels, ("room:1",)),
    "subscribe": (lambda publisher: publisher.subscribe("ann", "room:2"), 1),
    "unsubscribe": (lambda publisher: publisher.unsubscribe("ann", "room:1"), 1),
    "recheck": (lambda publisher: publisher.recheck(channel="room:1"), None),
    "disconnect_user": (lambda publisher: publisher.disconnect_user("ann"), 1),
    "revoke": (lambda publisher: publisher.revoke(user_id="ann"), 1),
}


@pytest.mark.parametrize(("ask", "answer"), ASKED.values(), ids=ASKED.keys())
async def test_its_first_question_is_answered_by_all(served: Served, ask: Ask, answer: Any) -> None:
    hub, publisher = served
    open_connection(hub, "ann")
    await hub.subscribe("ann", "room:1")
    await hub.publish("room:1", "x", 1)
    assert await asyncio.to_thread(ask, publisher) == answer


async def test_it_is_no_node(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, publisher = served
    monkeypatch.setattr("hubbub.node.cluster.PULSE", 0.01)
    beats: list[float] = []
    monkeypatch.setattr(publisher._hub.node.archiver, "beat", beats.append)
    monkeypatch.setattr(publisher._hub.node.undelivered, "beat", beats.append)
    await asyncio.to_thread(publisher.__enter__)
    await until(lambda: publisher._hub.node.cluster.peers == [hub.node.cluster.id])
    heard = publisher._hub.node.cluster._beaten
    await until(lambda: publisher._hub.node.cluster._beaten != heard)
    assert (hub.node.cluster.peers, (await hub.stats())["nodes"], beats) == ([], 1, [])
    await asyncio.to_thread(publisher.close)
    assert not publisher._hub.node.guest


async def test_many_threads_share_one_life(served: Served) -> None:
    _, publisher = served
    other = Publisher(publisher._hub)
    before = threading.active_count()
    each = [publisher, other] * 10
    receipts = await asyncio.gather(*(asyncio.to_thread(one.publish, "room:1", None, n) for n, one in enumerate(each)))
    assert sorted(receipt.offset or 0 for receipt in receipts) == list(range(1, 21))
    assert [thread.name for thread in threading.enumerate()].count("hubbub-publisher") == 1
    assert before < threading.active_count()


async def test_it_ends_and_begins_again(served: Served) -> None:
    _, publisher = served

    def publish_twice() -> list[int | None]:
        with publisher as inside:
            offsets = [inside.publish("room:1", None).offset]
        assert not publisher._hub.node.running
        publisher.close()
        return [*offsets, publisher.publish("room:1", None).offset]

    assert await asyncio.to_thread(publish_twice) == [1, 2]


async def test_what_the_hub_refuses_comes_back(served: Served) -> None:
    _, publisher = served
    with pytest.raises(TypeError, match="no JSON form"):
        await asyncio.to_thread(publisher.publish, "room:1", None, object())


async def test_a_broker_that_is_away_is_said_and_tried_again(served: Served) -> None:
    _, publisher = served
    link(publisher._hub).cut = True
    for _ in range(2):
        with pytest.raises(StoreError, match="out of reach"):
            await asyncio.to_thread(publisher.publish, "room:1", None)
    link(publisher._hub).cut = False
    assert (await asyncio.to_thread(publisher.publish, "room:1", None)).offset == 1


async def test_a_broker_that_does_not_answer_is_not_waited_for_for_ever(served: Served) -> None:
    _, publisher = served
    impatient = Publisher(publisher._hub, timeout=0.01)
    link(publisher._hub).slow = True
    with pytest.raises(TimeoutError, match=r"an exchange in memory was not reached within 0\.01 s\."):
        await asyncio.to_thread(impatient.publish, "room:1", None)
    waiting = asyncio.create_task(asyncio.to_thread(publisher.publish, "room:1", None))
    started: Any = module._lives[publisher._hub].started
    await until(lambda: started._condition._waiters)
    await asyncio.to_thread(impatient.close)
    with pytest.raises(UsageError, match="closed while it connected"):
        await waiting
    assert "hubbub-publisher" not in [thread.name for thread in threading.enumerate()]


async def test_a_hub_that_no_other_process_reaches_is_refused() -> None:
    hub = Hub()
    hub.namespace("room")
    assert isinstance(hub.node.broker, MemoryBroker)
    with pytest.raises(UsageError, match="set HUBBUB_BROKER_URL for all of them, or use the HTTP API"):
        await asyncio.to_thread(Publisher(hub).publish, "room:1", None)
    with pytest.raises(UsageError, match="HUBBUB_BROKER_URL"), Publisher(hub):
        raise AssertionError


async def test_where_the_app_runs_it_is_the_hub_that_is_there() -> None:
    hub = Hub(timeouts=Timeouts(shutdown=0.05))
    hub.namespace("room")
    async with hub.running(), ended(Publisher(hub)) as publisher:
        connection, transport = open_connection(hub)
        connection.subscribe("room:1")
        assert await asyncio.to_thread(publisher.publish, "room:1", "x") == Receipt(1)
        await transport.heard("message")
        await asyncio.to_thread(publisher.close)
        assert hub.node.running
        with pytest.raises(UsageError, match=r"write `await hub\.\.\.\.` instead"):
            publisher.publish("room:1", "x")
