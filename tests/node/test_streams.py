"""Streams: told live, told whole to who comes late, at the pace of who listens, and ended from either side."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from hubbub import Connection, Hub, Limits, RequestError, Timeouts, UsageError
from hubbub.core.forms import FRAMES, TEXTS
from hubbub.errors import CloseCode
from hubbub.node.access import Access
from hubbub.testing import Client, connect, moving_clock, settle
from tests.fakes import RecordingTransport, make_hub, open_connection, say, tick

RUN = "run:1"
FOREVER = 1000.0

Json = dict[str, Any]


class Tab:
    """A page that follows one channel, as the protocol says."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.id: str | None = None
        self.text = ""
        self.data: Any = None
        self.end: str | None = None
        self.messages = 0
        self._position = -1

    async def read(self) -> str:
        """Take in what has come; the text so far."""
        await settle()
        while self.client.messages("stream"):
            self._take(await self.client.expect("stream", channel=RUN))
        return self.text

    def _take(self, payload: Json) -> None:
        self.messages += 1
        event, position = payload["event"], payload["position"]
        if event == "start":
            self.id, self.text, self.data, self.end = payload["id"], payload.get("text", ""), payload.get("data"), None
        else:
            assert (payload["id"], position) == (self.id, self._position + 1)
            self.text += payload.get("text", "")
            self.data = payload.get("data", self.data)
        if event in ("end", "error"):
            self.end = payload.get("reason", event)
        self._position = position


@asynccontextmanager
async def follow(hub: Hub, channel: str = RUN) -> AsyncIterator[Tab]:
    """A new tab on a channel."""
    async with connect(hub) as client:
        await client.request("subscribe", {"channel": channel})
        yield Tab(client)


@pytest.fixture
async def produce() -> AsyncIterator[Callable[[Any], asyncio.Task[Any]]]:
    """Run coroutines next to the test."""
    tasks: list[asyncio.Task[Any]] = []

    def start(work: Any) -> asyncio.Task[Any]:
        tasks.append(asyncio.get_running_loop().create_task(work))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


Produce = Callable[[Any], asyncio.Task[Any]]


def listener(hub: Hub, room: int | None = None) -> tuple[Connection, RecordingTransport]:
    """A subscriber whose socket takes only so much."""
    connection, transport = open_connection(hub, transport=RecordingTransport(room=room))
    connection.subscribe(RUN)
    return connection, transport


# Telling


async def test_three_subscribers_are_told_the_same(hub: Hub) -> None:
    async with follow(hub) as one, follow(hub) as two, follow(hub) as three, hub.stream(RUN) as stream:
        for word in ("to ", "be ", "or"):
            await stream.append(word)
            await stream.update({"words": len(word)})
        for tab in (one, two, three):
            assert await tab.read() == "to be or"
            assert (tab.id, tab.data, tab.end, tab.messages) == (stream.id, {"words": 2}, None, 3)
        await stream.append(" not")
    for tab in (one, two, three):
        assert await tab.read() == "to be or not"
        assert (tab.end, tab.messages) == ("done", 5)


async def test_who_comes_late_gets_one_aggregate_behind_the_answer(hub: Hub) -> None:
    async with hub.stream(RUN) as stream:
        for word in ("to ", "be "):
            await stream.append(word)
            await settle()
        connection, transport = open_connection(hub)
        say(connection, "subscribe", {"channel": RUN}, id="1")
        await stream.append("or")  # in the same turn: in the whole or behind it, and once
        await settle()
        await stream.append(" not")
        await settle()
    kinds = [(message["type"], message["payload"].get("event")) for message in transport.messages]
    assert kinds[:2] == [("subscribed", None), ("stream", "start")]
    assert "".join(payload.get("text", "") for payload in transport.payloads("stream")) == "to be or not"
    positions = [payload["position"] for payload in transport.payloads("stream")]
    assert positions == list(range(positions[0], positions[0] + len(positions)))


@pytest.mark.parametrize("turns", range(8))
async def test_nothing_is_missed_or_doubled_whenever_one_comes(hub: Hub, turns: int) -> None:
    async with connect(hub) as client, hub.stream(RUN) as stream:
        for number in range(12):
            if number == 2:
                client.send("subscribe", {"channel": RUN})
            await stream.append(f"{number} ")
            await tick(turns if number in (2, 3) else number % 2)
        tab = Tab(client)
        assert await tab.read() == "".join(f"{number} " for number in range(12))


