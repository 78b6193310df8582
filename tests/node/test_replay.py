"""A long past for a client that reads slowly: page by page, in bounded memory, and nobody honest is closed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from hubbub import Connection, Hub, Limits, Receipt, Timeouts
from hubbub.core.recovery import Publication
from hubbub.node.replay import _pages
from tests.fakes import RecordingTransport, open_connection, say, tick

BIG = 60_000
COUNT = 300


@pytest.fixture
def queue() -> int:
    """Bytes that may wait for a client."""
    return 1024 * 1024


@pytest.fixture
async def hub(queue: int) -> AsyncIterator[Hub]:
    """A hub with rooms that remember much, or little."""
    hub = Hub(limits=Limits(send_queue=queue), timeouts=Timeouts(shutdown=0.05))
    hub.namespace("room", history=400)
    hub.namespace("short", history=40)
    async with hub.running():
        yield hub


async def publish(hub: Hub, channel: str, numbers: range, size: int = BIG) -> list[Receipt]:
    """Publish so many, each of a size."""
    return [await hub.publish(channel, "said", {"n": number, "text": "x" * size}) for number in numbers]


async def come_back(hub: Hub, channel: str, since: Receipt) -> tuple[Connection, RecordingTransport]:
    """A client whose socket takes nothing asks for what it missed."""
    connection, transport = open_connection(hub)
    transport.room = 1000
    say(connection, "subscribe", {"channel": channel, "since": {"offset": since.offset, "epoch": since.epoch}})
    await tick(8)
    return connection, transport


def weight(connection: Connection, transport: RecordingTransport) -> int:
    """What the server keeps for a client."""
    return connection.outbox.queued + transport.buffered


def numbers(transport: RecordingTransport) -> list[int]:
    """What it was sent."""
    return [payload["data"]["n"] for payload in transport.payloads("message")]


async def test_a_slow_client_gets_18_megabytes_page_by_page(hub: Hub) -> None:
    places = await publish(hub, "room:1", range(COUNT + 1))
    connection, transport = await come_back(hub, "room:1", places[0])
    steps = 0
    while transport.paused:
        assert weight(connection, transport) <= 2 * BIG
        transport.take(room=1000)
        await tick(8)
        steps += 1
    assert steps >= COUNT
    assert transport.payloads("subscribed")[0]["recovered"] is True
    assert numbers(transport) == list(range(1, COUNT + 1))
    assert (connection.is_open, connection.channels, hub.node.slow_consumers) == (True, ["room:1"], 0)


async def test_what_comes_meanwhile_is_bounded_and_read_again(hub: Hub, queue: int) -> None:
    places = await publish(hub, "room:1", range(101))
    connection, transport = await come_back(hub, "room:1", places[0])
    number = 101
    while transport.paused:
        [catch_up] = hub.node.subscriptions._catch_ups["room:1"].values()
        assert sum(len(publication.data) for publication in catch_up.held) <= queue
        assert weight(connection, transport) <= 2 * BIG
        if number < 151:
            await publish(hub, "room:1", range(number, number + 1))
            number += 1
        transport.take(room=1000)
        await tick(8)
    await publish(hub, "room:1", range(151, 152))
    await tick(8)
    assert numbers(transport) == list(range(1, 152))
    assert (connection.is_open, hub.node.slow_consumers) == (True, 0)


async def test_who_falls_behind_the_history_is_closed(hub: Hub) -> None:
    places = await publish(hub, "short:1", range(40))
    connection, transport = await come_back(hub, "short:1", places[0])
    await publish(hub, "short:1", range(40, 100))
    while transport.paused:
        transport.take(room=1000)
        await tick(8)
    assert connection.close_reason == (4002, "read its past too slowly")
    assert numbers(transport) == list(range(1, 40))


async def test_who_leaves_meanwhile_gets_no_more(hub: Hub) -> None:
    places = await publish(hub, "room:1", range(20))
    connection, transport = await come_back(hub, "room:1", places[0])
    connection.unsubscribe("room:1")
    transport.take()
    await tick(8)
    assert numbers(transport) == [1]
    assert (connection.channels, hub.node.subscriptions._catch_ups) == ([], {})


@pytest.mark.parametrize("queue", [20_000], ids=["20 KB"])
async def test_a_page_fits_into_a_small_queue(hub: Hub, queue: int) -> None:
    places = await publish(hub, "room:1", range(61), 1000)
    connection, transport = await come_back(hub, "room:1", places[0])
    while transport.paused:
        assert weight(connection, transport) <= queue
        transport.take(room=1000)
        await tick(8)
    assert numbers(transport) == list(range(1, 61))
    assert connection.is_open


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([10] * 64, [64], id="one page"),
        pytest.param([10] * 130, [64, 64, 2], id="by count"),
        pytest.param([9000] * 5, [2, 2, 1], id="by bytes"),
        pytest.param([10, 50_000, 10], [1, 1, 1], id="one too big is alone"),
    ],
)
def test_pages(sizes: list[int], expected: list[int]) -> None:
    publications: list[Any] = [Publication(n, n - 1, 0, None, b"x" * size) for n, size in enumerate(sizes, 1)]
    pages = list(_pages(publications, 20_000))
    assert [len(page) for page in pages] == expected
    assert [each for page in pages for each in page] == publications
