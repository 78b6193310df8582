"""Presence over many nodes: numbered deltas, snapshots, and nodes that are not heard of any more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.core.leases import Change, Delta, Leases, Snapshot
from hubbub.core.presence import Entry

TTL = 10.0
ANN, BEN = Entry("1", "ann"), Entry("2", "ben")


def users(leases: Leases, channel: str = "room") -> set[str]:
    """Who is there, as one node sees it."""
    return {member.user_id or "" for member in leases.rosters.get(channel).members()}


class Own:
    """What a node answers for, written down."""

    def __init__(self) -> None:
        self.channels: dict[str, dict[str, Entry]] = {}

    def __iter__(self) -> Iterator[str]:
        return (channel for channel, entries in self.channels.items() if entries)

    def entries(self, channel: str) -> Iterable[Entry]:
        return self.channels.get(channel, {}).values()


class Node(Leases):
    """A node, and what it answers for."""

    def __init__(self, node: str, *, shared: bool = False) -> None:
        self.own = Own()
        super().__init__(node, TTL, self.own, shared=shared)

    def put(self, channel: str, connection_id: str, entry: Entry | None) -> None:
        """Let a connection have an entry, or with None be there no more."""
        entries = self.own.channels.setdefault(channel, {})
        before = entries.pop(connection_id, None) if entry is None else entries.get(connection_id)
        if entry is not None:
            entries[connection_id] = entry
        self.change(channel, connection_id, before, entry)


def delta(number: int, *entries: Entry, node: str = "b") -> Delta:
    return Delta(node, number, [Change("room", entry.connection_id, entry) for entry in entries])


@pytest.fixture
def leases() -> Node:
    """Node a, which knows that ann is on node b."""
    leases = Node("a", shared=True)
    leases.apply_snapshot(Snapshot("b", 3, {"room": [ANN]}), now=0.0)
    return leases


def test_deltas_follow_a_snapshot_in_order(leases: Node) -> None:
    assert leases.apply_delta(delta(4, BEN), now=1.0)
    assert leases.apply_delta(Delta("b", 5, [Change("room", "1")]), now=2.0)
    assert users(leases) == {"ben"}


@pytest.mark.parametrize(
    ("message", "known"),
    [
        pytest.param(delta(4, BEN), True, id="the next delta"),
        pytest.param(delta(3, BEN), True, id="an old delta"),
        pytest.param(delta(5, BEN), False, id="a gap"),
        pytest.param(delta(1, BEN, node="c"), False, id="an unknown node"),
    ],
)
def test_a_gap_asks_for_a_snapshot(leases: Node, message: Delta, known: bool) -> None:
    assert leases.apply_delta(message, now=1.0) is known
    assert users(leases) == ({"ann", "ben"} if message.number == 4 else {"ann"})


@pytest.mark.parametrize(
    ("version", "expected"),
    [pytest.param(7, {"ben"}, id="newer"), pytest.param(2, {"ann"}, id="older")],
)
def test_a_snapshot_takes_the_place_of_what_was_known(leases: Node, version: int, expected: set[str]) -> None:
    leases.apply_snapshot(Snapshot("b", version, {"room": [BEN]}), now=1.0)
    assert users(leases) == expected
    assert leases.heard("b", max(version, 3), now=1.0)
    assert not leases.heard("b", 8, now=1.0)


def test_a_node_that_is_silent_takes_its_members_away_once(leases: Node) -> None:
    leases.put("room", "2", BEN)
    assert leases.heard("b", 3, now=5.0)
    assert leases.expire(14.0) == []
    assert leases.expire(15.0) == ["b"]
    assert leases.expire(100.0) == []
    assert users(leases) == {"ben"}
    assert not leases.heard("b", 3, now=101.0)
    assert not leases.apply_delta(delta(4, BEN), now=101.0)


def test_a_node_that_says_goodbye_need_not_be_waited_for(leases: Node) -> None:
    leases.forget("b")
    leases.forget("b")
    assert users(leases) == set()


def test_a_user_on_two_nodes_is_one_member(leases: Node) -> None:
    leases.put("room", "9", Entry("9", "ann"))
    assert [member.connections for member in leases.rosters.get("room").members()] == [2]
    assert sorted(entry.connection_id for entry in leases.entries("room")) == ["1", "9"]
    assert not leases.rosters.tell("room").left
    leases.expire(TTL)
    assert not leases.rosters.tell("room").left


def test_a_delta_has_all_that_changed_here_and_nothing_of_others(leases: Node) -> None:
    leases.put("room", "2", BEN)
    leases.put("hall", "2", BEN)
    leases.put("hall", "2", None)
    assert leases.take_delta() == Delta("a", 1, [Change("room", "2", BEN), Change("hall", "2")])
    assert leases.take_delta() is None
    assert leases.snapshot() == Snapshot("a", 1, {"room": [BEN]})


def test_a_node_alone_keeps_no_deltas() -> None:
    leases = Node("a")
    leases.put("room", "1", ANN)
    assert leases.take_delta() is None


def test_an_equal_entry_of_a_snapshot_changes_nothing(leases: Node) -> None:
    leases.apply_snapshot(Snapshot("b", 4, {"room": [Entry("1", "ann", b"1", 5)]}), now=1.0)
    leases.apply_snapshot(Snapshot("b", 5, {"room": [Entry("1", "ann", b"1", 5)]}), now=1.0)
    leases.apply_delta(Delta("b", 6, [Change("room", "1", ANN)]), now=1.0)
    assert [member.state for member in leases.rosters.get("room").members()] == [None]


def test_what_travels_has_a_form() -> None:
    for message in (delta(4, ANN), Snapshot("b", 3, {"room": [Entry("1", None, b"{}", 7)]})):
        assert msgspec.json.decode(msgspec.json.encode(message), type=type(message)) == message


class Cluster:
    """Nodes that tell each other what changes, over links that lose what they like.

    Each node checks what its subscribers are told: everybody joins once before leaving once.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.lives = 0
        self.nodes: list[Node] = []
        self.told: dict[str, dict[str, set[str]]] = {}
        self.asked: set[tuple[str, str]] = set()
        for _ in range(3):
            self.born()

    def born(self) -> None:
        """Start a node, which nobody knows yet."""
        self.lives += 1
        node = Node(f"node {self.lives}", shared=True)
        self.nodes.append(node)
        self.told[node.node] = {}

    def move(self, clock: int, which: int, channel: str, name: str, step: str) -> None:
        """Let somebody join, leave, or set something on a node."""
        node = self.nodes[which]
        id = f"{node.node} {name}"
        state = str(clock).encode() if step == "state" else None
        node.put(channel, id, None if step == "leave" else Entry(id, name[0], state, clock))

    def turn(self, losses: int) -> None:
        """Send every node's delta to the others, and its answers to those that ask; `losses` says which are lost."""
        for node in list(self.nodes):
            delta = node.take_delta()
            for other in self.nodes:
                if other is not node:
                    losses = losses * 1103515245 + 12345 & 0x7FFFFFFF if losses else 0
                    self.pass_on(node, delta, other, lost=bool(losses >> 16 & 1))
        self.tell()

    def pass_on(self, node: Leases, delta: Delta | None, other: Leases, lost: bool) -> None:
        """Bring one node's news to another."""
        if lost:
            return
        if (node.node, other.node) in self.asked:
            self.asked.remove((node.node, other.node))
            other.apply_snapshot(node.snapshot(), self.now)
        version = node.snapshot().version
        known = other.heard(node.node, version, self.now) if delta is None else other.apply_delta(delta, self.now)
        if not known:
            self.asked.add((node.node, other.node))

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for node in self.nodes:
            node.expire(self.now)
        self.tell()

    def tell(self) -> None:
        """Let every node tell its subscribers."""
        for node in self.nodes:
            for channel in node.rosters.take_changed():
                changes, there = node.rosters.tell(channel), self.told[node.node].setdefault(channel, set())
                left = {str(member.user_id) for member in changes.left}
                joined = {str(member.user_id) for member in changes.joined}
                assert left <= there
                assert not joined & there
                there -= left
                there |= joined

    def check(self) -> None:
        """Every node, and every node's subscribers, have the exact set."""
        for channel in ("room", "hall"):
            entries = {entry for node in self.nodes for entry in node.snapshot().channels.get(channel, ())}
            for node in self.nodes:
                assert {*node.entries(channel)} == entries
                assert users(node, channel) == {entry.user_id for entry in entries}
                assert self.told[node.node].get(channel, set()) == users(node, channel)