async def test_a_reload_goes_on_where_it_was(hub: Hub) -> None:
    async with hub.stream(RUN) as stream:
        async with follow(hub) as tab:
            await stream.append("to be ")
            assert await tab.read() == "to be "
        await stream.append("or ")
        async with follow(hub) as tab:
            assert await tab.read() == "to be or "
            tab.client.drop_link()
            await stream.append("not ")
        async with follow(hub) as tab:
            await stream.append("to be")
            assert await tab.read() == "to be or not to be"


async def test_behind_the_history_of_a_channel() -> None:
    hub = Hub(timeouts=Timeouts(shutdown=0.05))
    hub.namespace("run", history=10, latest=True)
    async with hub.running(), hub.stream(RUN) as stream, connect(hub) as client:
        await hub.publish(RUN, "asked", "why?")
        await stream.append("because")
        await client.request("subscribe", {"channel": RUN})
        assert (await client.expect("message"))["data"] == "why?"
        assert (await client.expect("stream", event="start"))["text"] == "because"
        await stream.append(".")
        assert (await client.expect("stream", event="append"))["text"] == "."
        await client.expect_nothing()


async def test_subscribed_by_the_server(hub: Hub) -> None:
    async with connect(hub, "ada") as client, hub.stream(RUN) as stream:
        await stream.append("hi")
        await hub.subscribe("ada", RUN)
        assert await Tab(client).read() == "hi"


async def test_a_publication_keeps_its_place(hub: Hub) -> None:
    _, transport = listener(hub)
    async with hub.stream(RUN):
        await hub.publish(RUN, "said", 1)
    await settle()
    assert transport.types == ["stream", "message", "stream"]


async def test_who_leaves_is_told_nothing_more(hub: Hub) -> None:
    async with follow(hub) as tab, hub.stream(RUN) as stream:
        await tab.read()
        tab.client.send("unsubscribe", {"channel": RUN})
        await tab.client.expect("unsubscribed")
        await stream.append("hi")
        await tab.client.expect_nothing()
        for type in ("subscribe", "unsubscribe"):
            tab.client.send(type, {"channel": RUN})
        await settle()
        assert [message["type"] for message in tab.client.messages()] == ["subscribed", "unsubscribed"]


async def test_ten_thousand_tokens_come_in_order_to_all(hub: Hub, produce: Produce) -> None:
    tokens = [f"{number} " for number in range(10_000)]

    async def run() -> None:
        async with hub.stream(RUN) as stream:
            for token in tokens:
                await stream.append(token)

    async with follow(hub) as one, follow(hub) as two, connect(hub) as late:
        task = produce(run())
        while hub.node.streams.find(RUN) is None or not await one.read():
            await tick()
        assert one.end is None
        late.send("subscribe", {"channel": RUN})
        three = Tab(late)
        await task
        for tab in (one, two, three):
            assert await tab.read() == "".join(tokens)
            assert tab.end == "done"
        assert two.messages < 1000


# The end


async def test_what_ended_is_kept_for_a_time(hub: Hub) -> None:
    with moving_clock(hub) as clock:
        async with hub.stream(RUN, ttl=60) as stream:
            await stream.append("hi")
        await clock.advance(58)
        async with follow(hub) as tab:
            assert (await tab.read(), tab.end, tab.messages) == ("hi", "done", 2)
        await clock.advance(4)
        async with follow(hub) as tab:
            assert (await tab.read(), tab.id) == ("", None)


async def test_the_next_stream_takes_its_place(hub: Hub) -> None:
    with moving_clock(hub) as clock:
        async with hub.stream(RUN, ttl=10) as stream:
            await stream.append("old")
        async with follow(hub) as tab:
            assert (await tab.read(), tab.end) == ("old", "done")
            async with hub.stream(RUN, ttl=60) as stream:
                await stream.append("new")
                assert (await tab.read(), tab.end) == ("new", None)
        await clock.advance(20)
        async with follow(hub) as tab:
            assert await tab.read() == "new"


async def test_an_error_ends_it_and_is_not_told(hub: Hub) -> None:
    async def run() -> None:
        async with hub.stream(RUN) as stream:
            await stream.append("so far")
            raise ValueError("the password is 123")

    async with follow(hub) as tab:
        with pytest.raises(ValueError, match="the password"):
            await run()
        assert (await tab.read(), tab.end) == ("so far", "error")
    async with follow(hub) as tab:
        assert (await tab.read(), tab.end) == ("so far", "error")


