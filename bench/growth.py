"""Does a delivery cost more with more connections? One message at a time to 100, 1000 and 5000 subscribers."""

from __future__ import annotations

from dataclasses import replace

from bench import peers
from bench.fanout import fanout
from bench.question import Question
from bench.rounds import Settings, ask

__all__ = ["CONTENDERS", "measure", "size_of"]

ROUNDS = 3  # no bar stands on it
CONTENDERS = {
    "hubbub": peers.HUBBUB,
    "ws (Node)": peers.WS,
    "socketify": peers.SOCKETIFY,
    "C send() loop": peers.FLOOR,
}


def measure(settings: Settings) -> list[Question]:
    """A delivery of every contender at every size, all in turns: sizes are compared as well."""
    question = Question("growth", "Growth of a fan-out, one message at a time: server CPU a delivery", "µs")
    contenders = {
        f"{name}, {size} subscribers": (peer, fanout(size, 1))
        for name, peer in CONTENDERS.items()
        for size in settings.sizes
    }
    return [ask(question, contenders, replace(settings, rounds=min(settings.rounds, ROUNDS)))]


def size_of(contender: str) -> tuple[str, int]:
    """The name and the subscribers of one row of this question."""
    name, _, size = contender.removesuffix(" subscribers").rpartition(", ")
    return name, int(size)
