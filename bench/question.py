"""The answers: samples by contender and round, and the ratios between contenders."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

__all__ = ["Question", "Sample", "Spread", "percentile"]

BUSY = 0.85  # of a core


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one contender: a value in the question's unit, and what it rests on.

    Args:
        operations: how many were done and verified.
        server_busy: the server's CPU by time, 0 to 1.
        load_busy: the load generator's.
    """

    value: float
    operations: int = 0
    server_busy: float = 0.0
    load_busy: float = 0.0

    @property
    def starved(self) -> bool:
        """Whether the generator was the bottleneck."""
        return self.load_busy > BUSY > self.server_busy

    @property
    def disturbed(self) -> bool:
        """Whether something else used the cores: neither of the two could be busy."""
        return 0 < max(self.load_busy, self.server_busy) < BUSY


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and its range."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """The spread of at least one value."""
        return cls(median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


@dataclass(slots=True)
class Question:
    """One thing to know about several contenders.

    Args:
        unit: "µs" of server CPU an operation, "KiB" a connection, "bytes" a subscription, "ms" of delay.
        samples: by contender, one a round.
        missing: contenders that could not be measured, and why.
    """

    name: str
    title: str
    unit: str
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, contender: str, sample: Sample) -> None:
        """Note the sample of one more round."""
        self.samples.setdefault(contender, []).append(sample)

    def drop(self, contender: str, reason: str) -> None:
        """Forget a contender that failed."""
        self.samples.pop(contender, None)
        self.missing[contender] = reason

    def spread(self, contender: str) -> Spread:
        """A contender's values."""
        return Spread.of(self._values(contender))

    def ratio(self, contender: str, other: str) -> Spread:
        """How many times `other`'s value `contender` has: compared inside each round."""
        return Spread.of([a / b for a, b in zip(self._values(contender), self._values(other), strict=True)])

    def difference(self, contender: str, other: str) -> Spread:
        """How much more than `other`'s value `contender` has, in each round."""
        return Spread.of([a - b for a, b in zip(self._values(contender), self._values(other), strict=True)])

    def starved(self) -> list[str]:
        """The contenders whose generator was the bottleneck in most rounds."""
        return [name for name, samples in self.samples.items() if sum(s.starved for s in samples) * 2 > len(samples)]

    def disturbed(self) -> float:
        """The part of all samples, 0 to 1, in which something else used the cores."""
        samples = [sample for samples in self.samples.values() for sample in samples]
        return sum(sample.disturbed for sample in samples) / (len(samples) or 1)

    def as_json(self) -> dict[str, Any]:
        """Everything measured."""
        return asdict(self)

    def _values(self, contender: str) -> list[float]:
        return [sample.value for sample in self.samples[contender]]


def percentile(seconds: list[float], part: int = 99) -> float:
    """What that part of a hundred of `seconds` keep below, in milliseconds."""
    return sorted(seconds)[len(seconds) * part // 100] * 1000