async def test_one_stream_a_channel(hub: Hub) -> None:
    async with hub.stream(RUN), hub.stream("run:2"):
        with pytest.raises(UsageError, match="is running on 'run:1'"):
            async with hub.stream(RUN):
                pass
    async with hub.stream(RUN):
        pass


async def test_the_limit_is_the_producers_to_mind(hub: Hub) -> None:
    async with follow(hub) as tab:
        async with hub.stream(RUN, limit=10) as stream:
            await stream.append("12345678")
            with pytest.raises(UsageError, match="more than 10 bytes"):
                await stream.append("901")
            await stream.append("9")
        assert (await tab.read(), tab.end) == ("123456789", "done")


async def test_progress_may_be_null(hub: Hub) -> None:
    async with follow(hub) as tab, hub.stream(RUN) as stream:
        await stream.update(None)
        await settle()
        update = [message["payload"] for message in tab.client.messages("stream")][1]
        assert (update["event"], update["data"]) == ("update", None)


async def test_misuse_is_named(hub: Hub) -> None:
    stream = hub.stream(RUN)
    with pytest.raises(UsageError, match="inside of its `async with`"):
        await stream.append("early")
    async with stream:
        with pytest.raises(UsageError, match="append takes text, not dict"):
            await stream.append({"done": 3})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="inside of its `async with`"):
        await stream.update("late")
    with pytest.raises(UsageError, match="for one `async with`"):
        async with stream:
            pass


async def test_a_channel_of_no_namespace_has_none() -> None:
    hub = Hub()
    hub.namespace("run")
    async with hub.running():
        hub.stream(RUN)
        with pytest.raises(RequestError, match="bad_channel"):
            hub.stream("walk:1")


# Cancel


class Producer:
    """A producer that waits for its end."""

    def __init__(self, hub: Hub) -> None:
        self.stream = hub.stream(RUN)
        self.inside: list[str] = []
        self.behind = False

    async def run(self) -> None:
        async with self.stream as stream:
            try:
                await stream.append("so far")
                await asyncio.sleep(FOREVER)
            except asyncio.CancelledError:
                self.inside.append("cancelled")
                raise
        self.behind = True


async def test_any_subscriber_cancels(hub: Hub, produce: Produce) -> None:
    async with follow(hub) as one, follow(hub) as two:
        producer = Producer(hub)
        task = produce(producer.run())
        await one.read()
        assert await two.client.request("cancel", {"channel": RUN}) == {"channel": RUN, "id": one.id}
        await task
        assert producer.inside == ["cancelled"]
        assert (producer.behind, producer.stream.cancelled, task.cancelling()) == (True, True, 0)
        for tab in (one, two):
            assert (await tab.read(), tab.end) == ("so far", "cancelled")


async def test_what_ended_already_is_not_cancelled(hub: Hub, produce: Produce) -> None:
    async with follow(hub) as tab:
        nothing = {"channel": RUN}
        assert await tab.client.request("cancel", {"channel": RUN}) == nothing
        async with hub.stream(RUN) as before:
            pass
        producer = Producer(hub)
        task = produce(producer.run())
        await tab.read()
        assert await tab.client.request("cancel", {"channel": RUN, "id": before.id}) == nothing
        assert not task.done()
        answer = await tab.client.request("cancel", {"channel": RUN, "id": producer.stream.id})
        assert answer == {"channel": RUN, "id": producer.stream.id}
        await task


@pytest.mark.parametrize(
    ("channel", "code"),
    [("run:2", "forbidden"), ("*", "bad_channel"), (7, "invalid_payload")],
    ids=["not subscribed", "no channel", "not text"],
)
async def test_who_may_not_cancel(hub: Hub, channel: Any, code: str) -> None:
    async with follow(hub) as tab:
        tab.client.send("cancel", {"channel": channel}, "1")
        assert (await tab.client.expect("error"))["code"] == code


