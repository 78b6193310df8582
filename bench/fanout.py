"""What does a delivery cost? 1000 subscribers of one channel, one message at a time and 20 a tick."""

from __future__ import annotations

from bench import peers, wire
from bench.load import Workload
from bench.question import Question
from bench.rounds import Settings, ask

__all__ = ["CONTENDERS", "fanout", "measure"]

SUBSCRIBERS = 1000
CONTENDERS = {
    "hubbub": peers.HUBBUB,
    "hubbub, ASGI door": peers.HUBBUB_ASGI,
    "FastAPI on uvicorn": peers.FASTAPI,
    "websockets": peers.WEBSOCKETS,
    "ws (Node)": peers.WS,
    "socketify": peers.SOCKETIFY,
    "C send() loop": peers.FLOOR,
}


def fanout(subscribers: int, count: int) -> Workload:
    """`count` messages at a time to each of `subscribers`; the next only when all have them."""
    trigger = wire.burst(count)
    return Workload("fanout", subscribers, subscribe=wire.SUBSCRIBE, message=trigger, expect=wire.TEXT, count=count)


def measure(settings: Settings) -> list[Question]:
    """A delivery of every contender, alone and in bursts."""
    single = Question("fanout", "Fan-out to 1000, one message at a time: server CPU a delivery", "µs")
    burst = Question("burst", "Fan-out to 1000, 20 messages a tick: server CPU a delivery", "µs")
    for question, count in ((single, 1), (burst, 20)):
        workload = fanout(SUBSCRIBERS, count)
        contenders = CONTENDERS | ({"bare uvloop": peers.BARE} if count == 1 else {})
        ask(question, {name: (peer, workload) for name, peer in contenders.items()}, settings)
    return [single, burst]
