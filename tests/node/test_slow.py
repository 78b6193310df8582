"""What becomes of clients that do not keep up, by the policies of their channels."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest

from hubbub import Connection, Hub, Limits, Timeouts
from hubbub.core.forms import FRAMES, TEXTS, Form, deflated
from tests.fakes import RecordingTransport, open_connection, tick

LIMIT = 10_000
FORMS = pytest.mark.parametrize("form", [FRAMES, TEXTS, deflated(15)], ids=["frames", "texts", "deflated"])


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    """A hub with a namespace for each policy, small queues, and a feed with a history."""
    hub = Hub(limits=Limits(send_queue=LIMIT), timeouts=Timeouts(shutdown=0.01))
    hub.namespace("news")
    hub.namespace("sensor", slow="drop_oldest")
    hub.namespace("feed", slow="drop_oldest", history=10)
    hub.namespace("price", slow="latest_per_key")
    hub.namespace("stock", slow="latest_per_key", history=10)
    async with hub.running():
        yield hub


def client(hub: Hub, *channels: str, form: Form = FRAMES) -> tuple[Connection, RecordingTransport]:
    """A subscriber; what was written before the test began is forgotten."""
    connection, transport = open_connection(hub, transport=RecordingTransport(form))
    for channel in channels:
        connection.subscribe(channel)
    transport.forget()
    return connection, transport


async def publish(hub: Hub, channel: str, *data: Any, event: str | None = None, **tags: str) -> list[int | None]:
    """Publish each with a turn of the loop; the offsets."""
    offsets = []
    for each in data:
        receipt = await hub.publish(channel, event, each, tags=tags or None)
        offsets.append(receipt.offset)
        await tick()
    return offsets


def heavy(number: int) -> list[Any]:
    """Data of about a thousand bytes, also when it is compressed."""
    return [number, Random(number).randbytes(500).hex()]


def numbers(transport: RecordingTransport) -> list[Any]:
    """The first of the data of each publication."""
    return [payload["data"][0] for payload in transport.payloads("message")]


def skipped(transport: RecordingTransport) -> int:
    """How many it was told that it went without."""
    return sum(payload["count"] for payload in transport.payloads("skipped"))


# --- Drop the oldest -------------------------------------------------------------------------------------------------


@FORMS
async def test_the_oldest_go_and_the_client_is_told(hub: Hub, form: Form) -> None:
    connection, transport = client(hub, "sensor:1", form=form)
    transport.pause()
    await publish(hub, "sensor:1", *map(heavy, range(100)))
    assert connection.is_open
    assert connection.outbox.queued <= LIMIT
    transport.take()
    got = numbers(transport)
    assert got == list(range(100 - len(got), 100))
    assert 5 <= len(got) <= 16
    assert transport.types == ["skipped", *["message"] * len(got)]
    assert transport.payloads("skipped") == [{"channel": "sensor:1", "count": 100 - len(got)}]
    assert (await hub.stats())["droppedPublications"] == 100 - len(got)
    await publish(hub, "sensor:1", heavy(100))
    assert numbers(transport)[-1] == 100
    assert skipped(transport) == 100 - len(got)


async def test_the_gap_has_its_offsets_where_there_is_a_history(hub: Hub) -> None:
    _, transport = client(hub, "feed:1")
    transport.pause()
    offsets = await publish(hub, "feed:1", *map(heavy, range(20)))
    transport.take()
    got = numbers(transport)
    last = 20 - len(got) - 1
    assert transport.payloads("skipped") == [
        {"channel": "feed:1", "from": offsets[0], "to": offsets[last], "count": last + 1}
    ]


async def test_what_all_publish_in_one_tick_is_dropped_one_by_one(hub: Hub) -> None:
    _, transport = client(hub, "sensor:1")
    transport.pause()
    for number in range(31):
        await hub.publish("sensor:1", None, heavy(number))
    await tick()
    transport.take()
    assert numbers(transport) == list(range(skipped(transport), 31))
    assert len(numbers(transport)) >= 8


async def test_nothing_else_is_dropped_or_moved(hub: Hub) -> None:
    connection, transport = client(hub, "sensor:1", "news:1")
    transport.pause()
    connection.send("first")
    await publish(hub, "news:1", heavy(0))
    await publish(hub, "sensor:1", *map(heavy, range(50)))
    connection.send("second")
    await publish(hub, "news:1", heavy(1))
    transport.take()
    kept = len(transport.messages) - 5
    assert transport.types == ["first", "message", "skipped", *["message"] * kept, "second", "message"]
    channels = [payload["channel"] for payload in transport.payloads("message")]
    assert channels == ["news:1", *["sensor:1"] * kept, "news:1"]
    assert kept + skipped(transport) == 50


async def test_a_direct_message_pushes_publications_out(hub: Hub) -> None:
    connection, transport = client(hub, "sensor:1")
    transport.pause()
    await publish(hub, "sensor:1", *map(heavy, range(9)))
    assert connection.send("large", "x" * 9_000)
    transport.take()
    assert transport.types == ["skipped", "large"]
    assert skipped(transport) == 9


async def test_what_must_arrive_and_does_not_fit_still_closes(hub: Hub) -> None:
    connection, transport = client(hub, "sensor:1")
    transport.pause()
    await publish(hub, "sensor:1", *map(heavy, range(9)))
    assert not connection.send("too large", "x" * LIMIT)
    assert connection.close_reason == (4002, "read too slowly")
    await publish(hub, "sensor:1", heavy(9))
    transport.take()
    assert transport.messages == []
    assert (await hub.stats())["slowConsumers"] == 1


async def test_a_full_socket_alone_ends_nobody_who_can_go_without(hub: Hub) -> None:
    connection, transport = client(hub, "sensor:1")
    transport.pause(buffered=LIMIT * 3)
    await publish(hub, "sensor:1", *map(heavy, range(3)))
    assert connection.is_open
    transport.take()
    assert (transport.types, skipped(transport)) == (["skipped"], 3)


async def test_what_is_not_written_yet_may_still_be_dropped() -> None:
    hub = Hub(timeouts=Timeouts(shutdown=0.01))
    hub.namespace("sensor", slow="drop_oldest")
    async with hub.running():
        connection, transport = client(hub, "sensor:1")
        transport.pause()
        for number in range(2000):
            await hub.publish("sensor:1", None, heavy(number))
        transport.take(room=1000)
        assert 64_000 < sum(map(len, transport.writes)) < 70_000
        early = numbers(transport)
        assert early == list(range(skipped(transport), skipped(transport) + len(early)))
        for number in range(2000, 4000):
            await hub.publish("sensor:1", None, heavy(number))
        await tick()
        transport.take()
        late = numbers(transport)[len(early) :]
        assert late == list(range(4000 - len(late), 4000))
        assert len(transport.payloads("skipped")) == 2
        assert skipped(transport) + len(early) + len(late) == 4000
        assert connection.is_open


# --- The latest of each key ------------------------------------------------------------------------------------------


async def test_a_newer_value_replaces_the_one_that_waits(hub: Hub) -> None:
    connection, transport = client(hub, "price:1")
    transport.pause()
    for number in range(1000):
        await publish(hub, "price:1", heavy(number), event="eur" if number % 2 else "usd")
    assert connection.outbox.queued < 3000
    transport.take()
    assert numbers(transport) == [998, 999]
    assert [payload["event"] for payload in transport.payloads("message")] == ["usd", "eur"]
    assert transport.payloads("skipped") == [{"channel": "price:1", "count": 998}]
    stats = await hub.stats()
    assert (stats["conflated"], stats["droppedPublications"]) == (998, 0)


async def test_the_tag_key_goes_before_the_event(hub: Hub) -> None:
    _, transport = client(hub, "price:1")
    transport.pause()
    await publish(hub, "price:1", [1], event="a", key="k")
    await publish(hub, "price:1", [2], event="b", key="k")
    await publish(hub, "price:1", [3], event="k")
    await publish(hub, "price:1", [4], event="b", other="k")
    await publish(hub, "price:1", [5])
    await publish(hub, "price:1", [6])
    transport.take()
    assert numbers(transport) == [2, 3, 4, 6]


async def test_values_come_in_the_order_of_the_newest(hub: Hub) -> None:
    connection, transport = client(hub, "stock:1", "stock:2")
    transport.pause()
    (first,) = await publish(hub, "stock:1", [1], event="a")
    await publish(hub, "stock:2", [2], event="a")
    connection.send("direct")
    await publish(hub, "stock:1", [3], event="b")
    await publish(hub, "stock:1", [4], event="a")
    transport.take()
    assert transport.types == ["skipped", "message", "direct", "message", "message"]
    assert numbers(transport) == [2, 3, 4]
    assert transport.payloads("skipped") == [{"channel": "stock:1", "from": first, "to": first, "count": 1}]


async def test_a_client_that_reads_gets_every_value(hub: Hub) -> None:
    connection, transport = client(hub, "price:1")
    connection.cork()
    await publish(hub, "price:1", [1], [2], event="a")
    connection.uncork()
    await publish(hub, "price:1", [3], [4], event="a")
    assert numbers(transport) == [1, 2, 3, 4]
    assert (await hub.stats())["conflated"] == 0


async def test_too_many_keys_are_too_much(hub: Hub) -> None:
    connection, transport = client(hub, "price:1")
    transport.pause()
    for number in range(20):
        await publish(hub, "price:1", heavy(number), event=f"key {number}")
    assert connection.close_reason == (4002, "read too slowly")


async def test_older_measurements_make_room_for_values(hub: Hub) -> None:
    connection, transport = client(hub, "price:1", "sensor:1")
    transport.pause()
    await publish(hub, "sensor:1", *map(heavy, range(9)))
    for number in range(5):
        await publish(hub, "price:1", heavy(number), event=f"key {number}")
    transport.take()
    values = [payload["data"][0] for payload in transport.payloads("message") if payload["channel"] == "price:1"]
    assert values == list(range(5))
    assert 0 < skipped(transport) < 9
    assert connection.is_open


# --- Subscriptions that end meanwhile --------------------------------------------------------------------------------


async def test_what_was_dropped_is_told_before_the_end_of_the_subscription(hub: Hub) -> None:
    connection, transport = client(hub, "sensor:1")
    transport.pause()
    await publish(hub, "sensor:1", *map(heavy, range(20)))
    connection.unsubscribe("sensor:1")
    connection.send("left")
    transport.take()
    types = transport.types
    assert types[0] == "skipped"
    assert types[-1] == "left"
    assert skipped(transport) + len(numbers(transport)) == 20


# --- L1 and L2: a flood, and the others ------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", ["news:1", "sensor:1", "price:1"])
async def test_those_who_read_get_everything(hub: Hub, channel: str) -> None:
    slow = [client(hub, channel) for _ in range(20)]
    fast = [client(hub, channel) for _ in range(20)]
    for _, transport in slow:
        transport.pause()
    for number in range(200):
        await hub.publish(channel, None, heavy(number))
        if number % 50 == 0:
            await tick()
            assert all(connection.outbox.queued <= LIMIT for connection, _ in slow)
    await tick()
    for _, transport in fast:
        assert numbers(transport) == list(range(200))
        assert skipped(transport) == 0
    for connection, transport in slow:
        assert connection.is_open is (channel != "news:1")
        transport.take()
        if connection.is_open:
            assert numbers(transport)[-1] == 199
            assert skipped(transport) + len(numbers(transport)) == 200
        else:
            assert transport.closes == [(4002, "read too slowly")]
