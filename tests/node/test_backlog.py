from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub.core.channels import Channel
from hubbub.core.envelope import encode
from hubbub.core.forms import FRAMES, TEXTS, Form, deflated
from hubbub.node import backlog
from hubbub.node.backlog import Backlog
from hubbub.node.batch import Publication
from tests.fakes import read_messages

EVERYTHING = 1 << 30
LATEST = "lm"


class Play:
    """A backlog, and publications: `d1` is of the channel d and the key 1; capitals are direct messages.

    Channels d and e drop the oldest, l and m keep the latest of each key.
    """

    def __init__(self, form: Form = FRAMES, offsets: bool = True) -> None:
        self.form = form
        self.offsets = offsets
        self.backlog = Backlog(form)
        self.channels = {
            name: Channel[Any](name, "latest_per_key" if name in LATEST else "drop_oldest") for name in "delm"
        }
        self.words: list[str] = []

    def add(self, words: str) -> Play:
        """Add these."""
        for word in words.split():
            self.words.append(word)
            data = encode(word, None, 0)
            channel = self.channels.get(word[0])
            publication = Publication(0, data, channel, len(self.words) if self.offsets else 0, (word[1:], None))
            wire = publication.wire(self.form)
            size = self.form.size(wire)
            if publication.slow == "latest_per_key":
                self.backlog.conflate(publication, size)
            else:
                self.backlog.add(wire if channel is None else publication, size)
        return self

    def drop(self, count: int) -> int:
        """Want to be rid of the weight of so many."""
        return self.backlog.drop_oldest(self.form.size(self.form.encode(encode("d1", None, 0))) * count)

    def take(self, size: int = EVERYTHING) -> str:
        """What is left, gaps as `d[1-3]2`: offsets and count."""
        words = []
        for message in read_messages(self.backlog.take(size, 1)):
            body = message.get("payload")
            words.append(message["type"] if body is None else _gap(**body))
        return " ".join(words)


def _gap(channel: str, count: int, **places: int) -> str:
    return f"{channel}[{places['from']}-{places['to']}]{count}" if places else f"{channel}[]{count}"


@pytest.mark.parametrize("form", [FRAMES, TEXTS, deflated(15)], ids=["frames", "texts", "deflated"])
def test_it_gives_back_what_was_added_in_order(form: Form) -> None:
    play = Play(form).add("d1 X l1 d2 Y")
    assert play.backlog.size > 0
    assert play.take() == "d1 X l1 d2 Y"
    assert (play.backlog.size, len(play.backlog)) == (0, 0)


@pytest.mark.parametrize(
    ("words", "count", "left"),
    [
        ("d1 d2 d3", 2, "d[1-2]2 d3"),
        ("d1 d2", 5, "d[1-2]2"),
        ("X1 d1 d2 Y1 d3 Z1", 2, "X1 d[2-3]2 Y1 d3 Z1"),
        ("d1 X1 d2 Y1 d3", 2, "X1 d[1-3]2 Y1 d3"),
        ("d1 e1 d2 e2 d3 e3", 4, "d[1-3]2 e[2-4]2 d3 e3"),
        ("d1 e1 d2", 1, "d[1-1]1 e1 d2"),
        ("l1 d1 l2 d2", 3, "l1 l2 d[2-4]2"),
        ("X1 Y1", 1, "X1 Y1"),
    ],
)
def test_the_oldest_go_and_a_gap_stands_before_what_follows(words: str, count: int, left: str) -> None:
    play = Play().add(words)
    assert play.drop(count) == min(count, sum(word[0] in "de" for word in words.split()))
    assert play.take() == left
    assert play.backlog.size == 0


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("l1 l2", "l1 l2"),
        ("l1 l1 l1", "l[1-2]2 l1"),
        ("l1 l2 l1 l2", "l[1-2]2 l1 l2"),
        ("l1 m1 l1", "l[1-1]1 m1 l1"),
        ("l1 l2 l3 l1 l3", "l[1-1]1 l2 l[3-3]1 l1 l3"),
        ("l1 X l1 Y", "l[1-1]1 X l1 Y"),
        ("l1 X l2 Y l1 l2", "X l[1-3]2 Y l1 l2"),
    ],
)
def test_a_newer_one_of_a_key_comes_in_its_own_place(words: str, left: str) -> None:
    play = Play().add(words)
    assert play.take() == left
    assert play.backlog.size == 0


def test_the_latest_of_a_key_is_never_dropped() -> None:
    play = Play().add("l1 l2 l3")
    assert play.drop(3) == 0
    assert play.take() == "l1 l2 l3"


