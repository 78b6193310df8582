"""CPU of several contenders, taken in turns so that a drifting machine drifts for all.

Rule 1: CPU time is counted, never messages per second: the generator shares the machine.
Rule 2: every round has fresh servers, each pinned to one core and warmed up; the generators share the other core.
Rule 3: in a round the contenders take turns in short slices, forwards and backwards: the machine's speed changes within
seconds, and only sums over a round's slices are compared, inside that round. Each round begins with another contender.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.load import Load, Workload, drive
from bench.measure import BenchError, cpu_seconds, say, serving
from bench.peers import Peer
from bench.question import Question, Sample

__all__ = ["Contenders", "Settings", "Setup", "Turn", "ask", "take_turns"]

Contenders = Mapping[str, tuple[Peer, Workload]]


@dataclass(frozen=True, slots=True)
class Settings:
    """How much to measure.

    Args:
        programs: the folder of compiled programs.
        slices: turns a contender has in a round.
        slice_seconds: how long a turn is.
        warmup: seconds of load before a round's first turn, for the peers that compile at run time.
        idle_connections: how many connections the memory question opens.
        sizes: subscribers in the growth question.
        clients: those of the nodes that are restarted, and of the workers whose shares are counted.
        drain: seconds in which a node sends its clients away.
    """

    programs: Path
    rounds: int = 5
    slices: int = 4
    slice_seconds: float = 0.4
    warmup: float = 0.8
    idle_connections: int = 10_000
    sizes: tuple[int, ...] = (100, 1000, 5000)
    clients: int = 2000
    drain: float = 30.0


class Turn:
    """A contender inside a round: its server, its load, and the sums over its slices.

    Args:
        pid: the server's.
        load: loads it.
        beside: processes whose CPU is told apart, by name.
    """

    def __init__(self, pid: int, load: Load, beside: Mapping[str, int] | None = None) -> None:
        self.pid = pid
        self.load = load
        self.operations = 0
        self.server_cpu = self.load_cpu = self.seconds = 0.0
        self._beside = dict(beside or {})
        self._beside_cpu = dict.fromkeys(self._beside, 0.0)

    def take(self, seconds: float) -> None:
        """Load the server for one slice."""
        before = cpu_seconds(self.pid)
        for name, pid in self._beside.items():
            self._beside_cpu[name] -= cpu_seconds(pid)
        result = self.load.run(seconds)
        self.server_cpu += cpu_seconds(self.pid) - before
        for name, pid in self._beside.items():
            self._beside_cpu[name] += cpu_seconds(pid)
        self.load_cpu += result.cpu
        self.seconds += result.seconds
        self.operations += result.operations

    def sample(self) -> Sample:
        """What the slices add up to, in µs an operation."""
        value = self.server_cpu / self.operations * 1e6
        return Sample(value, self.operations, self.server_cpu / self.seconds, self.load_cpu / self.seconds)

    def beside(self) -> dict[str, Sample]:
        """What the others' slices add up to."""
        return {name: Sample(cpu / self.operations * 1e6, self.operations) for name, cpu in self._beside_cpu.items()}


Setup = Callable[[], AbstractContextManager[Turn]]
"""Starts a contender for a round."""


def ask(question: Question, contenders: Contenders, settings: Settings) -> Question:
    """Sample every contender in every round; one that fails is dropped and its reason kept."""
    there: dict[str, Setup] = {}
    for name, (peer, workload) in contenders.items():
        there[name] = partial(_running, peer, workload, settings.programs)
        if reason := peer.missing():
            _drop(question, there, name, reason)
    return take_turns(question, there, settings)


def take_turns(question: Question, contenders: Mapping[str, Setup], settings: Settings) -> Question:
    """The same for contenders that need more than one server and its load."""
    there = dict(contenders)
    for number in range(settings.rounds):
        with ExitStack() as stack:
            for name, turn in _round(question, _rotated(there, number), there, settings, stack).items():
                for each, sample in {name: turn.sample(), **turn.beside()}.items():
                    question.add(each, sample)
                    line = f"{each:<20} {sample.value:8.2f} {question.unit}"
                    say(f"{question.name} {number + 1}/{settings.rounds}  {line}")
    return question


def _round(
    question: Question, order: list[str], there: dict[str, Setup], settings: Settings, stack: ExitStack
) -> dict[str, Turn]:
    turns: dict[str, Turn] = {}
    for name in order:
        try:
            turns[name] = stack.enter_context(there[name]())
            turns[name].load.run(settings.warmup)
        except BenchError as error:
            turns.pop(name, None)
            _drop(question, there, name, str(error))
    for number in range(settings.slices):
        for name in list(turns)[:: -1 if number % 2 else 1]:
            try:
                turns[name].take(settings.slice_seconds)
            except BenchError as error:
                del turns[name]
                _drop(question, there, name, str(error))
    return turns


def _rotated(there: dict[str, Setup], number: int) -> list[str]:
    """Each round begins with another: the first and the last have two turns in a row, on warm caches."""
    names = list(there)
    first = number % (len(names) or 1)
    return [*names[first:], *names[:first]]


@contextmanager
def _running(peer: Peer, workload: Workload, programs: Path) -> Iterator[Turn]:
    with serving(peer, programs) as server, drive(programs, server.port, workload) as load:
        yield Turn(server.pid, load)


def _drop(question: Question, there: dict[str, Setup], name: str, reason: str) -> None:
    del there[name]
    question.drop(name, reason.splitlines()[-1][:300])
    say(f"{question.name}: {name} is left out: {reason}")
