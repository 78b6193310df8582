"""Streams for subscribers on other nodes than their producer's."""

from __future__ import annotations

import asyncio
from typing import Any

from hubbub import Hub
from tests.cluster.conftest import Nodes
from tests.cluster.exchange import LinkedBroker
from tests.fakes import RecordingTransport, open_connection, say
from tests.serving import until

Pair = tuple[Hub, Hub]


async def subscriber(hub: Hub, channel: str = "run:1", user: str = "bo") -> RecordingTransport:
    """Somebody who is subscribed on a node."""
    connection, transport = open_connection(hub, user)
    await hub.subscribe(connection, channel)
    return transport


def text(transport: RecordingTransport) -> str:
    """What a client shows of the stream."""
    shown = ""
    for payload in transport.payloads("stream"):
        shown = (payload.get("text") or "") if payload["event"] == "start" else shown + (payload.get("text") or "")
    return shown


def last(transport: RecordingTransport) -> Any:
    """The last event of the stream, as the client sees it."""
    payloads = transport.payloads("stream")
    return payloads[-1]["event"] if payloads else None


async def sees(transport: RecordingTransport, expected: str) -> None:
    await until(lambda: text(transport) == expected)


class Producer:
    """A task that runs a stream and says what it is told to."""

    def __init__(self, hub: Hub, channel: str = "run:1") -> None:
        self.begun = asyncio.Event()
        self.says: asyncio.Queue[str | None] = asyncio.Queue()
        self.cancelled = False
        self.task = asyncio.create_task(self._run(hub, channel))

    async def _run(self, hub: Hub, channel: str) -> None:
        async with hub.stream(channel) as stream:
            self.begun.set()
            while (said := await self.says.get()) is not None:
                await stream.append(said)
        self.cancelled = stream.cancelled

    async def say(self, *texts: str | None) -> None:
        await self.begun.wait()
        for each in texts:
            self.says.put_nowait(each)


async def test_subscribers_elsewhere_see_the_stream_live(anywhere: Pair) -> None:
    here, there = anywhere
    bo = await subscriber(there)
    producer = Producer(here)

    await producer.say("Hel", "lo")
    await sees(bo, "Hello")
    await producer.say("!", None)
    await producer.task

    await until(lambda: last(bo) == "end")
    assert text(bo) == "Hello!"


async def test_subscribers_elsewhere_see_the_progress(anywhere: Pair) -> None:
    here, there = anywhere
    bo = await subscriber(there)

    async with here.stream("run:1") as stream:
        for data in ({"done": 1}, None, [2]):
            await stream.update(data)
            await until(lambda: (shown := bo.payloads("stream")) and shown[-1].get("data", 0) == data)  # noqa: B023
        late = await subscriber(there, user="cy")
        await until(lambda: late.payloads("stream"))

    assert late.payloads("stream")[0]["data"] == [2]
    await until(lambda: last(bo) == "end")


async def test_who_comes_late_elsewhere_gets_all_there_is(anywhere: Pair) -> None:
    here, there = anywhere
    producer = Producer(here)
    await producer.say("Hello")
    await until(lambda: there.node.mirrors.runs_abroad("run:1"))

    first = await subscriber(there)
    await sees(first, "Hello")
    await producer.say(", world")
    await sees(first, "Hello, world")
    second = await subscriber(there, user="cy")
    await sees(second, "Hello, world")
    await producer.say(None)
    await until(lambda: last(second) == "end")
    late = await subscriber(there, user="di")

    await until(lambda: last(late) == "end")
    assert text(late) == "Hello, world"


async def test_a_node_that_comes_late_knows_the_streams(every: Nodes) -> None:
    here = await every.start()
    producer = Producer(here)
    await producer.say("Hello")

    there = await every.start()
    await until(lambda: there.node.mirrors.runs_abroad("run:1"))

    await sees(await subscriber(there), "Hello")
    await producer.say(None)


