"""Row L4 over nodes: what a user or an address may do is one rate, wherever it is done."""

from __future__ import annotations

import math
from time import monotonic
from typing import Any

import pytest

from hubbub import Hub
from hubbub.core.arrival import Arrival
from hubbub.core.buckets import Buckets
from hubbub.core.bus import ALL, MOST_KEYS, Spent, decode, encode
from hubbub.core.rates import Rate, Rates
from tests.cluster.conftest import Nodes
from tests.cluster.exchange import LinkedBroker
from tests.fakes import open_connection, say, tick
from tests.serving import until

SLOW = Rate(0.001, burst=160)
"""Nothing of it comes back while a test runs."""
QUIET = 10 + 9
"""A sixteenth of a burst that the others are not told of, and what a connection has on credit."""
NONE: dict[str, Any] = dict.fromkeys(("messages", "bytes", "subscribes", "publishes", "attempts"))


def rated(**rates: Any) -> Rates:
    """These rates and no others; a user has what a connection has."""
    return Rates(**{**NONE, "per_user": 1, "per_address": 2, **rates})


async def start(nodes: Nodes, rates: Rates) -> Hub:
    """One more node; it tells when it is told to."""
    hub = await nodes.start(rates=rates, chat=True)
    hub.node.sharing._due = math.inf
    return hub


def link(hub: Hub) -> LinkedBroker:
    assert isinstance(hub.node.broker, LinkedBroker)
    return hub.node.broker


def kind(hub: Hub, name: str) -> Buckets[str]:
    """The buckets of a node by the name they have among nodes."""
    return hub.node.sharing._kinds[name]


def beat(hub: Hub) -> None:
    """Let a node tell what it has to tell."""
    hub.node.sharing._due = 0.0
    hub.node.sharing.beat(monotonic())
    hub.node.sharing._due = math.inf


async def exchange(here: Hub, there: Hub, name: str, key: str) -> None:
    """Wait until one node knows what a key took on another, which is so much that it is told."""
    before = kind(there, name)._full_at.get(key)
    beat(here)
    await until(lambda: kind(there, name)._full_at.get(key) != before)


async def flood(hub: Hub, user: str | None, type: str = "ping", payload: Any = ...) -> int:
    """Send on a new connection until it is too much; how much was not."""
    connection, transport = open_connection(hub, user)
    count = 0
    while not transport.types.count("error"):
        say(connection, type, payload)
        count += 1
    connection.close()
    await tick(3)
    return count - 1


# What holds


@pytest.mark.parametrize(
    ("rates", "name", "type", "payload"),
    [
        ({"messages": SLOW}, "messages of users", "ping", ...),
        ({"bytes": Rate(0.001, burst=160 * 15)}, "bytes of users", "ping", None),
        ({"publishes": SLOW}, "publishes of users", "chat", {"recipientId": "bo", "message": "hi"}),
        ({"types": {"echo": SLOW}}, "type echo of users", "echo", 1),
    ],
    ids=["messages", "bytes", "publishes", "a type"],
)
async def test_a_user_has_a_rate_once(nodes: Nodes, rates: dict[str, Any], name: str, type: str, payload: Any) -> None:
    here, there = [await start(nodes, rated(**rates)) for _ in range(2)]

    passed = await flood(here, "ann", type, payload)
    await exchange(here, there, name, "ann")
    elsewhere = await flood(there, "ann", type, payload)

    assert 0 < passed <= 160
    assert elsewhere <= QUIET
    assert await flood(there, "ben", type, payload) == passed


async def test_a_flood_over_nodes_and_reconnects_gets_one_burst(every: Nodes) -> None:
    hubs = [await start(every, rated(messages=SLOW)) for _ in range(2)]
    passed = 0
    for turn in range(40):
        here, there = hubs[turn % 2], hubs[(turn + 1) % 2]
        connection, transport = open_connection(here, "ann")
        for _ in range(20):
            say(connection, "ping")
        connection.close()
        await tick(3)
        passed += transport.types.count("pong")
        if kind(here, "messages of users")._usage._untold:  # type: ignore[union-attr]
            await exchange(here, there, "messages of users", "ann")

    assert 160 <= passed <= 160 + QUIET


async def test_an_address_has_a_rate_once(nodes: Nodes) -> None:
    here, there = [await start(nodes, rated(messages=SLOW)) for _ in range(2)]

    assert [await flood(here, None) for _ in range(3)] == [160, 160, 0]
    await exchange(here, there, "messages of addresses", "127.0.0.1")

    assert await flood(there, None) <= 2 * QUIET


async def test_who_signs_in_too_often_does_so_on_all_nodes(nodes: Nodes) -> None:
    here, there = [await start(nodes, rated(attempts=Rate(0.001, burst=4))) for _ in range(2)]
    for _ in range(4):
        open_connection(here, "ann")
    await exchange(here, there, "attempts of users", "ann")

    _, transport = open_connection(there, "ann")

    assert [code for code, _ in transport.closes] == [4005]


