"""Several processes that serve one app on one port, and what is done when one of them dies or all are to be replaced.

Rules of this file:
1. Each worker has a place. Who dies is replaced, at once or, if it did not live long, after a pause; who dies again and
   again ends the whole: what supervises us knows better then.
2. A worker is replaced by one that is ready: both have the place's listener meanwhile, so no connection is refused.
3. All workers end when this process does, however it ends (see `hubbub.cli.worker`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hubbub.cli.worker import Orders
from hubbub.errors import ConfigError

if TYPE_CHECKING:
    from hubbub.cli.nats import OwnNats
    from hubbub.cli.port import Port

__all__ = ["Workers"]

logger = logging.getLogger("hubbub.workers")

STOPS = (signal.SIGTERM, signal.SIGINT)
FAILED = 0
"""In place of a signal."""
SOON = 10.0
"""Seconds in which a death counts as a quick one."""
LONG = 30.0
"""Seconds after which a worker that takes no connections yet is told of, and again after as many."""
MOST_DEATHS = 5
PAUSES = (0.5, 8.0)
"""Seconds before the next start after quick deaths: the first, twice as many each time, and the most."""
DRAIN = 30.0
LAST = 20.0
"""Seconds beyond the drain after which a worker that was told to stop is killed; it exits by itself after 15."""

Hubs = list[dict[str, Any]]


class Workers:
    """The processes.

    Args:
        orders: what each is to do.
        port: where they listen; closed at the end.
        nats: the broker, if it is ours; run as long as they are.
        started: called once all take connections, with what `hubs_here` says in one of them.
    """

    def __init__(self, orders: Orders, port: Port, nats: OwnNats | None, started: Callable[[Hubs], None]) -> None:
        self._orders = orders
        self._port = port
        self._nats = nats
        self._started = started
        self._up = False
        self._environment = dict(os.environ)
        self._places = [_Place(number) for number in range(1, orders.workers + 1)]
        self._living: set[_Worker] = set()
        self._watching: set[asyncio.Task[None]] = set()
        self._renew = asyncio.Event()
        self._end: asyncio.Future[int]

    async def run(self) -> int:
        """Serve until told to stop; the exit code.

        Raises:
            ConfigError: the broker cannot be run.
        """
        loop = asyncio.get_running_loop()
        self._end = loop.create_future()
        for number in STOPS:
            loop.add_signal_handler(number, self._signalled, number)
        loop.add_signal_handler(signal.SIGHUP, self._renew.set)
        work = loop.create_task(self._work())
        try:
            await asyncio.wait((work, self._end), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            work.cancel()
            return await self._stop(self._end.result() if self._end.done() else FAILED)
        finally:
            work.cancel()
            await asyncio.wait([work])
            self._kill()
            await asyncio.gather(*(worker.process.wait() for worker in self._living))
            if self._nats is not None:
                await self._nats.stop()
            self._port.close()

    async def _work(self) -> None:
        """Start all, the first alone: what is wrong is said once. Then replace them whenever told to."""
        if self._nats is not None:
            await self._nats.start()
            self._environment["HUBBUB_BROKER_URL"] = self._nats.url
        first, *others = self._places
        if not await self._start(first, first=True) or not all(await asyncio.gather(*map(self._start, others))):
            return
        self._up = True
        assert first.worker is not None
        self._started(first.worker.hubs)
        while True:
            await self._renew.wait()
            self._renew.clear()
            await self._replace_all()

    async def _start(self, place: _Place, *, first: bool = False) -> bool:
        """Start a worker, and give it the place once it takes connections; whether it does."""
        try:
            place.listener = place.listener or self._port.listener()
            orders = replace(self._orders, first=first, listener=place.listener.fileno())
            worker = await _Worker.start(orders, self._environment)
        except (OSError, ConfigError) as error:
            logger.error("worker %d cannot be started: %s", place.number, error)
            return False
        self._living.add(worker)
        if not await self._ready(place, worker):
            await self._ended(worker)
            return False
        place.worker = worker
        task = asyncio.create_task(self._watch(place, worker))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)
        return True

    async def _ready(self, place: _Place, worker: _Worker) -> bool:
        """Wait for a worker as long as its app needs, and say so."""
        while True:
            try:
                async with asyncio.timeout(LONG):
                    return await worker.ready()
            except TimeoutError:
                pid, age = worker.process.pid, worker.age
                logger.warning(
                    "worker %d (%d) still starts, for %.0f s by now: the app holds it up", place.number, pid, age
                )

    async def _ended(self, worker: _Worker) -> int:
        code = await worker.process.wait()
        self._living.discard(worker)
        worker.close()
        return code

    async def _watch(self, place: _Place, worker: _Worker) -> None:
        """Wait for a worker's end; if it was not told to go, put another in its place."""
        code = await self._ended(worker)
        if place.worker is not worker or self._end.done():
            return
        if place.listener is not None:
            self._port.release(place.listener)  # who waits there has to try again
            place.listener = None
        place.deaths = place.deaths + 1 if worker.age < SOON else 0
        logger.warning("worker %d (%d) died: %s", place.number, worker.process.pid, _how(code))
        while not self._end.done():
            if place.deaths >= MOST_DEATHS:
                logger.error("worker %d died %d times in a row: all stop", place.number, place.deaths)
                self._end.set_result(FAILED)
                return
            await asyncio.sleep(min(PAUSES[0] * 2.0 ** (place.deaths - 1), PAUSES[1]) if place.deaths else 0.0)
            async with place.lock:
                if place.worker is not worker or await self._start(place):
                    return
            place.deaths += 1
            logger.warning("worker %d did not start", place.number)

    async def _replace_all(self) -> None:
        """One after the other, for as long as new ones can be started."""
        for place in self._places:
            async with place.lock:
                old = place.worker
                if not await self._start(place):
                    logger.error("worker %d could not be replaced: the old ones go on", place.number)
                    return
            if old in self._living:
                await self._send_away(old, signal.SIGTERM)
        logger.info("all workers were replaced")

    async def _send_away(self, worker: _Worker, number: int) -> int:
        """Tell a worker to stop, and wait until it has, but not for ever; its exit code."""
        worker.tell(number)
        drain = DRAIN if self._orders.drain is None else self._orders.drain
        try:
            async with asyncio.timeout(drain + LAST):
                return await worker.process.wait()
        except TimeoutError:
            logger.error("worker process %d does not stop: killed", worker.process.pid)
            worker.process.kill()
            return await worker.process.wait()

    async def _stop(self, number: int) -> int:
        if not self._up:
            return 128 + number if number else 1
        # Without another machine there is nowhere to send clients to.
        alone = self._nats is not None and self._orders.drain is None
        told = number if number == signal.SIGTERM and not alone else signal.SIGINT
        codes = await asyncio.gather(*(self._send_away(worker, told) for worker in self._living if worker.up))
        return 1 if number == FAILED or any(codes) else 0

    def _signalled(self, number: int) -> None:
        """Stop in order; at once when told a second time."""
        if self._end.done():
            self._kill()
            if self._nats is not None:
                self._nats.kill()
            os._exit(128 + number)
        self._end.set_result(number)

    def _kill(self) -> None:
        for worker in self._living:
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()


