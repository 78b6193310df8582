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
