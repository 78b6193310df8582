from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from hubbub import Connection, Hub, Limits, Timeouts
from hubbub.core.forms import FRAMES, TEXTS, Form, deflated
from tests.fakes import RecordingTransport, make_hub, open_connection, say, tick

SOON = Timeouts(shutdown=0.01)


def client(
    hub: Hub, form: Form = FRAMES, *, room: int | None = None, polite: bool = False
) -> tuple[Connection, RecordingTransport]:
    """A connection and its socket; what was written before the test began is forgotten."""
    connection, transport = open_connection(hub, transport=RecordingTransport(form, polite=polite))
    transport.forget()
    transport.room = room
    return connection, transport


async def test_an_idle_socket_is_written_to_at_once(hub: Hub) -> None:
    connection, transport = client(hub, polite=True)
    connection.send("a")
    connection.send("b")
    assert len(transport.writes) == 2


# --- Corked: several messages of one read ----------------------------------------------------------------------------


@pytest.mark.parametrize("form", [FRAMES, TEXTS, deflated(15)], ids=["frames", "texts", "deflated"])
async def test_replies_to_one_read_are_one_write(hub: Hub, form: Form) -> None:
    connection, transport = client(hub, form, polite=True)
    connection.cork()
    for number in range(5):
        say(connection, "echo", [number] * 100)
    assert transport.writes == []
    connection.uncork()
    assert len(transport.writes) == 1
    assert transport.payloads("echo_response") == [[number] * 100 for number in range(5)]
    connection.send("later")
    assert len(transport.writes) == 2


async def test_a_cork_gives_way_at_64_kib(hub: Hub) -> None:
    connection, transport = client(hub, polite=True)
    connection.cork()
    for _ in range(10):
        say(connection, "echo", "x" * 10_000)
    assert len(transport.writes) == 1
    assert 64 * 1024 < len(transport.writes[0]) < 80_000
    connection.uncork()
    assert len(transport.writes) == 2
    assert transport.types == ["echo_response"] * 10


async def test_a_cork_is_not_a_slow_client() -> None:
    async with make_hub(limits=Limits(send_queue=2000), timeouts=SOON).running() as hub:
        connection, transport = client(hub, polite=True)
        connection.cork()
        for _ in range(10):
            say(connection, "echo", "x" * 1000)
        connection.uncork()
        assert transport.types == ["echo_response"] * 10
        assert connection.is_open
        assert hub.node.slow_consumers == 0


async def test_a_goodbye_in_the_middle_of_a_read_ends_it(hub: Hub) -> None:
    connection, transport = client(hub)
    connection.cork()
    say(connection, "echo", 1)
    connection.close(4500, "enough")
    say(connection, "echo", 2)
    connection.uncork()
    assert transport.payloads("echo_response") == [1]
    assert transport.closes == [(4500, "enough")]


async def test_a_socket_may_pause_and_resume_while_corked(hub: Hub) -> None:
    connection, transport = client(hub, polite=True)
    connection.cork()
    say(connection, "echo", 1)
    transport.pause()
    connection.uncork()
    assert transport.writes == []
    connection.cork()
    transport.take()
    say(connection, "echo", 2)
    connection.uncork()
    assert transport.payloads("echo_response") == [1, 2]


# --- Paused: the client does not read --------------------------------------------------------------------------------


async def test_what_waits_is_one_write_when_the_client_reads(hub: Hub) -> None:
    connection, transport = client(hub, polite=True)
    connection.subscribe("news")
    transport.pause()
    connection.send("a")
    await hub.publish("news", "b")
    await tick()
    connection.send("c")
    assert transport.writes == []
    transport.take()
    assert len(transport.writes) == 1
    assert transport.types == ["a", "message", "c"]
    connection.send("d")
    assert len(transport.writes) == 2


async def test_a_client_that_reads_little_gets_it_in_pieces(hub: Hub) -> None:
    connection, transport = client(hub, room=10, polite=True)
    for number in range(20):
        connection.send("a", number)
        if number % 3 == 0:
            transport.take(room=10)
    while transport.paused:
        transport.take()
    assert transport.payloads("a") == list(range(20))


