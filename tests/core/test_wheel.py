from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hubbub.core.wheel import Wheel

TIMES = st.floats(0, 1000, allow_nan=False)


def test_an_item_is_due_once_when_its_time_came() -> None:
    wheel: Wheel[str] = Wheel(1.0)
    wheel.add("a", 10.0)
    assert wheel.turn(9.99) == []
    assert wheel.turn(10.0) == ["a"]
    assert wheel.turn(1000.0) == []


def test_items_come_earliest_first_and_in_their_order() -> None:
    wheel: Wheel[str] = Wheel(1.0)
    for item, at in (("late", 30.0), ("first", 10.2), ("second", 10.1), ("early", 2.0)):
        wheel.add(item, at)
    assert wheel.turn(100.0) == ["early", "first", "second", "late"]


def test_a_past_time_is_due_at_the_next_turn() -> None:
    wheel: Wheel[str] = Wheel(0.5)
    wheel.turn(10.0)
    wheel.add("overdue", 3.0)
    assert wheel.turn(10.2) == []
    assert wheel.turn(10.5) == ["overdue"]


def test_a_wheel_may_start_anywhere_and_stand_still_for_long() -> None:
    wheel: Wheel[int] = Wheel(0.001)
    wheel.add(1, 1e6)
    wheel.add(2, 2e6)
    assert wheel.turn(1e6) == [1]
    assert wheel.turn(1e9) == [2]


def test_an_item_may_be_added_while_others_are_due() -> None:
    wheel: Wheel[int] = Wheel(1.0)
    wheel.add(0, 1.0)
    seen = []
    for now in (1.0, 2.0, 3.0):
        for item in wheel.turn(now):
            seen.append(item)
            wheel.add(item + 1, now + 1.0)
    assert seen == [0, 1, 2]


@given(width=st.floats(0.01, 5), deadlines=st.lists(TIMES, max_size=30), turns=st.lists(TIMES, max_size=30))
def test_nothing_is_early_lost_or_later_than_a_bucket(width: float, deadlines: list[float], turns: list[float]) -> None:
    wheel: Wheel[float] = Wheel(width)
    for at in deadlines:
        wheel.add(at, at)
    due: list[float] = []
    slack = width * 1e-9
    for now in sorted(turns):
        found = wheel.turn(now)
        assert all(at <= now + slack for at in found)
        due += found
        assert all(at > now - width - slack for at in deadlines if at not in due)
    assert sorted(due + wheel.turn(2000.0)) == sorted(deadlines)
