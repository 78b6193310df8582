from __future__ import annotations

from typing import Any

import pytest

from hubbub import Hub
from hubbub.core.forms import FRAMES, TEXTS, Form, deflated
from tests.fakes import RecordingTransport, open_connection, tick

FORMS = [FRAMES, TEXTS, deflated(15), deflated(9)]


def subscribers(hub: Hub, count: int, form: Form = FRAMES, channels: tuple[str, ...] = ("news",)) -> list[Any]:
    """The sockets of so many new subscribers; the welcome is forgotten."""
    transports = []
    for _ in range(count):
        connection, transport = open_connection(hub, transport=RecordingTransport(form))
        for channel in channels:
            connection.subscribe(channel)
        transport.forget()
        transports.append(transport)
    return transports


def numbers(transport: RecordingTransport) -> list[Any]:
    """The data of the publications it got."""
    return [payload["data"] for payload in transport.payloads("message")]


# --- With the tick ---------------------------------------------------------------------------------------------------


async def test_a_publication_goes_out_with_the_tick(hub: Hub) -> None:
    (transport,) = subscribers(hub, 1)
    await hub.publish("news", "x", 1)
    assert transport.writes == []
    await tick()
    assert numbers(transport) == [1]


async def test_all_of_a_tick_is_one_write(hub: Hub) -> None:
    transports = subscribers(hub, 3, channels=("news", "sport"))
    for number in range(5):
        await hub.publish("news", "x", number)
        await hub.publish("sport", "x", number)
        await hub.broadcast("message", {"data": number})
    await tick()
    for transport in transports:
        assert len(transport.writes) == 1
        assert numbers(transport) == [number for number in range(5) for _ in range(3)]


async def test_the_next_tick_is_the_next_write(hub: Hub) -> None:
    (transport,) = subscribers(hub, 1)
    for number in range(3):
        await hub.publish("news", "x", number)
        await tick()
        assert len(transport.writes) == number + 1
    assert numbers(transport) == [0, 1, 2]


@pytest.mark.parametrize(("count", "writes"), [(31, 0), (32, 1), (63, 1), (64, 2), (70, 2)])
async def test_so_many_do_not_wait_for_the_tick(hub: Hub, count: int, writes: int) -> None:
    (transport,) = subscribers(hub, 1)
    for number in range(count):
        await hub.publish("news", "x", number)
    assert len(transport.writes) == writes
    await tick()
    assert numbers(transport) == list(range(count))
    assert len(transport.writes) == writes + (count % 32 > 0)


async def test_nor_do_64_kib(hub: Hub) -> None:
    (transport,) = subscribers(hub, 1)
    for _ in range(6):
        await hub.publish("news", "x", "x" * 10_000)
    assert transport.writes == []
    await hub.publish("news", "x", "x" * 10_000)
    assert len(transport.writes) == 1
    await hub.publish("news", "x", "x" * 10_000)
    assert len(transport.writes) == 1
    await tick()
    assert len(transport.writes) == 2


async def test_what_nobody_hears_is_not_noted(hub: Hub) -> None:
    await hub.publish("news", "x", 1)
    assert not hub.node.delivery.noted


async def test_nor_is_what_is_sent_to_all_where_nobody_is(hub: Hub) -> None:
    assert (await hub.broadcast("x")).connections == 0
    assert not hub.node.delivery.noted


# --- Ahead of the tick -----------------------------------------------------------------------------------------------


async def test_a_direct_message_comes_behind_what_was_published_before(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    connection.subscribe("news")
    await hub.publish("news", "x", 1)
    connection.send("direct")
    await hub.publish("news", "x", 2)
    await tick()
    assert transport.types == ["message", "direct", "message"]


async def test_a_subscriber_gets_nothing_from_before(hub: Hub) -> None:
    subscribers(hub, 1)
    await hub.publish("news", "x", "before")
    await hub.broadcast("message", {"data": "to all"})
    connection, transport = open_connection(hub)
    connection.subscribe("news")
    await hub.publish("news", "x", "after")
    await tick()
    assert numbers(transport) == ["after"]


async def test_a_subscription_of_before_ends_with_what_was_published_before(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    connection.subscribe("news")
    await hub.publish("news", "x", "before")
    connection.unsubscribe("news")
    subscribers(hub, 1)
    await hub.publish("news", "x", "between")
    connection.subscribe("news")
    await hub.publish("news", "x", "after")
    await tick()
    assert numbers(transport) == ["before", "after"]


async def test_the_excluded_gets_all_the_rest_in_order(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    (other,) = subscribers(hub, 1)
    for number in range(6):
        await hub.broadcast("message", {"data": number}, exclude=connection if number % 2 else None)
    await tick()
    assert (numbers(transport), numbers(other)) == ([0, 2, 4], [0, 1, 2, 3, 4, 5])


# --- Once for all ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 40])
async def test_subscribers_of_one_form_are_given_the_same_object(hub: Hub, count: int) -> None:
    groups = [subscribers(hub, 5, form) for form in FORMS]
    for number in range(count):
        await hub.publish("news", "x", [number, "x" * 300])
    await tick()
    objects = []
    for transports in groups:
        first, *others = transports
        for transport in others:
            assert len(transport.writes) == len(first.writes)
            assert all(map(lambda a, b: a is b, transport.writes, first.writes))
        assert numbers(first) == [[number, "x" * 300] for number in range(count)]
        objects += first.writes
    assert len({id(each) for each in objects}) == len(objects)


async def test_subscribers_of_the_same_channels_are_given_the_same_object(hub: Hub) -> None:
    both = subscribers(hub, 3, channels=("news", "sport"))
    turned = subscribers(hub, 3, channels=("sport", "news"))
    one = subscribers(hub, 3, channels=("news",))
    for number in range(4):
        await hub.publish("news" if number % 2 else "sport", "x", number)
    await tick()
    assert numbers(both[0]) == [0, 1, 2, 3]
    assert numbers(one[0]) == [1, 3]
    for group in (both + turned, one):
        (first,) = group[0].writes
        assert all(transport.writes[0] is first for transport in group)


async def test_those_that_wait_share_it_too(hub: Hub) -> None:
    transports = subscribers(hub, 3)
    for transport in transports:
        transport.pause()
    await hub.publish("news", "x", "x" * 1000)
    await tick()
    for transport in transports:
        transport.take()
        assert transport.writes[-1] is transports[0].writes[-1]
        assert numbers(transport) == ["x" * 1000]


async def test_a_message_is_encoded_once(hub: Hub) -> None:
    class Payload:
        """Counts how often it is turned into JSON."""

        encoded = 0

        def model_dump(self, **options: Any) -> Any:
            self.encoded += 1
            return {"n": self.encoded}

    payload = Payload()
    for form in FORMS:
        subscribers(hub, 3, form)
    await hub.publish("news", "x", payload)
    await tick()
    assert payload.encoded == 1
