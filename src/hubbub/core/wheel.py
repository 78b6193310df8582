"""A timing wheel: many deadlines, one timer (Varghese and Lauck, SOSP 1987; hashed, unbounded).

There is no cancel: an item that is due and no longer meant is dropped by whoever asked for it.
"""

from __future__ import annotations

import math
from typing import Generic, TypeVar

__all__ = ["Wheel"]

T = TypeVar("T")


class Wheel(Generic[T]):
    """Deadlines in buckets of one width.

    Args:
        width: seconds of one bucket; an item is due at most this much late.
    """

    def __init__(self, width: float) -> None:
        self._width = width
        self._buckets: dict[int, list[T]] = {}
        self._turned = -1

    def add(self, item: T, at: float) -> None:
        """Remember `item` until the time `at`, in seconds; a past time is due at the next turn."""
        bucket = max(math.ceil(at / self._width), self._turned + 1)
        self._buckets.setdefault(bucket, []).append(item)

    def turn(self, now: float) -> list[T]:
        """Move on to `now`, in seconds, and give back what is due, earliest first."""
        target = math.floor(now / self._width)
        if target <= self._turned:
            return []
        steps = target - self._turned
        due = range(self._turned + 1, target + 1) if steps <= len(self._buckets) else sorted(self._buckets)
        self._turned = target
        return [item for bucket in due if bucket <= target for item in self._buckets.pop(bucket, ())]
