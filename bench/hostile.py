"""Do hostile clients slow healthy ones, or fill the memory? 1,000 handshakes a byte a second, 500 readers that stop.

20 healthy clients read a busy channel, 50 publications of 8 KB a second, and ask 199 small things a second. A hostile
turn begins when the mob is there: a handshake begins again when the server cuts it after 10 seconds; a reader is
subscribed to the same channel, does not read for 5 seconds, finds itself closed with 4002, and comes back. The readers'
sockets have the segments of a network: with loopback's, the kernel alone would keep megabytes for each. The server has
the limits that come with it. Quiet turns are before and after; the mob shares the other core at a low priority.

What the memory may be is computed: what the server had before, a full send queue for each reader, and a head of the
largest size for each handshake. All in the queues of one channel share its bytes, so that it comes nowhere near.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bench import peers
from bench.generator import generating
from bench.healthy import Delays, Healthy
from bench.measure import (
    LOAD_CORE,
    BenchError,
    cpu_seconds,
    peak_bytes,
    pinned,
    rss_bytes,
    say,
    serving,
    waited_seconds,
)
from bench.mob import GATHERED
from bench.question import Question, Sample, percentile
from bench.rounds import Settings
from hubbub.limits import Limits
from hubbub.servers.http import HEAD_BYTES

__all__ = ["measure"]

HANDSHAKES, READERS = 1000, 500
QUIET_SECONDS, HOSTILE_SECONDS, CALM_SECONDS = 1.25, 2.5, 2.0  # the first two a slice
WAITED = 0.01  # of the time: the 99th percentile is then the machine's
LATE = 0.25  # seconds, of a mob that does something once a second
MIB = 1 << 20
BOUND = READERS * Limits().send_queue + HANDSHAKES * HEAD_BYTES


@dataclass(slots=True)
class Round:
    """What one round found.

    Args:
        before: the server's resident bytes before the mob came.
        peak: the most there were.
        busy: the server's CPU by time, beside the mob.
        waited: how much of the time something else had the server's core.
        late: how late the mob was, in seconds.
    """

    quiet: Delays = field(default_factory=Delays)
    hostile: Delays = field(default_factory=Delays)
    before: int = 0
    peak: int = 0
    busy: float = 0.0
    waited: float = 0.0
    late: float = 0.0

    @property
    def starved(self) -> bool:
        """Whether a generator was what was slow."""
        return self.hostile.is_late or self.late > LATE


def measure(settings: Settings) -> list[Question]:
    """Delays and memory, quiet and beside the mob."""
    who = f"{HANDSHAKES:,} slow handshakes and {READERS} readers that stop"
    trip = Question("trip", f"Round trip beside {who}: 99th percentile", "ms")
    publication = Question("publication", f"Delay on a busy channel beside {who}: 99th percentile", "ms")
    memory = Question("bound", f"Resident memory of the server, {who}", "MiB")
    questions = [trip, publication, memory]
    for number in range(settings.rounds):
        try:
            found = _round(settings)
        except (BenchError, OSError) as error:
            for question in questions:
                question.drop("hostile" if question is not memory else "peak", str(error)[:300])
            say(f"hostile: left out: {error}")
            break
        _note(trip, found.quiet.trips, found.hostile.trips, found)
        _note(publication, found.quiet.publications, found.hostile.publications, found)
        for name, size in (("computed", found.before + BOUND), ("peak", found.peak), ("before", found.before)):
            memory.add(name, Sample(size / MIB))
        _tell(f"hostile {number + 1}/{settings.rounds}", found)
    return questions


def _round(settings: Settings) -> Round:
    found, seconds = Round(), settings.slices * HOSTILE_SECONDS
    with (
        serving(peers.HUBBUB_USUAL, settings.programs) as server,
        generating("bench.mob", server.port, HANDSHAKES, READERS) as mob,
        pinned(LOAD_CORE),
    ):
        healthy = Healthy(server.port)
        healthy.run(settings.warmup)
        found.quiet.add(healthy.run(settings.slices * QUIET_SECONDS))
        found.before = rss_bytes(server.pid)
        mob.tell(f"run {GATHERED + seconds}")
        healthy.run(GATHERED)
        before, waited = cpu_seconds(server.pid), waited_seconds(server.pid)
        found.hostile.add(healthy.run(seconds))
        found.busy = (cpu_seconds(server.pid) - before) / seconds
        found.waited = (waited_seconds(server.pid) - waited) / seconds
        _check(mob.answer(), healthy.stats(), found)
        found.peak = peak_bytes(server.pid)
        healthy.run(CALM_SECONDS)
        found.quiet.add(healthy.run(settings.slices * QUIET_SECONDS))
    return found


def _check(mob: dict[str, float], server: dict[str, float], found: Round) -> None:
    """See that both sides tell of the same attack, or what was measured is none."""
    found.late = mob["late"]
    closed, late = server["slowConsumers"], f"; the mob was up to {found.late * 1000:.0f} ms late"
    if closed < READERS / 2 or not 0 < mob["told"] <= closed:
        raise BenchError(f"{closed} readers were closed with 4002, and {mob['told']} of them saw it{late}")
    if mob["cut"] < HANDSHAKES / 4:
        raise BenchError(f"only {mob['cut']} handshakes were cut{late}")
    if server["rateLimited"] or server["refused"]:
        raise BenchError(f"the server turned away {server['refused']}, and refused {server['rateLimited']} messages")
    say(f"hostile: {mob['cut']} handshakes cut, {closed} readers closed with 4002, server {found.busy:.0%} busy")
    own, mobs = found.hostile.late, found.late * 1000
    say(f"hostile: the healthy clients were {own:.1f} ms late, 99th percentile, the mob up to {mobs:.0f} ms")


def _note(question: Question, quiet: list[float], hostile: list[float], found: Round) -> None:
    usual = (found.busy, 0.0) if found.waited > WAITED else (0.0, 0.0)
    late = (found.busy, 1.0) if found.starved else usual
    question.add("quiet", Sample(percentile(quiet), len(quiet), *usual))
    question.add("hostile", Sample(percentile(hostile), len(hostile), *late))
    for name, delays in (("quiet, median", quiet), ("hostile, median", hostile)):
        question.add(name, Sample(percentile(delays, 50), len(delays), *usual))


def _tell(turn: str, found: Round) -> None:
    for what in ("trips", "publications"):
        quiet, hostile = (getattr(delays, what) for delays in (found.quiet, found.hostile))
        parts = (f"{percentile(quiet, part):.2f} -> {percentile(hostile, part):.2f} ms" for part in (50, 99))
        say(f"{turn}  {what:<12}  p50 {next(parts)}, p99 {next(parts)}, worst {max(hostile) * 1000:.0f} ms")
    growth, bound = (found.peak - found.before) / MIB, BOUND / MIB
    say(f"{turn}  memory        {growth:.1f} MiB more at the peak; {bound:.1f} computed")
    if found.starved:
        say(f"{turn}  a generator was what was late: this round says little of the server")
    if found.waited > WAITED:
        say(f"{turn}  something else had the server's core for {found.waited:.0%} of the time: repeat it")
