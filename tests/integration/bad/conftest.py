"""A server under attack, in a process of its own, and the healthy connection beside every attack."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving import DEADLINE, REPOSITORY, RawClient, RunningServer, fetch, free_port, until

__all__ = ["LATENCY", "Target"]

LATENCY = 0.25
MEMORY = 10 * 1024
COMPLAINT = re.compile(r"^(?:\S+ \S+ )?(?:WARNING|ERROR|CRITICAL)\b")
APP = "tests.integration.bad.app:app"
COMMANDS = {
    "asyncio": ("-m", "tests.integration.bad.app"),
    "native": ("-m", "hubbub.cli", "serve", APP, "--port"),
    "asgi": ("-m", "uvicorn", APP, "--ws", "websockets-sansio", "--no-access-log", "--port"),
}


class Target(RunningServer):
    """A server, seen from outside.

    Args:
        door: a key of `COMMANDS`.
        log: where its log goes.
    """

    def __init__(self, door: str, log: Path) -> None:
        super().__init__(free_port())
        self.log = log
        self.latency = LATENCY
        self.complaints = 1
        """How many lines a test may add to the log."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(("WS_", "HUBBUB_", "PORT"))}
        with log.open("wb") as file:
            self.child = subprocess.Popen(
                [sys.executable, *COMMANDS[door], str(self.port)],
                cwd=REPOSITORY,
                env={**env, "PYTHONPATH": str(REPOSITORY), "HUBBUB_DATA_DIR": str(log.parent)},
                stdout=file,
                stderr=file,
            )

    async def state(self) -> Any:
        """What `/state` says."""
        return json.loads((await fetch(self, "/state")).body)

    async def counts(self) -> dict[str, int]:
        """What must come back to where it was."""
        state = await self.state()
        of_hubs = {
            f"{name} at {path}": stats[name]
            for path, stats in state["hubs"].items()
            for name in ("connections", "users", "channels")
        }
        return {**of_hubs, "tasks": state["tasks"], "descriptors": state["descriptors"]}

    async def settled(self, counts: dict[str, int], seconds: float = 2 * DEADLINE) -> None:
        """Wait until the counts are these, or less: what is done from time to time may have been at it."""
        more: dict[str, int] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while more := _over(await self.counts(), counts):  # noqa: ASYNC110  # it is another process
                    await asyncio.sleep(0.02)
        assert not more, counts

    def memory(self, line: str = "VmRSS") -> int:
        """A line of the kernel's, in KiB; `VmHWM` is the peak."""
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(status.partition(f"{line}:")[2].split()[0])

    def forget_peak(self) -> None:
        """Count the peak of memory from now on."""
        Path(f"/proc/{self.child.pid}/clear_refs").write_text("5")

    def seconds(self) -> float:
        """The processor time it has used."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def complained(self) -> list[str]:
        """The lines of its log that are warnings or worse."""
        return [line for line in self.log.read_text().splitlines() if COMPLAINT.match(line)]


class Beside:
    """A healthy connection: asks again and again, in a thread and a loop of its own, and keeps the slowest answer."""

    def __init__(self, server: Target) -> None:
        self.slowest = 0.0
        self.answers = 0
        self.failure: BaseException | None = None
        self._server = server
        self._open = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beside", daemon=True)

    def _run(self) -> None:
        try:
            asyncio.run(self._talk())
        except BaseException as failure:
            self.failure = failure
        finally:
            self._open.set()

    async def _talk(self) -> None:
        async with RawClient.join(self._server) as client:
            while not self._stop.wait(0.01):  # nothing else runs in this loop
                before, stolen = time.monotonic(), self._stolen()
                assert (await client.ask("echo", self.answers))["payload"] == self.answers
                self.slowest = max(self.slowest, time.monotonic() - before - (self._stolen() - stolen))
                self.answers += 1
                self._open.set()
            await client.leave()

    def _stolen(self) -> float:
        """Seconds that the server and this thread were ready to run and had no processor: not the server's fault."""
        places = ("thread-self", self._server.child.pid)
        return sum(int(Path(f"/proc/{place}/schedstat").read_text().split()[1]) for place in places) / 1e9

    def __enter__(self) -> Beside:
        self._thread.start()
        assert self._open.wait(DEADLINE)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(2 * DEADLINE)


@pytest.fixture(scope="package")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Target]]:
    """The servers that run, by door; a test's first need of one starts it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    started: dict[str, Target] = {}
    yield started
    for target in started.values():
        target.child.terminate()
        target.child.wait(2 * DEADLINE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def door() -> str:
    """The door under attack, unless a test names others."""
    return "native"


@pytest.fixture
async def target(
    door: str, targets: dict[str, Target], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Target]:
    """The server under attack. What every row asks for is checked at the end: see `reliability`, section 5."""
    if door not in targets:
        targets[door] = Target(door, tmp_path_factory.mktemp("bad") / f"{door}.log")
        await _answers(targets[door])
    target = targets[door]
    target.latency, target.complaints = LATENCY, 1
    counts, memory, complaints = await target.counts(), target.memory(), len(target.complained())
    with Beside(target) as beside:
        yield target
    assert target.child.poll() is None, target.log.read_text()
    assert beside.failure is None
    assert beside.answers > 0
    assert beside.slowest <= target.latency
    await target.settled(counts)
    assert target.memory() - memory <= MEMORY
    complained = target.complained()[complaints:]
    assert len(complained) <= target.complaints, complained


def _over(found: dict[str, int], counts: dict[str, int]) -> dict[str, int]:
    return {name: number for name, number in found.items() if number > counts[name]}


async def _answers(target: Target) -> None:
    """Wait until a server takes connections, and has let the first ones go."""

    def listens() -> bool:
        assert target.child.poll() is None, target.log.read_text()
        with contextlib.suppress(OSError), socket.create_connection((target.host, target.port)):
            return True
        return False

    await until(listens, 4 * DEADLINE)
    least: dict[str, int] = {}
    for _ in range(20):
        counts = await target.counts()
        least = min(least or counts, counts, key=lambda found: found["descriptors"])
    await target.settled(least)
