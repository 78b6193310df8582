"""Two nodes that are processes, over a real broker: what holds for one holds for both, whatever breaks between."""

from __future__ import annotations

import asyncio
import json
import re
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from itertools import count, cycle
from typing import Any

import jwt
import pytest
import pytest_asyncio
import redis
from websockets.exceptions import ConnectionClosed

from hubbub.errors import CloseCode
from tests.integration.node_client import Client, client, clients
from tests.integration.nodes_app import LIMITED
from tests.nodes import BROKERS, SECRET, BrokerProcesses, NatsProcesses, NodeProcess, running_nodes
from tests.serving import RawClient, RunningServer, fetch, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

APP = "tests.integration.nodes_app:app"
PULSE, TTL = 2.5, 10.0
"""Seconds between a node's signs of life, and for which it is believed."""
SOON, OFTEN = 2.5, 10.0
"""Seconds in which the head of a channel is looked at again that has a first subscriber, and then, always."""
ANSWERED = 20.0
"""Seconds in which all who publish to a broker that is away know that it is."""
MARK = b"nobody hears this at once"
numbers = count()


class Loss:
    """Loses the first message that tells a node of a publication with the mark in it."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, data: bytes) -> bytes:
        at = data.find(MARK)
        found = None if at < 0 or self.count else (_nats_frame(data, at) or _redis_frame(data, at))
        if found is None:
            return data
        self.count += 1
        return data[: found[0]] + data[found[1] :]


@dataclass
class Pair:
    """Two nodes and their broker."""

    broker: BrokerProcesses
    nodes: list[NodeProcess]
    loss: Loss

    @property
    def here(self) -> NodeProcess:
        """One of them."""
        return self.nodes[0]

    @property
    def there(self) -> NodeProcess:
        """The other."""
        return self.nodes[1]


def _nats_frame(data: bytes, at: int) -> tuple[int, int] | None:
    found = None
    for head in re.finditer(rb"HMSG \S+\.out\.\S+ \d+ \d+ (\d+)\r\n", data):
        if head.end() <= at < head.end() + int(head[1]):
            found = head.start(), head.end() + int(head[1]) + 2
    return found if found is not None and found[1] <= len(data) else None


def _redis_frame(data: bytes, at: int) -> tuple[int, int] | None:
    start = data.rfind(b"*3\r\n$7\r\nmessage\r\n", 0, at)
    if start < 0:
        return None
    end = start + 17
    for _ in range(2):
        size = re.compile(rb"\$(\d+)\r\n").match(data, end)
        if size is None:
            return None
        end = size.end() + int(size[1]) + 2
    return (start, end) if at < end <= len(data) else None


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["nats", pytest.param("redis", marks=pytest.mark.full)]
)
async def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    loss, data = Loss(), tmp_path_factory.mktemp("nodes")
    with BROKERS[request.param]() as broker:
        async with running_nodes(broker, 2, APP, data, edit=lambda: loss) as nodes:
            yield Pair(broker, nodes, loss)


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def together(pair: Pair) -> None:
    """Begin when each node knows the other; one that a failed test left behind is started."""
    for node in pair.nodes:
        if not node.running:
            await node.kill()
            await node.start()
    async with clients((pair.here, None), (pair.there, None)) as both:
        await eventually(lambda: all_know(both), 2 * TTL)


async def all_know(clients: list[Client]) -> bool:
    return all([(await each.get("stats"))["nodes"] == 2 for each in clients])


async def eventually(true: Any, seconds: float) -> float:
    """Ask until it is so; how long that took."""
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        while not await true():  # noqa: ASYNC110  # it happens in other processes
            await asyncio.sleep(0.05)
    return time.monotonic() - began


def fresh(kind: str) -> str:
    """A name that nobody has used."""
    return f"{kind}:{next(numbers)}"


async def listening(at: Client, channel: str, since: Any = None) -> Any:
    """Subscribe; the answer."""
    return await at.get("subscribe", {"channel": channel, "since": since})


# Whoever is connected elsewhere


async def test_a_user_is_found_wherever_it_is(pair: Pair) -> None:
    async with clients((pair.here, "ann"), (pair.there, "ann"), (pair.there, "bob")) as (here, there, bob):
        assert await bob.get("is_connected", "ann") is True
        assert await here.get("is_connected", "bob") is True
        assert await here.get("is_connected", "nobody") is False
        assert await here.get("count", "ann") == await bob.get("count", "ann") == 2
        assert await here.get("tell_user", "bob") == 1
        await bob.heard("told")
        await here.ask("tell_all")
        assert (await bob.heard(lambda message: message.get("payload") == "all"))["type"] == "told"
        await there.leave()
        await eventually(lambda: counted(bob, "ann", 1), 5)


async def counted(at: Client, user: str, wanted: int) -> bool:
    return bool(await at.get("count", user) == wanted)


async def test_what_is_revoked_is_closed_on_all_nodes(pair: Pair) -> None:
    """Row A10."""
    now = int(time.time())
    token = jwt.encode({"sub": "rita", "iat": now - 1, "exp": now + 600}, SECRET, "HS256")
    async with (
        client(pair.here, token=token) as near,
        client(pair.there, token=token) as far,
        client(pair.here, "admin") as admin,
    ):
        began = time.monotonic()
        assert await admin.get("revoke", "rita") == 2
        assert {await near.closed(), await far.closed()} == {CloseCode.UNAUTHORIZED}
        assert time.monotonic() - began < 2.0
        async with RawClient.open(RunningServer(pair.there.port)) as late:
            headers = [("Authorization", f"Bearer {token}")]
            await late.handshake(RunningServer(pair.there.port), headers=headers)
            if late.answer.status == 101:
                assert (await late.recv_close()).code == CloseCode.UNAUTHORIZED


async def test_a_token_that_expires_ends_what_was_not_refreshed(pair: Pair) -> None:
    """Row A10."""
    end = int(time.time()) + 2
    short, long = (jwt.encode({"sub": "eva", "exp": each}, SECRET, "HS256") for each in (end, end + 600))
    async with (
        client(pair.here, token=short) as near,
        client(pair.there, token=short) as far,
        client(pair.there, token=short) as refreshed,
    ):
        await refreshed.get("authenticate", {"token": long})
        assert {await near.closed(), await far.closed()} == {CloseCode.TOKEN_EXPIRED}
        assert end <= time.time() < end + 5.0
        assert await refreshed.get("count", "eva") == 1


async def test_a_key_on_two_nodes_is_one_publication(pair: Pair) -> None:
    """Row L6."""
    channel = fresh("room")
    async with clients((pair.here, "kim"), (pair.there, "kim"), (pair.there, None)) as (here, there, listener):
        await listening(listener, channel)
        for number in range(20):
            payload = {"channel": channel, "data": number, "key": f"key-{number}"}
            one, other = await asyncio.gather(here.get("publish", payload), there.get("publish", payload))
            assert (one["offset"], one["epoch"]) == (other["offset"], other["epoch"])
        await listener.heard(lambda message: message["type"] == "message" and message["payload"]["data"] == 19)
        assert listener.data(channel) == list(range(20))


async def test_a_limit_holds_across_reconnects_and_nodes(pair: Pair) -> None:
    """Row L4: what a user did on one node, the other has heard of within a second or two."""
    user, allowed = fresh("user"), []
    for node in (pair.here, pair.there, pair.here):
        some = 0
        for _ in range(3):
            async with client(node, user) as one:
                some += [(await one.ask("limited"))["type"] for _ in range(4)].count("allowed")
        allowed.append(some)
        async with clients((pair.here, None), (pair.there, None)) as both:
            await eventually(lambda both=both: all_true(both, "must_wait", user), 5)
    assert allowed == [LIMITED.most, 0, 0]


async def all_true(clients: list[Client], type: str, payload: Any) -> bool:
    return all([await each.get(type, payload) for each in clients])


async def test_presence_that_does_not_change_costs_little(pair: Pair) -> None:
    """2,000 members, and as many messages between nodes as there are nodes and signs of life."""
    channels = [fresh("here") for _ in range(20)]
    async with clients(*((pair.nodes[number % 2], f"member-{number}") for number in range(100))) as members:
        for member in members:
            for channel in channels:
                await member.send("subscribe", {"channel": channel})
        await asyncio.gather(*(presents(member, channels, 100) for member in members[:2]))
        await settled(pair)
        before, began = said(pair.broker), time.monotonic()
        await eventually(lambda: passed(began, 2 * PULSE), 3 * PULSE)
        assert said(pair.broker) - before <= 2 * 2 * 3 + SLACK


SLACK = 8
"""Pings of the connections, and the question itself."""


async def presents(at: Client, channels: list[str], wanted: int) -> None:
    for channel in channels:
        await eventually(lambda channel=channel: so_many(at, channel, wanted), 30)


async def so_many(at: Client, channel: str, wanted: int) -> bool:
    return len(await at.get("who", channel)) == wanted


async def settled(pair: Pair) -> None:
    """Wait until what was begun is over: a second in which hardly anything is said."""

    async def quiet() -> bool:
        before, began = said(pair.broker), time.monotonic()
        await eventually(lambda: passed(began, 1.0), 5)
        return said(pair.broker) - before <= SLACK

    await eventually(quiet, 30)


async def passed(began: float, seconds: float) -> bool:
    return time.monotonic() - began > seconds


def said(broker: BrokerProcesses) -> int:
    """How much the broker was told so far, by anybody."""
    if isinstance(broker, NatsProcesses):
        with urllib.request.urlopen(f"http://127.0.0.1:{broker.monitors[0]}/varz") as answer:
            return int(json.load(answer)["in_msgs"])
    with redis.Redis(port=broker.ports[0], protocol=2) as server:
        found: Any = server.info("stats")
        return int(found["total_commands_processed"])


# Nodes that go


async def flood(at: Client, channel: str, acked: dict[int, int]) -> None:
    """Publish until the end."""
    with suppress(ConnectionClosed):
        for number in count():
            answer = await at.ask("publish", {"channel": channel, "data": number, "key": str(number)})
            if answer["type"] == "published":
                acked[number] = answer["payload"]["offset"]


async def remembered(at: Client, channel: str, since: Any) -> dict[int, int]:
    """All that a channel remembers: offsets by what was published."""
    found: dict[int, int] = {}
    while True:
        page = await at.get("history", {"channel": channel, "since": since, "limit": 300})
        if not page["publications"]:
            return found
        found |= {each["data"]: each["offset"] for each in page["publications"]}
        since = {"offset": page["publications"][-1]["offset"], "epoch": page["epoch"]}


async def test_a_node_that_is_told_to_stop_loses_nothing(pair: Pair) -> None:
    """Row X2, with a drain."""
    channels = [fresh("room") for _ in range(4)]
    await pair.here.kill()
    await pair.here.start("--drain-time", "2")
    acked: list[dict[int, int]] = [{} for _ in channels]
    async with client(pair.there) as other, clients(*((pair.here, f"flood-{number}") for number in range(4))) as some:
        starts = [await listening(other, channel) for channel in channels]
        work = [asyncio.create_task(flood(*each)) for each in zip(some, channels, acked, strict=True)]
        await until(lambda: min(map(len, acked)) > 50, 20)
        async with RawClient.open(RunningServer(pair.here.port)) as probe:
            assert (await health(probe, "readyz"))[0] == 200
            began = time.monotonic()
            pair.here.terminate()
            for each in some:
                await each.heard("reconnect")
            status, found = await health(probe, "readyz")
            assert (status, found["draining"], found["broker"]) == (503, True, True)
            assert (await health(probe, "healthz"))[0] == 200
        with pytest.raises(OSError, match=r"."):
            await asyncio.open_connection("127.0.0.1", pair.here.port)
        await asyncio.gather(*work)
        assert {await each.closed() for each in some} == {CloseCode.SERVICE_RESTART}
        assert await pair.here.ended(12.0) == 0
        assert time.monotonic() - began < 12.0
        for channel, start, mine in zip(channels, starts, acked, strict=True):
            place = {"offset": start["offset"], "epoch": start["epoch"]}
            kept = await remembered(other, channel, place)
            assert mine.items() <= kept.items()
            last = max(kept)
            await other.heard(lambda message, channel=channel, last=last: is_at(message, channel, last))
            assert other.data(channel) == sorted(kept)
    await pair.here.kill()
    await pair.here.start()


async def health(probe: RawClient, name: str) -> tuple[int, Any]:
    """Ask a node how it is, on a connection that it has already."""
    probe.write(f"GET /ws/{name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    answer = await probe.recv_answer()
    return answer.status, json.loads(answer.body)


def is_at(message: Any, channel: str, data: Any) -> bool:
    return bool(
        message["type"] == "message" and message["payload"]["channel"] == channel and message["payload"]["data"] == data
    )


async def test_a_second_signal_ends_a_drain_at_once(pair: Pair) -> None:
    """Row X3."""
    channel = fresh("room")
    async with clients((pair.here, "x3"), (pair.there, "x3")) as (near, far):
        start = await listening(far, channel)
        place = await near.get("publish", {"channel": channel, "data": 1})
        pair.here.terminate()
        await near.heard("reconnect")
        began = time.monotonic()
        pair.here.terminate()
        assert await pair.here.ended(5.0) == 128 + 15
        assert time.monotonic() - began < 5.0
        await pair.here.kill()
        await pair.here.start()
        async with client(pair.here, "x3") as again:
            assert await remembered(again, channel, {"offset": start["offset"], "epoch": start["epoch"]}) == {
                1: place["offset"]
            }


async def test_a_node_that_dies_leaves_nobody_behind(pair: Pair) -> None:
    channel = fresh("here")
    async with clients((pair.here, "mortal"), (pair.there, "witness")) as (mortal, witness):
        await listening(witness, channel)
        await listening(mortal, channel)
        await eventually(lambda: present(witness, channel, ["mortal", "witness"]), 5)
        await pair.here.kill()
        await eventually(lambda: present(witness, channel, ["witness"]), TTL + 2 * PULSE)
        await witness.heard("presence_leave")
        assert await witness.get("is_connected", "mortal") is False
        left = [message["payload"] for message in witness.messages if message["type"] == "presence_leave"]
        assert [[member["userId"] for member in each["members"]] for each in left] == [["mortal"]]
    await pair.here.start()


async def present(at: Client, channel: str, wanted: list[str]) -> bool:
    return bool(await at.get("who", channel) == wanted)


@pytest.mark.parametrize(("seconds", "many"), [(0.0, 50), pytest.param(60.0, 1000, marks=pytest.mark.full)])
async def test_a_node_that_stood_still_comes_back(pair: Pair, seconds: float, many: int) -> None:
    """Row X17."""
    room, here, name = fresh("room"), fresh("here"), fresh("claim")
    async with clients((pair.here, "still"), (pair.there, "awake")) as (still, awake):
        for each in (still, awake):
            await listening(each, room)
            await listening(each, here)
        await eventually(lambda: present(awake, here, ["awake", "still"]), 5)
        assert await still.get("claim", name)
        assert not await awake.get("claim", name)
        began = time.monotonic()
        pair.here.stop()
        for number in range(many):
            await awake.get("publish", {"channel": room, "data": number})
        await eventually(lambda: present(awake, here, ["awake"]), TTL + 2 * PULSE)
        assert await awake.get("claim", name)
        await eventually(lambda: passed(began, seconds), seconds + 1.0)
        pair.here.wake()
        await still.heard(lambda message: is_at(message, room, many - 1))
        assert still.data(room) == awake.data(room) == list(range(many))
        await awake.get("claim", name)
        assert not await still.get("claim", name)
        await eventually(lambda: present(awake, here, ["awake", "still"]), TTL)
        await eventually(lambda: present(still, here, ["awake", "still"]), TTL)
        assert await still.get("count", "awake") == 1


# The broker goes


@pytest.mark.parametrize(("seconds", "many"), [(3.0, 6), pytest.param(30.0, 24, marks=pytest.mark.full)])
async def test_nothing_is_acknowledged_that_a_dead_broker_does_not_have(pair: Pair, seconds: float, many: int) -> None:
    """Row X6."""
    room, live = fresh("room"), fresh("live")
    async with AsyncExitStack() as stack:
        near, far, watcher = await stack.enter_async_context(
            clients((pair.here, "x6"), (pair.there, "x6"), (pair.here, "x6-watcher"))
        )
        start = await listening(watcher, room)
        await listening(watcher, live)
        await near.get("publish", {"channel": room, "data": 0})
        pair.broker.kill(0)
        stack.callback(pair.broker.start)
        began = time.monotonic()
        first = publishing([near, far], room, range(1, many + 1))
        told = await near.ask("publish", {"channel": live, "data": "live"})
        if told["type"] == "error":
            assert told["payload"]["code"] == "unavailable"
        else:
            await watcher.heard(lambda message: is_at(message, live, "live"))
        await eventually(lambda: is_told(pair.here, "readyz", 503), 10)
        assert await is_told(pair.here, "healthz", 200)
        await eventually(lambda: passed(began, seconds), seconds + 1)
        assert all(task.done() for task in first) or seconds < ANSWERED
        assert not [task for task in first if task.done() and task.result()["type"] == "published"]
        second = publishing([near, far], room, range(many + 1, many + 7))
        pair.broker.start()
        answers = await asyncio.gather(*first, *second)
        acked = {
            number: answer["payload"]["offset"]
            for number, answer in enumerate(answers, 1)
            if answer["type"] == "published"
        }
        assert {answer["payload"]["code"] for answer in answers if answer["type"] == "error"} <= {"unavailable"}
        last = await published(far, room, -1)
        await eventually(lambda: is_told(pair.here, "readyz", 200), 10)
        if watcher.ended.is_set():
            assert watcher.socket.close_code == CloseCode.RESYNC
        else:
            await watcher.heard(lambda message: is_at(message, room, -1))
            kept = await remembered(far, room, {"offset": start["offset"], "epoch": start["epoch"]})
            assert acked.items() <= kept.items()
            assert kept[-1] == last
            assert watcher.data(room) == sorted(kept, key=kept.__getitem__)


def publishing(at: list[Client], channel: str, numbers: range) -> list[asyncio.Task[Any]]:
    """Publish all at once, in turns at each of them."""
    return [
        asyncio.create_task(one.ask("publish", {"channel": channel, "data": number, "key": str(number)}))
        for number, one in zip(numbers, cycle(at), strict=False)
    ]


async def is_told(node: NodeProcess, name: str, status: int) -> bool:
    return (await fetch(RunningServer(node.port), f"/ws/{name}")).status == status


async def published(at: Client, channel: str, data: Any) -> int:
    """Publish until it is acknowledged; the offset."""
    while (answer := await at.ask("publish", {"channel": channel, "data": data, "key": f"k{data}"}))["type"] == "error":
        assert answer["payload"]["code"] == "unavailable", answer
        await asyncio.sleep(0.1)
    return int(answer["payload"]["offset"])


async def test_a_node_that_is_cut_off_comes_back(pair: Pair) -> None:
    """Row X7: who is cut off sees the same order later, and is gone for the others meanwhile."""
    room, here = fresh("room"), fresh("here")
    async with clients((pair.here, "cut"), (pair.there, "whole")) as (cut, whole):
        for each in (cut, whole):
            await listening(each, room)
            await listening(each, here)
        await eventually(lambda: present(whole, here, ["cut", "whole"]), 5)
        pair.here.cable.cut()
        refused = asyncio.create_task(cut.ask("publish", {"channel": room, "data": "refused"}))
        for number in range(50):
            await whole.get("publish", {"channel": room, "data": number})
        assert (await refused)["payload"]["code"] == "unavailable"
        await eventually(lambda: present(whole, here, ["whole"]), TTL + 2 * PULSE)
        pair.here.cable.heal()
        await cut.heard(lambda message: is_at(message, room, 49))
        await published(cut, room, "healed")
        await whole.heard(lambda message: is_at(message, room, "healed"))
        await cut.heard(lambda message: is_at(message, room, "healed"))
        assert cut.data(room) == whole.data(room) == [*range(50), "healed"]
        await eventually(lambda: present(whole, here, ["cut", "whole"]), TTL)
        await eventually(lambda: present(cut, here, ["cut", "whole"]), TTL)


async def test_a_message_that_was_lost_on_the_way_is_found(pair: Pair) -> None:
    """Row X8: nothing comes behind it that would show the gap."""
    room = fresh("room")
    async with clients((pair.here, None), (pair.there, "x8")) as (listener, publisher):
        await listening(listener, room)
        await publisher.get("publish", {"channel": room, "data": "first"})
        await listener.heard(lambda message: is_at(message, room, "first"))
        began = time.monotonic()
        await eventually(lambda: passed(began, SOON), OFTEN)
        began, pair.loss.count = time.monotonic(), 0
        await publisher.get("publish", {"channel": room, "data": MARK.decode()})
        await listener.heard(lambda message: is_at(message, room, MARK.decode()), OFTEN + 5)
        assert pair.loss.count == 1
        assert time.monotonic() - began < OFTEN + 2
        assert listener.data(room) == ["first", MARK.decode()]