@dataclass(slots=True)
class _Place:
    """One of the workers' places; `deaths` counts the quick ones in a row."""

    number: int
    listener: socket.socket | None = None
    worker: _Worker | None = None
    deaths: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class _Worker:
    """One process."""

    def __init__(self, process: asyncio.subprocess.Process, ours: socket.socket) -> None:
        self.process = process
        self.hubs: Hubs = []
        self.up = False
        self._born = time.monotonic()
        self._ours = ours
        self._told = False
        self._said = b""

    @classmethod
    async def start(cls, orders: Orders, environment: dict[str, str]) -> _Worker:
        """Start one, in a group of its own: Ctrl+C is for us, who pass it on."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "hubbub.cli.worker", str(theirs.fileno())),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), orders.listener),
                process_group=0,
            )
        with contextlib.suppress(OSError):  # it has ended already
            await asyncio.get_running_loop().sock_sendall(ours, orders.line())
        return cls(process, ours)

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._born

    async def ready(self) -> bool:
        """Wait until it takes connections; False if it ended before."""
        while not self._said.endswith(b"\n"):
            try:
                more = await asyncio.get_running_loop().sock_recv(self._ours, 65536)
            except OSError:
                more = b""
            if not more:
                return False
            self._said += more
        self.hubs = json.loads(self._said)
        self.up = True
        return True

    def tell(self, number: int) -> None:
        """Let it take a signal, once: a second one would end it at once."""
        if not self._told:
            self._told = True
            with contextlib.suppress(OSError):
                self._ours.send(bytes([number]))

    def close(self) -> None:
        """Let go of it; one that still lives goes too."""
        self._ours.close()


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
