"""Token buckets by key: how much each has taken of late, and how long it has to wait for more.

Rules of this file:
1. A bucket is one number, the time at which it is full again (the generic cell rate algorithm, ITU-T I.371): it holds
   less the later that is. A bucket that is full is none: there are only those of keys that took something just now.
2. `take` never says no: who asks `wait` first keeps the rate, who takes all the same pays for it with time.
3. What is taken on another node is taken here too (`charge`); it is not for this one to tell of it.
"""

from __future__ import annotations

import math
from typing import Generic, TypeVar

from hubbub.core.rates import Rate
from hubbub.core.usage import Usage

__all__ = ["Buckets"]

K = TypeVar("K")

LEAST = 64  # buckets that are not worth a search for full ones
ROUNDING = 1e-6  # seconds


class Buckets(Generic[K]):
    """The buckets of one rate, one for each key.

    Args:
        rate: how fast each fills, and how much it holds.
    """

    __slots__ = ("_full_at", "_interval", "_span", "_usage", "_worth_a_look")

    def __init__(self, rate: Rate) -> None:
        self._interval = rate.interval
        self._span = rate.most * rate.interval
        self._full_at: dict[K, float] = {}
        self._usage: Usage[K] | None = None
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
        self.charge(key, cost * self._interval, now)
        if self._usage is not None:
            self._usage.note(key, cost * self._interval, now)

    def ask(self, key: K, cost: float, now: float) -> float:
        """Take `cost` if it is there; else take nothing, and give back the seconds to wait."""
        seconds = self.wait(key, cost, now)
        if not seconds:
            self.take(key, cost, now)
        return seconds

    def sweep(self, now: float) -> None:
        """Forget the full buckets; a new key does so whenever there are twice as many as were left last time."""
        if self._usage is not None:
            self._usage.sweep(now)
        self._full_at = {key: full_at for key, full_at in self._full_at.items() if full_at > now}
        self._worth_a_look = max(LEAST, 2 * len(self._full_at))

    # With other nodes

    def share(self) -> None:
        """Note from now on what is taken, for others who are to be told."""
        if self._usage is None:
            self._usage = Usage(self._span)

    def spent(self) -> dict[K, float]:
        """Seconds to `charge` the same keys elsewhere: what they took here since the last time, if it was much."""
        return {} if self._usage is None else self._usage.take()

    def charge(self, key: K, seconds: float, now: float) -> None:
        """Take what a bucket gets in so many seconds, whether it is there or not, and tell nobody of it."""
        full_at = self._full_at.get(key, -math.inf)
        if full_at == -math.inf and len(self._full_at) >= self._worth_a_look:
            self.sweep(now)
        self._full_at[key] = max(full_at, now) + seconds
