"""Token buckets by key: how much each has taken of late, and how long it has to wait for more.

Rules of this file:
1. A bucket is one number, the time at which it is full again (the generic cell rate algorithm, ITU-T I.371): it holds
   less the later that is. A bucket that is full is none: there are only those of keys that took something just now.
2. `take` never says no: who asks `wait` first keeps the rate, who takes all the same pays for it with time.
"""

from __future__ import annotations

import math
from typing import Generic, TypeVar

from hubbub.core.rates import Rate

__all__ = ["Buckets"]

K = TypeVar("K")

LEAST = 64  # buckets that are not worth a search for full ones
ROUNDING = 1e-6  # seconds


class Buckets(Generic[K]):
    """The buckets of one rate, one for each key.

    Args:
        rate: how fast each fills, and how much it holds.
    """

    __slots__ = ("_full_at", "_interval", "_span", "_worth_a_look")

    def __init__(self, rate: Rate) -> None:
        self._interval = rate.interval
        self._span = rate.most * rate.interval
        self._full_at: dict[K, float] = {}
        self._worth_a_look = LEAST

    def __len__(self) -> int:
        return len(self._full_at)

    def wait(self, key: K, cost: float, now: float) -> float:
        """Seconds until a bucket holds `cost`, 0 if it does; what no bucket holds waits for a full one.

        Args:
            key: whose bucket.
            cost: how much is to be taken.
            now: monotonic seconds.
        """
        full_at = self._full_at.get(key)
        if full_at is None or full_at <= now:
            return 0.0
        seconds = full_at + min(cost * self._interval, self._span) - now - self._span
        return seconds if seconds > ROUNDING else 0.0

    def take(self, key: K, cost: float, now: float) -> None:
        """Take `cost`, whether it is there or not."""
        full_at = self._full_at.get(key, -math.inf)
        if full_at == -math.inf and len(self._full_at) >= self._worth_a_look:
            self.sweep(now)
        self._full_at[key] = max(full_at, now) + cost * self._interval

    def ask(self, key: K, cost: float, now: float) -> float:
        """Take `cost` if it is there; else take nothing, and give back the seconds to wait."""
        seconds = self.wait(key, cost, now)
        if not seconds:
            self.take(key, cost, now)
        return seconds

    def sweep(self, now: float) -> None:
        """Forget the full buckets; a new key does so whenever there are twice as many as were left last time."""
        self._full_at = {key: full_at for key, full_at in self._full_at.items() if full_at > now}
        self._worth_a_look = max(LEAST, 2 * len(self._full_at))
