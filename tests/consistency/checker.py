"""Whether subscribers saw what was published: the log of publications, what everybody saw, and the difference.

Rules of this file:
1. The truth is what was acknowledged, and what anybody saw of what was sent: it must be there for everybody.
2. A run is one subscription from its answer to its end. It covers what is behind `since` where it said `recovered`,
   and what is behind the place in the answer where it did not.
3. The columns do not overlap: one fault of the hub shows in one of them, its consequences aside.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any

from hubbub.core.recovery import Position
from hubbub.node.subscriptions import PAGE

__all__ = ["FAULTS", "Kept", "Log", "Report", "Run", "View", "check"]

SLACK = 1.0
"""Seconds by which what the clients know of times may differ from what the hub knows."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kept:
    """What a channel is said to remember: so many publications, for so many seconds."""

    size: int
    ttl: float


@dataclass
class Log:
    """What was published, by those who did; bodies are numbers, each is published once."""

    kept: Mapping[str, Kept]
    sent: dict[tuple[str, int], float] = field(default_factory=dict)
    places: dict[tuple[str, int], Position] = field(default_factory=dict)
    acked_at: dict[tuple[str, int], float] = field(default_factory=dict)
    purges: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    stored_twice: int = 0

    def sends(self, channel: str, body: int, now: float) -> None:
        """Note that a publication is on its way; a second time changes nothing."""
        self.sent.setdefault((channel, body), now)

    def acked(self, channel: str, body: int, place: Position, now: float) -> None:
        """Note that it was acknowledged."""
        self.acked_at.setdefault((channel, body), now)
        self.stored_twice += self.places.setdefault((channel, body), place) != place


@dataclass
class Run:
    """One subscription of one client, from its answer on.

    Args:
        since: where the client asked to go on, None if it did not.
        head: the place in the answer.
        at: when the answer came.
        until: what was acknowledged up to this time has had the time to arrive.
    """

    channel: str
    since: Position | None
    recovered: bool
    head: Position
    at: float
    seen: list[tuple[int, int]] = field(default_factory=list)
    until: float = -inf

    @property
    def start(self) -> Position:
        """Everything behind it is covered."""
        return self.since if self.recovered and self.since is not None else self.head


@dataclass
class View:
    """What one client saw."""

    runs: list[Run] = field(default_factory=list)
    now: dict[str, Run] = field(default_factory=dict)
    places: dict[str, Position] = field(default_factory=dict)
    reconnects: int = 0
    strays: int = 0
    errors: list[Any] = field(default_factory=list)

    def subscribed(self, since: Position | None, answer: Json, at: float) -> None:
        """Begin a run."""
        channel = answer["channel"]
        head = Position(answer["offset"], answer["epoch"])
        run = Run(channel, since, answer["recovered"], head, at)
        self.runs.append(run)
        self.now[channel] = run
        self.places[channel] = run.start

    def message(self, channel: str, offset: int, body: int) -> None:
        """Note a publication."""
        run = self.now.get(channel)
        if run is None:
            self.strays += 1
            return
        run.seen.append((offset, body))
        self.places[channel] = Position(offset, run.head.epoch)

    def left(self, channel: str | None = None) -> None:
        """End the run of a channel, or all."""
        for each in list(self.now) if channel is None else [channel]:
            self.now.pop(each, None)

    def must_have(self, until: float = inf) -> None:
        """Note that what was acknowledged up to a time, at which a run had begun, must have arrived by now."""
        for run in self.now.values():
            if run.at <= until:
                run.until = until