async def test_the_app_decides_who_cancels(produce: Produce) -> None:
    hub = make_hub(timeouts=Timeouts(shutdown=0.05))
    asked, decide = [], asyncio.Event()

    @hub.channel("run:{id}")
    async def rule(access: Access, id: int) -> bool:
        if access.action == "cancel":
            asked.append(access.user_id)
            await decide.wait()
        return access.action != "cancel" or access.user_id == "ada"

    async with hub.running(), connect(hub, "bo") as bo, connect(hub, "ada") as ada:
        for client in (bo, ada):
            await client.request("subscribe", {"channel": RUN})
        producer = Producer(hub)
        task = produce(producer.run())
        await settle()
        bo.send("cancel", {"channel": RUN}, "1")
        await settle()
        bo.send("cancel", {"channel": RUN}, "2")  # the app is not asked twice at once
        assert (await bo.expect("cancelled")) == {"channel": RUN}
        decide.set()
        assert (await bo.expect("error"))["code"] == "forbidden"
        assert not task.done()
        assert "id" in await ada.request("cancel", {"channel": RUN})
        await task
        assert asked == ["bo", "ada"]


async def test_a_rule_that_hangs(produce: Produce) -> None:
    hub = make_hub(timeouts=Timeouts(shutdown=0.05, handler=0.01))

    @hub.channel("run:{id}")
    async def rule(access: Access, id: int) -> bool:
        if access.action == "cancel":
            await asyncio.sleep(FOREVER)
        return True

    async with hub.running(), follow(hub) as tab:
        task = produce(Producer(hub).run())
        await tab.read()
        tab.client.send("cancel", {"channel": RUN})
        assert (await tab.client.expect("error"))["code"] == "timeout"
        assert not task.done()


async def test_a_handler_that_streams_is_cancelled_by_the_one_it_answers(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    @hub.on("ask")
    async def ask(conn: Connection) -> str:
        async with hub.stream(RUN) as stream:
            await stream.append("well")
            await asyncio.sleep(FOREVER)
        return "stopped" if stream.cancelled else "done"

    async with follow(hub) as tab:
        tab.client.send("ask", id="1")
        assert await tab.read() == "well"
        tab.client.send("cancel", {"channel": RUN})
        assert await tab.client.expect("ask_response") == "stopped"
        assert (await tab.read(), tab.end) == ("well", "cancelled")
        assert await tab.client.request("echo", 1) == 1
    assert not caplog.records


async def test_last_words(hub: Hub, produce: Produce) -> None:
    async def run() -> None:
        async with hub.stream(RUN) as stream:
            try:
                await asyncio.sleep(FOREVER)
            except asyncio.CancelledError:
                await stream.append("stopped")

    async with follow(hub) as tab:
        task = produce(run())
        await tab.read()
        await tab.client.request("cancel", {"channel": RUN})
        await task
        assert (await tab.read(), tab.end, task.cancelling()) == ("stopped", "cancelled", 0)


async def test_an_error_while_it_is_cancelled_passes(hub: Hub, produce: Produce) -> None:
    async def run() -> None:
        async with hub.stream(RUN):
            try:
                await asyncio.sleep(FOREVER)
            finally:
                raise ValueError("on purpose")

    async with follow(hub) as tab:
        task = produce(run())
        await tab.read()
        await tab.client.request("cancel", {"channel": RUN})
        with pytest.raises(ValueError, match="on purpose"):
            await task
        assert (await tab.read(), tab.end, task.cancelling()) == ("", "error", 0)


@pytest.mark.parametrize("both", [False, True], ids=["from outside", "from both sides"])
async def test_a_cancellation_of_somebody_elses_passes(hub: Hub, produce: Produce, both: bool) -> None:
    async with follow(hub) as tab:
        producer = Producer(hub)
        task = produce(producer.run())
        await tab.read()
        task.cancel()
        if both:
            producer.stream.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not producer.behind
        assert (await tab.read(), tab.end) == ("so far", "cancelled")


async def test_a_timeout_is_the_producers_own(hub: Hub) -> None:
    async with follow(hub) as tab:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001), hub.stream(RUN):
                await asyncio.sleep(FOREVER)
        assert (await tab.read(), tab.end) == ("", "cancelled")


# Pace


async def test_the_producer_waits_for_its_subscribers(hub: Hub, produce: Produce) -> None:
    said = []

    async def run() -> None:
        async with hub.stream(RUN) as stream:
            for number in range(100):
                await stream.append(f"{number:>8000}")
                said.append(number)

    async with follow(hub) as quick, follow(hub) as tab:
        with tab.client.slow():
            task = produce(run())
            await quick.read()
            assert 0 < len(said) < 100
            assert not task.done()
            before = len(said)
            await settle()
            assert len(said) == before
        await task
        for each in (quick, tab):
            assert await each.read() == "".join(f"{number:>8000}" for number in range(100))
            assert each.end == "done"