def test_without_offsets_a_gap_has_its_count() -> None:
    play = Play(offsets=False).add("d1 d2 d3")
    play.drop(2)
    assert play.take() == "d[]2 d3"


def test_a_key_that_was_taken_waits_no_more() -> None:
    play = Play().add("l1 l2 X l3")
    assert play.take(1) == "l1"
    play.add("l1 l4")
    assert play.take(1) == "l2"
    play.add("l3 l3")
    assert play.take() == "X l[4-4]1 l1 l4 l[7-7]1 l3"


def test_dropping_goes_on_where_it_was() -> None:
    play = Play().add("X d1 d2 Y d3 d4")
    assert play.drop(1) == 1
    assert play.drop(2) == 2
    play.add("d5")
    assert play.take() == "X Y d[2-5]3 d4 d5"


def test_dropping_goes_on_where_it_was_when_gaps_were_joined_meanwhile() -> None:
    play = Play().add("d1 d2 X")
    assert play.drop(1) == 1
    play.add("l1 " * (2 * backlog.LOOSE + 10)).add("d3")
    assert play.drop(1) == 1
    last = 3 + 2 * backlog.LOOSE + 10
    assert play.take() == f"d[1-2]2 X l[4-{last - 1}]{last - 4} l1 d3"


@pytest.mark.parametrize("name", ["d", "l"])
def test_a_flood_leaves_no_trace_but_a_gap(name: str) -> None:
    three = f"{name}1 {name}2 {name}3"
    play = Play().add(three)
    for _ in range(1000):
        play.add(three)
        if name == "d":
            play.drop(3)
        assert len(play.backlog) < 80
    assert play.take() == f"{name}[1-3000]3000 {three}"


# --- Against a model -------------------------------------------------------------------------------------------------

WORD = st.sampled_from(["X1", "d1", "e1", "l1", "l2", "l3", "m1", "m2"])
STEP = st.one_of(WORD, WORD, WORD, st.integers(1, 4), st.sampled_from([-1, -30, -60]))
JOINED = st.sampled_from([0, 1, 3, backlog.LOOSE])


class Model:
    """What should be left: numbered words, of which some are dropped."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, str]] = []
        self.dropped: list[tuple[int, str]] = []

    def add(self, number: int, word: str) -> None:
        """Add one; a latest one makes the one before go."""
        if word[0] in LATEST:
            self._drop([each for each in self.waiting if each[1] == word])
        self.waiting.append((number, word))

    def drop(self, count: int) -> None:
        """Drop the oldest."""
        self._drop([each for each in self.waiting if each[1][0] in "de"][:count])

    def _drop(self, gone: list[tuple[int, str]]) -> None:
        self.dropped += gone
        self.waiting = [each for each in self.waiting if each not in gone]

    def read(self, word: str) -> None:
        """Compare a word that was taken with the next that should come."""
        if "[" not in word:
            number, expected = self.waiting.pop(0)
            assert word == expected
            assert not [each for each, other in self.dropped if other[0] == word[0] and each < number]  # it was told
            return
        first, _, last = word[2 : word.index("]")].partition("-")
        told = [each for each in self.dropped if each[1][0] == word[0] and int(first) <= each[0] <= int(last)]
        numbers = sorted(number for number, _ in told)
        assert (numbers[0], numbers[-1], len(numbers)) == (int(first), int(last), int(word[word.index("]") + 1 :]))
        between = [each for each, other in self.waiting if other[0] == word[0] and int(first) < each < int(last)]
        assert not between
        self.dropped = [each for each in self.dropped if each not in told]


@settings(max_examples=500)
@given(st.lists(STEP, max_size=60), JOINED)
def test_what_is_left_comes_in_order_and_the_rest_is_told(steps: list[str | int], loose: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backlog, "LOOSE", loose)  # how late gaps are joined makes no difference
        compare(steps)


def compare(steps: list[str | int]) -> None:
    """Do the same with a backlog and with the model."""
    play, model = Play(), Model()
    one = FRAMES.size(FRAMES.encode(encode("d1", None, 0)))
    for step in [*steps, -EVERYTHING]:
        if isinstance(step, str):
            play.add(step)
            model.add(len(play.words), step)
        elif step > 0:
            play.drop(step)
            model.drop(step)
        elif len(play.backlog):
            for word in play.take(-step).split():
                model.read(word)
        assert play.backlog.size == one * len(model.waiting)
    assert (model.waiting, model.dropped) == ([], [])
