from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from hubbub import Hub, Receipt, RequestError, UsageError
from hubbub.node.sync import Sync
from tests.fakes import make_hub, open_connection, tick

Act = Callable[[Sync, str], Any]

ACTS: dict[str, tuple[Act, str, Any]] = {
    "publish": (lambda sync, id: sync.publish("news", "x", 1), "message", {"channel": "news", "event": "x", "data": 1}),
    "publish without an event": (
        lambda sync, id: sync.publish("news", None),
        "message",
        {"channel": "news", "data": None},
    ),
    "broadcast": (lambda sync, id: sync.broadcast("all", 1), "all", 1),
    "broadcast but one": (lambda sync, id: sync.broadcast("all", 1, exclude="unknown"), "all", 1),
    "send_to_user": (lambda sync, id: sync.send_to_user("ann", "hello", 1), "hello", 1),
    "send_to_connection": (lambda sync, id: sync.send_to_connection(id, "hello", 1), "hello", 1),
    "notify": (
        lambda sync, id: sync.notify("ann", "T", "M", "error"),
        "notification",
        {"title": "T", "message": "M", "type": "error"},
    ),
}


@pytest.mark.parametrize(("act", "type", "payload"), ACTS.values(), ids=ACTS.keys())
async def test_a_thread_sends(hub: Hub, act: Act, type: str, payload: Any) -> None:
    connection, transport = open_connection(hub, "ann")
    connection.subscribe("news")
    assert await asyncio.to_thread(act, hub.sync, connection.id) == Receipt(1)
    await tick()
    assert transport.payloads(type) == [payload]


@pytest.mark.parametrize(("act", "type", "payload"), ACTS.values(), ids=ACTS.keys())
async def test_the_hubs_own_thread_is_told_to_await(hub: Hub, act: Act, type: str, payload: Any) -> None:
    with pytest.raises(UsageError, match=r"in the hub's own loop write `await hub"):
        act(hub.sync, "id")


@pytest.mark.parametrize(("act", "type", "payload"), ACTS.values(), ids=ACTS.keys())
def test_before_the_start_it_says_so(act: Act, type: str, payload: Any) -> None:
    with pytest.raises(UsageError, match="the hub has not started"):
        act(make_hub().sync, "id")


async def test_a_function_may_run_in_the_hubs_thread(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    assert await asyncio.to_thread(hub.sync.call, threading.get_ident) == threading.get_ident()
    await asyncio.to_thread(hub.sync.call, connection.close, 4500, "from a thread")
    assert transport.closes == [(4500, "from a thread")]


async def test_an_error_comes_back(hub: Hub) -> None:
    with pytest.raises(RequestError, match="bad_channel"):
        await asyncio.to_thread(hub.sync.publish, "a*", "x")
    with pytest.raises(TypeError, match="no JSON form"):
        await asyncio.to_thread(hub.sync.broadcast, "x", object())


async def test_what_takes_too_long_there_is_told_apart(hub: Hub) -> None:
    def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await asyncio.to_thread(hub.sync.call, fail)


async def test_a_thread_asks_who_is_there(hub: Hub) -> None:
    connection, _ = open_connection(hub, "ann")
    assert await asyncio.to_thread(hub.sync.subscribe, connection, "news") == 1
    assert await asyncio.to_thread(hub.sync.is_user_connected, "ann")
    found = await asyncio.to_thread(hub.sync.user_connections, "ann")
    assert [(each.id, each.channels) for each in found] == [(connection.id, ("news",))]
    assert await asyncio.to_thread(hub.sync.unsubscribe, "ann", "news") == 1


async def test_many_threads_at_once(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    connection.subscribe("news")

    def publish(number: int) -> None:
        for each in range(20):
            hub.sync.publish("news", "x", [number, each])

    await asyncio.gather(*(asyncio.to_thread(publish, number) for number in range(5)))
    await tick()
    data = [payload["data"] for payload in transport.payloads("message")]
    assert len(data) == 100
    for number in range(5):
        assert [each for thread, each in data if thread == number] == list(range(20))


def test_a_loop_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    hub = make_hub()
    loop = asyncio.new_event_loop()

    async def start() -> None:
        hub.start()

    loop.run_until_complete(start())  # and from here on it stands still
    errors: list[BaseException] = []

    def publish() -> None:
        try:
            Sync(hub, timeout=0.01).broadcast("x")
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=publish)
    thread.start()
    thread.join()
    assert [type(error) for error in errors] == [TimeoutError]
    assert str(errors[0]) == "The hub did not do this within 0.01 s: it may be done or not."
    loop.run_until_complete(hub.shutdown())
    loop.close()


async def test_in_a_fork_it_says_so(hub: Hub) -> None:
    hub.node.pid += 1  # as a fork sees it
    with pytest.raises(UsageError, match="was forked from"):
        hub.sync.broadcast("x")
    with pytest.raises(UsageError, match="was forked from"):
        await asyncio.to_thread(hub.sync.broadcast, "x")