@pytest.mark.parametrize("stuck", [1, 3])
async def test_nobody_is_waited_for_longer_than_the_patience(stuck: int) -> None:
    hub = make_hub(timeouts=Timeouts(shutdown=0.05), limits=Limits(send_queue=200_000))
    async with hub.running(), follow(hub) as quick:
        listeners = [listener(hub, room=0) for _ in range(stuck)]
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with hub.stream(RUN, patience=0.02) as stream:
            for number in range(100):
                await stream.append(f"{number:>8000}")
                await tick()
        assert 0.02 <= loop.time() - began < 2.0
        assert len(await quick.read()) == 800_000
        assert hub.node.slow_consumers == stuck
        assert {transport.closes[0][0] for _, transport in listeners if transport.closes} <= {CloseCode.SLOW_CONSUMER}


async def test_who_goes_is_not_waited_for(hub: Hub, produce: Produce) -> None:
    async def run() -> None:
        async with hub.stream(RUN, patience=FOREVER) as stream:
            for _ in range(100):
                await stream.append("x" * 8000)

    async with follow(hub) as quick, follow(hub) as tab:
        with tab.client.slow():
            task = produce(run())
            await settle()
            assert not task.done()
            tab.client.drop_link()
            await task
        assert len(await quick.read()) == 800_000


async def test_who_is_closed_as_slow_is_not_waited_for(produce: Produce) -> None:
    hub = make_hub(timeouts=Timeouts(shutdown=0.05), limits=Limits(send_queue=60_000))
    async with hub.running():
        _, transport = listener(hub, room=1000)
        async with asyncio.timeout(5), hub.stream(RUN, patience=FOREVER) as stream:
            first = produce(stream.append("x" * 45_000))
            await settle()
            assert not first.done()
            await stream.append("x" * 45_000)  # one too many
            await first
        assert transport.closes == []  # its goodbye waits behind what it does not read
        transport.take()
        assert [code for code, _ in transport.closes] == [CloseCode.SLOW_CONSUMER]


async def test_two_streams_wait_for_one_client(hub: Hub, produce: Produce) -> None:
    async def run(channel: str) -> None:
        async with hub.stream(channel, patience=FOREVER) as stream:
            for _ in range(20):
                await stream.append("x" * 8000)

    async with connect(hub) as client:
        channels = ("run:1", "run:2", "run:3")
        for channel in channels:
            await client.request("subscribe", {"channel": channel})
        with client.slow():
            tasks = [produce(run(channel)) for channel in channels]
            await settle()
            tasks[0].cancel()
            await settle()
            assert [task.done() for task in tasks] == [True, False, False]
        await asyncio.gather(*tasks[1:])


async def test_a_newcomer_gets_the_whole_once_it_has_read(hub: Hub) -> None:
    connection, transport = open_connection(hub, transport=RecordingTransport(room=0))
    connection.send("big", "x" * 50_000)
    async with hub.stream(RUN, patience=FOREVER) as stream:
        await stream.append("to be ")
        connection.subscribe(RUN)
        await settle()
        await stream.append("or not")
        assert transport.types == []
        transport.take()
        await settle()
        assert transport.types == ["big", "stream"]
        start = transport.payloads("stream")[0]
        assert (start["event"], start["text"]) == ("start", "to be or not")


# The end of everything


async def test_shutdown_ends_producers_and_tells(produce: Produce) -> None:
    hub = make_hub(timeouts=Timeouts(shutdown=0.05))
    ended = []

    async def run(number: int) -> None:
        try:
            async with hub.stream(f"run:{number}"):
                await asyncio.sleep(FOREVER)
        finally:
            ended.append(number)

    async with hub.running(), follow(hub) as tab:
        tasks = [produce(run(number)) for number in range(3)]
        await tab.read()
        await hub.shutdown()
        await tab.client.expect_close(CloseCode.GOING_AWAY)
        assert (await tab.read(), tab.end) == ("", "cancelled")
        assert sorted(ended) == [0, 1, 2]
        assert all(task.cancelled() for task in tasks)


