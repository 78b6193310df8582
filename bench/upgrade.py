"""What does a new connection cost? Connect, handshake, welcome, close, behind an app's routing and one middleware."""

from __future__ import annotations

from dataclasses import replace

from bench import peers
from bench.load import Workload
from bench.question import Question
from bench.rounds import Settings, ask

__all__ = ["CONTENDERS", "SIDE_BY_SIDE", "measure"]

SIDE_BY_SIDE = 50
WARMUP = 5  # times the usual: Node's compiler needs some 10,000 upgrades to come to its speed
CONTENDERS = {
    "hubbub in FastAPI": peers.HUBBUB_ROUTED,
    "hubbub, ASGI door": peers.HUBBUB_ASGI_ROUTED,
    "FastAPI on uvicorn": peers.FASTAPI_ROUTED,
    "websockets": peers.WEBSOCKETS,
    "ws (Node)": peers.WS,
    "socketify": peers.SOCKETIFY,
}


def measure(settings: Settings) -> list[Question]:
    """An upgrade of every contender."""
    question = Question("upgrade", "Connect, upgrade, welcome, close: server CPU a connection", "µs")
    workload = Workload("upgrade", SIDE_BY_SIDE)
    longer = replace(settings, warmup=WARMUP * settings.warmup)
    return [ask(question, {name: (peer, workload) for name, peer in CONTENDERS.items()}, longer)]
