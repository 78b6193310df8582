"""What does publishing through a broker cost beside a bare loop of the same library? Elapsed time a publication.

Both have 256 publications in flight, to channels with the same limits on the same server, and wait for each to be
acknowledged. The bare loop on NATS is `nats-py`'s own `JetStreamContext.publish` with a `Nats-Msg-Id`, over one
connection as Hubbub's. That on Redis is `redis-py`'s pipeline of `XADD` and `PUBLISH`, over a pool of connections that
is as large as is good for it. Hubbub's broker packs the publication, finds its stream, gives it an offset and a name
where the server does not, and would send again what was not answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import nats
import redis.asyncio as redis
from nats.js.api import RePublish, StreamConfig

from bench.measure import say
from bench.question import Question, Sample
from bench.rounds import Settings
from hubbub.brokers.nats import NatsBroker
from hubbub.brokers.redis import RedisBroker
from hubbub.contracts import Broker
from hubbub.core.namespaces import Namespace
from hubbub.core.recovery import Publication
from services.nats import Nats
from services.valkey import Valkey

__all__ = ["measure"]

IN_FLIGHT = 256
SECONDS = 2.0
POOL = 64
JSON = b'{"from":"ann","message":"' + b"x" * 80 + b'"}'
ROOM = Namespace("room", history=100, history_ttl=300.0)
CHANNELS = [f"room:{number}" for number in range(IN_FLIGHT)]

Publish = Callable[[str, int], Awaitable[object]]
Contender = Callable[[str, int], Awaitable[Sample]]


class Nobody:
    """Is told nothing: it is subscribed to nothing."""

    def published(self, channel: str, publication: Publication) -> None: ...

    def broken(self, channel: str) -> None: ...

    def told(self, topic: str, data: bytes) -> None: ...

    def resumed(self) -> None: ...


def measure(settings: Settings) -> list[Question]:
    """Every contender in every round, one after the other, on one server."""
    question = Question("broker", "Publish through a broker, 256 in flight: elapsed time a publication", "µs")
    with Nats() as nats_servers, Valkey() as valkey:
        contenders: dict[str, tuple[Contender, str]] = {
            "hubbub": (_hubbub, nats_servers.url),
            "nats-py loop": (_bare, nats_servers.url),
            "hubbub, Redis": (_hubbub_redis, valkey.url),
            "redis-py loop": (_bare_redis, valkey.url),
        }
        for number in range(settings.rounds):
            for name, (contender, url) in contenders.items():
                sample = asyncio.run(_run(contender, url, number))
                question.add(name, sample)
                say(f"broker {number + 1}/{settings.rounds}  {name:<14} {sample.value:8.2f} {question.unit}")
    for loop, name in {"nats-py loop": "hubbub", "redis-py loop": "hubbub, Redis"}.items():
        say(f"broker: throughput of {name} over the {loop}'s: {question.ratio(loop, name)}")
    return [question]


async def _run(contender: Contender, url: str, number: int) -> Sample:
    return await contender(url, number)


async def _hubbub(url: str, number: int) -> Sample:
    return await _through(NatsBroker(f"{url}?name=hubbub{number}"))


async def _hubbub_redis(url: str, number: int) -> Sample:
    return await _through(RedisBroker(f"{url}?name=hubbub{number}"))


async def _through(broker: Broker) -> Sample:
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


async def _bare_redis(url: str, number: int) -> Sample:
    pool = redis.BlockingConnectionPool.from_url(url, max_connections=POOL, protocol=2)
    client = redis.Redis.from_pool(pool)

    async def publish(channel: str, _: int) -> object:
        pipeline = client.pipeline(transaction=False)
        pipeline.xadd(f"bare{number}:{channel}", {"b": JSON}, maxlen=ROOM.history, approximate=False)
        pipeline.publish(f"bare{number}:{channel}", JSON)
        return await pipeline.execute()

    try:
        return await _loop(publish)
    finally:
        await client.aclose()


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
