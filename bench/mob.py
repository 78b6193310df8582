"""Clients as a server fears them: handshakes that come a byte a second, and readers that stop.

`python -m bench.mob PORT HANDSHAKES READERS` says when it is ready. Then `run SECONDS` on stdin is answered with one
line of JSON: handshakes that were cut, readers that were closed with 4002, and how late the latest step was.
"""

from __future__ import annotations

import heapq
import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count

from bench import wire
from bench.client import HEAD, frame

__all__ = ["GATHERED", "main"]

GATHERED = 10.0  # seconds until all have come: the server's deadline, so that as many come as are cut from then on
STOPPED = 5.0  # seconds without reading: longer than the channel needs to fill the queue
SEGMENT = 1460  # a network's; with loopback's 64 KiB the kernel buffers 4 MB a socket
ROOM = 1 << 18
WELCOME, GOODBYE = b'{"type":"welcome"', (4002).to_bytes(2, "big") + b"read too slowly"


class Guest:
    """Somebody whom the mob looks after."""

    def __init__(self, mob: Mob) -> None:
        self.mob = mob
        self.socket: socket.socket | None = None

    def begin(self) -> socket.socket:
        """Connect; whoever is connected leaves first."""
        if self.socket is not None:
            self.socket.close()
        self.socket = socket.socket()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        self.socket.connect(("127.0.0.1", self.mob.port))
        self.socket.setblocking(False)
        self.mob.listen(self.socket, self.hear)
        return self.socket

    def hear(self) -> None:
        """See what is there to read."""
        raise NotImplementedError


class Mob:
    """All of them, and who is to do what when."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cut = self.told = 0
        self._began = time.perf_counter()
        self._late = 0.0
        self._plan: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()
        self._hear: dict[int, Callable[[], object]] = {}
        self._epoll = select.epoll()

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._began

    def plan(self, due: float, step: Callable[[], object]) -> None:
        """Have something done at a time."""
        heapq.heappush(self._plan, (due, next(self._numbers), step))

    def listen(self, guest: socket.socket, hear: Callable[[], object]) -> None:
        """Have somebody's socket watched, until it is closed or ignored."""
        self._hear[guest.fileno()] = hear
        self._epoll.register(guest, select.EPOLLIN)

    def ignore(self, guest: socket.socket) -> None:
        """Watch a socket no more."""
        self._epoll.unregister(guest)

    def run(self, seconds: float) -> dict[str, float]:
        """Do what is planned, for a while."""
        self._began, self._late = time.perf_counter(), 0.0
        while self.now < seconds:
            while self._plan and self._plan[0][0] <= self.now:
                due, _, step = heapq.heappop(self._plan)
                self._late = max(self._late, self.now - due)
                step()
            for number, _ in self._epoll.poll(0.001):
                self._hear[number]()
        return {"cut": self.cut, "told": self.told, "late": self._late}


class Handshake(Guest):
    """Sends its request a byte a second, and begins again when the server loses patience."""

    def __init__(self, mob: Mob, due: float) -> None:
        super().__init__(mob)
        self._due = due
        self._rest = b""
        mob.plan(due, self._step)

    def begin(self) -> socket.socket:
        """Connect, and have all still to say."""
        self._rest = (HEAD % self.mob.port).encode()
        return super().begin()

    def hear(self) -> None:
        """Whatever comes is the end."""
        self.mob.cut += 1
        self.begin()

    def _step(self) -> None:
        with suppress(OSError):  # it was cut: `hear` sees that next
            (self.socket or self.begin()).send(self._rest[:1])
        self._rest = self._rest[1:]
        self._due += 1.0
        self.mob.plan(self._due, self._step)


class Reader(Guest):
    """Subscribes, stops reading, and looks what became of it."""

    def __init__(self, mob: Mob, due: float) -> None:
        super().__init__(mob)
        self._stopped = False
        self._heard = b""
        mob.plan(due, self.begin)

    def begin(self) -> socket.socket:
        """Connect."""
        self._stopped, self._heard = False, b""
        connected = super().begin()
        connected.send((HEAD % self.mob.port).encode())
        return connected

    def hear(self) -> None:
        """Read up to the welcome and stop, or, later, up to the server's goodbye."""
        assert self.socket is not None
        try:
            data = self.socket.recv(ROOM)
        except OSError:
            data = b""
        self._heard = self._heard[-len(GOODBYE) :] + data
        if GOODBYE in self._heard:
            self.mob.told += 1
        if not data or GOODBYE in self._heard:
            self.begin()  # without a goodbye: the server waited for long enough
        elif not self._stopped and WELCOME in self._heard:
            self._stopped = True
            self.socket.send(frame(wire.subscribe(wire.BUSY)))
            self.mob.ignore(self.socket)
            self.mob.plan(self.mob.now + STOPPED, self._wake)

    def _wake(self) -> None:
        assert self.socket is not None
        self.mob.listen(self.socket, self.hear)


def main() -> None:
    """Do what stdin says."""
    port, handshakes, readers = map(int, sys.argv[1:])
    # The healthy clients, on the same core, must not wait for this one: it runs when nobody else would.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    mob = Mob(port)
    for number in range(handshakes):
        Handshake(mob, number * GATHERED / handshakes)
    for number in range(readers):
        Reader(mob, number * STOPPED / readers)
    print(json.dumps({"ready": 1}), flush=True)
    for line in sys.stdin:
        print(json.dumps(mob.run(float(line.split()[1]))), flush=True)
        return


if __name__ == "__main__":
    main()
