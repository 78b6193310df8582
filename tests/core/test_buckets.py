"""Token buckets against a model that counts tokens, and how few of them there are."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.core.buckets import LEAST, Buckets
from hubbub.core.rates import Rate, Rates
from hubbub.errors import ConfigError

STEPS = st.lists(st.tuples(st.integers(0, 64), st.integers(1, 12), st.booleans()), max_size=60)


class Tokens:
    """The model: tokens that come back with time; below 0 after a `take` that did not ask."""

    def __init__(self, rate: Rate) -> None:
        self.speed, self.most = Fraction(rate.count) / Fraction(rate.per), Fraction(rate.most)
        self.held, self.at = self.most, Fraction(0)

    def wait(self, cost: int, now: Fraction) -> Fraction:
        self.held, self.at = min(self.most, self.held + (now - self.at) * self.speed), now
        return max(Fraction(0), min(Fraction(cost), self.most) - self.held) / self.speed


# Powers of two: neither side rounds.
@given(st.sampled_from([1, 2, 8, 64]), st.sampled_from([0.5, 1.0, 4.0]), st.sampled_from([1, 2, 5, 8, 100]), STEPS)
def test_a_bucket_is_what_the_model_says(
    count: int, per: float, burst: int, steps: list[tuple[int, int, bool]]
) -> None:
    rate = Rate(count, per, burst=burst)
    buckets, tokens, now = Buckets[str](rate), Tokens(rate), Fraction(0)
    for pause, cost, asks in steps:
        now += Fraction(pause, 64)
        expected = tokens.wait(cost, now)
        found = buckets.ask("a", cost, float(now)) if asks else buckets.wait("a", cost, float(now))
        assert found == pytest.approx(float(expected))
        assert (found == 0) == (expected == 0)
        if not asks:
            buckets.take("a", cost, float(now))
        if not asks or not expected:
            tokens.held -= cost
        assert buckets.wait("another", burst, float(now)) == 0


@given(st.lists(st.integers(0, 20), min_size=1, max_size=200), st.integers(1, 20), st.integers(1, 10))
def test_no_span_of_time_lets_through_more_than_its_rate_and_a_burst(pauses: list[int], count: int, burst: int) -> None:
    buckets, now, passed = Buckets[str](Rate(count, burst=burst)), 1e6, []
    for pause in pauses:
        now += pause / 100
        if not buckets.ask("a", 1, now):
            passed.append(now)
    for first, start in enumerate(passed):
        for last, end in enumerate(passed[first:], first):
            assert last - first + 1 <= burst + (end - start) * count + 0.001


def test_who_waits_as_long_as_told_gets_it() -> None:
    buckets = Buckets[str](Rate(3, burst=5))
    assert [buckets.ask("a", 1, 1e6) for _ in range(5)] == [0] * 5
    seconds = buckets.ask("a", 1, 1e6)
    assert seconds == pytest.approx(1 / 3)
    assert buckets.ask("a", 1, 1e6 + seconds) == 0


def test_what_no_bucket_holds_goes_through_a_full_one_and_is_paid_for() -> None:
    buckets = Buckets[str](Rate(10, burst=10))
    assert buckets.ask("a", 30, 0.0) == 0
    assert buckets.ask("a", 1, 0.0) == pytest.approx(2.1)
    assert buckets.ask("a", 30, 2.5) == pytest.approx(0.5)


def test_full_buckets_are_forgotten_and_the_others_are_not() -> None:
    buckets = Buckets[int](Rate(1, burst=10))
    for key in range(100 * LEAST):
        buckets.take(key, 1, float(key))
        assert len(buckets) <= LEAST + 1
    for key in range(100):
        buckets.take(key, 10, 1e6)
    buckets.sweep(1e6 + 9)
    assert len(buckets) == 100
    buckets.sweep(1e6 + 10)
    assert len(buckets) == 0


@pytest.mark.parametrize(
    "wrong",
    [{"count": 0}, {"count": -1}, {"count": float("inf")}, {"per": 0}, {"per": "1"}, {"burst": 0}, {"burst": 0.5}],
    ids=str,
)
def test_a_rate_is_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"Rate.{next(iter(wrong))} "):
        Rate(**{"count": 1, **wrong})


@pytest.mark.parametrize(
    "wrong",
    [{"messages": 5}, {"types": {"chat": 5}}, {"per_user": 0.5}, {"per_address": "many"}, {"attempts": (1, 2)}],
    ids=str,
)
def test_rates_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"Rates.{next(iter(wrong))}"):
        Rates(**wrong)


def test_a_burst_is_the_count_by_default_and_at_least_one() -> None:
    assert (Rate(5).most, Rate(0.1).most, Rate(5, burst=50).most) == (5, 1, 50)
    assert Rate(5, 2.0, burst=50).times(4) == Rate(20, 2.0, burst=200)


# --- Over several nodes ----------------------------------------------------------------------------------------------


def shared(rate: Rate, count: int = 1) -> list[Buckets[str]]:
    """The buckets of so many nodes."""
    nodes = [Buckets[str](rate) for _ in range(count)]
    for node in nodes:
        node.share()
    return nodes


def tell(nodes: list[Buckets[str]], now: float) -> dict[str, float]:
    """Let each node tell the others; all that was told."""
    told: dict[str, float] = {}
    for node, spent in [(node, node.spent()) for node in nodes]:
        for key, seconds in spent.items():
            told[key] = told.get(key, 0.0) + seconds
            for other in nodes:
                if other is not node:
                    other.charge(key, seconds, now)
    return told


def test_much_is_told_once_and_is_gone_elsewhere_too() -> None:
    here, there = nodes = shared(Rate(10, burst=160), 2)
    for _ in range(160):
        assert here.ask("a", 1, 0.0) == 0
    assert tell(nodes, 0.0) == {"a": pytest.approx(16.0)}
    assert there.wait("a", 1, 0.0) == here.wait("a", 1, 0.0) == pytest.approx(0.1)
    assert tell(nodes, 0.0) == {}  # nobody says again what it heard
    assert there.wait("another", 160, 0.0) == 0


def test_little_is_kept_quiet_until_it_adds_up() -> None:
    (node,) = shared(Rate(8, burst=128))
    for _ in range(7):
        node.take("a", 1, 0.0)
    assert node.spent() == {}
    node.take("a", 1, 0.0)
    node.take("a", 1, 0.5)
    assert node.spent() == {"a": 9 / 8}
    node.take("a", 1, 1.0)
    assert node.spent() == {}


def test_a_small_bucket_has_nothing_quiet() -> None:
    (node,) = shared(Rate(5, 3600.0))
    node.take("a", 1, 0.0)
    assert node.spent() == {"a": pytest.approx(720.0)}


def test_what_is_quiet_is_forgotten_and_whoever_stays_below_a_sixteenth_is_never_told_of() -> None:
    (node,) = shared(Rate(16, burst=160))
    for second in range(100):
        node.take("a", 1, float(second))
    node.take("b", 9, 100.0)
    assert node.spent() == {}
    assert node._usage is not None
    assert len(node._usage) == 2
    node.sweep(100.0 + 9)
    assert (len(node), len(node._usage)) == (0, 0)


def test_buckets_that_are_not_shared_tell_nothing() -> None:
    buckets = Buckets[str](Rate(1))
    buckets.take("a", 100, 0.0)
    assert buckets.spent() == {}


WALK = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3), st.integers(1, 20)), min_size=1, max_size=40)


@given(st.integers(1, 20), st.sampled_from([1, 5, 16, 50]), st.integers(2, 4), st.sampled_from([0, 50]), WALK)
def test_nodes_that_tell_each_other_let_through_one_rate_and_a_sixteenth(
    count: int, burst: int, size: int, every: int, walk: list[tuple[int, int, int]]
) -> None:
    """Any span of time, on all nodes; on top only what the others took since they last told."""
    nodes, now, told_at = shared(Rate(count, burst=burst), size), 0, -every
    passed: list[tuple[float, int]] = []
    recent = [0] * size
    for pause, at, times in walk:
        now += pause
        at %= size
        for _ in range(times):
            if not nodes[at].ask("a", 1, now / 100):
                recent[at] += 1
                passed.append((now / 100, sum(recent) - recent[at]))
            if now >= told_at + every:
                tell(nodes, now / 100)
                told_at, recent = now, [0] * size
    for first, (start, _) in enumerate(passed):
        for last, (end, unheard) in enumerate(passed[first:], first):
            most = (burst + (end - start) * count) * (1 + (size - 1) / 16)
            assert last - first + 1 <= most + unheard + 0.001
