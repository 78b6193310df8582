"""What does a history cost? A delivery with and without it, and a message that was missed beside one that was not.

Recovery is measured on open connections: each subscribes from where it was, gets 50 messages, unsubscribes, and begins
again. What it costs to connect again is the question of `upgrade`.
"""

from __future__ import annotations

from bench import peers, wire
from bench.fanout import SUBSCRIBERS, fanout
from bench.load import Workload
from bench.question import Question
from bench.rounds import Settings, ask

__all__ = ["measure"]


def measure(settings: Settings) -> list[Question]:
    """Fan-out with a history, and recovery, each against plain fan-out in the same rounds."""
    history = Question("history", "Fan-out to 1000 with a history of 100: server CPU a delivery", "µs")
    recovery = Question("recovery", "Recovery of 1000 clients, 50 messages each: server CPU a message", "µs")
    plain = (peers.HUBBUB, fanout(SUBSCRIBERS, 1))
    ask(history, {"with history": (peers.HUBBUB, _kept()), "without": plain}, settings)
    ask(recovery, {"recovered": (peers.HUBBUB, _missed()), "delivered alone": plain}, settings)
    return [history, recovery]


def _kept() -> Workload:
    """Fan-out on a channel that remembers."""
    trigger = wire.burst(1, wire.KEPT)
    return Workload("fanout", SUBSCRIBERS, subscribe=wire.subscribe(wire.KEPT), message=trigger, expect=wire.TEXT)


def _missed() -> Workload:
    """Everybody misses the same, again and again."""
    leave = wire.unsubscribe(wire.MISSED)
    return Workload("recover", SUBSCRIBERS, wire.recover(), leave, wire.TEXT, wire.MISSED_COUNT)
