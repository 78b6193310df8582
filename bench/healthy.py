"""Healthy clients of a server: they read a busy channel, and ask something now and then. How long does it all take?

Everything is sent on time, whatever became of what was sent before, and a delay counts from when a message was due.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from bench import wire
from bench.client import Client, frame
from bench.measure import BenchError
from bench.question import percentile

__all__ = ["Delays", "Healthy"]

CLIENTS = 20
ASKED, PUBLISHED = 199, 50  # a second; an odd number, so that the two meet in every way
LATE = 2.0  # milliseconds behind its time, for more than one message in a hundred, and it is us who are slow
PATIENCE = 10.0
ANSWER, MESSAGE = b'{"type":"echo_response"', b'{"type":"message"'


@dataclass(slots=True)
class Delays:
    """What was measured, each in seconds.

    Args:
        trips: from a question to its answer.
        publications: from a publication to each subscriber.
        behind: how late each message was sent.
    """

    trips: list[float] = field(default_factory=list)
    publications: list[float] = field(default_factory=list)
    behind: list[float] = field(default_factory=list)

    def add(self, others: Delays) -> None:
        """Take in those of another turn."""
        self.trips += others.trips
        self.publications += others.publications
        self.behind += others.behind

    @property
    def late(self) -> float:
        """How late the generator itself was, 99th percentile, in milliseconds."""
        return percentile(self.behind)

    @property
    def is_late(self) -> bool:
        """Whether that is what was measured."""
        return self.late > LATE


class Healthy:
    """The clients, and the publisher of the channel.

    Args:
        port: the server's.
    """

    def __init__(self, port: int) -> None:
        self._publisher = Client(port)
        self._clients = [Client(port) for _ in range(CLIENTS)]
        self._by_number = {client.socket.fileno(): client for client in self._clients}
        self._epoll = select.epoll()
        missing = set(self._by_number)
        for number, client in self._by_number.items():
            client.send(frame(wire.subscribe(wire.BUSY)))
            self._epoll.register(number, select.EPOLLIN)
        while missing:
            missing -= {number for number, _ in self._epoll.poll(PATIENCE) if self._by_number[number].receive()}

    def run(self, seconds: float) -> Delays:
        """Ask and publish for a while.

        Raises:
            BenchError: something did not come.
        """
        return _Turn(self._publisher, self._by_number, self._epoll).run(seconds)

    def stats(self) -> dict[str, float]:
        """What the server counts."""
        self._publisher.send(frame(wire.STATS))
        deadline = time.perf_counter() + PATIENCE
        while time.perf_counter() < deadline:
            for message in self._publisher.receive():
                if message.startswith(b'{"type":"stats_response"'):
                    found: dict[str, float] = msgspec.json.decode(message)["payload"]
                    return found
            select.select([self._publisher.socket], [], [], 0.1)
        raise BenchError("the server does not say what it counts")


class _Turn:
    """One run: what is due, and what is still to come."""

    def __init__(self, publisher: Client, clients: dict[int, Client], epoll: select.epoll) -> None:
        self._publisher = publisher
        self._clients = clients
        self._epoll = epoll
        self._delays = Delays()
        self._asked: dict[int, deque[float]] = {number: deque() for number in clients}
        self._published: dict[int, deque[float]] = {number: deque() for number in clients}
        self._numbers = list(clients)
        self._echo, self._flood = frame(wire.echo_message("echo")), frame(wire.FLOOD)

    def run(self, seconds: float) -> Delays:
        asks = [(n / ASKED, self._ask) for n in range(round(seconds * ASKED))]
        floods = [(n / PUBLISHED, self._publish) for n in range(round(seconds * PUBLISHED))]
        plan: deque[tuple[float, Callable[[float], None]]] = deque(sorted(asks + floods, key=lambda step: step[0]))
        began = time.perf_counter()
        while plan or self._waiting():
            now = time.perf_counter() - began
            if now > seconds + PATIENCE:
                raise BenchError(f"{self._waiting()} messages did not come")
            if plan and plan[0][0] <= now:
                due, step = plan.popleft()
                self._delays.behind.append(now - due)
                step(due)
                continue
            self._receive(began, plan[0][0] - now if plan else 0.1)
        return self._delays

    def _ask(self, due: float) -> None:
        number = self._numbers[len(self._delays.behind) % len(self._numbers)]
        self._asked[number].append(due)
        self._clients[number].send(self._echo)

    def _publish(self, due: float) -> None:
        for waiting in self._published.values():
            waiting.append(due)
        self._publisher.send(self._flood)

    def _receive(self, began: float, timeout: float) -> None:
        ready = self._epoll.poll(timeout)
        now = time.perf_counter() - began
        for number, _ in ready:
            for message in self._clients[number].receive():
                if message.startswith(ANSWER):
                    self._delays.trips.append(now - self._asked[number].popleft())
                elif message.startswith(MESSAGE):
                    self._delays.publications.append(now - self._published[number].popleft())
                else:
                    raise BenchError(f"a healthy client got {message[:80]!r}")

    def _waiting(self) -> int:
        return sum(map(len, self._asked.values())) + sum(map(len, self._published.values()))
