"""What becomes of the Redis broker when links break, servers die, data is lost and servers take each other's place."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from functools import partial

import pytest

from hubbub.brokers.redis import RedisBroker, ear, line, watch
from hubbub.brokers.redis.address import parse_address
from hubbub.brokers.redis.body import Body, encode_body
from hubbub.brokers.redis.keys import Keys
from hubbub.core.namespaces import Namespace
from hubbub.core.recovery import Position
from hubbub.errors import ConfigError, StoreError, StoreUnavailable
from services.valkey import Valkey, valkey_cluster, valkey_sentinel
from tests.contract.node import KEPT, LIVE, NAMESPACES, Node, bodies, now
from tests.servers.places import certificate
from tests.serving import until as until_true

MANY = Namespace("*", history=2000, history_ttl=60.0)
KEYS = Keys("hubbub", 0)
until = partial(until_true, seconds=20.0)  # a failover takes its time
Open = Callable[[str], Awaitable[Node]]


@pytest.fixture(scope="module")
def shared() -> Iterator[Valkey]:
    with Valkey() as server:
        yield server


@pytest.fixture
def server(shared: Valkey) -> Valkey:
    """A server with nothing in it; others use it as well, one after the other."""
    shared.ask("FLUSHALL")
    return shared


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[Valkey]]:
    with valkey_cluster() as servers:
        yield servers


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """Opens nodes."""
    async with AsyncExitStack() as stack:

        async def open_node(url: str) -> Node:
            node = Node(RedisBroker(url))
            await node.broker.open(NAMESPACES)
            stack.push_async_callback(node.broker.close)
            return node

        yield open_node


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notice soon what takes seconds otherwise."""
    monkeypatch.setattr(ear, "PULSE", 0.1)
    monkeypatch.setattr(ear, "SILENCE", 0.5)
    monkeypatch.setattr(line, "ANSWER", 1.0)
    monkeypatch.setattr(watch, "OFTEN", 0.5)


async def publish(node: Node, channel: str = "c", data: object = 1, key: str | None = None) -> Position:
    return await node.publish(channel, data, namespace=MANY, key=key)


async def insist(node: Node, data: object, channel: str = "c") -> Position:
    """Publish with a key until it is acknowledged."""
    async with asyncio.timeout(40):
        while True:
            try:
                return await publish(node, channel, data, key=f"k{data}")
            except StoreUnavailable:
                await asyncio.sleep(0.05)


def numbers(*ends: int) -> list[bytes]:
    return [b"%d" % number for number in range(*ends)]


# Links


@pytest.mark.usefixtures("impatient")
async def test_what_is_said_while_nobody_listens_is_read(server: Valkey, opened: Open) -> None:
    one, two = await opened(server.url), await opened(server.url)
    await two.broker.subscribe(MANY, "c")
    for number in range(200):
        if number % 40 == 20:
            server.ask("CLIENT", "KILL", "TYPE", "pubsub")
        await publish(one, data=number)
    await two.ear.until(lambda: len(two.ear.heard) >= 200)

    assert two.ear.data("c") == numbers(200)
    assert two.ear.broke == []
    assert two.ear.resumptions


async def test_commands_that_are_cut_off_are_carried_out_once_and_in_order(server: Valkey, opened: Open) -> None:
    node = await opened(server.url)
    publishing = [asyncio.create_task(publish(node, data=number)) for number in range(1500)]
    for number in (100, 500, 900):
        await publishing[number]
        server.ask("CLIENT", "KILL", "TYPE", "normal")
    places = await asyncio.gather(*publishing)
    past = await node.past(None, "c", namespace=MANY, limit=2000)

    assert bodies(past) == numbers(1500)
    assert [place.offset for place in places] == [each.offset for each in past.publications]