async def test_cancel_reaches_the_producer(anywhere: Pair) -> None:
    here, there = anywhere
    producer = Producer(here)
    await producer.begun.wait()
    connection, transport = open_connection(there, "bo")
    await there.subscribe(connection, "run:1")
    await until(lambda: last(transport) == "start")

    say(connection, "cancel", {"channel": "run:1", "id": "another"}, id="6")
    assert "id" not in (await transport.heard("cancelled"))["payload"]
    say(connection, "cancel", {"channel": "run:1"}, id="7")

    cancelled = await transport.heard("cancelled", 2)
    assert (cancelled["id"], cancelled["payload"]["id"]) == ("7", transport.payloads("stream")[0]["id"])
    await producer.task
    assert producer.cancelled
    await until(lambda: last(transport) == "end")


async def test_what_was_lost_on_the_way_is_asked_for(pair: Pair) -> None:
    here, there = pair
    bo = await subscriber(there)
    producer = Producer(here)
    await producer.say("one ")
    await sees(bo, "one ")
    link = there.node.broker
    assert isinstance(link, LinkedBroker)
    link.cut = True
    position = here.node.streams.find("run:1")
    await producer.say("two ")
    await until(lambda: position is not None and position.whole()[0].text == "one two ")
    await until(lambda: not here.node.cluster._saying)
    link.cut = False

    await producer.say("three")

    await sees(bo, "one two three")
    await producer.say(None)


async def test_the_stream_of_a_node_that_is_gone_ends_with_an_error(pair: Pair) -> None:
    here, there = pair
    bo = await subscriber(there)
    producer = Producer(here)
    await producer.say("Hello")
    await sees(bo, "Hello")
    link = here.node.broker
    assert isinstance(link, LinkedBroker)
    link.cut = True

    there.node.cluster._gone(here.node.cluster.id)

    await until(lambda: last(bo) == "error")
    assert not there.node.mirrors.runs_abroad("run:1")
    await producer.say(None)
    await producer.task


async def test_a_slow_reader_elsewhere_is_given_the_whole_again(anywhere: Pair) -> None:
    here, there = anywhere
    connection, transport = open_connection(there, "bo")
    await there.subscribe(connection, "run:1")
    producer = Producer(here)
    await producer.say("one ")
    await sees(transport, "one ")
    transport.pause(buffered=4 << 20)

    await producer.say("two ", "three")
    await until(lambda: there.node.mirrors._mirrors["run:1"].newcomers)
    transport.take()

    await sees(transport, "one two three")
    await producer.say(None)


async def test_nothing_is_followed_when_nobody_is_subscribed(pair: Pair) -> None:
    here, there = pair
    bo = await subscriber(there)
    producer = Producer(here)
    await producer.say("Hello")
    await sees(bo, "Hello")
    link = there.node.broker
    assert isinstance(link, LinkedBroker)
    assert "stream:run:1" in link.followed

    await there.unsubscribe("bo", "run:1")

    await until(lambda: "stream:run:1" not in link.followed)
    await producer.say(None)


def knows(hub: Hub) -> bool:
    return bool(hub.node.streams.channels) or hub.node.mirrors.runs_abroad("run:1")


async def test_a_later_stream_elsewhere_takes_the_place_of_one_that_has_ended(anywhere: Pair) -> None:
    here, there = anywhere
    for hub, said in ((here, "old"), (there, "new")):
        producer = Producer(hub)
        await producer.say(said, None)
        await producer.task
        await until(
            lambda: all(each.node.streams.channels or each.node.mirrors.runs_abroad("run:1") for each in anywhere)
        )
    await until(lambda: not here.node.streams.channels and not there.node.mirrors.runs_abroad("run:1"))

    for late in (await subscriber(here), await subscriber(there, user="cy")):
        await until(lambda: last(late) == "end")  # noqa: B023
        assert (text(late), len(late.payloads("stream"))) == ("new", 2)
