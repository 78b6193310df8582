"""What does an echo cost? 100 connections, one 128-byte message in flight each, decoded and encoded as JSON."""

from __future__ import annotations

from bench import peers, wire
from bench.load import Workload
from bench.question import Question
from bench.rounds import Settings, ask

__all__ = ["CONTENDERS", "echo", "measure"]

CONNECTIONS = 100


def echo(kind: str) -> Workload:
    """One message of a type in flight on each connection."""
    return Workload("echo", CONNECTIONS, message=wire.echo_message(kind), expect=wire.echo_text(kind))


CONTENDERS = {
    "hubbub, def": (peers.HUBBUB, echo("echo")),
    "hubbub, async def": (peers.HUBBUB, echo("echo_async")),
    "hubbub, ASGI door": (peers.HUBBUB_ASGI, echo("echo")),
    "FastAPI on uvicorn": (peers.FASTAPI, echo("echo")),
    "websockets": (peers.WEBSOCKETS, echo("echo")),
    "ws (Node)": (peers.WS, echo("echo")),
    "socketify": (peers.SOCKETIFY, echo("echo")),
    "bare uvloop": (peers.BARE, echo("echo")),
    "C send() loop": (peers.FLOOR, echo("echo")),
}


def measure(settings: Settings) -> list[Question]:
    """An echo of every contender."""
    question = Question("echo", "Echo, 100 connections, 128 bytes: server CPU a message", "µs")
    return [ask(question, CONTENDERS, settings)]