@pytest.mark.usefixtures("impatient")
async def test_a_message_that_gets_lost_is_found_missing(server: Valkey, opened: Open) -> None:
    one, two = await opened(server.url), await opened(server.url)
    await two.broker.subscribe(MANY, "c")
    quiet = await opened(server.url)
    quiet.broker._keys.live = lambda channel, archive: "nowhere"  # type: ignore[attr-defined]  # its messages are lost
    await publish(quiet, data=0)
    await publish(one, data=1)
    await two.ear.until(lambda: len(two.ear.heard) == 2)
    await publish(quiet, data=2)
    await two.ear.until(lambda: len(two.ear.heard) == 3)

    assert two.ear.data("c") == numbers(3)


@pytest.mark.usefixtures("impatient")
async def test_a_server_that_stands_still_is_noticed(server: Valkey, opened: Open) -> None:
    node = await opened(server.url)
    await node.broker.subscribe(MANY, "c")
    place = await publish(node, data=0)
    server.pause()
    try:
        waiting = asyncio.create_task(publish(node, data=1))
        await until(lambda: not node.broker.healthy)
    finally:
        server.resume()
    after = await waiting
    await node.ear.until(lambda: len(node.ear.heard) == 2)

    assert after == place._replace(offset=place.offset + 1)
    assert node.ear.data("c") == numbers(2)


async def test_a_server_that_is_long_gone_is_hardly_waited_for(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "PATIENCE", 1.0)
    monkeypatch.setattr(line, "HURRY", 0.2)
    with Valkey() as server:
        node = await opened(server.url)
        await publish(node, data=0)
        server.kill()
        for patience in (2.0, *[0.9] * 5):
            with pytest.raises(StoreUnavailable):
                async with asyncio.timeout(patience):
                    await publish(node, data=1)
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(5):
            while True:
                with suppress(StoreUnavailable):
                    await publish(node, data=2)
                    break


async def test_who_does_not_wait_any_more_takes_nobody_s_answer(server: Valkey, opened: Open) -> None:
    node = await opened(server.url)
    for round in range(1, 20):
        tasks = [asyncio.create_task(publish(node, data=f"{round}00{number}")) for number in range(50)]
        claims = [asyncio.create_task(node.broker.claim(f"{round}/{number}", "me", 5)) for number in range(10)]
        for _ in range(round % 7):
            await asyncio.sleep(0)
        for task in (*tasks[::2], *claims[::2]):
            task.cancel()
        places = await asyncio.gather(*tasks[1::2])
        assert all(await asyncio.gather(*claims[1::2]))
        found = (await node.past(None, "c", namespace=MANY, limit=2000)).publications
        past = {each.offset: each.data for each in found}
        assert [past[place.offset] for place in places] == [b"%d00%d" % (round, each) for each in range(1, 50, 2)]


async def test_a_thousand_in_flight_need_few_connections(server: Valkey, opened: Open) -> None:
    node = await opened(server.url)
    await asyncio.gather(*(publish(node, f"c{number % 9}", number) for number in range(1000)))

    clients = server.ask("CLIENT", "LIST").splitlines()
    assert len(clients) == 3  # a line, an ear, and who asks


# Reading


async def test_a_thousand_that_return_cost_one_reading(server: Valkey, opened: Open) -> None:
    one, two = await opened(server.url), await opened(server.url)
    places = [await publish(one, data=number) for number in range(250)]
    await two.broker.subscribe(MANY, "c")
    askers = [two.past(places[each % 250], "c", namespace=MANY, limit=300) for each in range(1000)]
    answers = await asyncio.gather(*askers)

    assert [bodies(answer) for answer in answers[:250]] == [numbers(each + 1, 250) for each in range(250)]
    assert all(answer.complete for answer in answers)
    assert two.broker.reads == 1  # type: ignore[attr-defined]


async def test_many_that_missed_more_than_is_known_wait_for_one_reading(server: Valkey, opened: Open) -> None:
    one, two = await opened(server.url), await opened(server.url)
    places = [await publish(one, data=number) for number in range(500)]
    await two.broker.subscribe(MANY, "c")
    answers = await asyncio.gather(*(two.past(places[150], "c", namespace=MANY, limit=300) for _ in range(1000)))

    assert {len(answer.publications) for answer in answers} == {300}
    assert two.broker.reads == 2  # type: ignore[attr-defined]


# Lost data


