"""What does an echo cost? 100 connections, one 128-byte message in flight each, decoded and encoded as JSON."""

from __future__ import annotations

from bench import peers, wire
from bench.load import Workload
from bench.question import Question
from bench.rounds import Settings, ask

__all__ = ["CONTENDERS", "measure"]

CONNECTIONS = 100


def _echo(kind: str) -> Workload:
    return Workload("echo", CONNECTIONS, message=wire.echo_message(kind), expect=wire.echo_text(kind))


CONTENDERS = {
    "hubbub, def": (peers.HUBBUB, _echo("echo")),
    "hubbub, async def": (peers.HUBBUB, _echo("echo_async")),
    "hubbub, ASGI door": (peers.HUBBUB_ASGI, _echo("echo")),
    "FastAPI on uvicorn": (peers.FASTAPI, _echo("echo")),
    "websockets": (peers.WEBSOCKETS, _echo("echo")),
    "ws (Node)": (peers.WS, _echo("echo")),
    "socketify": (peers.SOCKETIFY, _echo("echo")),
    "C send() loop": (peers.FLOOR, _echo("echo")),
}


def measure(settings: Settings) -> list[Question]:
    """An echo of every contender."""
    question = Question("echo", "Echo, 100 connections, 128 bytes: server CPU a message", "µs")
    return [ask(question, CONTENDERS, settings)]
