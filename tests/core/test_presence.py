"""The members of a channel, and what is told of them: tables, and clients that look at random."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.core.presence import Changes, Entry, Member, Roster, Rosters

Json = dict[str, Any]
Step = Callable[[Roster], None]
ANN, ANN_TAB, BEN, STRANGER = Entry("1", "ann"), Entry("2", "ann"), Entry("3", "ben"), Entry("4")


def names(members: list[Member]) -> list[str]:
    """Who they are, with their connections."""
    return [f"{member.user_id or member.connection_id} {member.connections}" for member in members]


def told(changes: Changes) -> tuple[list[str], list[str], list[str]]:
    """What a telling says: who left, is updated, and joined."""
    return names(changes.left), names(changes.updated), names(changes.joined)


def with_members(*entries: Entry) -> Roster:
    """A roster of which all is told."""
    roster = Roster()
    for entry in entries:
        roster.change(None, entry)
    roster.tell()
    return roster


def join(*entries: Entry) -> Step:
    """Let them come."""

    def step(roster: Roster) -> None:
        for entry in entries:
            roster.change(None, entry)

    return step


def leave(*entries: Entry) -> Step:
    """Let them go."""

    def step(roster: Roster) -> None:
        for entry in entries:
            roster.change(entry, None)

    return step


@pytest.mark.parametrize(
    ("before", "steps", "expected"),
    [
        pytest.param([], [join(ANN)], ([], [], ["ann 1"]), id="a join"),
        pytest.param([ANN], [leave(ANN)], (["ann 0"], [], []), id="a leave"),
        pytest.param([], [join(ANN, ANN_TAB)], ([], [], ["ann 2"]), id="two tabs are one member"),
        pytest.param([ANN], [join(ANN_TAB)], ([], ["ann 2"], []), id="one tab more"),
        pytest.param([ANN, ANN_TAB], [leave(ANN)], ([], ["ann 1"], []), id="one tab less"),
        pytest.param([ANN, ANN_TAB], [leave(ANN_TAB, ANN)], (["ann 0"], [], []), id="the last tab"),
        pytest.param([], [join(STRANGER)], ([], [], ["4 1"]), id="a stranger"),
        pytest.param([], [join(ANN), leave(ANN)], ([], [], []), id="joined and left: nothing"),
        pytest.param([ANN], [leave(ANN), join(ANN)], ([], [], []), id="left and came back: nothing"),
        pytest.param([ANN], [leave(ANN), join(BEN)], (["ann 0"], [], ["ben 1"]), id="one for another"),
        pytest.param([], [Roster.show, join(ANN), leave(ANN)], ([], [], []), id="shown before"),
        pytest.param([], [join(ANN), Roster.show, leave(ANN)], (["ann 0"], [], []), id="shown in between"),
        pytest.param([], [join(ANN), leave(ANN), Roster.show], ([], [], []), id="shown when all was over"),
        pytest.param([], [join(ANN), leave(ANN), Roster.show, join(ANN), leave(ANN)], ([], [], []), id="shown away"),
        pytest.param([ANN], [leave(ANN), Roster.show, join(ANN)], ([], ["ann 1"], []), id="shown to be away"),
        pytest.param([], [join(ANN), Roster.show], ([], [], ["ann 1"]), id="shown, and the others are told"),
    ],
)
def test_what_is_told_is_the_difference(before: list[Entry], steps: list[Any], expected: Any) -> None:
    roster = with_members(*before)
    for step in steps:
        step(roster)
    assert told(roster.tell()) == expected
    assert roster.settled
    assert told(roster.tell()) == ([], [], [])


def test_the_last_state_of_a_member_counts_while_its_connection_is_there() -> None:
    roster = Roster()
    early, late = Entry("1", "ann", b"1", 10), Entry("2", "ann", b"2", 20)
    for entry in (late, early):
        roster.change(None, entry)
    assert json.loads(roster.listing(9)) == [{"userId": "ann", "connections": 2, "state": 2}]
    roster.change(late, None)
    assert json.loads(roster.listing(9)) == [{"userId": "ann", "connections": 1, "state": 1}]
    roster.change(early, ANN)
    assert json.loads(roster.listing(9)) == [{"userId": "ann", "connections": 1}]


def test_who_signs_in_is_another_member() -> None:
    roster = with_members(STRANGER)
    roster.change(STRANGER, Entry("4", "ann"))
    assert told(roster.tell()) == (["4 0"], [], ["ann 1"])


def test_a_list_is_of_the_oldest_and_made_once_until_it_changes() -> None:
    roster = with_members(*(Entry(str(number)) for number in range(5)))
    roster.change(None, Entry("5"))
    first = roster.listing(3)
    assert [member["connectionId"] for member in json.loads(first)] == ["0", "1", "2"]
    roster.change(None, Entry("6"))
    assert roster.listing(3) is first
    roster.change(Entry("1"), None)
    assert [member["connectionId"] for member in json.loads(roster.listing(3))] == ["0", "2", "3"]
    assert len(json.loads(roster.listing(100))) == 6
    roster.tell()
    assert roster.listing(3) is not roster.listing(3)  # nothing is kept where nothing happens


def test_channels_without_members_are_forgotten_once_that_is_told() -> None:
    there: list[Entry] = [ANN]
    rosters = Rosters(lambda channel: there)
    rosters.change("room", None, ANN)
    assert list(rosters.take_changed()) == ["room"]
    assert told(rosters.tell("room")) == ([], [], ["ann 1"])
    there.clear()
    rosters.change("room", ANN, None)
    rosters.take_changed()
    assert told(rosters.tell("room")) == (["ann 0"], [], [])
    assert (len(rosters), len(rosters.get("room")), list(rosters.take_changed())) == (0, 0, [])
    assert told(rosters.tell("room")) == ([], [], [])


def test_of_a_few_connections_nothing_is_kept_of_which_all_is_told() -> None:
    there = [ANN, ANN_TAB, BEN]
    rosters = Rosters(lambda channel: there)
    for _ in range(2):
        assert names(rosters.get("room").members()) == ["ann 2", "ben 1"]
        there.append(STRANGER)
        rosters.change("room", None, STRANGER)
        assert (len(rosters), names(rosters.get("room").members())) == (1, ["ann 2", "ben 1", "4 1"])
        assert told(rosters.tell("room")) == ([], [], ["4 1"])
        assert len(rosters) == 0
        there.remove(STRANGER)
        rosters.change("room", STRANGER, None)
        assert told(rosters.tell("room")) == (["4 0"], [], [])
    busy = there[1] = Entry("2", "ann", b"1", 5)
    rosters.change("room", ANN_TAB, busy)
    assert [member.state == msgspec.Raw(b"1") for member in rosters.tell("room").updated] == [True]
    assert names(rosters.get("room").members()) == ["ann 2", "ben 1"]


def test_the_roster_of_many_connections_is_kept() -> None:
    there = [Entry(str(number), "ann") for number in range(9)]
    rosters = Rosters(lambda channel: there)
    rosters.change("room", None, there[-1])
    assert told(rosters.tell("room")) == ([], ["ann 9"], [])
    assert (len(rosters), rosters.get("room")) == (1, rosters.get("room"))


class Client:
    """A subscriber as docs/protocol.md has it: it sets and removes what it is told, by id."""

    def __init__(self, roster: Roster) -> None:
        roster.show()
        self.members: Json = {_name(member): member for member in json.loads(roster.listing(1000))}

    def hear(self, changes: Changes) -> None:
        """Take one telling."""
        for member in changes.left:
            self.members.pop(member.user_id or str(member.connection_id), None)
        for member in (*changes.updated, *changes.joined):
            assert member.connections
            name = member.user_id or str(member.connection_id)
            state = {} if member.state is None else {"state": json.loads(bytes(member.state))}
            kind = "userId" if member.user_id else "connectionId"
            self.members[name] = {kind: name, "connections": member.connections, **state}


def _name(member: Json) -> str:
    return str(member.get("userId") or member.get("connectionId"))


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from("abcdef"), st.sampled_from([None, "ann", "ben"]), st.sampled_from([None, b"1", b"2"])
        ),
        st.sampled_from(["leave a", "leave b", "leave c", "leave d", "look", "tell", "tell"]),
    ),
    max_size=60,
)


@given(STEPS)
def test_whoever_looks_whenever_knows_the_exact_set_after_the_next_telling(steps: list[Any]) -> None:
    roster, entries, clients = Roster(), dict[str, Entry](), list[Client]()
    for clock, step in enumerate(steps):
        if step == "look":
            clients.append(Client(roster))
        elif step == "tell":
            _tell(roster, clients)
        else:
            id = step[-1] if isinstance(step, str) else step[0]
            before = entries.pop(id, None)
            if not isinstance(step, str):
                entries[id] = Entry(id, step[1], step[2], clock)
            if before != entries.get(id):
                roster.change(before, entries.get(id))
    _tell(roster, clients)
    assert sum(member.connections for member in roster.members()) == len(entries)


def _tell(roster: Roster, clients: list[Client]) -> None:
    changes = roster.tell()
    now = {_name(member): member for member in json.loads(roster.listing(1000))}
    for client in clients:
        client.hear(changes)
        assert client.members == now


@given(STEPS.map(lambda steps: [step for step in steps if step != "look"]))
def test_where_nobody_looks_every_join_has_one_leave(steps: list[Any]) -> None:
    roster, entries, there = Roster(), dict[str, Entry](), set[str]()
    for clock, step in enumerate([*steps, "leave a", "leave b", "leave c", "leave d", "leave e", "leave f", "tell"]):
        if step == "tell":
            _account(roster.tell(), there)
            continue
        id = step[-1] if isinstance(step, str) else step[0]
        before = entries.pop(id, None)
        if not isinstance(step, str):
            entries[id] = Entry(id, step[1], step[2], clock)
        roster.change(before, entries.get(id))
    assert not there
    assert not roster


def _account(changes: Changes, there: set[str]) -> None:
    """Take what is told; nobody leaves, changes or comes who was not, was not, or was there."""
    left, updated, joined = (
        {member.user_id or str(member.connection_id) for member in part}
        for part in (changes.left, changes.updated, changes.joined)
    )
    assert left <= there
    assert updated <= there
    assert not joined & there
    there -= left
    there |= joined
