"""Channels under a crowd: whoever comes back inside the window missed nothing, whoever cannot be served is told so.

In memory everything runs on a clock that does not wait, and depends on the seed alone: `HUBBUB_SEED=<seed>` repeats a
run exactly. Over the two doors the sockets are real, and so is the time.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from starlette.applications import Starlette

from hubbub import Hub
from tests.consistency.brokers import MUTANTS, UnsteadyBroker
from tests.consistency.checker import FAULTS, Report, View, check
from tests.consistency.crowd import Crowd, Pace
from tests.consistency.hubs import make_hub, publish
from tests.consistency.links import Hear, MemoryLink, SocketLink
from tests.consistency.timeless import TimelessLoop, reading
from tests.serving import Door, RunningServer, serving

SEED = os.environ.get("HUBBUB_SEED") or secrets.token_hex(4)
FEW = Pace(600, 8, 16, stay=0.7)
Broker = Callable[[Random], UnsteadyBroker]


def judge(crowd: Crowd) -> Report:
    """The report, printed with the seed that repeats it."""
    report = check(crowd.log, crowd.views)
    print(f"\nseed {crowd.seed}\n{report}")
    assert not [error for view in crowd.views for error in view.errors]
    assert not crowd.unanswered
    return report


# --- In memory -------------------------------------------------------------------------------------------------------


def play(seed: str, pace: Pace, broker: Broker = UnsteadyBroker) -> Crowd:
    """Let a crowd play with a hub in memory."""

    async def main() -> Crowd:
        random, hub = Random(f"{seed} network"), make_hub()
        hub.node.broker = broker(Random(f"{seed} broker"))
        hub.node.broker.listen(hub.node.publishing)

        async def dial(hear: Hear) -> MemoryLink:
            return MemoryLink(hub, hear, random.random() * 0.03)

        async with hub.running():
            crowd = Crowd(seed, pace, dial, lambda *what: publish(hub, *what), hub.purge)
            await crowd.play()
        return crowd

    with asyncio.Runner(loop_factory=TimelessLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, TimelessLoop)
        with reading(loop):
            return runner.run(main())


def told(views: list[View]) -> list[Any]:
    """All that everybody saw, but for the names of lives."""
    return [(run.channel, run.recovered, run.head.offset, run.seen) for view in views for run in view.runs]


@pytest.mark.parametrize(
    "pace",
    [
        pytest.param(Pace(6_000), id="short"),
        pytest.param(Pace(100_000), id="long", marks=[pytest.mark.full, pytest.mark.timeout(900)]),
    ],
)
def test_nobody_misses_anything(pace: Pace) -> None:
    report = judge(play(SEED, pace))
    assert not report.faults, f"HUBBUB_SEED={SEED}\n{report}"
    assert report.publications >= pace.publications
    assert report.reconnects >= pace.publications / 100
    assert min(report.recovered, report.not_recovered) > report.reconnects / 10


def test_a_seed_repeats_a_run() -> None:
    one, two, other = (play(seed, FEW) for seed in (SEED, SEED, f"{SEED}-other"))
    assert told(one.views) == told(two.views) != told(other.views)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_what_a_broker_does_wrong_is_found(mutant: str) -> None:
    broker, column = MUTANTS[mutant]
    report = judge(play("wrong", FEW, broker))  # always the same: chance must not hide it
    assert column in report.faults


def test_every_fault_has_a_mutant() -> None:
    assert {column for _, column in MUTANTS.values()} == set(FAULTS)


# --- Over sockets ----------------------------------------------------------------------------------------------------


async def play_over_sockets(hub: Hub, server: RunningServer, pace: Pace) -> Crowd:
    """Let a crowd play with a hub behind a server."""
    links: list[SocketLink] = []

    async def dial(hear: Hear) -> SocketLink:
        links.append(await SocketLink.open(server.port, hear))
        return links[-1]

    crowd = Crowd(
        SEED, pace, dial, lambda *what: server.run(publish(hub, *what)), lambda name: server.run(hub.purge(name))
    )
    await crowd.play()
    await asyncio.gather(*(link.done() for link in links))
    return crowd


@pytest.mark.parametrize("door", ["native", "asgi"])
@pytest.mark.parametrize(
    "pace",
    [
        pytest.param(Pace(400, 4, 10, between=0.01, stay=0.1, away=0.03, purges=0.4, calm=0.3), id="short"),
        pytest.param(
            Pace(10_000, 8, 40, between=0.02, stay=0.8, away=0.2, purges=2.0),
            id="long",
            marks=[pytest.mark.full, pytest.mark.timeout(300)],
        ),
    ],
)
async def test_nobody_misses_anything_at_a_door(door: Door, pace: Pace) -> None:
    app, hub = Starlette(), make_hub()
    hub.attach(app)
    async with serving(app, door) as server:
        report = judge(await play_over_sockets(hub, server, pace))
    assert not report.faults, f"HUBBUB_SEED={SEED}\n{report}"
    assert report.publications >= pace.publications
