"""What does an idle connection weigh? Resident memory of the server with 10,000 subscribers, less that with none."""

from __future__ import annotations

import time

from bench import peers, subscription, wire
from bench.load import Workload, drive
from bench.measure import BenchError, rss_bytes, say, serving
from bench.peers import Peer
from bench.question import Question, Sample
from bench.rounds import Settings

__all__ = ["CONTENDERS", "measure"]

SETTLE_SECONDS = 2.0
CONTENDERS = {
    "hubbub": peers.HUBBUB,
    "hubbub, ASGI door": peers.HUBBUB_ASGI,
    "FastAPI on uvicorn": peers.FASTAPI,
    "websockets": peers.WEBSOCKETS,
    "ws (Node)": peers.WS,
    "socketify": peers.SOCKETIFY,
}


def measure(settings: Settings) -> list[Question]:
    """The weight of every contender's connection, and of a subscription: once, for memory does not drift."""
    title = f"Idle connection with one subscription, {settings.idle_connections:,} of them: resident memory each"
    question = Question("memory", title, "KiB")
    for name, peer in CONTENDERS.items():
        try:
            if reason := peer.missing():
                raise BenchError(reason)
            sample = _weigh(peer, settings)
        except BenchError as error:
            question.drop(name, str(error).splitlines()[-1][:300])
            say(f"memory: {name} is left out: {error}")
            continue
        question.add(name, sample)
        say(f"memory  {name:<20} {sample.value:8.2f} KiB")
    return [question, subscription.measure()]


def _weigh(peer: Peer, settings: Settings) -> Sample:
    workload = Workload("idle", settings.idle_connections, subscribe=wire.SUBSCRIBE)
    with serving(peer, settings.programs) as server:
        time.sleep(SETTLE_SECONDS)
        empty = rss_bytes(server.pid)
        with drive(settings.programs, server.port, workload) as load:
            time.sleep(SETTLE_SECONDS)
            load.send(wire.COLLECT)  # a garbage collection, where there is one
            time.sleep(SETTLE_SECONDS)
            return Sample((rss_bytes(server.pid) - empty) / settings.idle_connections / 1024)
