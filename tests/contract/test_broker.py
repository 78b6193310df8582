"""What `hubbub.contracts.Broker` promises, tried on every kind of broker with a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from hubbub.core.namespaces import Namespace
from hubbub.core.recovery import Past, Position, Publication
from tests.contract.brokers import SERVERS, Fresh, make
from tests.contract.node import ANYTHING, KEPT, LIVE, NAMESPACES, ROOMS, Node, bodies, now

MINUTE = 60_000
HOSTILE = {
    "star": "*",
    "greater": ">",
    "dots": "a.b..c",
    "wildcards inside": "room.*.>",
    "spaces": " a b\t",
    "line": "a\r\nPUB x 0\r\n",
    "NUL": "a\x00b",
    "unicode": "名前 👩‍👩‍👧‍👦 é",
    "not normalised": "e\u0301",
    "escape": "a=2a",
    "case": "RoOm",
    "slashes": "../../etc/passwd",
    "braces": "{room}:{1}",
    "255 bytes": "é" * 127 + "x",
    "long": "x" * 300,
    "one": "=",
}
hostile = pytest.mark.parametrize("name", list(HOSTILE.values()), ids=list(HOSTILE))


Another = Callable[[], Awaitable[Node]]


@pytest.fixture(scope="module", params=list(SERVERS))
def fresh(request: pytest.FixtureRequest) -> Iterator[Fresh]:
    with SERVERS[request.param]() as fresh:
        yield fresh


@pytest.fixture
async def another(fresh: Fresh) -> AsyncIterator[Another]:
    """Opens nodes that share one broker; a broker that is not shared has one node."""
    url = fresh()
    nodes: list[Node] = []
    async with AsyncExitStack() as stack:

        async def another() -> Node:
            broker = make(url)
            if nodes and not broker.shared:
                return nodes[0]
            nodes.append(Node(broker))
            await broker.open(NAMESPACES)
            stack.push_async_callback(broker.close)
            return nodes[-1]

        yield another


@pytest.fixture
async def node(another: Another) -> Node:
    return await another()


# Publishing


async def test_publications_have_places_that_grow(node: Node) -> None:
    places = [await node.publish(data=number) for number in range(3)]

    assert sorted(places) == places
    assert len(set(places)) == 3
    assert len({place.epoch for place in places}) == 1


async def test_what_was_published_is_remembered_as_it_was(node: Node) -> None:
    place = await node.publish(data=b'{"a":[1,"\xc3\xa9"]}', event="said", tags={"key": "é", "x": ""})
    past = await node.past()

    [found] = past.publications
    assert found == Publication(
        place.offset, found.previous, found.published_at, "said", b'{"a":[1,"\xc3\xa9"]}', {"key": "é", "x": ""}
    )
    assert abs(found.published_at - now()) < MINUTE
    assert past.head == place


async def test_many_at_once_keep_their_order(node: Node) -> None:
    await node.broker.subscribe(ANYTHING, "busy")
    places = await asyncio.gather(*(node.publish("busy", number, namespace=ANYTHING) for number in range(300)))
    await node.ear.until(lambda: len(node.ear.heard) == 300)

    assert places == sorted(places)
    assert node.ear.data("busy") == [b"%d" % number for number in range(300)]
    assert [publication.offset for _, publication in node.ear.heard] == [place.offset for place in places]


async def test_each_publication_names_the_one_before(node: Node) -> None:
    await node.broker.subscribe(ROOMS, "room:1")
    places = []
    for number in range(4):
        places.append(await node.publish(data=number))
        await node.publish("room:2")
    await node.ear.until(lambda: len(node.ear.data("room:1")) == 4)

    told = [publication for channel, publication in node.ear.heard if channel == "room:1"]
    assert [publication.previous for publication in told[1:]] == [place.offset for place in places[:-1]]


# Keys


@pytest.mark.parametrize("namespace", [ROOMS, LIVE, KEPT], ids=["history", "none", "archive"])
async def test_a_key_is_published_once_also_between_nodes(another: Another, namespace: Namespace) -> None:
    one, two = await another(), await another()
    channel = f"{namespace.name}:1"
    await one.broker.subscribe(namespace, channel)
    places = await asyncio.gather(
        *(node.publish(channel, data, namespace=namespace, key="k") for data in range(10) for node in (one, two))
    )
    last = await two.publish(channel, "99", namespace=namespace, key="other")
    await one.ear.until(lambda: b"99" in one.ear.data(channel))

    assert len(set(places)) == 1
    assert places[0].offset < last.offset or not namespace.remembers
    assert len(one.ear.data(channel)) == 2


async def test_a_key_is_one_channel_s(node: Node) -> None:
    assert await node.publish("room:1", key="k") != await node.publish("room:2", key="k")


# Telling


async def test_two_nodes_hear_each_other(another: Another) -> None:
    one, two = await another(), await another()
    for node in {one, two}:
        await node.broker.subscribe(ROOMS, "room:1")
        await node.broker.subscribe(LIVE, "live:1")
    for number in range(20):
        await (one if number % 2 else two).publish(data=number)
    await one.publish("live:1", "100", namespace=LIVE)
    await two.publish("live:1", "101", namespace=LIVE)

    for node in (one, two):
        await node.ear.until(lambda node=node: len(node.ear.heard) == 22)  # type: ignore[misc]
        assert node.ear.data("room:1") == [b"%d" % number for number in range(20)]
        assert sorted(node.ear.data("live:1")) == [b"100", b"101"]


async def test_a_publication_without_history_is_nowhere(node: Node) -> None:
    await node.broker.subscribe(LIVE, "live:1")
    place = await node.publish("live:1", "7", namespace=LIVE, event="e", tags={"a": "b"})
    await node.ear.until(lambda: bool(node.ear.heard))

    [(_, publication)] = node.ear.heard
    assert place.offset == publication.offset == 0
    assert (publication.event, publication.data, publication.tags) == ("e", b"7", {"a": "b"})


async def test_who_unsubscribed_is_told_no_more(node: Node) -> None:
    if not node.broker.shared:
        return  # it tells of everything
    for namespace, channel in [(ROOMS, "room:1"), (LIVE, "live:1")]:
        await node.broker.subscribe(namespace, channel)
        await node.broker.unsubscribe(channel)
        await node.publish(channel, namespace=namespace)
    await node.broker.subscribe(ROOMS, "room:2")
    await node.publish("room:2")
    await node.ear.until(lambda: bool(node.ear.heard))

    assert [channel for channel, _ in node.ear.heard] == ["room:2"]


async def test_who_subscribes_is_told_of_what_comes_and_not_of_what_was(node: Node) -> None:
    before = await node.publish(data=1)
    await node.broker.subscribe(ROOMS, "room:1")
    heard = len(node.ear.heard)
    past = await node.past()
    await node.publish(data=2)
    await node.ear.until(lambda: len(node.ear.heard) > heard)

    assert past.head == before
    assert [publication.data for _, publication in node.ear.heard[heard:]] == [b"2"]


async def test_a_node_knows_how_far_it_was_told(node: Node) -> None:
    await node.broker.subscribe(ROOMS, "room:1")
    await node.broker.subscribe(LIVE, "live:1")
    assert node.broker.position(ROOMS, "room:1") == (await node.past(limit=0)).head
    place = await node.publish()
    await node.ear.until(lambda: bool(node.ear.heard))

    assert node.broker.position(ROOMS, "room:1") == place
    assert node.broker.position(LIVE, "live:1") is None
    await node.broker.unsubscribe("room:1")
    assert node.broker.position(ROOMS, "room:1") == (None if node.broker.shared else place)


# The past


@pytest.fixture(params=[False, True], ids=["empty", "occupied"])
async def watched(request: pytest.FixtureRequest, node: Node) -> Node:
    """A node that has a subscriber to room:1 or not: it must make no difference."""
    if request.param:
        await node.broker.subscribe(ROOMS, "room:1")
        await node.broker.subscribe(KEPT, "kept:1")
    return node


async def test_the_past_behind_a_position_is_complete(watched: Node) -> None:
    places = [await watched.publish(data=number) for number in range(5)]

    for number, place in enumerate(places):
        past = await watched.past(place)
        assert past.complete
        assert bodies(past) == [b"%d" % each for each in range(number + 1, 5)]
        assert past.head == places[-1]


async def test_the_past_is_read_in_pages(watched: Node) -> None:
    first, *_, last = [await watched.publish(data=number) for number in range(5)]
    past = await watched.past(first, limit=2)

    assert bodies(past) == [b"1", b"2"]
    assert past.complete
    assert past.head == last


async def test_without_a_position_the_latest_are_found(watched: Node) -> None:
    for number in range(7):
        await watched.publish(data=number)

    assert bodies(await watched.past(limit=2)) == [b"5", b"6"]
    assert bodies(await watched.past(limit=1)) == [b"6"]
    assert bodies(await watched.past(limit=0)) == []
    assert bodies(await watched.past()) == [b"2", b"3", b"4", b"5", b"6"]


async def test_what_was_rolled_out_makes_the_past_incomplete(watched: Node) -> None:
    places = [await watched.publish(data=number) for number in range(8)]

    assert bodies(await watched.past(places[0])) == []
    assert not (await watched.past(places[0])).complete
    assert not (await watched.past(places[1])).complete
    assert (await watched.past(places[2])).complete
    assert len(bodies(await watched.past(places[2]))) == 5


async def test_what_has_expired_makes_the_past_incomplete(watched: Node) -> None:
    places = [await watched.publish(data=number) for number in range(2)]
    later = await watched.past(places[0], later=61_000)

    assert not later.complete
    assert later.publications == []
    assert (await watched.past(places[1], later=61_000)).complete
    assert bodies(await watched.past(later=61_000)) == []


async def test_the_position_of_an_empty_channel_is_good_until_something_is_forgotten(watched: Node) -> None:
    await watched.publish("room:2")
    start = (await watched.past()).head
    assert (await watched.past(start)).complete
    for number in range(5):
        await watched.publish(data=number)
    past = await watched.past(start)
    assert past.complete
    assert bodies(past) == [b"0", b"1", b"2", b"3", b"4"]
    await watched.publish(data=5)

    assert not (await watched.past(start)).complete


async def test_no_position_of_a_purged_channel_is_good(watched: Node) -> None:
    empty = (await watched.past()).head
    places = [await watched.publish(data=number) for number in range(3)]
    await watched.broker.purge("room:1")

    for place in [empty, *places]:
        past = await watched.past(place)
        assert not past.complete
        assert past.publications == []
    assert bodies(await watched.past()) == []
    head = (await watched.past()).head
    await watched.publish(data=9)
    past = await watched.past(head)
    assert past.complete
    assert bodies(past) == [b"9"]


async def test_an_archived_channel_forgets_what_was_purged_as_well(watched: Node) -> None:
    place = await watched.publish("kept:1", 1, namespace=KEPT)
    await watched.broker.purge("kept:1")

    assert not (await watched.past(place, "kept:1", namespace=KEPT)).complete
    assert bodies(await watched.past(None, "kept:1", namespace=KEPT)) == []
    await watched.publish("kept:1", 2, namespace=KEPT)
    assert bodies(await watched.past(None, "kept:1", namespace=KEPT)) == [b"2"]


@pytest.mark.parametrize(
    "change",
    [
        lambda place: place._replace(epoch="another"),
        lambda place: place._replace(offset=place.offset + 1000),
        lambda place: place._replace(epoch="*", offset=0),
    ],
    ids=["epoch", "future", "hostile epoch"],
)
async def test_a_position_of_another_life_is_not_good(watched: Node, change: Callable[[Position], Position]) -> None:
    place = await watched.publish()
    past = await watched.past(change(place))

    assert not past.complete
    assert past.publications == []
    assert past.head == place


async def test_nothing_is_missed_or_doubled_between_the_past_and_the_present(another: Another) -> None:
    one, two = await another(), await another()
    first = await one.publish(data=0)
    await two.broker.subscribe(ROOMS, "room:1")
    position, seen = first, [b""]

    async def look() -> tuple[Past, set[int]]:
        past = await two.past(position)
        return past, {publication.offset for _, publication in two.ear.heard}

    for number in range(1, 40):
        _, (past, told) = await asyncio.gather(one.publish(data=number), look())
        assert past.complete
        assert {each.offset for each in past.publications} <= told  # what is told from now on is behind the head
        seen += bodies(past)
        position = past.head
    await two.ear.until(lambda: b"39" in two.ear.data("room:1"))
    seen += bodies(await two.past(position))

    assert seen[1:] == [b"%d" % number for number in range(1, 40)]


# Names


@hostile
async def test_a_name_is_only_a_name(another: Another, name: str) -> None:
    one, two = await another(), await another()
    others = [other for other in HOSTILE.values() if other != name]
    await two.broker.subscribe(ANYTHING, name)
    for other in others:
        await one.publish(other, "0", namespace=ANYTHING)
    place = await one.publish(name, "1", namespace=ANYTHING, key=name)
    await two.ear.until(lambda: bool(two.ear.data(name)))

    assert two.ear.data(name) == [b"1"]
    if two.broker.shared:
        assert {channel for channel, _ in two.ear.heard} == {name}
    assert (await one.past(None, name, namespace=ANYTHING)).head == place
    assert await one.publish(name, "2", namespace=ANYTHING, key=name) == place


@hostile
async def test_a_topic_and_a_lease_have_any_name(another: Another, name: str) -> None:
    one, two = await another(), await another()
    assert await one.broker.claim(name, name, 10)
    assert await one.broker.claim(f"{name}x", "another", 10)
    assert not await two.broker.claim(name, f"{name}2", 10)
    if not one.broker.shared:
        return
    await two.broker.follow(name)
    for other in [other for other in HOSTILE.values() if other != name]:
        assert await one.broker.tell(other, b"no") == 0
    assert await one.broker.tell(name, b"\x00yes") == 1
    await two.ear.until(lambda: bool(two.ear.words))

    assert two.ear.words == [(name, b"\x00yes")]


# Nodes


async def test_what_is_told_reaches_the_others_that_follow_in_order(another: Another) -> None:
    one, two, three = await another(), await another(), await another()
    if not one.broker.shared:
        assert await one.broker.tell("t", b"x") == 0
        return
    for node in (one, two, three):
        await node.broker.follow("t")
    await two.broker.follow("u")
    for number in range(20):
        assert await one.broker.tell("t", b"%d" % number) >= 1
    for node in (two, three):
        await node.ear.until(lambda node=node: len(node.ear.words) == 20)  # type: ignore[misc]
        assert node.ear.words == [("t", b"%d" % number) for number in range(20)]
    assert one.ear.words == []


async def test_who_follows_no_more_is_told_no_more(another: Another) -> None:
    one, two = await another(), await another()
    if not one.broker.shared:
        return
    await one.broker.follow("t")
    assert await one.broker.tell("t", b"to myself") == 0
    await two.broker.follow("t")
    await two.broker.unfollow("t")

    assert await one.broker.tell("t", b"x") == 0
    assert two.ear.words == []


async def test_a_name_has_one_owner_at_a_time(another: Another) -> None:
    one, two = await another(), await another()
    won = await asyncio.gather(*(node.broker.claim("n", f"{number}", 20) for number in range(5) for node in (one, two)))
    assert sum(won) >= 1
    [owner] = {number // 2 for number, got in enumerate(won) if got}

    assert await two.broker.claim("n", f"{owner}", 20)
    assert not await one.broker.claim("n", "somebody", 20)


async def test_a_name_is_free_when_its_time_is_over(another: Another) -> None:
    one, two = await another(), await another()
    assert await one.broker.claim("n", "one", 0.3)
    assert not await two.broker.claim("n", "two", 5)
    async with asyncio.timeout(10):
        while not await two.broker.claim("n", "two", 5):
            pass

    assert not await one.broker.claim("n", "one", 5)


# The archive


async def test_all_that_was_published_is_there_for_the_archive(another: Another) -> None:
    one, two = await another(), await another()
    if not one.broker.shared:
        return  # it archives from its journal, which needs a database: tests/brokers
    places = {}
    for number in range(12):
        channel = f"kept:{number % 2}"
        places[channel, number] = await (one, two)[number % 2].publish(channel, number, namespace=KEPT, event="e")
    await one.publish("room:1", "no")
    await one.broker.purge("kept:1")

    records, position = await two.broker.unarchived(None, 7)
    more, end = await one.broker.unarchived(position, 100)
    assert [(each.channel, int(each.data)) for each in [*records, *more]] == list(places)
    assert [Position(each.offset, each.epoch) for each in [*records, *more]] == list(places.values())
    assert {each.event for each in records} == {"e"}
    assert (await two.broker.unarchived(end, 100)) == ([], end)
    assert len(bodies(await one.past(None, "kept:0", namespace=KEPT))) == KEPT.history


# Health


def test_a_broker_may_be_opened_again(fresh: Fresh) -> None:
    node = Node(make(fresh()))

    async def live() -> None:
        await node.broker.open(NAMESPACES)
        await node.broker.subscribe(ROOMS, "room:1")
        heard = len(node.ear.heard)
        await node.broker.follow("t")
        await node.publish()
        await node.ear.until(lambda: len(node.ear.heard) > heard)
        await node.broker.close()

    for _ in range(2):
        asyncio.run(live())
    assert node.ear.data("room:1") == [b"1", b"1"]


async def test_an_open_broker_is_healthy_and_says_where_it_is(node: Node) -> None:
    assert node.broker.healthy
    assert node.broker.place
    node.broker.sweep(now())
