"""Long messages between nodes, which come in parts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.core import bus
from hubbub.core.bus import PART, Joiner, Send, decode, encode

LONG = 3 * PART


def parts(node: str, id: int, size: int = LONG) -> list[bytes]:
    """One long message, as it is said."""
    return list(encode(Send(f"{node} {id}", b"x" * size), node, id))


def heard(joiner: Joiner, said: list[bytes]) -> list[str]:
    """Whose messages came through."""
    return [whole.user_id for each in said if isinstance(whole := joiner.join(decode(each)), Send)]


def test_long_messages_of_one_node_may_come_at_a_time() -> None:
    joiner, first, second = Joiner(), parts("a", 1), parts("a", 2)
    mixed = [each for pair in zip(first, second, strict=True) for each in pair]

    assert heard(joiner, mixed) == ["a 1", "a 2"]
    assert len(joiner) == 0


def test_what_stopped_growing_is_dropped() -> None:
    joiner = Joiner()
    heard(joiner, parts("a", 1)[:2])
    joiner.sweep()
    assert len(joiner) == 1
    joiner.sweep()

    assert len(joiner) == joiner._size == 0


def test_what_a_node_began_to_say_goes_with_it() -> None:
    joiner = Joiner()
    heard(joiner, parts("a", 1)[:2] + parts("b", 1)[:2])
    joiner.forget("a")

    assert heard(joiner, parts("a", 1)[2:] + parts("b", 1)[2:]) == ["b 1"]


def test_many_who_never_end_take_no_more_room_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "MOST_OPEN", 4 * PART)
    joiner = Joiner()
    heard(joiner, [parts("a", id)[0] for id in range(50)])

    assert joiner._size <= 4 * PART
    assert len(joiner) == 4


SHORT = [(node, id, size) for node in ("a", "b") for id, size in ((1, PART), (2, 2 * PART))]
WIRE = [each for node, id, size in SHORT for each in parts(node, id, size)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(range(len(WIRE))), max_size=24))
def test_whatever_is_lost_doubled_or_mixed_nothing_wrong_is_heard(order: list[int]) -> None:
    joiner = Joiner()
    said = heard(joiner, [WIRE[index] for index in order])

    assert set(said) <= {f"{node} {id}" for node, id, _ in SHORT}
    assert joiner._size == sum(len(piece) for pieces in joiner._open.values() for piece in pieces)
    joiner.sweep()
    joiner.sweep()
    assert heard(joiner, WIRE) == [f"{node} {id}" for node, id, _ in SHORT]
