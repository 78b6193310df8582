"""Whoever breaks what the nodes stand on, by chance: one thing at a time, or two."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random

from tests.cable import Cable
from tests.nodes import BrokerProcesses, NodeProcess

__all__ = ["FAULTS", "Nemesis"]

FAULTS = ("kill a node", "stop a node", "kill the broker", "stop the broker", "cut a link", "stall a link")
LEAST = 0.3
"""Seconds that a fault lasts."""


class Nemesis:
    """Injects all faults there are, in turn and in any order.

    Args:
        random: decides what comes next, whom it hits, and for how long.
        nodes: may be killed and stopped.
        broker: the same.
        cables: may be cut, or hang.
        mean: seconds that a fault lasts, and that it takes to the next one.

    Attributes:
        done: how often each fault was injected.
    """

    def __init__(
        self, random: Random, nodes: list[NodeProcess], broker: BrokerProcesses, cables: list[Cable], mean: float
    ) -> None:
        self.done: Counter[str] = Counter()
        self._random = random
        self._nodes = nodes
        self._broker = broker
        self._cables = cables
        self._mean = mean

    async def work(self, enough: Callable[[], None], over: asyncio.Event) -> None:
        """Break and mend one thing after the other until it is over; `enough` is called when each was broken once."""
        while not over.is_set():
            for fault in self._random.sample(FAULTS, len(FAULTS)):
                if not over.is_set():
                    await asyncio.sleep(self._some_time())
                    await self._inject(fault)
                    self.done[fault] += 1
            enough()

    async def _inject(self, fault: str) -> None:
        node, cable = self._random.choice(self._nodes), self._random.choice(self._cables)
        faults: dict[str, Callable[[], Awaitable[None]]] = {
            "kill a node": lambda: self._kill(node),
            "stop a node": lambda: self._stop(node),
            "kill the broker": self._kill_broker,
            "stop the broker": self._stop_broker,
            "cut a link": lambda: self._break(cable, cable.cut),
            "stall a link": lambda: self._break(cable, cable.stall),
        }
        await faults[fault]()

    async def _kill(self, node: NodeProcess) -> None:
        await node.kill()
        await asyncio.sleep(self._some_time() / 2)
        await node.start()

    async def _stop(self, node: NodeProcess) -> None:
        node.stop()
        await asyncio.sleep(self._some_time())
        node.wake()

    async def _kill_broker(self) -> None:
        self._broker.kill(self._random.randrange(self._broker.servers))
        await asyncio.sleep(self._some_time())
        await asyncio.to_thread(self._broker.start)

    async def _stop_broker(self) -> None:
        number = self._random.randrange(self._broker.servers)
        self._broker.pause(number)
        await asyncio.sleep(self._some_time())
        self._broker.resume(number)

    async def _break(self, cable: Cable, how: Callable[[], None]) -> None:
        how()
        await asyncio.sleep(self._some_time())
        cable.heal()

    def _some_time(self) -> float:
        return LEAST + min(3 * self._mean, self._random.expovariate(1 / self._mean))