@pytest.mark.usefixtures("impatient")
async def test_what_was_acknowledged_outlives_a_crash_where_it_is_on_the_disk(opened: Open) -> None:
    with Valkey(append=True) as server:
        one, two = await opened(server.url), await opened(server.url)
        await two.broker.subscribe(MANY, "c")
        places = [await insist(one, number) for number in range(20)]
        waiting = asyncio.gather(*(insist(one, number) for number in range(20, 120)))
        for _ in range(3):
            await insist(one, "0", "other")
            server.ask("BGREWRITEAOF")
            server.kill()
            server.start()
        places += await waiting
        await two.ear.until(lambda: len(two.ear.heard) >= 120)
        past = await one.past(places[5], "c", namespace=MANY, limit=2000)

    assert len({place.epoch for place in places}) == 1
    assert two.ear.data("c")[:20] == numbers(20)
    assert sorted(two.ear.data("c"), key=int) == numbers(120)
    assert past.complete
    assert [each.offset for each in past.publications] == list(range(7, 121))
    assert two.ear.broke == []


@pytest.mark.usefixtures("impatient")
async def test_an_outage_is_a_line_and_its_end_another(opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    with Valkey() as server, caplog.at_level(logging.WARNING, "hubbub.broker"):
        node = await opened(server.url)
        server.kill()
        await until(lambda: not node.broker.healthy)
        server.start()
        await until(lambda: node.broker.healthy)
        place = f"Redis at 127.0.0.1:{server.port}"
        await until(lambda: len(caplog.records) == 2)
        said = [record.message for record in caplog.records]
        assert said == [f"{place}: the connection is lost", f"{place}: connected again"]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", ["restart", "old snapshot", "flush"])
async def test_a_server_that_may_have_lost_something_has_another_epoch(how: str, opened: Open) -> None:
    with Valkey() as server:
        one, two = await opened(server.url), await opened(server.url)
        await two.broker.subscribe(MANY, "c")
        first = await publish(one, data=0)
        await publish(one, "unoccupied")
        if how == "old snapshot":
            server.ask("SAVE")
        last = await publish(one, data=1)
        other = await publish(one, "unoccupied")
        if how == "flush":
            server.ask("FLUSHALL")
        else:
            server.kill()
            server.start()
        await two.ear.until(lambda: two.ear.broke == ["c"])
        for node in (one, two):
            for place in (first, last):
                past = await node.past(place, "c", namespace=MANY)
                assert not past.complete
                assert past.publications == []
        assert not (await one.past(other._replace(offset=1), "unoccupied", namespace=MANY)).complete
        after = await publish(one, data=2)
        await two.ear.until(lambda: b"2" in two.ear.data("c"))

    assert after.epoch != last.epoch
    assert two.ear.data("c") == [b"0", b"1", b"2"]


@pytest.mark.usefixtures("impatient")
async def test_a_channel_that_forgot_what_was_told_begins_anew(server: Valkey, opened: Open) -> None:
    node = await opened(server.url)
    await node.broker.subscribe(MANY, "c")
    place = [await publish(node, data=number) for number in range(3)][-1]
    server.ask("HSET", KEYS.head("c", False), "offset", 1)  # as an administrator's restore could leave it
    server.ask("DEL", KEYS.log("c", False))
    await node.ear.until(lambda: node.ear.broke == ["c"])

    assert (await publish(node)).epoch != place.epoch


# Replicas


async def test_a_replica_that_missed_something_has_another_epoch(opened: Open) -> None:
    with Valkey(append=True) as server, Valkey(append=True, replica_of=server) as replica:
        replica.await_replica()
        one = await opened(server.url)
        places = [await publish(one, data=number) for number in range(5)]
        server.ask("WAIT", 1, 10_000)
        replica.ask("REPLICAOF", "127.0.0.1", 1)
        places += [await publish(one, data=number) for number in range(5, 10)]
        server.kill()
        with pytest.raises(StoreError):
            await opened(replica.url)
        replica.ask("REPLICAOF", "NO", "ONE")
        replica.ask("CONFIG", "REWRITE")
        two = await opened(replica.url)
        pasts = [await two.past(place, "c", namespace=MANY) for place in places]
        after = await publish(two, data="9")
        replica.kill()
        replica.start()
        again = await publish(two, "unoccupied")

    assert not any(past.complete or past.publications for past in pasts)
    assert len({after.epoch, places[0].epoch}) == 2
    assert again.offset == 1


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", ["killed", "paused"])
async def test_sentinels_say_who_takes_a_server_s_place(how: str, opened: Open) -> None:
    with valkey_sentinel() as (server, replica, sentinel):
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/main"
        one, two = await opened(url), await opened(url)
        for node in (one, two):
            await node.broker.subscribe(MANY, "c")
        await publish(one, data=0)
        server.ask("WAIT", 1, 10_000)
        replica.ask("CONFIG", "SET", "masterauth", "wrong")  # it misses the rest
        replica.ask("CLIENT", "KILL", "TYPE", "master")
        place = await publish(one, data=1)
        (server.kill if how == "killed" else server.pause)()
        after = await insist(one, 2)
        server.resume()  # it lives, and still takes itself for the one
        for node in (one, two):
            await node.ear.until(lambda node=node: node.ear.broke == ["c"])  # type: ignore[misc]
        past = await two.past(place._replace(offset=1), "c", namespace=MANY)
        await insist(one, 3)
        await two.ear.until(lambda: b"3" in two.ear.data("c"))

    assert after.epoch != place.epoch
    assert not past.complete
    assert two.ear.data("c")[:2] == numbers(2)


# A Cluster


async def test_a_cluster_does_what_one_server_does(cluster: list[Valkey], opened: Open) -> None:
    one = await opened(f"redis+cluster://127.0.0.1:{cluster[0].port},127.0.0.1:{cluster[1].port}")
    two = await opened(cluster[2].url)  # it says itself that it is one of a cluster
    channels = [f"c{number}{{x}}" for number in range(30)]
    for channel in channels:
        await two.broker.subscribe(MANY, channel)
    await two.broker.subscribe(LIVE, "live:1")
    await two.broker.follow("topic")
    await asyncio.gather(*(publish(one, channel, data) for channel in channels for data in range(5)))
    await one.publish("live:1", 7, namespace=LIVE, key="k")
    await two.ear.until(lambda: len(two.ear.heard) == 151)

    assert all(two.ear.data(channel) == numbers(5) for channel in channels)
    assert [bodies(await one.past(None, channel, namespace=MANY)) for channel in channels] == [numbers(5)] * 30
    assert await one.broker.tell("topic", b"x") == 1
    assert await one.broker.claim("n", "a", 5)
    assert not await two.broker.claim("n", "b", 5)
    for number in range(40):
        await one.publish(f"kept:{number % 10}", number, namespace=KEPT)
    records, end = await two.broker.unarchived(None, 100)
    by_channel = {each.channel: [int(r.data) for r in records if r.channel == each.channel] for each in records}
    assert by_channel == {f"kept:{number}": list(range(number, 40, 10)) for number in range(10)}
    assert await one.broker.unarchived(end, 100) == ([], end)


@pytest.mark.usefixtures("impatient")
async def test_a_channel_that_moves_to_another_server_goes_on_there(cluster: list[Valkey], opened: Open) -> None:
    one, two = await opened(cluster[0].url), await opened(cluster[1].url)
    await two.broker.subscribe(MANY, "moving")
    before = await publish(one, "moving", 0)
    _move(cluster, "moving")
    after = await publish(one, "moving", 1)
    await two.ear.until(lambda: two.ear.broke == ["moving"])
    await publish(one, "moving", 2)
    await two.ear.until(lambda: b"2" in two.ear.data("moving"))

    assert after.epoch != before.epoch  # the other server cannot know that nothing was lost
    assert not (await one.past(before, "moving", namespace=MANY)).complete


@pytest.mark.usefixtures("impatient")
async def test_a_replica_in_a_cluster_that_missed_something_has_another_epoch(opened: Open) -> None:
    with valkey_cluster(replicas=1, append=True) as servers:
        server, *_, replica = servers
        one, two = await opened(servers[1].url), await opened(servers[2].url)
        owned = [
            name for name in map(str, range(100)) if server.ask("CLUSTER", "KEYSLOT", KEYS.head(name, False)) < 5000
        ]
        live, quiet, *_ = owned
        await two.broker.subscribe(MANY, live)
        places = {name: await publish(one, name, 0) for name in (live, quiet)}
        server.ask("WAIT", 1, 10_000)
        replica.ask("CONFIG", "SET", "masterauth", "wrong")  # it misses the rest
        replica.ask("CLIENT", "KILL", "TYPE", "master")
        for name in (live, quiet):
            await publish(one, name, 1)
        server.kill()
        replica.ask("CLUSTER", "FAILOVER", "TAKEOVER")
        await insist(one, 2, live)
        await two.ear.until(lambda: two.ear.broke == [live])
        pasts = [await two.past(place, name, namespace=MANY) for name, place in places.items()]
        await insist(one, 3, live)
        await two.ear.until(lambda: b"3" in two.ear.data(live))

    assert not any(past.complete or past.publications for past in pasts)


def _move(cluster: list[Valkey], channel: str) -> None:
    keys = [KEYS.head(channel, False), KEYS.log(channel, False)]
    slot = cluster[0].ask("CLUSTER", "KEYSLOT", keys[0])
    ids = [server.ask("CLUSTER", "MYID") for server in cluster]
    source = slot * len(cluster) // 16384
    target = (source + 1) % len(cluster)
    cluster[target].ask("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
    cluster[source].ask("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
    while keys := cluster[source].ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
        cluster[source].ask("MIGRATE", "127.0.0.1", cluster[target].port, "", 0, 5000, "KEYS", *keys)
    for number in (target, source, *range(len(cluster))):
        cluster[number].ask("CLUSTER", "SETSLOT", slot, "NODE", ids[target])


# Strangers


async def test_what_a_stranger_says_is_dropped_with_one_line(
    server: Valkey, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    node = await opened(server.url)
    await node.broker.subscribe(MANY, "c")
    await node.broker.subscribe(LIVE, "live:1")
    await node.broker.follow("t")
    await publish(node, data=0)
    await node.ear.until(lambda: bool(node.ear.heard))
    epoch = (await node.past(None, "c", namespace=MANY)).head.epoch
    with caplog.at_level(logging.WARNING, "hubbub.broker"):
        far = f"{epoch} 99 98 1\n".encode() + encode_body(Body(None, b"1"))
        for junk in (far, b"", b"\xff\x00", f"{epoch} 9 1 1\nnot packed".encode(), f"{epoch} x 1 1\n".encode()):
            server.ask("PUBLISH", KEYS.live("c", False), junk)
        server.ask("PUBLISH", KEYS.live("live:1", False), "\n\n")
        server.ask("PUBLISH", KEYS.topic("t"), "x")
        await until(lambda: len(caplog.records) == 7)
        await publish(node, data=1)
        await node.ear.until(lambda: len(node.ear.heard) == 2)

    assert node.ear.data("c") == numbers(2)
    assert len(caplog.records) == 7
    assert node.ear.broke == []
    assert node.ear.words == []


async def test_apps_and_databases_do_not_see_each_other(server: Valkey, opened: Open) -> None:
    nodes = [await opened(f"{server.url}{path}") for path in ("/0", "/1", "/0?name=other")]
    for node in nodes:
        await node.broker.subscribe(MANY, "c")
        await node.broker.follow("t")
    for number, node in enumerate(nodes):
        await publish(node, data=number)
        await node.ear.until(lambda node=node: bool(node.ear.heard))  # type: ignore[misc]

    assert [node.ear.data("c") for node in nodes] == [[b"0"], [b"1"], [b"2"]]
    assert await nodes[0].broker.tell("t", b"x") == 0


async def test_a_password_is_used_and_not_shown(server: Valkey, opened: Open) -> None:
    server.ask("ACL", "SETUSER", "ann", "on", ">p@ss/word", "~*", "&*", "+@all")
    node = await opened(f"redis://ann:p%40ss%2Fword@127.0.0.1:{server.port}")
    await publish(node)
    with pytest.raises(StoreError) as wrong:
        await opened(f"redis://ann:secret@127.0.0.1:{server.port}")

    assert node.broker.place == f"Redis at 127.0.0.1:{server.port}"
    assert f"{server.port} cannot be used" in str(wrong.value)
    assert "secret" not in str(wrong.value)
    assert "\n" not in str(wrong.value)


async def test_a_link_may_be_encrypted(server: Valkey, opened: Open) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate()["ssl_certfile"], certificate()["ssl_keyfile"])

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(relay(reader, behind[1]), relay(behind[0], writer), return_exceptions=True)

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as front:
        url = f"rediss://localhost:{front.sockets[0].getsockname()[1]}"
        with pytest.raises(StoreError, match="certificate verify failed"):
            await opened(url)
        broker = RedisBroker(f"{url}?ca={certificate()['ssl_certfile']}")
        node = Node(broker)
        await broker.open(NAMESPACES)
        await broker.subscribe(MANY, "c")
        await publish(node)
        await node.ear.until(lambda: bool(node.ear.heard))
        await broker.close()

    assert node.ear.data("c") == [b"1"]


async def test_a_full_server_says_so(server: Valkey, opened: Open) -> None:
    node = await opened(server.url)
    await node.broker.subscribe(MANY, "c")
    await publish(node, data=0)
    server.ask("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(StoreError) as full:
            await publish(node, data=1)
    finally:
        server.ask("CONFIG", "SET", "maxmemory", 0)
    await publish(node, data=2)
    await node.ear.until(lambda: len(node.ear.heard) == 2)

    assert full.value.code == "storage_full"
    assert node.ear.data("c") == [b"0", b"2"]


async def test_a_broker_may_be_opened_again(server: Valkey) -> None:
    broker = RedisBroker(server.url)
    node = Node(broker)
    for round in range(2):
        await broker.open(NAMESPACES)
        await broker.subscribe(MANY, "c")
        await publish(node, data=round)
        await node.ear.until(lambda round=round: len(node.ear.heard) == round + 1)  # type: ignore[misc]
        await broker.close()
        with pytest.raises(StoreUnavailable):
            await publish(node)

    assert node.ear.data("c") == numbers(2)


async def test_who_is_not_there_is_named() -> None:
    broker = RedisBroker("redis://somebody:secret@127.0.0.1:1")
    with pytest.raises(StoreError, match=r"^Redis at 127\.0\.0\.1:1 cannot be used: "):
        await broker.open(NAMESPACES)


async def test_scripts_that_were_forgotten_are_told_again(server: Valkey, opened: Open) -> None:
    node = await opened(server.url)
    await publish(node, data=0)
    server.ask("SCRIPT", "FLUSH")
    await asyncio.gather(*(publish(node, data=number) for number in range(1, 50)))

    assert bodies(await node.past(None, "c", namespace=MANY)) == numbers(50)


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://host:x",
        "redis://host/db",
        "redis://one,two",
        "redis://host?pool=3",
        "redis://host?name=a:b",
        "redis+sentinel://host",
        "redis+cluster://host/3",
    ],
)
def test_a_url_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        parse_address(url)


def test_a_url_says_all() -> None:
    address = parse_address("redis+sentinel://u:p%3A@one,[::1]:7/main/2?name=app&tls=1&ca=/ca.pem")

    assert address.servers == (("one", 26379), ("::1", 7))
    assert (address.master, address.database, address.user, address.password) == ("main", 2, "u", "p:")
    assert (address.tls, address.ca, address.name) == (True, "/ca.pem", "app")
    assert address.place == "Redis at one:26379,[::1]:7, main"
    assert "p:" not in repr(address)


async def test_time_does_not_go_back_along_a_channel(server: Valkey, opened: Open) -> None:
    node = await opened(server.url)
    moment = now()
    for at in (moment, moment - 5000):
        await node.publish("c", namespace=MANY, now=at)

    assert [each.published_at for each in (await node.past(None, "c", namespace=MANY)).publications] == [moment] * 2
