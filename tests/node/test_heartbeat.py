from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hubbub import Connection, Hub, Limits, Timeouts
from tests.fakes import ManualClock, RecordingTransport, open_connection, say, tick

TIMES = Timeouts(ping=30, pong=10, close=5, shutdown=0.01)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """The node's clock."""
    return ManualClock.install(monkeypatch)


@pytest.fixture
def hub(clock: ManualClock) -> Hub:
    """A hub with the usual times, not yet started: nothing beats but the test."""
    return Hub(timeouts=TIMES, limits=Limits(in_flight=2, bad_messages=100))


def pass_time(hub: Hub, clock: ManualClock, seconds: float) -> None:
    """Let so many seconds pass, with a beat each second as the node has it."""
    for _ in range(round(seconds)):
        clock.now += 1
        hub.node.beat(clock.now)


def client(hub: Hub, **options: Any) -> tuple[Connection, RecordingTransport]:
    """A connection that does not answer by itself."""
    hub.start()
    return open_connection(hub, transport=RecordingTransport(polite=False, **options))


async def test_silence_brings_a_ping(hub: Hub, clock: ManualClock) -> None:
    connection, transport = client(hub)
    pass_time(hub, clock, 29)
    assert (transport.pinged, connection.is_alive) == (0, True)
    pass_time(hub, clock, 2)
    assert (transport.pinged, connection.is_alive) == (1, False)
    connection.touch()
    assert connection.is_alive
    pass_time(hub, clock, 28)
    assert transport.pinged == 1
    pass_time(hub, clock, 3)
    assert transport.pinged == 2
    assert connection.is_open


async def test_whoever_does_not_answer_is_given_up(hub: Hub, clock: ManualClock) -> None:
    reasons: list[Any] = []
    hub.on_close(lambda conn, code, reason: reasons.append(code))
    connection, transport = client(hub)
    pass_time(hub, clock, 39)
    assert connection.is_open
    pass_time(hub, clock, 3)
    assert transport.closes == [(4003, "no answer to a ping")]
    assert hub.connection_count == 0
    assert not transport.aborted
    pass_time(hub, clock, 7)
    assert transport.aborted
    await tick()
    assert reasons == [4003]
    assert connection.state.name == "CLOSED"


@pytest.mark.parametrize("ping", [3, 10, 30], ids=["shorter than a pong's time", "as long", "longer"])
async def test_no_silence_is_longer_than_it_should_be(clock: ManualClock, ping: float) -> None:
    """A proxy's time for a silent connection has to be longer than this and no more."""
    hub = Hub(timeouts=replace(TIMES, ping=ping))
    connection, transport = client(hub)
    pass_time(hub, clock, ping / 3)
    connection.touch()
    for count in range(1, 6):
        pass_time(hub, clock, ping - 1)
        assert transport.pinged == count - 1
        pass_time(hub, clock, 2)
        assert transport.pinged == count
        connection.touch()
    assert connection.is_open
    pass_time(hub, clock, ping + 1 + TIMES.pong - 2)
    assert transport.pinged == 6
    assert connection.is_open
    pass_time(hub, clock, 4)
    assert transport.closes == [(4003, "no answer to a ping")]


SIGNS: dict[str, Callable[[Connection], None]] = {
    "bytes": lambda conn: conn.touch(),
    "a ping message": lambda conn: say(conn, "ping"),
    "any message": lambda conn: say(conn, "echo", 1),
    "no JSON": lambda conn: conn.receive_text(b"no"),
    "a binary message": lambda conn: conn.receive_binary(b"x"),
}


@pytest.mark.parametrize("sign", SIGNS.values(), ids=SIGNS.keys())
async def test_any_sign_of_life_is_one(hub: Hub, clock: ManualClock, sign: Callable[[Connection], None]) -> None:
    hub.on_binary(lambda conn, data: None)
    connection, transport = client(hub)
    pass_time(hub, clock, 35)
    assert transport.pinged == 1
    sign(connection)
    pass_time(hub, clock, 25)
    assert transport.pinged == 1
    for _ in range(4):
        sign(connection)
        pass_time(hub, clock, 20)
    assert transport.pinged == 1
    assert connection.is_open


async def test_a_door_without_pings_gives_nobody_up(hub: Hub, clock: ManualClock) -> None:
    connection, transport = client(hub, pings=False)
    pass_time(hub, clock, 200)
    assert connection.is_open
    assert connection.is_alive
    assert transport.pinged == 0


