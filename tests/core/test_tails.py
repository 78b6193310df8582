"""What a node knows of a channel whose history is elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.core import tails
from hubbub.core.recovery import Past, Position, Publication
from hubbub.core.tails import Tail

OFFSETS = [3, 5, 6, 9, 14, 15]


def publications(offsets: list[int] = OFFSETS) -> list[Publication]:
    return [
        Publication(offset, previous, 1000, None, b"%d" % offset)
        for previous, offset in zip([0, *offsets], offsets, strict=False)
    ]


def tail(head: int = 0, size: int = 100) -> Tail:
    return Tail(Position(head, "e"), size, 60.0)


def past(since: int, epoch: str = "e", limit: int = 100, *, complete: bool = True) -> Past:
    found = [each for each in publications() if each.offset > since][:limit]
    return Past(found, Position(OFFSETS[-1], epoch), complete)


def offsets(found: list[Publication]) -> list[int]:
    return [publication.offset for publication in found]


def test_what_comes_in_order_is_passed_on_once() -> None:
    mine = tail()

    assert [mine.take(each) for each in publications()] == [True] * 6
    assert [mine.take(each) for each in publications()] == [False] * 6
    assert mine.head == Position(15, "e")


def test_what_was_there_at_the_beginning_is_not_passed_on() -> None:
    assert [tail(6).take(each) for each in publications()[:3]] == [False] * 3


def test_behind_a_gap_all_wait_until_it_is_healed() -> None:
    mine = tail()
    first, _, third, fourth, *_ = publications()
    mine.take(first)

    assert not mine.take(third)
    assert not mine.take(fourth)
    assert mine.gap
    healed = mine.heal(past(3, limit=2))

    assert healed is not None
    assert offsets(healed) == [5, 6, 9]
    assert not mine.gap


@pytest.mark.parametrize("answer", [past(0, "other"), past(0, complete=False)], ids=["another epoch", "not complete"])
def test_a_gap_that_the_history_cannot_heal_breaks_the_channel(answer: Past) -> None:
    mine = tail()
    mine.take(publications()[3])

    assert mine.heal(answer) is None


@given(st.lists(st.booleans(), min_size=6, max_size=6))
def test_whatever_is_lost_all_are_passed_on_in_order(lost: list[bool]) -> None:
    mine, passed = tail(), []
    for publication, gone in zip(publications(), lost, strict=True):
        if not gone and mine.take(publication):
            passed.append(publication)
    passed += mine.heal(past(mine.head.offset)) or []

    assert offsets(passed) == OFFSETS


def test_a_tail_answers_for_what_it_saw_and_no_more() -> None:
    mine = tail(6)
    for publication in publications():
        mine.take(publication)

    answer = mine.past(Position(9, "e"), 100, 1000)
    assert answer is not None
    assert offsets(answer.publications) == [14, 15]
    assert mine.past(Position(5, "e"), 100, 1000) is None
    assert mine.past(Position(9, "other"), 100, 1000) is None
    assert mine.past(Position(16, "e"), 100, 1000) is None


def test_what_the_history_had_is_known_from_then_on() -> None:
    mine = tail(9)
    for publication in publications():
        mine.take(publication)
    mine.extend(Position(3, "e"), past(3))

    answer = mine.past(Position(3, "e"), 3, 1000)
    assert answer is not None
    assert offsets(answer.publications) == [5, 6, 9]
    assert mine.past(Position(0, "e"), 3, 1000) is None


def test_a_page_that_does_not_reach_what_is_known_is_not_kept() -> None:
    mine = tail(15)
    mine.extend(Position(0, "e"), past(0, limit=3))

    assert mine.past(Position(0, "e"), 100, 1000) is None


def test_a_tail_forgets_as_the_channel_does() -> None:
    mine = tail(size=2)
    for publication in publications():
        mine.take(publication)

    assert mine.past(Position(6, "e"), 100, 1000) is None
    assert mine.past(Position(9, "e"), 100, 1000) is not None
    assert mine.past(Position(9, "e"), 100, 1000 + 60_000) is None


STEPS = st.lists(st.sampled_from(["heard", "heard", "lost", "read", "answered"]), max_size=120)


@given(STEPS, st.integers(1, 4), st.integers(1, 5))
def test_whatever_is_lost_however_little_may_wait_the_end_is_reached(steps: list[str], most: int, page: int) -> None:
    """A node that heals as brokers do: it reads page by page while there is a gap, and more is heard meanwhile."""
    history: list[Publication] = []
    mine, passed = tail(size=1000), list[Publication]()
    asked: Past | None = None

    def read() -> Past:
        found = [each for each in history if each.offset > mine.head.offset][:page]
        return Past(found, Position(history[-1].offset if history else 0, "e"), True)

    def answered(past: Past) -> None:
        passed.extend(mine.heal(past) or [])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tails, "MOST_WAITING", most)
        for step in [*steps, "heard"]:
            if step in ("heard", "lost"):
                last = history[-1].offset if history else 0
                history.append(Publication(last + 3, last, 1000, None, b"1"))
                if step == "heard" and mine.take(history[-1]):
                    passed.append(history[-1])
            elif step == "read" and mine.gap:
                asked = read()
            elif step == "answered" and asked is not None:
                answered(asked)
                asked = None
            assert len(mine.waiting) <= most
        while mine.gap:
            answered(read())

    assert passed == history


def test_what_this_node_published_is_in_every_answer() -> None:
    mine = tail()
    mine.take(publications()[0])
    mine.published(Position(5, "e"))
    mine.published(Position(99, "other"))

    assert mine.answer(Position(3, "e"), 100, 1000) is None
    assert mine.answer(None, 1, 1000) is None
    mine.take(publications()[1])
    answer = mine.answer(Position(3, "e"), 100, 1000)
    assert answer is not None
    assert offsets(answer.publications) == [5]


def test_the_last_publication_is_known_until_it_is_too_old() -> None:
    mine = tail()
    for publication in publications():
        mine.take(publication)

    for now, expected in ((1000, [15]), (1000 + 60_000, [])):
        answer = mine.answer(None, 1, now)
        assert answer is not None
        assert offsets(answer.publications) == expected
    assert mine.answer(None, 2, 1000) is None


def test_a_position_that_is_lost_is_not_asked_for_again() -> None:
    mine = tail(9)
    mine.lost = 5

    for since, complete in ((Position(5, "e"), False), (Position(9, "other"), False), (Position(9, "e"), True)):
        answer = mine.answer(since, 100, 1000)
        assert answer is not None
        assert answer.complete is complete
    assert mine.answer(Position(6, "e"), 100, 1000) is None
