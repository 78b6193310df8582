"""The test kit for users, on a hub of theirs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from hubbub import Connection, Hub, Timeouts, UsageError
from hubbub.node import dispatch
from hubbub.testing import Client, connect, moving_clock


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    """A hub with a room and a handler."""
    hub = Hub(timeouts=Timeouts(ping=30, pong=10, shutdown=0.05))
    hub.namespace("room", history=10)

    @hub.on("double", reply="doubled")
    def double(conn: Connection, payload: int) -> int:
        return 2 * payload

    @hub.on("confirm_it", reply="confirmed")
    async def confirm_it(conn: Connection) -> object:
        return await conn.request("sure?")

    async with hub.running():
        yield hub


async def test_a_request_gets_its_answer(hub: Hub) -> None:
    async with connect(hub) as client:
        assert await client.request("double", 21) == 42
        await client.expect_nothing()


async def test_an_error_fails_the_request(hub: Hub) -> None:
    async with connect(hub) as client:
        with pytest.raises(AssertionError, match=r"'double' was answered by an error.*invalid_payload"):
            await client.request("double", "x")


async def test_a_message_is_expected_by_its_fields(hub: Hub) -> None:
    async with connect(hub, "ann") as ann, connect(hub, "bo") as bo:
        await ann.request("subscribe", {"channel": "room:1"})
        await hub.send_to_user("ann", "note", {"n": 1})
        await hub.publish("room:1", "said", "hello")
        assert await ann.expect("message", event="said") == {
            "channel": "room:1",
            "event": "said",
            "data": "hello",
            "offset": 1,
        }
        assert [message["type"] for message in ann.messages()] == ["note"]
        with pytest.raises(AssertionError, match=r"there is .*note"):
            await ann.expect_nothing()
        await bo.expect_nothing()


async def test_what_does_not_come_is_missed_by_the_deadline(hub: Hub) -> None:
    async with connect(hub, deadline=0.01) as client:
        with pytest.raises(AssertionError, match=r"'note' did not come within 0\.01 s; there is \[\]"):
            await client.expect("note")
        with pytest.raises(AssertionError, match="not closed"):
            await client.expect_close()


async def test_a_question_of_the_server_is_answered(hub: Hub) -> None:
    async with connect(hub) as client:
        client.send("confirm_it", id="1")
        await client.expect("request", type="sure?")
        assert client.connection.asking


async def test_a_client_may_come_back_itself(hub: Hub) -> None:
    client = Client(hub)
    await client.open("ann")
    client.drop_link()
    await client.open("ann")
    assert await client.request("double", 21) == 42
    with pytest.raises(UsageError, match="is connected"):
        await client.open("ann")


async def test_a_link_that_breaks_and_a_client_that_comes_back(hub: Hub) -> None:
    client = Client(hub)
    await client.open()
    place = await client.request("subscribe", {"channel": "room:1"})
    client.drop_link()
    assert await client.expect_close() == 1006
    await hub.publish("room:1", None, "missed")
    assert hub.connection_count == 0
    async with connect(hub) as again:
        since = {"offset": place["offset"], "epoch": place["epoch"]}
        answer = await again.request("subscribe", {"channel": "room:1", "since": since})
        assert answer["recovered"] is True
        assert (await again.expect("message"))["data"] == "missed"


async def test_a_slow_reader_gets_everything_in_the_end(hub: Hub) -> None:
    async with connect(hub) as client:
        with client.slow():
            await hub.broadcast("note", 1)
            await hub.broadcast("note", 2)
            await client.expect_nothing()
        assert [message["payload"] for message in client.messages("note")] == [1, 2]


async def test_a_reader_that_stops_is_closed(hub: Hub) -> None:
    async with connect(hub) as client:
        with client.slow():
            for _ in range(30):
                await hub.broadcast("flood", "x" * 50_000)
        await client.expect_close(4002)


async def test_time_passes_when_it_is_told_to(hub: Hub) -> None:
    with moving_clock(hub) as clock:
        async with connect(hub) as client:
            await clock.advance(25)
            assert client.connection.is_open
            client.connection.outbox.transport.ping = lambda: True  # type: ignore[method-assign]  # nobody answers
            await clock.advance(60)
            await client.expect_close(4003)


async def test_a_clock_inside_of_another_gives_it_back(hub: Hub) -> None:
    with moving_clock(hub) as clock:
        with moving_clock(Hub("/other")):
            pass
        assert vars(dispatch)["monotonic"] is clock
    assert vars(dispatch)["monotonic"] is time.monotonic


async def test_a_hub_that_does_not_run_takes_no_client() -> None:
    with pytest.raises(UsageError, match="does not run"):
        await Client(Hub()).open()
