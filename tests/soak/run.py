"""A soak: a real `hubbub serve`, a crowd that comes and goes, and what the server needs meanwhile and afterwards."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from tests.serving import Process, RunningServer, fetch, process
from tests.soak.visitor import STALL, Crowd

__all__ = ["Report", "Row", "raise_descriptors", "slope", "soak"]

WARM, WARM_SECONDS = 50, 4.0
ALONE = ("connections", "users", "channels", "connection objects")
COUNTS = ("connections", "users", "channels", "tasks", "descriptors", "threads")
DEDUPE = 120.0  # seconds for which the names of publications are kept
SETTLING = DEDUPE + STALL
RAMP = 20.0
STEADY = RAMP + DEDUPE + 20.0
"""Seconds after which all that is kept for a while is as much as it will be."""
FEW = 30
TOKENS, PER_TOKEN, ODDS = 4096, 3, 1000  # tokens that were good are remembered: so many, each in so many objects
MEMORY, PER_CONNECTION = 16 * 1024, 16  # KiB
PROGRESS = 10.0
SPARE = 200  # descriptors for all that is no connection
Counts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the verdict; None where a column says nothing."""

    name: str
    before: float | None
    peak: float | None
    after: float | None
    limit: float

    @property
    def passed(self) -> bool:
        """Whether what there was afterwards is within the limit."""
        return self.after is not None and self.after <= self.limit


@dataclass(frozen=True, slots=True)
class Report:
    """What a soak found.

    Args:
        rows: what was measured, each with its limit.
        slope: how fast the memory grew in the second half, in KiB a minute; None where it was too short to say.
        done: what the visitors did, and how often.
        surprises: what the server should not have done.
        said: its log, but what it prints when it starts.
        code: its exit code.
    """

    rows: list[Row]
    slope: float | None
    done: Counter[str]
    surprises: Counter[str]
    said: str
    code: int


async def soak(
    seconds: float, connections: int, seed: int, pause: float = 2.0, say: Callable[[str], None] = print
) -> Report:
    """Let a crowd come and go for a while, and all leave.

    Args:
        seconds: for how long.
        connections: how many at once.
        seed: of all chance on the visitors' side.
        pause: the mean time between two actions of one visitor, in seconds.
        say: takes a line of progress.
    """
    with tempfile.TemporaryDirectory(prefix="hubbub-soak-") as data:
        command = ("-m", "hubbub.cli", "serve", "tests.soak.app:app", "--port", "0")
        async with process(*command, HUBBUB_DATA_DIR=data) as serving:
            await serving.says("Stop with Ctrl+C")
            server = RunningServer(int(serving.out.partition("http://127.0.0.1:")[2].split()[0]))
            random = Random(seed)
            warm = Crowd(server.port, random, 0.1)
            await _visits(warm, WARM, WARM_SECONDS)
            before = await _settled(server, {})
            crowd = Crowd(server.port, random, pause)
            samples = await _watched(server, crowd, connections, seconds, say)
            limits = _limits(before, crowd.done["authenticate"])
            after = await _settled(server, limits)
            code = await _end(serving)
            return _report(before, samples, after, limits, (warm, crowd), serving.err, code)


async def _visits(crowd: Crowd, connections: int, seconds: float) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(connections):
            # Not all at once: a crowd grows.
            group.create_task(crowd.live(number / connections * min(seconds / 4, RAMP)))
        await asyncio.sleep(seconds)
        crowd.ended.set()


async def _watched(
    server: RunningServer, crowd: Crowd, connections: int, seconds: float, say: Callable[[str], None]
) -> list[tuple[float, Counts]]:
    """The server's counts, once a second, while the crowd is there."""
    samples: list[tuple[float, Counts]] = []
    began = time.monotonic()
    visits = asyncio.create_task(_visits(crowd, connections, seconds))
    told = PROGRESS
    while (now := time.monotonic() - began) < seconds and not visits.done():
        try:
            samples.append((now, await _state(server)))
        except TimeoutError:
            crowd.done["figures not had in time"] += 1
        if now >= told and samples:
            told += PROGRESS
            say(_progress(now, samples[-1][1], crowd))
        await asyncio.wait([visits], timeout=1.0)
    await visits
    return samples


def _progress(now: float, counts: Counts, crowd: Crowd) -> str:
    numbers = "  ".join(f"{name} {counts[name]:,}" for name in COUNTS)
    return (
        f"{now:5.0f} s  memory {counts['rss'] / 1024:.1f} MiB  {numbers}  received {crowd.done['received']:,}  "
        f"surprises {crowd.surprises.total()}"
    )


async def _settled(server: RunningServer, limits: Counts) -> Counts:
    """The counts once everybody has left and no limit is passed, or when a time is over in which that should be."""
    deadline = time.monotonic() + SETTLING
    while True:
        counts = await _state(server, "?collect")
        alone = not any(counts[name] for name in ALONE)
        if (alone and all(counts[name] <= limit for name, limit in limits.items())) or time.monotonic() > deadline:
            return counts
        await asyncio.sleep(0.5)


def _limits(before: Counts, tokens: int) -> Counts:
    limits = {name: before[name] for name in (*COUNTS, "connection objects")}
    return limits | {"objects": before["objects"] + PER_TOKEN * min(tokens, TOKENS) + ODDS}


async def _state(server: RunningServer, query: str = "") -> Counts:
    counts: Counts = json.loads((await fetch(server, f"/state{query}")).body)
    return counts


async def _end(serving: Process) -> int:
    serving.child.send_signal(signal.SIGTERM)
    return await serving.end(30.0)


def _report(
    before: Counts,
    samples: list[tuple[float, Counts]],
    after: Counts,
    limits: Counts,
    crowds: Sequence[Crowd],
    said: str,
    code: int,
) -> Report:
    peaks = {name: max(counts[name] for _, counts in samples) for name in (*COUNTS, "rss")}
    rows = [Row(name, before[name], peaks.get(name), after[name], limit) for name, limit in limits.items()]
    room = before["rss"] + MEMORY + PER_CONNECTION * peaks["connections"]
    rows.append(Row("memory, KiB", before["rss"], peaks["rss"], after["rss"], room))
    rows.append(Row("memory at its peak, KiB", None, None, peaks["rss"], room))
    done: Counter[str] = sum((crowd.done for crowd in crowds), Counter())
    surprises: Counter[str] = sum((crowd.surprises for crowd in crowds), Counter())
    done |= Counter({f"server: {name}": after[name] for name in ("slowConsumers", "droppedPublications")})
    half = max(samples[-1][0] / 2, STEADY)
    steady = [(at, counts["rss"]) for at, counts in samples if at >= half]
    return Report(rows, slope(steady) if len(steady) > FEW else None, done, surprises, said, code)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """How fast the second values of points grow with the first ones, a minute for a second: by least squares."""
    count = len(points)
    mean_x, mean_y = (sum(values) / count for values in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return 60 * sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def raise_descriptors(connections: int) -> None:
    """Let this process, and the server it starts, have a descriptor for each connection.

    Raises:
        OSError: the system does not allow it.
    """
    needed = connections + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise OSError(f"{needed} files must be open at once, and {hard} may: ulimit -Hn {needed}")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