async def test_an_address_that_knocks_too_often_does_so_on_all_nodes(nodes: Nodes) -> None:
    here, there = [await start(nodes, rated(attempts=Rate(0.001, burst=4))) for _ in range(2)]
    arrival = Arrival(host="localhost", address="192.0.2.1")
    assert [here.node.entrance.check(arrival) for _ in range(4)] == [None] * 4
    await exchange(here, there, "attempts of addresses", "192.0.2.1")

    refusal = there.node.entrance.check(arrival)

    assert refusal is not None
    assert refusal.status == 429


# What it costs


async def test_who_sends_little_is_not_spoken_of(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = [await start(nodes, Rates()) for _ in range(2)]
    said = listen(here, monkeypatch)
    for number in range(50):
        connection, _ = open_connection(here, f"user {number}")
        for _ in range(100):
            say(connection, "echo", number)
        say(connection, "subscribe", {"channel": "room:1"})
        connection.close()
    await tick(3)
    beat(here)
    await until(lambda: not here.node.cluster._speaker)

    assert {spent.kind.rpartition(" of ")[2] for spent in said} <= {"addresses"}  # they have one
    assert not any(kind(there, name) for name in ("messages of users", "bytes of users", "subscribes of users"))


async def test_all_is_told_once_and_by_who_saw_it(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = [await start(nodes, rated(messages=SLOW)) for _ in range(2)]
    said, echoed = listen(here, monkeypatch), listen(there, monkeypatch)
    await flood(here, "ann")
    for _ in range(3):
        beat(here)
        beat(there)
        await tick(5)

    told = [spent.seconds.get("ann", 0.0) for spent in said]
    assert sum(told) == max(told) == pytest.approx(160_000, rel=0.1)
    assert echoed == []


async def test_many_are_told_in_several_words(nodes: Nodes) -> None:
    here, there = [await start(nodes, rated(types={"echo": Rate(0.001, burst=1)})) for _ in range(2)]
    for number in range(MOST_KEYS + 1):
        say(open_connection(here, f"user {number}")[0], "echo")
    beat(here)

    await until(lambda: len(kind(there, "type echo of users")) == MOST_KEYS + 1)


async def test_alone_nothing_is_said_or_kept(nodes: Nodes) -> None:
    hub = await start(nodes, rated(messages=SLOW))
    said = link(hub).said
    await flood(hub, "ann")
    beat(hub)
    await tick(5)

    assert link(hub).said == said
    assert not kind(hub, "messages of users").spent()


# What is wrong


async def test_nodes_of_other_rates_understand_each_other(nodes: Nodes) -> None:
    here = await start(nodes, rated(messages=SLOW, types={"echo": SLOW}))
    there = await start(nodes, rated(messages=Rate(0.002, burst=320), types={"other": SLOW}))
    await flood(here, "ann", "echo", 1)
    await exchange(here, there, "messages of users", "ann")

    assert await flood(there, "ann") <= 2 * QUIET  # the time in which it comes back is the same
    assert await flood(there, "ann", "other") == 0


@pytest.mark.parametrize(
    "seconds",
    [
        {"ann": -1.0},
        {"ann": math.inf},
        {"ann": math.nan},
        {"ann": "1"},
        {"ann": 1e300},
        dict.fromkeys(map(str, range(501)), 1),
    ],
    ids=["negative", "endless", "none", "a text", "too long", "too many"],
)
async def test_what_cannot_be_is_not_taken(nodes: Nodes, seconds: Any) -> None:
    hub = await start(nodes, rated(messages=SLOW))
    (data,) = encode(Spent("other", "messages of users", seconds))
    with pytest.raises(ValueError, match="Expected"):
        decode(data)

    hub.node.publishing.told(ALL, data)

    assert await flood(hub, "ann") == 160


async def test_a_node_does_not_learn_from_itself(nodes: Nodes) -> None:
    hub = await start(nodes, rated(messages=SLOW))
    for node, kind_of in ((hub.node.cluster.id, "messages of users"), ("other", "words of nobody")):
        (data,) = encode(Spent(node, kind_of, {"ann": 1e6}))
        hub.node.publishing.told(ALL, data)

    assert await flood(hub, "ann") == 160


def listen(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> list[Spent]:
    """What a node tells of rates from now on."""
    broker, said = link(hub), list[Spent]()
    tell = broker.tell

    async def hear(topic: str, data: bytes) -> int:
        word = decode(data)
        if isinstance(word, Spent):
            said.append(word)
        return await tell(topic, data)

    monkeypatch.setattr(broker, "tell", hear)
    return said
