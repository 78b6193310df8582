"""What do several nodes cost? A delivery on a node that did not publish, and one of two workers.

On a second node: only the CPU of the node that has all the subscribers is counted, beside one node that publishes and
delivers alone, with the memory broker. The node that publishes and the broker have the same core as it, which is to its
disadvantage; on the generator's they would keep that awake, and a `send()` to who is awake is up to a fifth cheaper.

Of two workers: half the subscribers each, more or less, both on the server's core, and all their CPU is counted, beside
one process. The next message is published when all have the last: else the worker that publishes would get ahead, and
the other take two at a time, which is cheaper. What the NATS between them uses is a line of its own.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench import peers, wire
from bench.client import Client, frame
from bench.fanout import SUBSCRIBERS, fanout
from bench.load import Workload, drive
from bench.measure import SERVER_CORE, BenchError, Server, pinned, processes, say, serving
from bench.question import Question, Sample
from bench.rounds import Settings, Setup, Turn, take_turns
from services.nats import Nats
from services.valkey import Valkey

__all__ = ["measure"]

PATIENCE = 60.0
LISTEN = "0A"  # as /proc/net/tcp calls the state
ALONE, WORKERS = "one process", "two workers"
FILL = frame('{"type":"fill","payload":{}}')

Between = Callable[[], AbstractContextManager[tuple[str, int]]]
"""Runs a broker; its URL and its process."""


def measure(settings: Settings) -> list[Question]:
    """Second node, second node with a history, workers, and how these share the connections."""
    plain = Question("nodes", "Fan-out to 1000 on a second node: its CPU a delivery", "µs")
    history = Question("nodes history", "The same with a history of 100: its CPU a delivery", "µs")
    workers = Question("workers", "Fan-out to 1000 subscribers of two workers: server CPU a delivery", "µs")
    take_turns(plain, _second_node(settings, wire.CHANNEL), settings)
    take_turns(history, _second_node(settings, wire.KEPT), settings)
    step = replace(_fanout(wire.CHANNEL), mode="step")
    contenders: dict[str, Setup] = {
        ALONE: partial(_alone, settings.programs, step),
        WORKERS: partial(_workers, settings.programs, step),
    }
    return [plain, history, take_turns(workers, contenders, settings), _shares(settings)]


def _second_node(settings: Settings, channel: str) -> dict[str, Setup]:
    workload = _fanout(channel)
    return {
        "one node": partial(_alone, settings.programs, workload),
        "second node, NATS": partial(_two_nodes, settings.programs, workload, _nats),
        "second node, Redis": partial(_two_nodes, settings.programs, workload, _valkey),
    }


def _fanout(channel: str) -> Workload:
    trigger = wire.burst(1, channel)
    return replace(fanout(SUBSCRIBERS, 1), subscribe=wire.subscribe(channel), message=trigger)


@contextmanager
def _alone(programs: Path, workload: Workload) -> Iterator[Turn]:
    """One process, with the memory broker."""
    with serving(peers.HUBBUB_NODE, programs) as server:
        _fill(server.port)
        with drive(programs, server.port, workload) as load:
            yield Turn(server.pid, load)


@contextmanager
def _two_nodes(programs: Path, workload: Workload, between: Between) -> Iterator[Turn]:
    """One publishes, the other has the subscribers and is measured."""
    with ExitStack() as stack:
        url, broker = stack.enter_context(between())
        variables = _variables(url)
        server = stack.enter_context(serving(peers.HUBBUB_NODE, programs, variables=variables))
        publisher = stack.enter_context(serving(peers.HUBBUB_NODE, programs, variables=variables))
        _fill(publisher.port)
        load = stack.enter_context(drive(programs, server.port, workload, other=publisher.port))
        name = url.partition(":")[0]
        yield Turn(server.pid, load, {f"{name}: the node that publishes": publisher.pid, f"{name}: the broker": broker})


@contextmanager
def _workers(programs: Path, workload: Workload) -> Iterator[Turn]:
    """Two workers with a NATS that is told apart."""
    with (
        _two_workers(programs) as (server, broker),
        drive(programs, server.port, workload) as load,
    ):
        yield Turn(server.pid, load, {"their NATS": broker})


@contextmanager
def _two_workers(programs: Path) -> Iterator[tuple[Server, int]]:
    """Both take connections; and the process of their NATS."""
    with (
        _nats() as (url, broker),
        serving(peers.HUBBUB_WORKERS, programs, variables=_variables(url)) as server,
    ):
        _await(lambda: _listeners(server.port) == 2, "two workers")
        yield server, broker


def _shares(settings: Settings) -> Question:
    """Connections by worker."""
    title = f"How two workers share {settings.clients:,} connections"
    question = Question("shares", title, "% of the connections")
    for number in range(settings.rounds):
        try:
            fewer, more = _share(settings)
        except BenchError as error:
            question.drop("more", str(error)[:300])
            break
        question.add("more", Sample(more / settings.clients * 100, more))
        question.add("fewer", Sample(fewer / settings.clients * 100, fewer))
        say(f"shares {number + 1}/{settings.rounds}  {more} and {fewer} connections")
    return question


def _share(settings: Settings) -> list[int]:
    """How many each of the two has, the fewer first."""
    with _two_workers(settings.programs) as (server, _):
        before = _sockets(server.pid)
        with drive(settings.programs, server.port, Workload("idle", settings.clients - 1)):  # and one of its own
            after = _sockets(server.pid)
    found = sorted(after[pid] - many for pid, many in before.items() if pid != server.pid)
    if len(found) != 2 or sum(found) != settings.clients:
        raise BenchError(f"of {settings.clients} connections {found} were found")
    return found


def _sockets(pid: int) -> dict[int, int]:
    """How many sockets each process has open."""
    return {each: _count_sockets(each) for each in processes(pid)}


def _count_sockets(pid: int) -> int:
    descriptors = Path(f"/proc/{pid}/fd").iterdir()
    return sum(str(descriptor.readlink()).startswith("socket:") for descriptor in descriptors)


def _fill(port: int) -> None:
    """Let offsets have as many digits from first to last: all messages have one length then."""
    client = Client(port)
    client.send(FILL)
    _await(lambda: any(b'"filled"' in message for message in client.receive()), "a filled channel")
    client.socket.close()


def _listeners(port: int) -> int:
    """How many processes take connections on a port."""
    sockets = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(state == LISTEN and int(place.rpartition(":")[2], 16) == port for _, place, _, state, *_ in sockets)


def _await(true: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > until:
            raise BenchError(f"waited {PATIENCE:g} s for {what}")
        time.sleep(0.01)


def _variables(url: str) -> dict[str, str]:
    return {"HUBBUB_BROKER_URL": url, "HUBBUB_SECRET": secrets.token_hex(32)}


@contextmanager
def _nats() -> Iterator[tuple[str, int]]:
    with ExitStack() as stack:
        with pinned(SERVER_CORE):
            nats = stack.enter_context(Nats())
        yield nats.url, nats.servers[0].pid


@contextmanager
def _valkey() -> Iterator[tuple[str, int]]:
    with ExitStack() as stack:
        with pinned(SERVER_CORE):
            valkey = stack.enter_context(Valkey())
        yield valkey.url, valkey.pid
