"""Words between nodes that are lost, late or doubled, nodes that die at a bad moment, and brokers that are away."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import Any

import msgspec
import pytest

from hubbub import Hub
from hubbub.core.bus import ALL, Alive, Runs, Want, Whole, decode, encode, stream_topic
from hubbub.core.leases import Snapshot
from hubbub.core.streams import StreamMessage
from hubbub.node.connection import Connection
from tests.cluster.conftest import Nodes
from tests.cluster.exchange import LinkedBroker
from tests.fakes import RecordingTransport, open_connection
from tests.serving import until

Pair = tuple[Hub, Hub]


def broker_of(hub: Hub) -> LinkedBroker:
    broker = hub.node.broker
    assert isinstance(broker, LinkedBroker)
    return broker


def hears(hub: Hub, said: Any) -> None:
    """Let a node hear something."""
    for data in encode(said, "other", 1):
        hub.node.publishing.told(ALL, data)


def keep(hub: Hub, monkeypatch: pytest.MonkeyPatch, lose: type[Any] | None = None) -> list[tuple[str, Any]]:
    """What a node says from now on; what it says of one kind is lost."""
    broker, said = broker_of(hub), list[tuple[str, Any]]()
    tell = broker.tell

    async def listen(topic: str, data: bytes) -> int:
        said.append((topic, decode(data)))
        return 0 if lose is not None and isinstance(said[-1][1], lose) else await tell(topic, data)

    monkeypatch.setattr(broker, "tell", listen)
    return said


async def spoken(*hubs: Hub) -> None:
    """Wait until all was said that is to be said."""
    await until(lambda: not any(hub.node.cluster._speaker for hub in hubs))
    await asyncio.sleep(0)


async def test_a_node_that_died_before_it_told_who_is_there_is_missed_all_the_same(pair: Pair) -> None:
    here, _ = pair
    hears(here, Alive("stranger", 7, 100))
    assert "stranger" in here.node.cluster.peers

    for seconds in range(20):
        here.node.cluster.beat(monotonic() + seconds)

    assert "stranger" not in here.node.cluster.peers


async def test_its_own_voice_is_nothing_to_a_node(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    here, _ = pair
    hears(here, Alive(here.node.cluster.id, 7, 100))

    assert here.node.cluster.id not in here.node.cluster.peers
    assert not caplog.records


async def test_what_fails_on_hearing_stays_inside(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    here, _ = pair

    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(here.node.mirrors, "runs", fail)
    hears(here, Runs(here.node.cluster.peers[0], ["run:1"]))

    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_a_snapshot_that_never_comes_is_not_asked_for_without_end(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    await spoken(here, there)
    asked, answered = keep(here, monkeypatch), keep(there, monkeypatch, lose=Snapshot)
    there.node.presence.leases.version += 5  # as if so many deltas had been lost

    here.node.cluster._wanted.clear()  # as if they had met long ago
    hears(here, there.node.cluster._alive())
    for _ in range(200):
        await asyncio.sleep(0)

    assert [said for _, said in asked if isinstance(said, Want)] == [Want(here.node.cluster.id)]
    assert len([said for _, said in answered if isinstance(said, Snapshot)]) == 1


async def test_a_flood_of_questions_costs_one_answer_at_a_time(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = pair
    await spoken(here, there)
    said = keep(here, monkeypatch)
    for _ in range(1000):
        hears(here, Want(there.node.cluster.id))
    await spoken(here, there)

    assert len([each for _, each in said if isinstance(each, Snapshot)]) <= 2


async def test_the_goodbye_of_a_node_is_the_last_of_it(nodes: Nodes) -> None:
    here, there = await nodes.start(), await nodes.start()
    for _ in range(10):
        there.node.cluster.say(ALL, there.node.cluster._alive())
    await there.shutdown()
    await spoken(here)

    assert here.node.cluster.peers == []


async def test_who_comes_while_the_broker_is_away_hears_the_others_afterwards(pair: Pair) -> None:
    here, there = pair
    broker_of(there).cut = True
    _, bo = open_connection(there, "bo")
    await until(lambda: not there.node.cluster._errands._tasks)
    broker_of(there).heal()
    await until(lambda: "user:bo" in broker_of(there).followed)

    await here.send_to_user("bo", "note", 1, durable=True)
    await here.send_to_user("bo", "hint", 2)

    assert (await bo.heard("note"))["payload"] == 1
    assert (await bo.heard("hint"))["payload"] == 2


async def test_whom_the_app_subscribes_while_the_broker_is_away_hears_the_others_afterwards(pair: Pair) -> None:
    here, there = pair
    broker_of(there).cut = True
    connection, bo = open_connection(there)
    connection.subscribe("room:1")
    await asyncio.sleep(0)
    broker_of(there).heal()
    await until(lambda: "room:1" in broker_of(there).subscribed)

    await here.publish("room:1", "said", 1)

    assert (await bo.heard("message"))["payload"]["data"] == 1


# Streams


async def watcher(hub: Hub) -> tuple[Connection, RecordingTransport]:
    connection, transport = open_connection(hub)
    await hub.subscribe(connection, "run:1")
    return connection, transport


def events(transport: RecordingTransport) -> list[str]:
    return [payload["event"] for payload in transport.payloads("stream")]


async def test_slow_subscribers_of_a_stream_elsewhere_cost_one_task_each(pair: Pair) -> None:
    here, there = pair
    crowd = [(await watcher(there))[1] for _ in range(8)]
    async with here.stream("run:1") as stream:
        await stream.append("a")
        await until(lambda: all("start" in events(each) for each in crowd))
        for each in crowd:
            each.pause(100_000)
        for _ in range(3):
            await stream.append("b")
            await until(lambda: len(there.node.mirrors._mirrors["run:1"].newcomers) == 8)
        most = 0
        for each in crowd:
            each.take()
            await until(lambda each=each: "b" in str(each.payloads("stream")[-1]))  # type: ignore[misc]
            most = max(most, len(there.node.cluster._errands._tasks))
        assert most <= 8


async def test_a_node_that_is_slow_to_say_the_whole_is_asked_again(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = pair
    ask, fails = there.node.cluster.ask, [1]

    async def lossy(question: Any, **options: Any) -> list[Any]:
        if fails and isinstance(question, Whole):
            fails.pop()
            return []
        return await ask(question, **options)

    monkeypatch.setattr(there.node.cluster, "ask", lossy)
    _, bo = await watcher(there)
    async with here.stream("run:1") as stream:
        await stream.append("a")
        await until(lambda: events(bo)[:1] == ["start"])
        assert not fails
    await until(lambda: events(bo)[-1] == "end")


async def test_a_stream_whose_node_dies_while_it_is_asked_for_again_has_an_end(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    _, bo = await watcher(there)
    async with here.stream("run:1") as stream:
        await stream.append("a")
        await until(lambda: "a" in str(bo.payloads("stream")))
        answer = asyncio.Event()

        async def never(*_: Any, **__: Any) -> list[Any]:
            await answer.wait()
            return []

        monkeypatch.setattr(there.node.cluster, "ask", never)
        mirror = there.node.mirrors._mirrors["run:1"]
        assert mirror.copy is not None
        late = StreamMessage("run:1", mirror.copy.id, "append", mirror.copy.position + 5, "z")
        there.node.mirrors.told("run:1", msgspec.json.encode([late]))
        there.node.cluster._gone(here.node.cluster.id)
        answer.set()

        assert events(bo)[-1] == "error"


async def test_a_slow_subscriber_is_told_the_end_of_a_stream_whose_node_is_gone(pair: Pair) -> None:
    here, there = pair
    _, bo = await watcher(there)
    async with here.stream("run:1") as stream:
        await stream.append("a")
        await until(lambda: "a" in str(bo.payloads("stream")))
        bo.pause(100_000)
        there.node.cluster._gone(here.node.cluster.id)
        bo.take()

        await until(lambda: events(bo)[-1] == "error")


async def test_who_left_is_told_nothing_more_of_a_stream_whose_node_is_gone(pair: Pair) -> None:
    here, there = pair
    connection, bo = await watcher(there)
    _, ann = await watcher(there)
    async with here.stream("run:1") as stream:
        await stream.append("a")
        await until(lambda: "a" in str(bo.payloads("stream")) and "a" in str(ann.payloads("stream")))
        bo.pause(100_000)
        there.node.cluster._gone(here.node.cluster.id)
        connection.unsubscribe("run:1")
        bo.take()
        await until(lambda: not there.node.cluster._errands._tasks)

        assert events(bo)[-1] != "error"


async def test_who_comes_back_while_a_stream_is_unfollowed_hears_it(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    broker, may = broker_of(there), asyncio.Event()
    leave = broker.unfollow

    async def slowly(topic: str) -> None:
        await may.wait()
        await leave(topic)

    connection, bo = await watcher(there)
    async with here.stream("run:1") as stream:
        await stream.append("a")
        await until(lambda: "a" in str(bo.payloads("stream")))
        monkeypatch.setattr(broker, "unfollow", slowly)
        connection.unsubscribe("run:1")
        await asyncio.sleep(0)
        bo.forget()
        await there.subscribe(connection, "run:1")
        await asyncio.sleep(0)
        may.set()
        await until(lambda: "start" in events(bo))
        await until(lambda: not there.node.cluster._errands._tasks)

        assert stream_topic("run:1") in broker.followed
        await stream.append("b")
        await until(lambda: "b" in str(bo.payloads("stream")))


async def test_streams_of_nobody_who_lives_are_not_kept(pair: Pair) -> None:
    here, _ = pair
    hears(here, Runs("stranger", ["run:1"]))

    assert not here.node.mirrors.runs_abroad("run:1")