@dataclass
class Report:
    """The numbers; all behind `not_recovered` must be 0."""

    publications: int = 0
    reconnects: int = 0
    recovered: int = 0
    not_recovered: int = 0
    lost: int = 0
    phantom: int = 0
    duplicated: int = 0
    reordered: int = 0
    gap: int = 0
    diverged: int = 0
    refused: int = 0

    @property
    def faults(self) -> dict[str, int]:
        """The columns that are not 0 and should be."""
        return {name: count for name in FAULTS if (count := getattr(self, name))}

    def __str__(self) -> str:
        numbers = {name.replace("_", " "): str(number) for name, number in asdict(self).items()}
        widths = [max(len(name), len(number)) for name, number in numbers.items()]
        rows = (numbers, numbers.values())
        return "\n".join("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows)


FAULTS = ("lost", "phantom", "duplicated", "reordered", "gap", "diverged", "refused")
"""`gap` is what a recovery that called itself complete left out, `refused` a recovery that could have been complete."""


def check(log: Log, views: Iterable[View]) -> Report:
    """Compare what everybody saw with what was published."""
    return _Check(log, list(views)).report


class _Check:
    def __init__(self, log: Log, views: list[View]) -> None:
        self.log = log
        self.report = Report(publications=len(log.places), duplicated=log.stored_twice)
        self.bodies: dict[tuple[str, str, int], int] = {}
        self._learn(views)
        self.offsets: dict[tuple[str, str], list[int]] = defaultdict(list)
        for channel, epoch, offset in sorted(self.bodies):
            self.offsets[channel, epoch].append(offset)
        for view in views:
            self._view(view)

    def _learn(self, views: list[View]) -> None:
        """Take in every place that is known, first those that were acknowledged."""
        where: dict[tuple[str, int], Position] = {}

        def learn(channel: str, body: int, place: Position) -> None:
            known = self.bodies.setdefault((channel, place.epoch, place.offset), body)
            self.report.diverged += known != body

        for (channel, body), place in self.log.places.items():
            where[channel, body] = place
            learn(channel, body, place)
        for run in (run for view in views for run in view.runs):
            for offset, body in run.seen:
                if (run.channel, body) in self.log.sent and (run.channel, body) not in where:
                    place = where[run.channel, body] = Position(offset, run.head.epoch)
                    learn(run.channel, body, place)

    def _view(self, view: View) -> None:
        report = self.report
        report.reconnects += view.reconnects
        report.reordered += view.strays
        seen: dict[tuple[str, str], set[int]] = defaultdict(set)
        for run in view.runs:
            report.recovered += run.recovered
            if run.since is not None and not run.recovered:
                report.not_recovered += 1
                report.refused += self._could(run, run.since)
            if run.since is None:
                seen.pop((run.channel, run.head.epoch), None)  # somebody new, perhaps at a node that was told less
            self._run(run, seen[run.channel, run.head.epoch])

    def _run(self, run: Run, seen: set[int]) -> None:
        report, epoch, last = self.report, run.head.epoch, run.start.offset
        for offset, body in run.seen:
            if (run.channel, body) not in self.log.sent:
                report.phantom += 1
                continue
            if self.bodies.get((run.channel, epoch, offset)) != body:
                report.diverged += 1
            elif offset in seen:
                report.duplicated += 1
            elif offset <= last:
                report.reordered += 1
            seen.add(offset)
            last = max(last, offset)
        for offset in self._expected(run, last):
            if offset not in seen:
                report.gap += offset <= run.head.offset
                report.lost += offset > run.head.offset

    def _expected(self, run: Run, last: int) -> Iterator[int]:
        """What a run must have seen: all up to the last it saw, and what has had the time to arrive."""
        channel, epoch = run.channel, run.head.epoch
        there = self.offsets[channel, epoch]
        for index in range(bisect_right(there, run.start.offset), len(there)):
            offset = there[index]
            if offset > last:
                at = self.log.acked_at.get((channel, self.bodies[channel, epoch, offset]))
                if at is None:
                    continue  # nobody knows when it was there
                if at > run.until:
                    return
            yield offset

    def _could(self, run: Run, since: Position) -> bool:
        """Whether the window could serve; where the clients cannot know, it could not."""
        channel, kept, sent = run.channel, self.log.kept[run.channel], self.log.sent
        if since.epoch != run.head.epoch:
            return False
        there = self.offsets[channel, since.epoch]
        index = bisect_right(there, since.offset)

        def sent_at(offset: int) -> float:
            return sent[channel, self.bodies[channel, since.epoch, offset]]

        first = run.at
        missed = 0
        for offset in there[index:]:
            at = sent_at(offset)
            if at > run.at + SLACK:
                break
            if at <= run.at:
                missed, first = missed + 1, min(first, at)
                if at <= run.at - kept.ttl or missed > min(kept.size, PAGE):
                    return False
        if not index:
            return False  # nothing was ever there that could be remembered
        last = sent_at(there[index - 1])
        asleep = last <= first + SLACK - kept.ttl
        purged = any(end >= last - SLACK and begin <= run.at for begin, end in self.log.purges[channel])
        return not (asleep or purged)
