"""What does publishing through the broker cost beside a bare loop of the same library? Elapsed time a publication.

Both have 256 publications in flight on one connection, to one stream with the same limits on the same server, and wait
for each to be acknowledged. The bare loop is `nats-py`'s own `JetStreamContext.publish` with a `Nats-Msg-Id`; Hubbub's
broker packs the publication, finds its stream, and would send again what was not answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import nats
from nats.js.api import RePublish, StreamConfig

from bench.measure import say
from bench.question import Question, Sample
from bench.rounds import Settings
from hubbub.brokers.nats import NatsBroker
from hubbub.core.namespaces import Namespace
from hubbub.core.recovery import Publication
from services.nats import Nats

__all__ = ["measure"]

IN_FLIGHT = 256
SECONDS = 2.0
JSON = b'{"from":"ann","message":"' + b"x" * 80 + b'"}'
ROOM = Namespace("room", history=100, history_ttl=300.0)
CHANNELS = [f"room:{number}" for number in range(IN_FLIGHT)]

Publish = Callable[[str, int], Awaitable[object]]


class Nobody:
    """Is told nothing: it is subscribed to nothing."""

    def published(self, channel: str, publication: Publication) -> None: ...

    def broken(self, channel: str) -> None: ...

    def told(self, topic: str, data: bytes) -> None: ...

    def resumed(self) -> None: ...


def measure(settings: Settings) -> list[Question]:
    """Every contender in every round, one after the other, on one server."""
    question = Question("broker", "Publish through NATS, 256 in flight: elapsed time a publication", "µs")
    with Nats() as servers:
        for number in range(settings.rounds):
            for name, contender in {"hubbub": _hubbub, "nats-py loop": _bare}.items():
                sample = asyncio.run(contender(servers.url, number))
                question.add(name, sample)
                say(f"broker {number + 1}/{settings.rounds}  {name:<14} {sample.value:8.2f} {question.unit}")
    say(f"broker: throughput of hubbub over the bare loop's: {question.ratio('nats-py loop', 'hubbub')}")
    return [question]


async def _hubbub(url: str, number: int) -> Sample:
    broker = NatsBroker(f"{url}?name=hubbub{number}")
    broker.listen(Nobody())
    await broker.open([ROOM])

    async def publish(channel: str, _: int) -> object:
        now = time.time_ns() // 1_000_000
        return await broker.publish(ROOM, channel, "chat", JSON, idempotency=None, tags=None, now=now)

    try:
        return await _loop(publish)
    finally:
        await broker.close()


async def _bare(url: str, number: int) -> Sample:
    client = await nats.connect(url)
    stream = client.jetstream()
    config = StreamConfig(
        name=f"bare{number}",
        subjects=[f"bare{number}.in.>"],
        max_msgs_per_subject=ROOM.history + 1,
        max_age=ROOM.history_ttl + 120,
        duplicate_window=120,
        allow_direct=True,
        republish=RePublish(src=f"bare{number}.in.>", dest=f"bare{number}.out.>"),
    )
    await stream.add_stream(config)

    async def publish(channel: str, count: int) -> object:
        headers = {"Nats-Msg-Id": f"{channel}-{count}"}
        return await stream.publish(f"bare{number}.in.{channel}", JSON, headers=headers)

    try:
        return await _loop(publish)
    finally:
        await client.close()


async def _loop(publish: Publish) -> Sample:
    """256 tasks, each with one publication on its way and a channel of its own."""
    count = 0

    async def work(channel: str, until: float) -> None:
        nonlocal count
        while time.perf_counter() < until:
            count += 1
            await publish(channel, count)

    started = time.perf_counter()
    await asyncio.gather(*(work(channel, started + SECONDS) for channel in CHANNELS))
    return Sample((time.perf_counter() - started) / count * 1e6, count)
