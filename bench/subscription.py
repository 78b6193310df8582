"""What does a subscription weigh, and a channel that nobody is subscribed to? 100,000 in a process of their own.

Connections, channel names and what is published are there before; resident memory is taken before and after, without
sockets, so that nothing else grows. `python -m bench.subscription SHAPE` measures one shape and prints its bytes.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable

from bench.measure import ROOT, BenchError, rss_bytes, say
from bench.question import Question, Sample
from hubbub import Connection, Handshake, Hub
from hubbub.brokers.memory import MemoryBroker
from hubbub.core.forms import FRAMES
from hubbub.core.identity import Identity
from hubbub.core.limits import Limits

__all__ = ["measure"]

COUNT = 100_000
A_BEAT, BEAT = 1_250, 0.26  # 5,000 a second: what is to be told of them is in memory for a beat
CROWD = 1000
HISTORY = 100
MESSAGE = b'"' + b"x" * 100 + b'"'

Fill = Callable[[Hub], Awaitable[Callable[[], Awaitable[None]]]]


class Nowhere:
    """A socket that takes everything."""

    __slots__ = ("_connection",)

    form = FRAMES
    paused = False
    buffered = 0

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def write(self, data: object) -> None:
        """Let it go."""

    def ping(self) -> bool:
        """Have no pings."""
        return False

    def close(self, code: int, reason: str) -> None:
        """Agree."""
        asyncio.get_running_loop().call_soon(self._connection.lost, code, reason)


async def _alone(hub: Hub) -> Callable[[], Awaitable[None]]:
    """Each connection on a channel of its own."""
    return _subscribe(hub, [(connection, f"room:{n}") for n, connection in enumerate(_connect(hub))])


async def _alone_seen(hub: Hub) -> Callable[[], Awaitable[None]]:
    """The same, and the channel knows who is there."""
    return _subscribe(hub, [(connection, f"crowd:{n}") for n, connection in enumerate(_connect(hub))])


async def _crowded(hub: Hub) -> Callable[[], Awaitable[None]]:
    """A thousand connections on each channel."""
    return _subscribe(hub, list(zip(_connect(hub), _names("room"), strict=True)))


async def _seen(hub: Hub) -> Callable[[], Awaitable[None]]:
    """A thousand connections on each channel, which knows who is there."""
    return _subscribe(hub, list(zip(_connect(hub), _names("crowd"), strict=True)))


async def _signed_in(hub: Hub) -> Callable[[], Awaitable[None]]:
    """The same, each connection a user of its own."""
    connections = _connect(hub)
    for number, connection in enumerate(connections):
        connection.identity = Identity(f"user-{number}")  # without an inbox
    return _subscribe(hub, list(zip(connections, _names("crowd"), strict=True)))


async def _remembered(hub: Hub) -> Callable[[], Awaitable[None]]:
    """Channels with one publication each, and nobody there; what is published is left out."""
    return await _remember(hub, COUNT)


async def _long_remembered(hub: Hub) -> Callable[[], Awaitable[None]]:
    """The same, a hundred in each channel: the bytes are for one of them."""
    return await _remember(hub, COUNT // HISTORY)


async def _remember(hub: Hub, channels: int) -> Callable[[], Awaitable[None]]:
    names = [f"log:{n}" for n in range(channels)] * (COUNT // channels)
    await hub.publish("log:kept", None, 1)
    kept = (await hub.history("log:kept")).publications[0]
    offsets = list(range(COUNT + channels))  # a publication and the one before it share the number
    places = zip(offsets[channels:], offsets, strict=False)
    copies = [type(kept)(offset, previous, kept.published_at, None, MESSAGE) for offset, previous in places]

    async def fill() -> None:
        assert isinstance(hub.node.broker, MemoryBroker)
        memory, namespace = hub.node.broker.memory, hub.node.subscriptions.find("log:kept")
        for name, copy in zip(names, copies, strict=True):
            memory.remember(name, copy, namespace.history, namespace.history_ttl)

    return fill


SHAPES: dict[str, Fill] = {
    "alone on its channel": _alone,
    "alone, with presence": _alone_seen,
    "one of 1,000 on it": _crowded,
    "with presence": _seen,
    "with presence, signed in": _signed_in,
    "idle channel with a history": _remembered,
    "one of 100 messages of it": _long_remembered,
}


def measure() -> Question:
    """Every shape once: memory does not drift with the machine."""
    title = f"A subscription, {COUNT:,} of them: resident memory each, the channel's name left out"
    question = Question("subscription", title, "bytes")
    for shape in SHAPES:
        try:
            sample = Sample(_ask(shape), COUNT)
        except BenchError as error:
            question.drop(shape, str(error).splitlines()[-1][:300])
            continue
        question.add(shape, sample)
        say(f"subscription  {shape:<28} {sample.value:8.1f} bytes")
    return question


def _ask(shape: str) -> float:
    command = [sys.executable, "-m", "bench.subscription", shape]
    with tempfile.TemporaryDirectory() as data:
        environment = os.environ | {"HUBBUB_DATA_DIR": data}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(done.stderr.strip() or f"ended with {done.returncode}")
    return float(done.stdout)


def _names(namespace: str) -> list[str]:
    names = [f"{namespace}:{number}" for number in range(COUNT // CROWD)]
    return [name for name in names for _ in range(CROWD)]


def _connect(hub: Hub) -> list[Connection]:
    handshake = Handshake({"headers": []})
    connections = [Connection(hub.node) for _ in range(COUNT)]
    for connection in connections:
        connection.accept(Nowhere(connection), handshake)  # type: ignore[arg-type]  # the part of a transport that is used
    return connections


def _subscribe(hub: Hub, pairs: list[tuple[Connection, str]]) -> Callable[[], Awaitable[None]]:
    async def fill() -> None:
        for number, (connection, channel) in enumerate(pairs):
            await hub.node.subscriptions.add(connection, channel)
            if number % A_BEAT == 0:
                await asyncio.sleep(BEAT)  # what is told of them is let go
        assert all(hub.node.subscriptions.has(connection, channel) for connection, channel in pairs)

    return fill


async def _weigh(shape: str) -> float:
    hub = Hub(limits=Limits(connections=10 * COUNT, connections_per_address=10 * COUNT))
    hub.namespace("room")
    hub.namespace("crowd", presence=True)
    hub.namespace("log", history=HISTORY, history_ttl=3600)
    async with hub.running():
        fill = await SHAPES[shape](hub)
        await asyncio.sleep(1.0)  # for what comes with the connections
        gc.collect()
        before = rss_bytes(os.getpid())
        await fill()
        await asyncio.sleep(1.0)  # for what is told of it
        gc.collect()
        return (rss_bytes(os.getpid()) - before) / COUNT


if __name__ == "__main__":
    print(asyncio.run(_weigh(sys.argv[1])))
