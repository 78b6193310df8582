"""The bar: what Hubbub must not cost more than."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.question import Question, Spread

__all__ = ["BARS", "Bar", "Verdict", "judge"]

FASTAPI, WS, SOCKETIFY, FLOOR = "FastAPI on uvicorn", "ws (Node)", "socketify", "C send() loop"


@dataclass(frozen=True, slots=True)
class Bar:
    """`contender` may cost `limit` times what `other` does, or, without another, `limit` of the question's unit.

    Args:
        more: in place of it, so much of the question's unit more than the other is enough.
    """

    question: str
    contender: str
    other: str | None
    limit: float
    more: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A bar and what was measured: ratios, or the values themselves; and how much more than the other's they are."""

    bar: Bar
    spread: Spread
    unit: str
    more: Spread | None = None

    @property
    def held(self) -> bool:
        """Whether the median keeps below the limit, or a little above the other's is enough."""
        enough = self.more is not None and self.bar.more is not None and self.more.median <= self.bar.more
        return enough or self.spread.median <= self.bar.limit


BARS = (
    Bar("echo", "hubbub, def", WS, 0.6),
    Bar("echo", "hubbub, def", FASTAPI, 0.3),
    Bar("echo", "hubbub, async def", WS, 0.8),
    Bar("echo", "hubbub, async def", FASTAPI, 0.4),
    Bar("echo", "hubbub, ASGI door", FASTAPI, 1.1),
    Bar("fanout", "hubbub", WS, 0.8),
    Bar("fanout", "hubbub", FLOOR, 1.3),
    Bar("fanout", "hubbub", SOCKETIFY, 1.15),
    Bar("fanout", "hubbub, ASGI door", FASTAPI, 1.1),
    Bar("burst", "hubbub", SOCKETIFY, 0.9),
    Bar("burst", "hubbub, ASGI door", FASTAPI, 1.1),
    Bar("upgrade", "hubbub in FastAPI", FASTAPI, 0.4),
    Bar("upgrade", "hubbub in FastAPI", WS, 1.2),
    Bar("memory", "hubbub", None, 3.0),
    Bar("subscription", "alone on its channel", None, 250),
    Bar("subscription", "alone, with presence", None, 250),
    Bar("subscription", "one of 1,000 on it", None, 250),
    Bar("subscription", "with presence", None, 250),
    Bar("subscription", "with presence, signed in", None, 250),
    Bar("history", "with history", "without", 1.2),
    Bar("recovery", "recovered", "delivered alone", 0.5),
    Bar("storm", "in the storm", "quiet", 1.5, more=5.0),
    Bar("rolling", "in the restart", "quiet", 2.0),
    Bar("back", "hubbub", None, 30.0),
    Bar("handshakes", "most", "mean", 2.0),
    Bar("trip", "hostile", "quiet", 1.5, more=5.0),
    Bar("publication", "hostile", "quiet", 1.5, more=5.0),
    Bar("bound", "peak", "computed", 1.0),
    Bar("checked echo", "with checks", "without", 1.1),
    Bar("checked fanout", "with checks", "without", 1.1),
    Bar("durable", "hubbub, SQLite", "sqlite3 loop", 2.0),
    Bar("durable", "hubbub, PostgreSQL", "asyncpg loop", 2.0),
    Bar("broker", "hubbub", "nats-py loop", 1 / 0.6),
    Bar("broker", "hubbub, Redis", "redis-py loop", 1 / 0.6),
    Bar("nodes", "second node, NATS", "one node", 1.15),
    Bar("nodes history", "second node, NATS", "one node", 1.15),
    Bar("workers", "two workers", "one process", 1.15),
    Bar("shares", "more", None, 60.0),
)


def judge(questions: Sequence[Question]) -> Iterator[Verdict]:
    """The verdict on each bar whose contenders were measured."""
    by_name = {question.name: question for question in questions}
    for bar in BARS:
        question = by_name.get(bar.question)
        if question is None or not {bar.contender, bar.other or bar.contender} <= question.samples.keys():
            continue
        if bar.other is None:
            yield Verdict(bar, question.spread(bar.contender), question.unit)
        else:
            more = question.difference(bar.contender, bar.other)
            yield Verdict(bar, question.ratio(bar.contender, bar.other), question.unit, more)