async def test_shutdown_while_a_newcomer_does_not_read(hub: Hub) -> None:
    connection, transport = open_connection(hub, transport=RecordingTransport(room=0))
    connection.send("big", "x" * 50_000)
    async with hub.stream(RUN):
        connection.subscribe(RUN)
        await settle()
        await hub.shutdown()
    assert transport.aborted


async def test_no_stream_begins_while_the_hub_stops(hub: Hub) -> None:
    stream = hub.stream(RUN)
    await hub.shutdown()
    with pytest.raises(UsageError, match="The hub stops"):
        async with stream:
            pass


async def test_a_producer_may_stop_the_hub(hub: Hub) -> None:
    async with follow(hub) as tab:
        async with hub.stream(RUN) as stream:
            await hub.shutdown()
            await stream.append("to nobody")
        await tab.client.expect_close(CloseCode.GOING_AWAY)


async def test_shutdown_while_a_handler_streams(caplog: pytest.LogCaptureFixture) -> None:
    hub = make_hub(timeouts=Timeouts(shutdown=0.05))

    @hub.on("ask")
    async def ask(conn: Connection) -> None:
        async with hub.stream(RUN):
            await asyncio.sleep(FOREVER)

    async with hub.running(), follow(hub) as tab:
        tab.client.send("ask")
        await tab.read()
        await hub.shutdown()
        await tab.client.expect_close(CloseCode.GOING_AWAY)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# All of it at once


class Crowd:
    """Clients of all kinds that come, go, stall and read on, by chance."""

    def __init__(self, hub: Hub, chance: Random) -> None:
        self.hub = hub
        self.chance = chance
        self.clients: list[tuple[Connection, RecordingTransport]] = []
        self.said = ""

    async def produce(self) -> None:
        """One stream behind the other."""
        chance = self.chance
        for _ in range(chance.randint(1, 3)):
            self.said = ""
            async with self.hub.stream(RUN, patience=0.001) as stream:
                for number in range(chance.randint(0, 60)):
                    text = f"{number} ".ljust(chance.choice([0, 5, 3000]))
                    self.said += text
                    await stream.append(text)
                    await tick(chance.choice([0, 0, 1, 5]))

    async def live(self) -> None:
        """Do one thing after the other, then read everything."""
        for _ in range(80):
            self._step()
            await tick(self.chance.randint(0, 4))

    def come(self) -> None:
        """One more subscribes."""
        room, form = self.chance.choice([None, 5000]), self.chance.choice([FRAMES, TEXTS])
        self.clients.append(open_connection(self.hub, transport=RecordingTransport(form, room=room)))
        say(self.clients[-1][0], "subscribe", {"channel": RUN})

    def _step(self) -> None:
        chance = self.chance
        match chance.choice(["come", "subscribe", "unsubscribe", "take", "take", "stall", "abort"]):
            case "come":
                self.come()
            case kind if self.clients:
                connection, transport = chance.choice(self.clients)
                if kind == "take":
                    transport.take(room=chance.choice([None, 3000]))
                elif kind == "abort":
                    transport.abort()
                elif kind != "stall":
                    say(connection, kind, {"channel": RUN})
                elif not transport.paused and connection.is_open:
                    transport.pause()

    async def catch_up(self) -> None:
        """Let everybody read all there is."""
        for _ in range(5):
            for _, transport in self.clients:
                transport.take()
            await settle()


def heard(messages: list[Json]) -> str:
    """The text that a client has in the end; whatever it was told must fit."""
    id, text, position = None, "", 0
    for payload in (message["payload"] for message in messages if message["type"] == "stream"):
        if payload["event"] == "start":
            id, text = payload["id"], ""
        else:
            assert (payload["id"], payload["position"]) == (id, position + 1)
        text, position = text + payload.get("text", ""), payload["position"]
    return text


@pytest.mark.parametrize("history", [0, 3])
@pytest.mark.parametrize("seed", range(10))
async def test_whoever_stays_has_heard_all(seed: int, history: int) -> None:
    hub = Hub(timeouts=Timeouts(shutdown=0.05), limits=Limits(send_queue=100_000))
    hub.namespace("run", history=history)
    async with hub.running():
        crowd = Crowd(hub, Random(seed))
        await asyncio.gather(crowd.produce(), crowd.live())
        crowd.come()
        await crowd.catch_up()
        told = [(connection, heard(transport.messages)) for connection, transport in crowd.clients]
        stayed = [text for connection, text in told if RUN in connection.channels]
    assert stayed == [crowd.said] * len(stayed)
