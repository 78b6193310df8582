"""What do clients notice of a rolling restart? Two workers with one broker are replaced, one after the other.

Each client follows a room in which something is said every second, and does as docs/protocol.md says when its node
goes. Delays count from when a message was due, for those who are not underway just then: quiet first, then from the
signal to the end of the restart. A round in which anybody missed anything is no result.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from pathlib import Path

from bench.measure import ROOT, BenchError, say
from bench.member import Member, Tally
from bench.peers.rolling_app import HISTORY, ROOM, TTL
from bench.question import Question, Sample
from bench.rounds import Settings
from hubbub.brokers.nats import NatsBroker
from hubbub.contracts import Broker
from hubbub.core.namespaces import Namespace
from hubbub.core.recovery import Publication
from services.nats import Nats

__all__ = ["ROOMS", "SPOKEN", "WORKERS", "Nobody", "measure", "open_members", "restart", "serving", "speak"]
__all__ += ["longest", "pace", "percentile"]

ROOMS = 20
WORKERS = 2
APP = "bench.peers.rolling_app:app"
QUIET = 10.0
SETTLE = 3.0
PATIENCE = 120.0
AT_ONCE = 50  # connections that are being opened, at the start
BETWEEN = 2.0  # seconds without a handshake, from one node to the next
DONE = "all workers were replaced"

Serving = tuple[subprocess.Popen[bytes], int, Path]
SPOKEN = Namespace(ROOM, history=HISTORY, history_ttl=TTL)


class Nobody:
    """Is told nothing: it is subscribed to nothing."""

    def published(self, channel: str, publication: Publication) -> None: ...

    def broken(self, channel: str) -> None: ...

    def told(self, topic: str, data: bytes) -> None: ...

    def resumed(self) -> None: ...


def measure(settings: Settings) -> list[Question]:
    """One restart in each round."""
    many = f"{settings.clients:,} clients"
    delay = Question(
        "rolling", f"Rolling restart of two nodes under {many}: 99th percentile of the others' delay", "ms"
    )
    back = Question("back", f"Rolling restart under {many}: from the first one told to go to the last one back", "s")
    paced = Question("handshakes", f"Rolling restart under {many}: handshakes in a second", "handshakes")
    for number in range(settings.rounds):
        try:
            with Nats() as servers:
                serve = serving(servers.url, settings.drain)
                tally, began, ended = asyncio.run(restart(serve, NatsBroker(servers.url), settings.clients))
        except (BenchError, OSError, TimeoutError) as error:
            for question in (delay, back, paced):
                question.drop("hubbub", str(error)[:300] or "it took too long")
            say(f"rolling: left out: {error!r}")
            break
        delay.add("quiet", percentile([late for at, late in tally.delays if at < began]))
        delay.add("in the restart", percentile([late for at, late in tally.delays if began <= at < ended]))
        back.add("hubbub", Sample(longest(tally), len(tally.moves)))
        most, mean = pace(tally, began)
        paced.add("mean", mean)
        paced.add("most", most)
        moves = f"{len(tally.moves)} moves in {ended - began:.0f} s"
        say(f"rolling {number + 1}/{settings.rounds}  {moves}, {tally.cut} cut")
    return [delay, back, paced]


async def restart(
    serve: AbstractContextManager[Serving], broker: Broker, clients: int, quiet: float = QUIET, settle: float = SETTLE
) -> tuple[Tally, float, float]:
    """What was seen; when the restart began, and when it ended.

    Args:
        serve: see `serving`.
        broker: between the workers, and not open.
        clients: how many follow.
        quiet: seconds before the restart.
        settle: seconds behind it.

    Raises:
        BenchError: somebody missed something.
    """
    tally = Tally()
    with serve as (process, port, log):
        members = [Member(port, f"user{n}", f"{ROOM}:{n % ROOMS}", tally) for n in range(clients)]
        await open_members(members)
        stop = asyncio.Event()
        speaking = asyncio.create_task(speak(broker, stop))
        await asyncio.sleep(quiet)
        began = time.monotonic()
        process.send_signal(signal.SIGHUP)
        await _until(lambda: DONE in log.read_text(), process)
        ended = time.monotonic()
        await asyncio.sleep(settle)
        stop.set()
        last = await speaking
        await _until(lambda: all(member.last == last for member in members), process)
        for member in members:
            member.leave()
    if tally.missed:
        raise BenchError(f"{tally.missed} messages were missed, {tally.cut} connections were cut")
    return tally, began, ended


async def open_members(members: list[Member]) -> None:
    """Connect all, a few at a time, and wait until they follow."""
    for start in range(0, len(members), AT_ONCE):
        batch = members[start : start + AT_ONCE]
        await asyncio.gather(*(member.connect() for member in batch))
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(member.following.wait() for member in batch))


async def speak(broker: Broker, stop: asyncio.Event) -> int:
    """Publish to every room once a second, spread over it; the number of the last message in each."""
    broker.listen(Nobody())
    await broker.open([SPOKEN])
    number, began = 0, time.monotonic()
    try:
        while not stop.is_set():
            for room in range(ROOMS):
                due = began + number + room / ROOMS
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                data, now = f"[{number},{due}]".encode(), time.time_ns() // 1_000_000
                await broker.publish(
                    SPOKEN, f"{ROOM}:{room}", "said", data, idempotency=f"{room}-{number}", tags=None, now=now
                )
            number += 1
    finally:
        await broker.close()
    return number - 1


@contextmanager
def serving(url: str, drain: float, app: str = APP, **environment: str) -> Iterator[Serving]:
    """Two workers, their port and their log.

    Args:
        url: of their broker.
        drain: seconds in which one sends its clients away.
        app: what they serve.
        environment: more of theirs.
    """
    with tempfile.TemporaryDirectory() as data:
        log = Path(data) / "log"
        command = ["-m", "hubbub.cli", "serve", app, "--port", "0"]
        places = {"PYTHONPATH": str(ROOT), "HUBBUB_BROKER_URL": url, "HUBBUB_DATA_DIR": data}
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *command, "--workers", str(WORKERS), "--drain-time", str(drain)],
                cwd=ROOT,
                env=os.environ | places | environment,
                stdout=file,
                stderr=file,
            )
        try:
            yield process, _port(process, log), log
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + PATIENCE
    while "Stop with Ctrl+C" not in (said := log.read_text()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"the server did not start: {said[-300:]}")
        time.sleep(0.05)
    return int(said.partition("http://127.0.0.1:")[2].split()[0])


async def _until(true: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():
            if process.poll() is not None:
                raise BenchError("the server ended")
            await asyncio.sleep(0.1)


def percentile(delays: list[float]) -> Sample:
    """The 99th, in milliseconds."""
    return Sample(sorted(delays)[len(delays) * 99 // 100] * 1000, len(delays))


def longest(tally: Tally) -> float:
    """From the first client of a node that was told to go to the last that is back: of both nodes the longer."""
    moves = sorted(tally.moves)
    nodes, first = [0.0], moves[0][0]
    for (told, back), (after, _) in pairwise([*moves, (float("inf"), 0.0)]):
        nodes[-1] = max(nodes[-1], back - first)
        if after - told > BETWEEN and after != float("inf"):
            nodes.append(0.0)
            first = after
    return max(nodes)


def pace(tally: Tally, began: float) -> tuple[Sample, Sample]:
    """The most handshakes in a second of the restart, and the mean of all seconds in which there were any."""
    seconds = Counter(int(at - began) for at in tally.handshakes if at >= began)
    return Sample(max(seconds.values()), len(seconds)), Sample(seconds.total() / len(seconds), len(seconds))
