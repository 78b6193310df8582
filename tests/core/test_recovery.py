"""What channels remember: single facts first, then any history against the whole of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.core.recovery import DEDUPE, Memory, Past, Position, Publication

SIZE, TTL = 3, 10.0
NOW = 1_700_000_000_000


def memory(step: int = 1, epoch: str = "one") -> Memory:
    """A memory with even gaps."""
    return Memory(epoch, step=lambda: step)


def publish(memory: Memory, channel: str = "a", now: int = NOW, **more: Any) -> Publication:
    """Publish something."""
    return memory.publish(channel, "said", b"1", now, size=SIZE, ttl=TTL, **more)


def behind(memory: Memory, offset: int, channel: str = "a", now: int = NOW, limit: int = 100) -> Past:
    """The past behind an offset of this life."""
    return memory.past(channel, Position(offset, memory.epoch), limit, now)


def offsets(past: Past) -> list[int]:
    """Which publications there are."""
    return [publication.offset for publication in past.publications]


# --- One thing at a time ---------------------------------------------------------------------------------------------


def test_channels_share_a_counter() -> None:
    at = memory(7)
    assert [publish(at, channel).offset for channel in "aba"] == [7, 14, 21]
    assert [publication.previous for publication in at.past("a", None, 9, NOW).publications] == [0, 7]


def test_the_latest_by_default() -> None:
    at = memory()
    for _ in range(3):
        publish(at)
    assert offsets(at.past("a", None, 2, NOW)) == [2, 3]
    assert offsets(at.past("a", None, 0, NOW)) == []
    assert at.past("a", None, 0, NOW).complete


def test_a_page_goes_on_where_the_last_one_ended() -> None:
    at = memory(10)
    for _ in range(3):
        publish(at)
    page = behind(at, 10, limit=1)
    assert (offsets(page), page.head.offset, page.complete) == ([20], 30, True)
    assert offsets(behind(at, 20, limit=1)) == [30]
    assert offsets(behind(at, 30, limit=1)) == []


@pytest.mark.parametrize(
    ("offset", "complete"),
    [(0, False), (10, True), (15, True), (20, True), (40, True), (41, False)],
    ids=["forgotten", "floor", "between two", "there", "head", "not yet"],
)
def test_complete_from_the_floor_to_the_counter(offset: int, complete: bool) -> None:
    at = memory(10)
    for _ in range(4):
        publish(at)
    past = behind(at, offset)
    assert past.complete is complete
    assert offsets(past) == [each for each in (20, 30, 40) if complete and each > offset]


def test_another_life_is_another_epoch() -> None:
    at = memory()
    publish(at)
    since = at.past("a", None, 1, NOW).head
    at.flush("two")
    assert (len(at), at.epoch) == (0, "two")
    publish(at)
    publish(at)
    past = at.past("a", since, 9, NOW)
    assert (past.complete, past.publications, past.head) == (False, [], Position(2, "two"))


@pytest.mark.parametrize("swept", [False, True], ids=["not swept", "swept"])
def test_what_has_expired_is_not_there(swept: bool) -> None:
    at, later = memory(), NOW + 10_000
    publish(at)
    publish(at)
    if swept:
        at.sweep(NOW)
        at.sweep(later)
        assert len(at) == 0
    past = behind(at, 1, now=later)
    assert (past.complete, past.publications) == (False, [])
    assert behind(at, past.head.offset, now=later).complete


def test_a_channel_reborn_does_not_know_its_old_life() -> None:
    at, later = memory(), NOW + 11_000
    old = publish(at).offset
    publish(at)
    at.sweep(NOW)
    at.sweep(later)
    new = publish(at, now=later)
    assert not behind(at, old, now=later).complete
    assert new.previous == at.watermark
    assert offsets(behind(at, new.previous, now=later)) == [new.offset]


def test_a_purge_is_for_all_positions_before_it() -> None:
    at = memory(5)
    other = publish(at, "b").offset
    old = publish(at).offset
    at.purge("a")
    assert not behind(at, old).complete
    assert behind(at, at.counter).complete
    assert behind(at, other, "b").complete  # it has a window of its own
    new = publish(at).offset
    assert offsets(at.past("a", None, 9, NOW)) == [new]


def test_a_purge_at_a_place() -> None:
    at = memory()
    publish(at)
    at.purge("a", 50)
    assert (at.counter, at.watermark) == (50, 50)
    assert publish(at).offset == 51


def test_a_time_that_changes_holds_from_the_next_publication_on() -> None:
    at = memory()
    publish(at)
    at.remember("a", Publication(2, 1, NOW + 5_000, None, b"2"), SIZE, 1.0)
    assert offsets(at.past("a", None, 9, NOW + 5_500)) == [2]


def test_time_that_goes_back_expires_nothing_early() -> None:
    at = memory()
    publish(at, now=NOW)
    assert publish(at, now=NOW - 60_000).published_at == NOW


def test_a_key_is_known_for_its_time() -> None:
    at = memory()
    publish(at, idempotency="ann\nk")
    end = NOW + round(DEDUPE * 1000)
    assert (at.known("a", "ann\nk", end - 1), at.known("b", "ann\nk", NOW)) == (1, None)
    assert at.known("a", "ann\nk", end) is None


def test_the_oldest_keys_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.core.recovery.MOST_KEYS", 2)
    at = memory()
    for number in range(3):
        at.note_key("a", f"k{number}", number, NOW)
    assert [at.known("a", f"k{number}", NOW) for number in range(3)] == [None, 1, 2]


def test_what_is_placed_and_remembered_is_as_if_published() -> None:
    one, two = memory(3), memory(3)
    for moment in range(5):
        published = publish(one, now=NOW + moment)
        previous, at = two.place("a", NOW + moment)
        placed = Publication(two.counter + 3, previous, at, "said", b"1")
        floor = two.remember("a", placed, SIZE, TTL)
        assert placed == published
        assert floor == (None if moment < SIZE else 3 * (moment - SIZE + 1))
    assert one.past("a", None, 9, NOW + 5) == two.past("a", None, 9, NOW + 5)


def test_restored_is_what_its_successor_knows_of() -> None:
    at = memory()
    at.restore("a", Publication(5, 0, NOW, None, b"1"), TTL)
    at.restore("a", Publication(6, 5, NOW, None, b"2"), TTL)  # its write failed half-way
    at.restore("a", Publication(9, 5, NOW, None, b"3"), TTL)
    assert offsets(at.past("a", None, 9, NOW)) == [5, 9]


def test_a_sweep_says_what_was_forgotten() -> None:
    at = memory()
    publish(at)
    publish(at, "b", now=NOW + 5_000)
    assert at.sweep(NOW) == []
    assert at.sweep(NOW + 11_000) == [("a", 1)]
    assert ("a" in at, "b" in at, at.watermark) == (False, True, 1)


def test_a_channel_that_was_purged_is_looked_at_once() -> None:
    at = memory()
    for _ in range(5):
        publish(at)
        at.purge("a")
    first = publish(at).offset
    publish(at, now=NOW + 5_000)
    at.sweep(NOW)
    assert at.sweep(NOW + 10_000) == [("a", first)]


# --- Any history -----------------------------------------------------------------------------------------------------


@dataclass
class Life:
    """All that ever happened in a memory, and every position that anybody was given."""

    memory: Memory
    now: int = NOW
    published: dict[str, list[Publication]] = field(default_factory=lambda: defaultdict(list))
    awake: dict[str, int] = field(default_factory=dict)
    given: list[tuple[str, Position]] = field(default_factory=list)

    def publish(self, channel: str) -> None:
        """Publish; the position of the publication is given out."""
        if self._asleep(channel):
            self.awake[channel] = self.memory.counter  # positions from before it may be refused
        self.published[channel].append(publish(self.memory, channel, self.now))
        self.given.append((channel, Position(self.published[channel][-1].offset, self.memory.epoch)))

    def look(self, channel: str) -> None:
        """Subscribe: the head is given out."""
        self.given.append((channel, self.memory.past(channel, None, 1, self.now).head))

    def purge(self, channel: str) -> None:
        """Purge."""
        self.memory.purge(channel)
        self.awake[channel] = self.memory.counter

    def wait(self, seconds: int) -> None:
        """Let time pass, and sweep."""
        self.now += seconds * 1000
        self.memory.sweep(self.now)

    def check(self) -> None:
        """Every position given out: complete is complete, and what is there is not refused."""
        for channel, since in self.given:
            past = self.memory.past(channel, since, 100, self.now)
            missed = [each for each in self.published[channel] if each.offset > since.offset]
            if past.complete:
                assert past.publications == missed
                assert past.head.offset >= since.offset
            else:
                assert past.publications == []
                assert not self._there(channel, since, missed)

    def _there(self, channel: str, since: Position, missed: list[Publication]) -> bool:
        if self._asleep(channel) or since.offset < self.awake.get(channel, 0):
            return False
        return len(missed) <= SIZE and all(self._fresh(each) for each in missed)

    def _asleep(self, channel: str) -> bool:
        published = self.published[channel]
        return not published or published[-1].offset <= self.awake.get(channel, -1) or not self._fresh(published[-1])

    def _fresh(self, publication: Publication) -> bool:
        return publication.published_at > self.now - round(TTL * 1000)


CHANNEL = st.sampled_from("abc")
EVENTS = st.one_of(
    st.tuples(st.just("publish"), CHANNEL),
    st.tuples(st.just("publish"), CHANNEL),
    st.tuples(st.just("look"), CHANNEL),
    st.tuples(st.just("purge"), CHANNEL),
    st.tuples(st.just("wait"), st.integers(1, 13)),
)


@given(st.lists(EVENTS, max_size=40), st.lists(st.integers(1, 1000), min_size=1, max_size=5))
def test_complete_is_complete_and_what_is_there_is_not_refused(events: list[tuple[str, Any]], steps: list[int]) -> None:
    turn = iter(range(10_000))
    life = Life(Memory("one", step=lambda: steps[next(turn) % len(steps)]))
    life.memory.sweep(NOW)
    for name, what in events:
        getattr(life, name)(what)
        life.check()