async def test_while_we_do_not_read_no_answer_is_expected(clock: ManualClock) -> None:
    hub = Hub(timeouts=replace(TIMES, handler=1000), limits=Limits(in_flight=2))
    gate = asyncio.Event()

    @hub.on("wait")
    async def wait(conn: Connection) -> None:
        await gate.wait()

    connection, transport = client(hub)
    for _ in range(3):
        say(connection, "wait")
    await tick(2)
    assert not transport.reading
    pass_time(hub, clock, 300)
    assert connection.is_open
    gate.set()
    await tick(5)
    assert transport.reading
    connection.touch()  # what waited in its socket
    pass_time(hub, clock, 20)
    assert connection.is_open
    pass_time(hub, clock, 60)
    assert transport.closes == [(4003, "no answer to a ping")]


async def test_the_answer_has_its_time_when_we_read_again(hub: Hub, clock: ManualClock) -> None:
    connection, transport = client(hub)
    connection.hold_reading(1)
    pass_time(hub, clock, 39)
    connection.resume_reading(1)
    pass_time(hub, clock, 9)
    assert connection.is_open
    pass_time(hub, clock, 15)
    assert transport.closes == [(4003, "no answer to a ping")]


async def test_whoever_stops_reading_is_given_up(hub: Hub, clock: ManualClock) -> None:
    connection, transport = client(hub)
    transport.pause(buffered=5000)
    connection.send("waiting")
    pass_time(hub, clock, 29)
    assert connection.is_open
    pass_time(hub, clock, 13)
    assert connection.close_reason == (4002, "stopped reading")
    assert (await hub.stats())["slowConsumers"] == 1
    assert transport.messages == []
    assert not transport.aborted
    pass_time(hub, clock, 7)
    assert transport.aborted


async def test_whoever_reads_slowly_is_not(hub: Hub, clock: ManualClock) -> None:
    connection, transport = client(hub)
    transport.pause(buffered=100_000)
    for _ in range(90):
        transport.take(1000)
        pass_time(hub, clock, 1)
    assert transport.paused
    assert connection.is_open
    transport.take()
    connection.touch()
    pass_time(hub, clock, 25)
    assert connection.is_open


async def test_whoever_reads_now_and_then_is_not(hub: Hub, clock: ManualClock) -> None:
    connection, transport = client(hub)
    for _ in range(30):
        transport.pause()
        pass_time(hub, clock, 5)
        transport.take()
        connection.touch()
    assert connection.is_open


async def test_a_goodbye_that_is_not_answered_ends_with_a_cut(hub: Hub, clock: ManualClock) -> None:
    (ours, first), (theirs, second) = client(hub), client(hub)
    ours.close()
    theirs.close_received(1000, "")
    pass_time(hub, clock, 4)
    assert (first.aborted, second.aborted) == (False, False)
    pass_time(hub, clock, 3)
    assert (first.aborted, second.aborted) == (True, True)


async def test_a_goodbye_that_is_answered_does_not(hub: Hub, clock: ManualClock) -> None:
    connection, transport = client(hub)
    connection.close()
    connection.lost(1000, "")
    pass_time(hub, clock, 60)
    assert not transport.aborted
    assert transport.pinged == 0


@pytest.mark.parametrize("times", [Timeouts(close=0.1), Timeouts(handler=0.1)], ids=["close", "handler"])
def test_the_shortest_time_decides_how_often_it_beats(times: Timeouts) -> None:
    assert Hub(timeouts=times).node.width <= 0.1


async def test_connections_are_looked_at_in_their_turn(hub: Hub, clock: ManualClock) -> None:
    clients = []
    for _ in range(30):
        clients += [client(hub) for _ in range(10)]
        pass_time(hub, clock, 1)
    before = sum(transport.pinged for _, transport in clients)
    assert before <= 10
    for _ in range(30):
        pass_time(hub, clock, 1)
        now = sum(transport.pinged for _, transport in clients)
        assert now - before <= 10
        before = now
        for connection, transport in clients:
            if transport.pinged:
                connection.touch()
    assert before >= 290


async def test_the_node_beats_by_itself() -> None:
    closed = asyncio.Event()
    hub = Hub(timeouts=Timeouts(ping=0.02, pong=0.02))
    hub.on_close(lambda conn: closed.set())
    async with hub.running(), asyncio.timeout(2):
        _, transport = open_connection(hub)
        await closed.wait()
    assert transport.pinged == 1
    assert transport.closes == [(4003, "no answer to a ping")]
