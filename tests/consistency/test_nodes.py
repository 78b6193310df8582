"""Several nodes that are processes, over a broker that is processes too, under a crowd, while all of them break.

What the crowd does and what breaks depends on the seed, `HUBBUB_SEED=<seed>`; when it happens depends on the machine.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from time import monotonic

import pytest
from websockets.exceptions import WebSocketException

from hubbub.errors import StoreError
from tests.cable import Cable
from tests.consistency.checker import Report, check
from tests.consistency.crowd import Crowd, Pace
from tests.consistency.hubs import make_hub, publish
from tests.consistency.links import Hear, SocketLink
from tests.consistency.nemesis import FAULTS, Nemesis
from tests.nodes import BROKERS, BrokerProcesses, NodeProcess, running_nodes

SEED = os.environ.get("HUBBUB_SEED") or secrets.token_hex(4)
APP = "tests.consistency.crowd_app:app"
PROMPT = 2.0
"""Seconds in which a node takes a client, if it is alive."""


class Dialer:
    """Connects to any node that takes a client."""

    def __init__(self, random: Random, nodes: list[NodeProcess]) -> None:
        self.links: set[SocketLink] = set()
        self._random = random
        self._nodes = nodes

    async def __call__(self, hear: Hear) -> SocketLink:
        while True:
            try:
                async with asyncio.timeout(PROMPT):
                    link = await SocketLink.open(self._random.choice(self._nodes).port, hear)
            except (OSError, TimeoutError, WebSocketException):
                await asyncio.sleep(0.05)
            else:
                self.links.add(link)
                return link

    async def done(self) -> None:
        """Wait for what the links do."""
        await asyncio.gather(*(link.done() for link in self.links))


@asynccontextmanager
async def crowd_around(
    nodes: list[NodeProcess], broker: BrokerProcesses, pace: Pace, data: Path
) -> AsyncIterator[tuple[Crowd, Cable]]:
    """A crowd around these nodes; its server-side publishers are at one more, in this process, with its own cable."""
    async with Cable(broker.ports) as cable:
        hub = make_hub(broker_url=broker.url(cable.ports), inbox_url=f"sqlite:///{data}/inbox.db")
        async with hub.running():
            dial = Dialer(Random(f"{SEED} dial"), nodes)
            yield Crowd(SEED, pace, dial, lambda *what: publish(hub, *what), hub.purge), cable
            await dial.done()


def judge(crowd: Crowd, nemesis: Nemesis, seconds: float) -> Report:
    """The report, printed with the seed."""
    report = check(crowd.log, crowd.views)
    errors = [error for view in crowd.views for error in view.errors]
    print(f"\nseed {crowd.seed}, {seconds:.0f} s, sent {len(crowd.log.sent)}, acknowledged {len(crowd.log.acked_at)}")
    print(f"unanswered {crowd.unanswered}, subscriptions refused for now {len(errors)}, {dict(nemesis.done)}\n{report}")
    assert {error["code"] for error in errors} <= {StoreError.code}
    return report


@pytest.mark.parametrize(
    ("kind", "count", "pace", "mean"),
    [
        *(
            pytest.param(
                kind,
                2,
                Pace(3_000, between=0.04, stay=0.7, away=0.15, patience=15.0, late=30.0),
                0.8,
                id=f"{kind}-short",
                marks=pytest.mark.timeout(120),
            )
            for kind in ("nats", "redis")
        ),
        *(
            pytest.param(
                *(kind, count, Pace(100_000, 24, between=0.06, patience=15.0, late=30.0), 4.0),
                id=f"{kind}-{count}-long",
                marks=[pytest.mark.full, pytest.mark.timeout(3000)],
            )
            for kind in ("nats of three", "redis")
            for count in (2, 3)
        ),
    ],
)
async def test_nobody_misses_anything(kind: str, count: int, pace: Pace, mean: float, tmp_path: Path) -> None:
    began = monotonic()
    with BROKERS[kind]() as broker:
        async with (
            running_nodes(broker, count, APP, tmp_path) as nodes,
            crowd_around(nodes, broker, pace, tmp_path) as (crowd, cable),
        ):
            cables = [cable, *(node.cable for node in nodes)]
            nemesis = Nemesis(Random(f"{SEED} nemesis"), nodes, broker, cables, mean)
            await crowd.play(nemesis.work)
    report = judge(crowd, nemesis, monotonic() - began)
    for number, node in enumerate(nodes if report.faults else []):
        print(f"--- node {number}\n{node.logs}")
    assert not report.faults, f"HUBBUB_SEED={SEED}\n{report}"
    assert report.publications >= pace.publications
    assert set(nemesis.done) == set(FAULTS)
    assert report.recovered > report.reconnects / 10