async def test_a_client_that_does_not_read_its_answers_may_not_ask_more(hub: Hub) -> None:
    connection, transport = client(hub, room=0, polite=True)
    while transport.reading:
        say(connection, "echo", "x" * 10_000)
    assert 64 * 1024 < connection.outbox.queued < 80_000
    assert not connection.reading
    transport.take(room=1)  # all of it is written, and the socket is full again
    transport.take()
    assert transport.reading
    assert connection.reading


Fill = Callable[[Hub, Connection, int], Awaitable[object]]


async def send(hub: Hub, connection: Connection, size: int) -> None:
    connection.send("a", "x" * size)


async def publish(hub: Hub, connection: Connection, size: int) -> None:
    await hub.publish("news", "a", "x" * size)
    await tick()


async def broadcast(hub: Hub, connection: Connection, size: int) -> None:
    await hub.broadcast("a", "x" * size)
    await tick()


@pytest.mark.parametrize("fill", [send, publish, broadcast])
async def test_a_queue_that_is_full_ends_the_connection(fill: Fill) -> None:
    async with make_hub(limits=Limits(send_queue=10_000), timeouts=SOON).running() as hub:
        connection, transport = client(hub)
        connection.subscribe("news")
        transport.pause()
        for _ in range(9):
            await fill(hub, connection, 1000)
        assert connection.is_open
        await fill(hub, connection, 1000)
        assert connection.state.name == "CLOSING"
        assert connection.close_reason == (4002, "read too slowly")
        assert (await hub.stats())["slowConsumers"] == 1
        await fill(hub, connection, 1000)
        assert not connection.send("late")
        transport.take()
        assert transport.messages == []
        assert transport.closes == [(4002, "read too slowly")]
        assert (await hub.stats())["slowConsumers"] == 1


async def test_what_the_socket_holds_counts(hub: Hub) -> None:
    connection, transport = client(hub)
    transport.pause(buffered=1024 * 1024 - 100)
    connection.send("a")
    assert connection.is_open
    connection.send("b")
    connection.send("c")
    assert not connection.is_open


async def test_what_is_noted_counts_with_the_tick() -> None:
    async with make_hub(limits=Limits(send_queue=10_000), timeouts=SOON).running() as hub:
        connection, transport = client(hub)
        connection.subscribe("news")
        transport.pause()
        for _ in range(20):
            await hub.publish("news", "a", "x" * 1000)
        assert not connection.send("b")
        assert not connection.is_open


async def test_whoever_is_ended_by_what_was_noted_subscribes_to_nothing_more() -> None:
    async with make_hub(limits=Limits(send_queue=1000), timeouts=SOON).running() as hub:
        connection, transport = client(hub)
        connection.subscribe("news")
        transport.pause()
        await hub.publish("news", "a", "x" * 2000)
        assert not connection.subscribe("sport")
        assert not connection.is_open
        assert hub.local.subscribers("sport") == []
        assert connection.channels == []


async def test_the_message_that_does_not_fit_is_not_queued() -> None:
    async with make_hub(limits=Limits(send_queue=1000), timeouts=SOON).running() as hub:
        connection, transport = client(hub)
        transport.pause()
        assert connection.send("fits")
        assert not connection.send("does not", "x" * 2000)
        assert not connection.send("late")


async def test_one_large_message_to_an_idle_socket_is_not_too_much(hub: Hub) -> None:
    connection, transport = client(hub, room=1000, polite=True)
    assert connection.send("large", "x" * 3_000_000)
    assert connection.is_open
    transport.take()
    assert transport.types == ["large"]


async def test_a_slow_client_does_not_slow_another() -> None:
    async with make_hub(limits=Limits(send_queue=10_000), timeouts=SOON).running() as hub:
        (slow, stuck), (fast, transport) = client(hub), client(hub)
        for connection in (slow, fast):
            connection.subscribe("news")
        stuck.pause()
        for number in range(100):
            await hub.publish("news", "a", [number, "x" * 1000])
            await tick()
        assert [payload["data"][0] for payload in transport.payloads("message")] == list(range(100))
        assert (slow.is_open, fast.is_open) == (False, True)
        assert hub.local.subscribers("news") == [fast]
