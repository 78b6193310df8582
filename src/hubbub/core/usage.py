"""What keys took here that the other nodes are to be told: so that a bucket is one, wherever its key comes from.

Rules of this file:
1. All amounts are seconds: the time in which a bucket gets back what was taken. So nodes need not have the same rates.
2. Little is kept quiet: of each key a sixteenth of a bucket, and a sixteenth of its rate. That is another bucket, which
   only a key overflows that takes much; from there on everything is told until it was told.
"""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Usage"]

K = TypeVar("K")

PART = 16  # of a rate and of its burst is what nobody is told


class Usage(Generic[K]):
    """How much of what each key took is untold.

    Args:
        span: seconds in which an empty bucket is full.
    """

    __slots__ = ("_quiet_until", "_span", "_untold")

    def __init__(self, span: float) -> None:
        self._span = span
        self._quiet_until: dict[K, float] = {}  # when what is kept quiet is none any more
        self._untold: dict[K, float] = {}

    def __len__(self) -> int:
        return len(self._quiet_until) + len(self._untold)

    def note(self, key: K, seconds: float, now: float) -> None:
        """Note that a key took so much."""
        if key in self._untold:
            self._untold[key] += seconds
            return
        until = max(self._quiet_until.pop(key, now), now) + seconds * PART
        if until - now < self._span:
            self._quiet_until[key] = until
        else:
            self._untold[key] = (until - now) / PART

    def take(self) -> dict[K, float]:
        """What is to be told, by key: it is told with this."""
        untold, self._untold = self._untold, {}
        return untold

    def sweep(self, now: float) -> None:
        """Forget what is so long ago that it counts no more."""
        self._quiet_until = {key: until for key, until in self._quiet_until.items() if until > now}
