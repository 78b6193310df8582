"""How often clients may do things: rates, and the frozen group of those that a hub keeps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from hubbub.errors import ConfigError

__all__ = ["Rate", "Rates"]


@dataclass(frozen=True, slots=True)
class Rate:
    """So many in so much time, and how many at once.

    Args:
        count: how many, in the long run.
        per: in how many seconds.
        burst: how many at once, after a time without; `count` by default.
    """

    count: float
    per: float = 1.0
    burst: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("count", 0.0), ("per", 0.0), ("burst", 1.0)):
            value = getattr(self, name)
            if name == "burst" and value is None:
                value = max(1.0, self.count)
                object.__setattr__(self, "burst", value)
            if not (isinstance(value, int | float) and least <= value < math.inf and value > 0):
                raise ConfigError(f"Rate.{name} is {value!r}: give a number above 0; a burst of 1 or more.")

    @property
    def interval(self) -> float:
        """Seconds from one to the next, in the long run."""
        return self.per / self.count

    @property
    def most(self) -> float:
        """The burst, as a number in any case."""
        return self.count if self.burst is None else self.burst

    def times(self, factor: float) -> Rate:
        """As many times as much."""
        return Rate(self.count * factor, self.per, max(1.0, self.most * factor))


@dataclass(frozen=True, slots=True)
class Rates:
    """How often one connection may do what; None is without a limit.

    Args:
        messages: messages of any type, binary ones, pings and pongs.
        bytes: their bytes, after inflating.
        subscribes: `subscribe` messages.
        publishes: `publish` and `chat` messages.
        types: messages of one type, by type: of a user, or of a connection without one.
        attempts: connections that one address asks for, and that one user opens.
        per_user: how many times a connection's rates all connections of one user have together.
        per_address: how many times a connection's rates all connections from one address have together.
    """

    messages: Rate | None = Rate(200, 1.0, burst=1_000)
    bytes: Rate | None = Rate(1024 * 1024, 1.0, burst=8 * 1024 * 1024)
    subscribes: Rate | None = Rate(50, 1.0, burst=512)
    publishes: Rate | None = Rate(100, 1.0, burst=500)
    types: Mapping[str, Rate] = field(default_factory=dict)
    attempts: Rate | None = Rate(50, 1.0, burst=4_000)
    per_user: float | None = 4
    per_address: float | None = 50

    def __post_init__(self) -> None:
        for name in ("messages", "bytes", "subscribes", "publishes", "attempts"):
            if not isinstance(getattr(self, name), Rate | None):
                raise ConfigError(f"Rates.{name} is {getattr(self, name)!r}: give a Rate, or None.")
        for type, rate in self.types.items():
            if not isinstance(rate, Rate):
                raise ConfigError(f"Rates.types[{type!r}] is {rate!r}: give a Rate.")
        for name in ("per_user", "per_address"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and 1 <= value < math.inf):
                raise ConfigError(f"Rates.{name} is {value!r}: give a number of 1 or more, or None.")
