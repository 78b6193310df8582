"""NATS when things go wrong: servers that die, stand still or forget, strangers that write to them."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from hubbub.brokers.nats import NatsBroker, link
from hubbub.brokers.nats.address import parse_address
from hubbub.brokers.nats.subjects import token
from hubbub.core.namespaces import Namespace, Namespaces
from hubbub.core.recovery import Position
from hubbub.errors import ConfigError, StoreError, StoreUnavailable
from services.nats import Nats
from tests.contract.node import KEPT, LIVE, NAMESPACES, ROOMS, Node, bodies
from tests.servers.places import certificate
from tests.serving import until

LONG = Namespace("long", history=2000, history_ttl=60.0)
ALL = [*NAMESPACES, LONG]
numbers = itertools.count()

Open = Callable[..., Awaitable[tuple[Node, NatsBroker]]]


@pytest.fixture(scope="module")
def shared() -> Iterator[Nats]:
    with Nats() as servers:
        yield servers


@pytest.fixture
def url(shared: Nats) -> str:
    return f"{shared.url}?name=n{next(numbers)}"


@pytest.fixture
async def connect() -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def connect(url: str, namespaces: Any = ALL) -> tuple[Node, NatsBroker]:
            broker = NatsBroker(url)
            node = Node(broker)
            await broker.open(namespaces)
            stack.push_async_callback(broker.close)
            return node, broker

        yield connect


@asynccontextmanager
async def stranger(servers: Nats) -> AsyncIterator[Client]:
    client = await nats.connect(servers.servers[0].url)
    yield client
    await client.close()


async def ask(client: Client, name: str, body: object = None) -> dict[str, Any]:
    data = b"" if body is None else json.dumps(body).encode()
    answer: dict[str, Any] = json.loads((await client.request(f"$JS.API.{name}", data, timeout=5)).data)
    return answer


async def delete_streams(client: Client, app: str) -> None:
    for name in (await ask(client, "STREAM.NAMES", {"subject": f"{app}.in.>"}))["streams"]:
        await ask(client, f"STREAM.DELETE.{name}")


async def publish_through(node: Node, first: int, many: int, channel: str = "long:1") -> list[int]:
    """Publish numbers one after the other, again and again if need be; what was acknowledged."""
    for number in range(first, first + many):
        async with asyncio.timeout(40):
            while True:
                with suppress(StoreUnavailable):
                    await node.publish(channel, number, namespace=LONG, key=str(number))
                    break
    return list(range(first, first + many))


def heard(node: Node, channel: str = "long:1") -> list[int]:
    return [int(data) for data in node.ear.data(channel)]


# Servers that fail


async def test_a_killed_server_loses_nothing_that_it_acknowledged(connect: Open) -> None:
    with Nats() as servers:
        one, _ = await connect(servers.url)
        two, broker = await connect(servers.url)
        await two.broker.subscribe(LONG, "long:1")
        await two.broker.subscribe(LIVE, "live:1")
        await two.broker.follow("t")
        await publish_through(one, 0, 50)
        publishing = asyncio.create_task(publish_through(one, 50, 150))
        await two.ear.until(lambda: len(heard(two)) > 60)
        await asyncio.to_thread(servers.kill)
        assert not await healthy(broker, until=False)
        with pytest.raises(StoreError):
            await one.broker.tell("t", b"")
        await asyncio.to_thread(servers.start)
        await publishing
        await two.ear.until(lambda: 199 in heard(two))

        assert heard(two) == list(range(200))
        assert two.ear.broke == []
        assert two.ear.resumptions == 1
        assert await healthy(broker, until=True)
        await one.publish("live:1", 1, namespace=LIVE)
        assert await one.broker.tell("t", b"x") == 1
        await two.ear.until(lambda: bool(two.ear.words) and bool(two.ear.data("live:1")))
        first = await one.publish("long:1", 0, namespace=LONG, key="0")
        assert first.offset == two.ear.heard[0][1].offset


async def healthy(broker: NatsBroker, *, until: bool) -> bool:
    """Wait for it."""
    async with asyncio.timeout(20):
        while broker.healthy is not until:
            with suppress(StoreError):
                await broker.tell("nobody", b"")
    return broker.healthy


async def test_a_server_that_is_long_gone_is_not_waited_for(connect: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "ATTEMPT", 1.0)
    monkeypatch.setattr(link, "PATIENCE", 0.5)
    with Nats() as servers:
        node, broker = await connect(servers.url)
        await publish_through(node, 0, 1)
        await asyncio.to_thread(servers.kill)
        for patience in (10.0, *[0.9] * 5):
            with pytest.raises(StoreUnavailable):
                async with asyncio.timeout(patience):
                    await node.publish("long:1", 1, namespace=LONG)
        await asyncio.to_thread(servers.start)
        assert await healthy(broker, until=True)
        await publish_through(node, 1, 1)


async def test_nothing_is_acknowledged_by_a_server_that_stands_still(connect: Open) -> None:
    with Nats() as servers:
        one, _ = await connect(servers.url)
        two, _ = await connect(servers.url)
        await two.broker.subscribe(LONG, "long:1")
        await publish_through(one, 0, 10)
        servers.servers[0].pause()
        publishing = [asyncio.create_task(one.publish("long:1", n, namespace=LONG)) for n in range(10, 20)]
        done, _ = await asyncio.wait(publishing, timeout=12.0, return_when=asyncio.FIRST_COMPLETED)
        assert all(isinstance(task.exception(), StoreUnavailable) for task in done)
        servers.servers[0].resume()
        results = await asyncio.gather(*publishing, return_exceptions=True)
        await publish_through(one, 20, 1)
        await two.ear.until(lambda: 20 in heard(two))

        acknowledged = [n for n, result in zip(range(10, 20), results, strict=True) if isinstance(result, Position)]
        assert {*range(10), *acknowledged, 20} <= set(heard(two))
        assert len(heard(two)) == len(set(heard(two)))


async def test_a_cluster_goes_on_without_one_of_three(connect: Open) -> None:
    with Nats(3, sync=True) as servers:
        url = f"{servers.url}?replicas=3"
        one, _ = await connect(url)
        two, broker = await connect(url)
        await two.broker.subscribe(LONG, "long:1")
        await publish_through(one, 0, 20)
        port = broker._link._wire.connected_url.port  # type: ignore[union-attr]
        [victim] = [server for server in servers.servers if server.port == port]
        publishing = asyncio.create_task(publish_through(one, 20, 100))
        await two.ear.until(lambda: len(heard(two)) > 30)
        await asyncio.to_thread(victim.kill)
        await publishing
        await two.ear.until(lambda: 119 in heard(two))

        assert heard(two) == list(range(120))
        assert two.ear.broke == []
        assert (
            await two.past(Position(two.ear.heard[0][1].offset, await epoch(two)), "long:1", namespace=LONG)
        ).complete
        assert await one.broker.claim("n", "one", 5)


async def test_a_cluster_without_a_majority_is_not_healthy(
    connect: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(link, "PULSE", 0.2)
    monkeypatch.setattr(link, "SOON", 0.2)
    with Nats(3) as servers, caplog.at_level("WARNING", "hubbub.broker"):
        node, broker = await connect(f"{servers.url}?replicas=3")
        await publish_through(node, 0, 1)
        for server in servers.servers[1:]:
            await asyncio.to_thread(server.kill)
        await until(lambda: "publications have to wait" in caplog.text, 30)  # though nobody publishes
        assert not broker.healthy
        await asyncio.to_thread(servers.start)
        await until(lambda: "publications are stored again" in caplog.text, 30)
        assert broker.healthy
        await publish_through(node, 1, 1)


async def test_what_a_cluster_cannot_do_just_now_is_asked_again(shared: Nats, connect: Open) -> None:
    _, broker = await connect(shared.url)
    assert broker._link is not None
    electing = {"error": {"code": 503, "err_code": 10008, "description": "JetStream system temporarily unavailable"}}
    answers = iter([electing, electing, {"done": True}])
    async with stranger(shared) as client:

        async def answer(message: Msg) -> None:
            await message.respond(json.dumps(next(answers)).encode())

        await client.subscribe("$JS.API.TRY", cb=answer)
        await client.flush()
        assert await broker._link.api("TRY") == {"done": True}


async def epoch(node: Node) -> str:
    return (await node.past(None, "long:1", limit=0, namespace=LONG)).head.epoch


async def test_a_server_that_lost_what_it_had_breaks_channels_that_were_told_of_it(
    connect: Open, tmp_path: Path
) -> None:
    with Nats() as servers:
        one, _ = await connect(servers.url)
        two, _ = await connect(servers.url)
        await two.broker.subscribe(LONG, "long:1")
        await publish_through(one, 0, 5)
        server = servers.servers[0]
        server.stop()
        shutil.copytree(server.data, tmp_path / "old")
        server.start()
        server.await_ready()
        await publish_through(one, 5, 5)
        await two.ear.until(lambda: 9 in heard(two))
        server.kill()
        shutil.rmtree(server.data)
        shutil.copytree(tmp_path / "old", server.data)
        server.start()
        server.await_ready()
        await two.ear.until(lambda: bool(two.ear.broke))

        assert two.ear.broke == ["long:1"]
        await two.past(None, "long:1", limit=0, namespace=LONG)  # it has begun anew
        await publish_through(one, 10, 1)
        await two.ear.until(lambda: 10 in heard(two))


# Gaps


async def test_copies_that_were_lost_are_read_from_the_stream(connect: Open, url: str) -> None:
    one, _ = await connect(url)
    two, broker = await connect(url)
    await two.broker.subscribe(LONG, "long:1")
    await publish_through(one, 0, 5)
    await two.ear.until(lambda: 4 in heard(two))
    subscription = broker._watch._channels["long:1"].subscription
    await broker._link._wire.leave(subscription)  # the server knows nothing of us any more
    await broker._link.settle()
    await publish_through(one, 5, 400)
    await broker._link._wire.listen(subscription)
    await broker._link.settle()
    await publish_through(one, 405, 1)
    await two.ear.until(lambda: 405 in heard(two))

    assert heard(two) == list(range(406))


async def test_what_nobody_follows_up_is_found_by_comparing(connect: Open, url: str) -> None:
    one, _ = await connect(url)
    two, broker = await connect(url)
    channels = [f"long:{number}" for number in range(300)]
    for channel in channels:
        await two.broker.subscribe(LONG, channel)
        await broker._link._wire.leave(broker._watch._channels[channel].subscription)
    await broker._link.settle()
    await asyncio.gather(*(one.publish(channel, 7, namespace=LONG) for channel in channels[::2]))
    broker._watch.alarm()
    await two.ear.until(lambda: len(two.ear.heard) == 150)

    assert {channel for channel, _ in two.ear.heard} == set(channels[::2])


async def test_a_gap_that_is_forgotten_breaks_the_channel_once(connect: Open, url: str) -> None:
    one, _ = await connect(url)
    two, broker = await connect(url)
    await two.broker.subscribe(ROOMS, "room:1")
    subscription = broker._watch._channels["room:1"].subscription
    await broker._link._wire.leave(subscription)
    await broker._link.settle()
    for number in range(20):
        await one.publish(data=number)
    await broker._link._wire.listen(subscription)
    await broker._link.settle()
    last = await one.publish(data=20)
    await two.ear.until(lambda: bool(two.ear.broke))

    assert two.ear.broke == ["room:1"]
    assert two.ear.heard == []
    assert (await two.past(limit=1)).head == last
    await one.publish(data=21)
    await two.ear.until(lambda: bool(two.ear.heard))
    assert two.ear.data("room:1") == [b"21"]


async def test_a_purge_that_was_missed_breaks_the_channel(connect: Open, url: str) -> None:
    one, _ = await connect(url)
    two, broker = await connect(url)
    await two.broker.subscribe(ROOMS, "room:1")
    await broker._link._wire.leave(broker._watch._channels["room:1"].subscription)
    await broker._link.settle()
    await one.publish()
    await one.broker.purge("room:1")
    broker._watch.alarm()
    await two.ear.until(lambda: bool(two.ear.broke))

    assert two.ear.broke == ["room:1"]


@pytest.mark.parametrize("notice", ["by itself", "by a publication"])
async def test_a_deleted_stream_begins_anew(connect: Open, shared: Nats, url: str, notice: str) -> None:
    one, _ = await connect(url)
    two, broker = await connect(url)
    await two.broker.subscribe(ROOMS, "room:1")
    place = await one.publish(data=1)
    await two.ear.until(lambda: bool(two.ear.heard))
    async with stranger(shared) as client:
        await delete_streams(client, url.partition("name=")[2])
    if notice == "by itself":
        broker._watch.alarm()
        await two.ear.until(lambda: bool(two.ear.broke))
    again = await one.publish(data=2)
    await two.ear.until(lambda: bool(two.ear.broke))

    assert again.epoch != place.epoch
    assert two.ear.broke == ["room:1"]
    async with asyncio.timeout(10):
        while (past := await two.past(place)).head != again:  # told of it, or about to be
            await broker._link.settle()
    assert not past.complete
    assert past.head == again
    await one.publish(data=3)
    await two.ear.until(lambda: b"3" in two.ear.data("room:1"))


# Many clients


async def test_a_thousand_clients_that_return_cost_one_reading(connect: Open, url: str) -> None:
    one, _ = await connect(url)
    places = [await one.publish("long:1", number, namespace=LONG) for number in range(50)]
    two, broker = await connect(url)
    await two.broker.subscribe(LONG, "long:1")
    pasts = await asyncio.gather(*(two.past(places[9], "long:1", namespace=LONG) for _ in range(1000)))

    assert broker.reads == 1
    assert all(past.complete and bodies(past) == [b"%d" % n for n in range(10, 50)] for past in pasts)
    others = await asyncio.gather(
        *(two.past(places[n], "long:1", namespace=LONG) for n in range(50) for _ in range(20))
    )
    assert all(past.complete for past in others)
    assert broker.reads <= 4


async def test_a_thousand_clients_that_come_too_late_cost_one_reading(connect: Open, url: str) -> None:
    one, _ = await connect(url)
    places = [await one.publish(data=number) for number in range(50)]
    two, broker = await connect(url)
    await two.broker.subscribe(ROOMS, "room:1")
    pasts = await asyncio.gather(*(two.past(places[3]) for _ in range(1000)))

    assert broker.reads == 1
    assert not any(past.complete for past in pasts)


async def test_a_new_subscriber_costs_no_reading(connect: Open, url: str) -> None:
    one, _ = await connect(url)
    last = await one.publish(data=1)
    two, broker = await connect(url)
    await two.broker.subscribe(ROOMS, "room:1")

    assert (await two.past(limit=1)).head == last
    assert bodies(await two.past(limit=1)) == [b"1"]
    assert broker.reads == 0


# Strangers


async def test_what_strangers_write_does_no_harm(
    connect: Open, shared: Nats, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    one, _ = await connect(url)
    two, broker = await connect(url)
    app = url.partition("name=")[2]
    await two.broker.subscribe(LONG, "long:1")
    await two.broker.subscribe(LIVE, "live:1")
    await one.publish("long:1", 1, namespace=LONG)
    room, life = token("long:1"), await broker._streams.of(LONG, "long:1")
    garbage = [
        b"",
        b"\xff" * 9,
        b"{}",
        b"\x93\x01\x02\x03",
        b"\x94\xa6long:1\x01\xc0\xc4\x01{",
        b"\x94\xa6room:2\x01\xc0\xc4\x011",
    ]
    async with stranger(shared) as client:
        for data in garbage:
            await client.publish(f"{app}.out.{life.epoch}.{room}", data, headers={"Nats-Sequence": "x"})
            await client.publish(f"{app}.out.{life.epoch}.{room}", data)
            await client.publish(f"{app}.live.{token('live:1')}", data)
            await client.publish(f"{broker._link._inbox}7", data)
            await client.publish(f"{broker._link._inbox}x", data)
            await client.request(life.subject("long:1"), data)
    last = await one.publish("long:1", 2, namespace=LONG)
    await one.publish("live:1", 3, namespace=LIVE)
    await two.ear.until(lambda: b"2" in two.ear.data("long:1") and bool(two.ear.data("live:1")))

    assert two.ear.data("live:1") == [b"3"]
    assert two.ear.data("long:1") == [b"1", b"2"]
    assert (await two.past(None, "long:1", limit=1, namespace=LONG)).head == last
    assert (await one.past(None, "long:1", namespace=LONG)).publications[-1].data == b"2"
    assert "is none of ours" in caplog.text
    assert "cannot be handled" not in caplog.text


async def test_garbage_at_the_end_of_a_channel_is_passed_over(connect: Open, shared: Nats, url: str) -> None:
    one, _ = await connect(url)
    two, broker = await connect(url)
    await two.broker.subscribe(ROOMS, "room:1")
    await one.publish(data=1)
    await two.ear.until(lambda: bool(two.ear.heard))
    life = await broker._streams.of(ROOMS, "room:1")
    async with stranger(shared) as client:
        garbage = json.loads((await client.request(life.subject("room:1"), b"?")).data)["seq"]
    broker._watch.alarm()
    async with asyncio.timeout(10):
        while (await two.past(limit=0)).head.offset < garbage:
            await broker._link.settle()
    await one.publish(data=2)
    await two.ear.until(lambda: len(two.ear.heard) == 2)

    assert two.ear.data("room:1") == [b"1", b"2"]


# The archive


async def test_what_is_archived_and_old_is_deleted_and_nothing_else(connect: Open, shared: Nats, url: str) -> None:
    short = Namespace("short", history=2, history_ttl=0.001, archive=True)
    one, _ = await connect(url, [short])
    for number in range(10):
        await one.publish("short:1", number, namespace=short)
    records, position = await one.broker.unarchived(None, 4)
    assert len(records) == 4
    records, position = await one.broker.unarchived(position, 100)
    assert [int(each.data) for each in records] == list(range(4, 10))
    async with stranger(shared) as client:
        state = (await ask(client, f"STREAM.INFO.{url.partition('name=')[2]}_archive"))["state"]

    assert state["messages"] == 6


async def test_what_is_archived_and_young_is_remembered(connect: Open, url: str) -> None:
    one, _ = await connect(url)
    for number in range(5):
        await one.publish("kept:1", number, namespace=KEPT)
    _, position = await one.broker.unarchived(None, 5)
    assert await one.broker.unarchived(position, 5) == ([], position)

    assert bodies(await one.past(None, "kept:1", namespace=KEPT)) == [b"2", b"3", b"4"]


# Opening


async def test_a_namespace_may_be_declared_late(connect: Open, url: str) -> None:
    namespaces = Namespaces()
    namespaces.declare(ROOMS)
    one, _ = await connect(url, namespaces)
    late = Namespace("late", history=3)
    namespaces.declare(late)
    place = await one.publish("late:1", 1, namespace=late)

    assert (await one.past(None, "late:1", namespace=late)).head == place
    await one.broker.purge("late:1")
    assert not (await one.past(place, "late:1", namespace=late)).complete


async def test_another_number_of_shards_is_refused(connect: Open, url: str) -> None:
    one, _ = await connect(f"{url}&shards=3")
    places = {channel: await one.publish(channel) for channel in [f"room:{number}" for number in range(20)]}
    assert len({place.epoch for place in places.values()}) == 3
    two, _ = await connect(f"{url}&shards=3")
    for channel, place in places.items():
        assert (await two.past(None, channel)).head == place

    with pytest.raises(StoreError, match="3 shards, not 2"):
        await connect(f"{url}&shards=2")


@pytest.mark.parametrize("more", ["", "&replicas=3"], ids=["nobody there", "one server, three replicas"])
async def test_what_cannot_be_opened_says_so_in_a_line(connect: Open, url: str, more: str) -> None:
    where = f"{url}{more}" if more else "nats://ann:secret@127.0.0.1:1"
    with pytest.raises(StoreError, match=r"NATS at 127\.0\.0\.1:\d+ ") as caught:
        await connect(where)

    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_a_user_is_known_by_password(connect: Open) -> None:
    with Nats(options='authorization { user: ann, password: "p@ss:1" }') as servers:
        place = servers.url.removeprefix("nats://")
        one, broker = await connect(f"nats://ann:p%40ss%3A1@{place}")
        assert (await one.publish()).offset == 1
        assert broker.place == f"NATS at {place}"
        with pytest.raises(StoreUnavailable, match="Authorization"):
            await connect(f"nats://ann:wrong@{place}")


@pytest.mark.parametrize("scheme", ["nats", "tls"])
async def test_certificates_that_are_not_there_are_named(scheme: str, tmp_path: Path) -> None:
    address = parse_address(f"{scheme}://127.0.0.1:1?ca={tmp_path}/none.pem")
    with pytest.raises(StoreUnavailable, match=r"none\.pem in the URL of NATS is no file of certificates"):
        await link.Link(address, lambda: None).open()


@pytest.mark.parametrize("scheme", ["nats", "tls"])
async def test_a_connection_may_be_a_secure_one(connect: Open, scheme: str) -> None:
    files = certificate()
    options = f'tls {{ cert_file: "{files["ssl_certfile"]}", key_file: "{files["ssl_keyfile"]}" }}'
    with Nats(options=f'{options}\nauthorization {{ token: "t0ken" }}') as servers:
        place = servers.url.removeprefix("nats://")
        one, broker = await connect(f"{scheme}://t0ken@{place}?ca={files['ssl_certfile']}")
        assert (await one.publish()).offset == 1
        assert broker.place == f"NATS at {place}"
        with pytest.raises(StoreUnavailable, match="certificate"):
            await connect(f"tls://t0ken@{place}")


async def test_what_is_on_its_way_at_the_end_is_finished(connect: Open, url: str) -> None:
    broker = NatsBroker(url)
    one = Node(broker)
    await broker.open(ALL)
    publishing = [asyncio.create_task(one.publish(data=number)) for number in range(100)]
    await asyncio.sleep(0)
    await broker.close()

    assert len({(await each).offset for each in publishing}) == 100
    with pytest.raises(StoreUnavailable):
        await one.publish()
    assert not broker.healthy


async def test_a_message_that_is_too_large_is_refused_at_once(connect: Open, url: str) -> None:
    one, _ = await connect(url)
    with pytest.raises(StoreError, match="max_payload"):
        await one.publish(data=b'"' + b"x" * 1_100_000 + b'"')


@pytest.mark.parametrize(
    "bad",
    [
        "nats://",
        "http://host",
        "nats://host/path",
        "nats://host?replicas=0",
        "nats://host?replicas=x",
        "nats://host?shards=1000",
        "nats://host?name=a.b",
        "nats://host?nmae=a",
        "nats://host:port",
        "nats://a,,b",
    ],
)
def test_a_url_that_cannot_be_is_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match="NATS"):
        NatsBroker(bad)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("nats://one,two:5000", "one:4222,two:5000"),
        ("tls://secret@one", "one:4222"),
        ("nats://ann:secret@[::1]:4000?replicas=3", "[::1]:4000"),
    ],
)
def test_a_place_is_without_secrets(url: str, place: str) -> None:
    assert NatsBroker(url).place == f"NATS at {place}"


def test_the_library_has_the_parts_that_we_stand_on() -> None:
    assert list(inspect.signature(Client._process_msg).parameters) == [
        "self",
        "sid",
        "subject",
        "reply",
        "data",
        "headers",
    ]
    assert list(inspect.signature(Client._process_op_err).parameters) == ["self", "e"]
    assert {"_send_unsubscribe", "_remove_sub"} <= set(dir(Client))
    assert {"_sid", "_pending", "_pending_data_size", "_transport"} <= set(vars(Client()))