NODE = st.integers(0, 2)
MOVE = st.tuples(
    st.just("move"),
    NODE,
    st.sampled_from(["room", "hall"]),
    st.sampled_from(["ann", "ann's tab", "ben", "cat"]),
    st.sampled_from(["join", "state", "leave", "leave"]),
)
OTHERS = st.one_of(
    st.tuples(st.just("turn"), st.integers(0, 1000)),
    st.tuples(st.just("turn"), st.just(0)),
    st.tuples(st.just("die"), NODE),
    st.tuples(st.just("wait"), st.floats(0.1, 12.0)),
)


@settings(max_examples=200)
@given(st.lists(st.one_of(MOVE, MOVE, OTHERS), max_size=80))
def test_after_quiet_and_the_ttl_every_node_has_the_exact_set(steps: list[Any]) -> None:
    cluster = Cluster()
    for clock, step in enumerate(steps):
        if step[0] == "move":
            cluster.move(clock, *step[1:])
        elif step[0] == "turn":
            cluster.turn(step[1])
        elif step[0] == "wait":
            cluster.pass_time(step[1])
        else:
            del cluster.nodes[step[1]]
            cluster.born()
    for _ in range(6):
        cluster.turn(0)
        cluster.pass_time(TTL / 4)
    cluster.turn(0)
    cluster.check()


@settings(max_examples=100)
@given(st.lists(MOVE, max_size=40))
def test_when_all_have_left_nobody_is_anywhere(steps: list[Any]) -> None:
    cluster = Cluster()
    for clock, step in enumerate(steps):
        cluster.move(clock, *step[1:])
        cluster.turn(clock)
    for node in cluster.nodes:
        for channel, entries in list(node.snapshot().channels.items()):
            for entry in entries:
                node.put(channel, entry.connection_id, None)
    for _ in range(3):
        cluster.turn(0)
    cluster.check()
    assert all(not len(node.rosters) for node in cluster.nodes)


def test_a_node_of_which_nothing_but_its_life_was_heard_is_missed_too() -> None:
    mine = Node("a")
    assert not mine.heard("b", 3, 0.0)
    assert not mine.heard("b", 3, 1.0)
    assert mine.expire(1.0 + TTL) == ["b"]
    assert not mine.heard("b", 0, 100.0)
    assert mine.apply_delta(delta(1, ANN), 100.0)
    assert users(mine) == {"ann"}
