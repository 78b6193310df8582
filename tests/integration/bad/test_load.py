"""L1-L3, L5, L6, L8: readers that stop, subscriptions and requests without measure, one key twice, and crowds."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from hubbub.core.limits import Limits
from hubbub.node.presence import BEATS, MOST_ASKED
from tests.core.wire import frame
from tests.integration.bad.app import NARROW
from tests.integration.bad.conftest import LATENCY, Target
from tests.serving import DEADLINE, RawClient

MEBIBYTE = 1024
ZERO = bytes(4)
PATIENCE = 3 * DEADLINE
END = "the end"

KEYS = {"latest:l1": 10}
DROPS = ("oldest:l1", "latest:l1")
LAST = '"last"'
RATES = {"native": (10_000, 450), "asgi": (2500, 1800)}  # and bytes: a server's own WebSockets are not that fast
SECONDS = 2
CROWD, STALLED = 1000, 500
SUBSCRIBES = 100_000
LOOPS = 10_000
REQUESTS = 10_000
RACES = 50
MEMBERS, TURNS = 900, 6


def message(type: str, payload: Any, **more: Any) -> bytes:
    """The frame of a message."""
    return frame(0x81, json.dumps({"type": type, "payload": payload, **more}).encode(), mask=ZERO)


def end() -> bytes:
    """What is answered behind everything that was asked before."""
    return message("echo", END)


async def bytes_to(client: RawClient, mark: str) -> bytes:
    """All that comes until `mark` is in it, and what came at once with that."""
    data, wanted = bytearray(), mark.encode()
    async with asyncio.timeout(PATIENCE):
        while wanted not in data[-200:] and wanted not in data:
            part = await client.reader.read(1 << 20)
            assert part, data[-200:]
            data += part
    return bytes(data)


async def read_to(client: RawClient, mark: str) -> list[Any]:
    """All messages until one that has `mark` in its last bytes."""
    return list(messages(await bytes_to(client, mark)))


def messages(data: bytes) -> Iterable[Any]:
    """What whole text frames say."""
    at = 0
    while at < len(data):
        assert data[at] == 0x81, data[at : at + 100]
        form, at = data[at + 1], at + 2
        more = {126: 2, 127: 8}.get(form, 0)
        length, at = int.from_bytes(data[at : at + more], "big") if more else form, at + more
        yield json.loads(data[at : at + length])
        at += length


def of_type(type: str, found: Iterable[Any]) -> list[Any]:
    """The payloads of the messages of one type."""
    return [each["payload"] for each in found if each["type"] == type]


def stop_reading(client: RawClient) -> None:
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # an asyncio transport can


def read_again(client: RawClient) -> None:
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]


async def subscribe(client: RawClient, channel: str) -> Any:
    """Subscribe; the payload of the answer."""
    client.send_json("subscribe", {"channel": channel})
    return await client.recv_json("subscribed")


# --- L1, L2: readers that stop ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", ["l1", "room:l1", "oldest:l1", "latest:l1"])
@pytest.mark.parametrize("door", ["native", "asgi"])
async def test_l1_one_reader_stops_at_10k_messages_a_second(target: Target, door: str, channel: str) -> None:
    rate, size = RATES[door]
    count = rate * SECONDS
    async with (
        RawClient.join(target, "/channels") as stalled,
        RawClient.join(target, "/channels") as other,
        RawClient.join(target, "/channels") as publisher,
    ):
        for client in (stalled, other):
            await subscribe(client, channel)
        stop_reading(stalled)
        target.forget_peak()
        before = target.memory()
        flood = {"channel": channel, "count": count, "size": size, "rate": rate, "keys": KEYS.get(channel, count)}
        publisher.send_json("flood", flood)
        received = await read_to(other, LAST)
        assert target.memory("VmHWM") - before < 8 * MEBIBYTE  # one queue, the history, and what is on its way
        if channel in KEYS:
            whole(received, count + 1)
        else:
            events = [each["event"] for each in of_type("message", received)]
            assert events == [*(str(number) for number in range(count)), "last"]
        read_again(stalled)
        if channel in DROPS:
            found = await read_to(stalled, LAST)
            assert of_type("skipped", found)
            whole(found, count + 1)
            await stalled.leave()
        else:
            goodbye = b"\x0f\xa2read too slowly"
            assert (await bytes_to(stalled, "read too slowly")).endswith(goodbye)
            stalled.send_frame(8, goodbye[:2])
            await stalled.expect_end()
        await other.leave()


def whole(found: list[Any], count: int) -> None:
    """What was sent, and what is said to be left out, is all there was."""
    assert len(of_type("message", found)) + sum(each["count"] for each in of_type("skipped", found)) == count


@pytest.mark.parametrize("channel", ["l2", "oldest:l2"])
async def test_l2_half_of_a_crowd_stops_reading(target: Target, channel: str) -> None:
    count, size = 100, 8000
    target.latency = 2 * LATENCY  # 500 readers in this process are as much work as the server's, on the same cores
    async with AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(RawClient.join(target, "/narrow")) for _ in range(CROWD)]
        publisher = await stack.enter_async_context(RawClient.join(target, "/narrow"))
        for client in crowd:
            await subscribe(client, channel)
        for client in crowd[:STALLED]:
            client.send_json("narrow")
            stop_reading(client)
        slow = (await target.state())["hubs"]["/narrow"]
        target.forget_peak()
        before = target.memory()
        publisher.send_json("flood", {"channel": channel, "count": count, "size": size, "rate": 15})
        for data in await asyncio.gather(*(bytes_to(client, LAST) for client in crowd[STALLED:])):
            assert [each["event"] for each in of_type("message", messages(data))] == [*map(str, range(count)), "last"]
        state = (await target.state())["hubs"]["/narrow"]
        assert target.memory("VmHWM") - before <= STALLED * NARROW.send_queue // 1024
        if channel == "l2":
            assert state["slowConsumers"] == slow["slowConsumers"] + STALLED
        else:
            assert state["connections"] == CROWD + 1
            assert state["droppedPublications"] >= slow["droppedPublications"] + STALLED


# --- L3: subscriptions without measure -------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "count"), [("l3", SUBSCRIBES), ("room:l3", SUBSCRIBES // 10)])
async def test_l3_so_many_channels_and_no_more(target: Target, kind: str, count: int) -> None:
    most = Limits().channels
    channels = (await target.state())["hubs"]["/channels"]["channels"]
    async with RawClient.join(target, "/channels") as client:
        for number in range(count):
            client.write(message("subscribe", {"channel": f"{kind}-{number}"}))
        client.write(end())
        found = await read_to(client, END)
        assert [each["channel"] for each in of_type("subscribed", found)] == [f"{kind}-{n}" for n in range(most)]
        assert [each["code"] for each in of_type("error", found)] == ["channel_limit"] * (count - most)
        assert (await target.state())["hubs"]["/channels"]["channels"] == channels + most
        client.write(message("unsubscribe", {"channel": f"{kind}-0"}))
        await client.recv_json("unsubscribed")
        await subscribe(client, f"{kind}-{most}")
        await client.leave()


@pytest.mark.parametrize("kind", ["l3", "room:l3", "lounge:l3"])
async def test_l3_on_and_off_again(target: Target, kind: str) -> None:
    channels = (await target.state())["hubs"]["/channels"]["channels"]
    async with RawClient.join(target, "/channels") as client:
        for number in range(LOOPS):
            for type in ("subscribe", "unsubscribe"):
                client.write(message(type, {"channel": f"{kind}-{number}"}))
        client.write(end())
        found = await read_to(client, END)
        assert len(of_type("subscribed", found)) == len(of_type("unsubscribed", found)) == LOOPS
        assert (await target.state())["hubs"]["/channels"]["channels"] == channels
        await client.leave()


# --- L5: requests that take their time -------------------------------------------------------------------------------


@pytest.mark.parametrize("door", ["native", "asgi"])
async def test_l5_slow_requests_wait_with_their_client(target: Target) -> None:
    async with RawClient.join(target, "/quick") as client:
        before = (await target.counts())["tasks"]
        for number in range(REQUESTS):
            client.write(message("hang", "x" * 1000, id=str(number)))
        with pytest.raises(TimeoutError):  # nobody reads it
            async with asyncio.timeout(1):
                await client.writer.drain()
        assert client.writer.transport.get_write_buffer_size() > REQUESTS * 100
        assert (await target.counts())["tasks"] <= before + Limits().in_flight + 2


# --- L6: one key twice -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", ["room:l6", "doc:6"])
async def test_l6_one_key_twice_is_one_publication(target: Target, channel: str) -> None:
    async with (
        RawClient.join(target, "/channels") as one,
        RawClient.join(target, "/channels") as two,
        RawClient.join(target, "/channels") as reader,
    ):
        for client in (one, two):
            client.send_json("sign_in", "l6")
        for client in (one, two, reader):
            client.send_json("subscribe", {"channel": channel})
        for number in range(RACES):
            for client in (one, two, one):  # two connections, and twice on one of them
                client.write(message("publish", {"channel": channel, "data": number, "key": f"l6-{number}"}))
        places: list[set[tuple[int, str]]] = [set() for _ in range(RACES)]
        for client, times in ((one, 2), (two, 1)):
            client.write(end())
            published = of_type("published", await read_to(client, END))
            assert len(published) == times * RACES
            for index, each in enumerate(published):
                places[index // times].add((each["offset"], each["epoch"]))
        reader.write(end())
        received = of_type("message", await read_to(reader, END))
        assert [each["data"] for each in received] == [*range(RACES)]
        assert [{each["offset"]} for each in received] == [{offset for offset, _ in found} for found in places]
        assert {len(found) for found in places} == {1}
        for client in (one, two, reader):
            await client.leave()


# --- L8: a crowd that comes and goes ---------------------------------------------------------------------------------


async def test_l8_five_thousand_joins_in_a_second_are_few_messages(target: Target) -> None:
    channel = "lounge:l8"
    async with AsyncExitStack() as stack:
        watcher = await stack.enter_async_context(RawClient.join(target, "/channels"))
        members = [await stack.enter_async_context(RawClient.join(target, "/channels")) for _ in range(MEMBERS)]
        await subscribe(watcher, channel)
        joining = message("subscribe", {"channel": channel})
        storm = (joining + message("unsubscribe", {"channel": channel})) * (TURNS - 1) + joining + end()
        started = time.monotonic()
        for client in members:
            client.write(storm)
        await asyncio.gather(*(bytes_to(client, END) for client in members))
        took = time.monotonic() - started
        found = await until_count(watcher, MEMBERS + 1)
        assert len(found) <= 3 * (BEATS * (took + 1) + 2)
        assert await who_is_there(watcher, channel) == {client.id for client in (watcher, *members)}
        for client in members[::2]:
            client.cut()
        rest = members[1::2]
        await until_count(watcher, len(rest) + 1)
        assert await who_is_there(watcher, channel) == {client.id for client in (watcher, *rest)}


async def until_count(client: RawClient, count: int) -> list[Any]:
    """All pushes of who came and went, until there are so many."""
    found = [await client.recv_json()]
    while found[-1]["payload"]["count"] != count:
        found.append(await client.recv_json())
    assert {each["type"] for each in found} <= {"presence_join", "presence_leave", "presence_update"}
    return found


async def who_is_there(client: RawClient, channel: str) -> set[str]:
    client.send_json("presence", {"channel": channel, "limit": MOST_ASKED})
    while (answer := await client.recv_json())["type"] != "presence":
        pass
    ids = {member["connectionId"] for member in answer["payload"]["members"]}
    assert len(ids) == answer["payload"]["count"] == len(answer["payload"]["members"])
    return ids
