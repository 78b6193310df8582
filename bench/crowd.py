"""Many connections that subscribe at a given rate to channels with presence, all to one, then all to the next.

`python -m bench.crowd PORT CONNECTIONS RATE` says when all are open. Then `run SECONDS` on stdin is answered with one
line of JSON: subscribes answered, the seconds until the last answer, how late the latest was sent, and its own CPU.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from itertools import count

from bench import wire
from bench.client import Client, frame

__all__ = ["main"]

ANSWER = b'{"type":"subscribed"'
PATIENCE = 10.0


class Crowd:
    """The connections.

    Args:
        port: the server's.
        size: how many connections.
        rate: subscribes a second.
    """

    def __init__(self, port: int, size: int, rate: float) -> None:
        self._rate = rate
        self._clients = [Client(port) for _ in range(size)]
        self._places = ((client, name) for name in map(frame, _subscribes()) for client in self._clients)
        self._epoll = select.epoll()
        self._by_number = {client.socket.fileno(): client for client in self._clients}
        for number in self._by_number:
            self._epoll.register(number, select.EPOLLIN)

    def run(self, seconds: float) -> dict[str, float]:
        """Subscribe for a while and wait for the answers."""
        began, cpu = time.perf_counter(), time.process_time()
        total = round(self._rate * seconds)
        sent = answered = 0
        late, now = 0.0, 0.0
        while answered < total and now < seconds + PATIENCE:
            answered += self._read(0.001 if sent < total else 0.1)
            now = time.perf_counter() - began
            while sent < total and sent / self._rate <= now:
                late = max(late, now - sent / self._rate)
                client, subscribe = next(self._places)
                client.send(subscribe)
                sent += 1
        return {"answered": answered, "seconds": now, "late": late, "cpu": time.process_time() - cpu}

    def rest(self) -> None:
        """Read what comes without being asked for, so that nobody is a slow client."""
        self._read(0.05)

    def _read(self, timeout: float) -> int:
        """Read what is there; how many answers it has."""
        answers = 0
        for number, _ in self._epoll.poll(timeout):
            answers += sum(message.startswith(ANSWER) for message in self._by_number[number].receive())
        return answers


def main() -> None:
    """Do what stdin says."""
    port, size, rate = map(int, sys.argv[1:])
    # The healthy channel's own client, on the same core, must not wait for this one: it runs when nobody else would.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    crowd = Crowd(port, size, rate)
    print(json.dumps({"open": size}), flush=True)
    while True:
        ready, _, _ = select.select([sys.stdin], [], [], 0)
        if not ready:
            crowd.rest()
            continue
        line = sys.stdin.readline()
        if not line:
            return
        print(json.dumps(crowd.run(float(line.split()[1]))), flush=True)


def _subscribes() -> map[str]:
    return map(wire.subscribe, map(f"{wire.CROWD}:{{}}".format, count()))


if __name__ == "__main__":
    main()
