"""Nodes that go under a crowd: who does as it is told costs little, and who does not is told to wait."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from bench.member import Member, Tally
from bench.peers.rolling_app import ROOM
from bench.rolling import ROOMS, longest, open_members, pace, percentile, restart, serving, speak
from hubbub.brokers.nats import NatsBroker
from hubbub.brokers.redis import RedisBroker
from hubbub.contracts import Broker
from hubbub.node.drain import TELLING
from services.nats import Nats
from services.valkey import Valkey
from tests.cable import Cable
from tests.nodes import NodeProcess
from tests.serving import until

APP = "tests.consistency.restart_app:app"
ATTEMPTS, CONNECTIONS = "ATTEMPTS", "CONNECTIONS"
BACK = 30.0
"""Seconds in which all have to be back."""
PACED = 1.5
"""Times as many handshakes in any second as there are clients told to go in a second, if all were at one node."""
INBOX, SLACK = 2, 50
"""Database calls of whoever signs in where there are inboxes: its place, and what came meanwhile; and of the nodes."""
CALM = 10.0
"""Seconds in which the healthy have to be served as before."""
OFTEN = 100
"""Messages a second of a healthy connection."""
NOISE = 0.1
"""Seconds by which this process itself may be late."""
PATIENCE = 60.0


def broker_at(url: str) -> Broker:
    """A client of a broker."""
    return RedisBroker(url) if url.startswith("redis") else NatsBroker(url)


def running(kind: str) -> AbstractContextManager[Nats | Valkey]:
    """A broker that stays; it need not wait for its disk."""
    return Valkey() if kind == "redis" else Nats()


def costs_in(file: Path) -> Counter[str]:
    """What was noted so far, see `restart_app`."""
    return Counter(file.read_text().split())


# --- Sent away, a few at a time --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "clients", "drain", "inbox"),
    [
        pytest.param("nats", 40, 1.0, False, id="short", marks=pytest.mark.timeout(120)),
        *(
            pytest.param(*each, id=name, marks=[pytest.mark.full, pytest.mark.timeout(400)])
            for name, each in {
                "nats": ("nats", 2000, 20.0, False),
                "nats, with inboxes": ("nats", 2000, 20.0, True),
                "redis": ("redis", 2000, 20.0, False),
            }.items()
        ),
    ],
)
async def test_a_rolling_restart_is_hardly_noticed(
    kind: str, clients: int, drain: float, inbox: bool, tmp_path: Path
) -> None:
    """Row X4: nobody misses anything, handshakes are paced, and a ticket stands for the lookup of a user."""
    file, more = tmp_path / "costs", {"HUBBUB_INBOX_URL": f"sqlite:///{tmp_path}/inbox.db"} if inbox else {}
    with running(kind) as broker:
        serve = serving(broker.url, drain, APP, COSTS=str(file), **more)
        tally, began, ended = await restart(serve, broker_at(broker.url), clients, quiet=0.5 + drain / 4, settle=0.0)
    costs, moves = costs_in(file), len(tally.moves)
    calls, most = costs.total() - costs["lookup"], pace(tally, began)[0].value
    quiet, during = (
        percentile([late for at, late in tally.delays if since <= at < to]).value
        for since, to in ((0.0, began), (began, ended))
    )
    print(f"\n{moves} moves in {ended - began:.1f} s, all back in {longest(tally):.1f} s, {dict(costs)}")
    print(f"at most {most:.0f} handshakes a second; 99th percentile {quiet:.1f} ms, then {during:.1f} ms")
    assert moves >= clients
    assert (tally.missed, tally.cut, tally.refusals) == (0, 0, [])
    assert longest(tally) <= BACK
    assert most <= PACED * clients / (TELLING * drain)
    assert costs["lookup"] == clients
    assert calls <= (INBOX * (clients + moves) + SLACK if inbox else 0)


# --- All at once -----------------------------------------------------------------------------------------------------


class Healthy:
    """A connection that hears itself a hundred times a second, for as long as the `async with` block lasts.

    Args:
        port: of its node.
    """

    def __init__(self, port: int) -> None:
        self._tally = Tally()
        self._member = Member(port, "healthy", f"{ROOM}:healthy", self._tally)

    async def __aenter__(self) -> Healthy:
        await open_members([self._member])
        self._speaking = asyncio.create_task(self._speak())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._speaking.cancel()
        with suppress(asyncio.CancelledError):
            await self._speaking
        self._member.leave()

    def late(self, since: float) -> float:
        """The 99th percentile of the delays of what was due in one second, which is over; in seconds."""
        found = [late for at, late in self._tally.delays if since <= at - late < since + 1.0]
        missing = [time.monotonic() - since] * (OFTEN - 1 - len(found))
        return sorted([*found, *missing])[OFTEN * 99 // 100 - 1]

    @property
    def there(self) -> bool:
        """Whether it was never cut off, and missed nothing."""
        return not (self._tally.cut or self._tally.missed or self._tally.moves or self._speaking.done())

    async def _speak(self) -> None:
        began = time.monotonic()
        for number in count():
            due = began + number / OFTEN
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self._member.say("publish", {"channel": f"{ROOM}:healthy", "data": [number, due]})


@dataclass
class Scene:
    """A crowd on one of two nodes, and somebody healthy on the other."""

    goes: NodeProcess
    stays: NodeProcess
    crowd: list[Member]
    tally: Tally
    healthy: Healthy
    costs: Path

    @property
    def lookups(self) -> int:
        """How often a user was looked up so far."""
        return costs_in(self.costs)["lookup"]

    def direct(self, node: NodeProcess, *, from_one_address: bool) -> None:
        """Let whoever connects from now on connect there."""
        for each in self.crowd:
            each.port = node.port
            each.source = None if from_one_address else each.source

    async def lateness(self, since: float, patience: float) -> float:
        """See `Healthy.late`, when that second is over and what was late in it had time to come."""
        await until(lambda: time.monotonic() > since + 1.0 + patience)
        return self.healthy.late(since)

    async def calm(self, since: float, bound: float) -> float:
        """The end of the first second from then on in which the healthy one is served well."""
        while await self.lateness(since, bound) > bound:
            since += 0.25
        return since + 1.0


@asynccontextmanager
async def scene(kind: str, clients: int, limits: dict[str, str], data: Path) -> AsyncIterator[Scene]:
    """See there; rooms are spoken in, and at the end nobody has missed a word."""
    async with AsyncExitStack() as stack:
        broker = stack.enter_context(running(kind))
        nodes = []
        for more in ({}, limits):
            environment = {"COSTS": f"{data}/costs", **more}
            nodes.append(NodeProcess(APP, Cable([]), broker.url, data, environment))
            stack.push_async_callback(nodes[-1].kill)
        goes, stays = nodes
        await asyncio.gather(goes.start("--drain-time", "0.25"), stays.start())
        tally = Tally()
        crowd = [
            Member(
                goes.port,
                f"user{n}",
                f"{ROOM}:{n % ROOMS}",
                tally,
                source=own(n) if CONNECTIONS in limits else None,
                hasty=True,
            )
            for n in range(clients)
        ]
        healthy = await stack.enter_async_context(Healthy(stays.port))
        await open_members(crowd)
        stop = asyncio.Event()
        speaking = asyncio.create_task(speak(broker_at(broker.url), stop))
        yield Scene(goes, stays, crowd, tally, healthy, data / "costs")
        stop.set()
        last = await speaking
        await until(lambda: all(member.last == last for member in crowd), PATIENCE)
        assert tally.missed == 0
        assert healthy.there
        for member in crowd:
            member.leave()


def own(number: int) -> str:
    """An address of this machine for each."""
    return f"127.1.{number // 250}.{number % 250 + 1}"


@pytest.mark.parametrize(
    ("kind", "clients", "limit", "kill"),
    [
        pytest.param("nats", 200, (ATTEMPTS, 60), False, id="short", marks=pytest.mark.timeout(120)),
        *(
            pytest.param(*each, id=name, marks=[pytest.mark.full, pytest.mark.timeout(300)])
            for name, each in {
                "nats, sent away": ("nats", 2000, (ATTEMPTS, 300), False),
                "nats, killed": ("nats", 2000, (ATTEMPTS, 300), True),
                "nats, no room": ("nats", 2000, (CONNECTIONS, 1200), True),
                "nats, from everywhere": ("nats", 2000, (CONNECTIONS, 5000), True),
                "redis, sent away": ("redis", 2000, (ATTEMPTS, 300), False),
            }.items()
        ),
    ],
)
async def test_a_storm_is_told_to_wait(
    kind: str, clients: int, limit: tuple[str, int], kill: bool, tmp_path: Path
) -> None:
    """Row X5: a crowd comes to the other node at once, whatever `reconnect` said, and later where that says so."""
    what, many = limit
    async with scene(kind, clients, {what: str(many)}, tmp_path) as it:
        before, quiet = it.lookups, await it.lateness(time.monotonic(), NOISE)
        it.direct(it.stays, from_one_address=what == ATTEMPTS)
        began = time.monotonic()
        if kill:
            await it.goes.kill()
            if what == CONNECTIONS:
                await it.goes.start()  # in time for those who were told that there is no room
                it.direct(it.goes, from_one_address=False)
        else:
            it.goes.terminate()
            assert await it.goes.ended(CALM) == 0
        await until(lambda: len(it.tally.moves) >= clients, PATIENCE, lambda: f"{len(it.tally.moves)} are back")
        back = max(at for _, at in it.tally.moves) - began
        bound = 2 * quiet + NOISE
        over = max(at for at in storm(it.tally) if at < began + CALM - 2.0)
        calm = await it.calm(over, bound) - began
        worst = max(it.healthy.late(began + n / 4) for n in range(int(4 * (over - began)) + 1))
        assert it.stays.running
    refusals = Counter((status, seconds) for at, status, seconds in it.tally.refusals if at > began)
    print(
        f"\n{clients} back in {back:.1f} s, {len(it.tally.handshakes) - clients} handshakes, refused {dict(refusals)}"
    )
    print(f"99th percentile of the healthy {quiet * 1000:.1f} ms, {worst * 1000:.1f} at worst, calm after {calm:.1f} s")
    assert calm <= CALM
    assert {status for status, _ in refusals} == ({429} if what == ATTEMPTS else {503} if many < clients else set())
    assert all(seconds >= 1.0 for _, seconds in refusals)
    assert it.lookups - before == (clients if kill else 0)
    assert it.stays.logs.count("refused a connection") == bool(refusals)
    assert "Traceback" not in it.stays.logs


def storm(tally: Tally) -> list[float]:
    """When somebody was answered who came."""
    return [*tally.handshakes, *(at for at, _, _ in tally.refusals)]
