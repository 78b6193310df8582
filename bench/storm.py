"""Does a storm of subscriptions hold up a healthy channel? The 99th percentile of its delay, quiet and in the storm.

A publisher sends 200 messages a second on time, whatever becomes of them, to 20 subscribers; a delay is from when a
message was due to when a subscriber has it. In the storm 1,000 open connections make 5,000 subscriptions a second to
channels with presence: all to one channel, then all to the next. Quiet turns and turns in the storm follow each other
in each round. The storm's generator shares the other core with this process, at the lowest priority.
"""

from __future__ import annotations

import select
import time

from bench import peers, wire
from bench.client import Client, frame
from bench.generator import generating
from bench.measure import LOAD_CORE, BenchError, cpu_seconds, pinned, say, serving
from bench.question import Question, Sample, percentile
from bench.rounds import Settings

__all__ = ["measure"]

SUBSCRIBERS, PUBLISHED = 20, 200
CONNECTIONS, RATE = 1000, 5000
TURN_SECONDS, CALM_SECONDS = 1.0, 0.6
LATE = 0.05  # seconds behind its time for the generator to be what is slow
PATIENCE = 10.0


def measure(settings: Settings) -> list[Question]:
    """Quiet and in the storm, in turns."""
    title = f"Delay on a healthy channel, {RATE:,} subscribes with presence a second beside it: 99th percentile"
    question = Question("storm", title, "ms")
    if reason := peers.HUBBUB.missing():
        question.drop("in the storm", reason)
        return [question]
    for number in range(settings.rounds):
        try:
            quiet, storm = _round(settings)
        except (BenchError, OSError) as error:
            question.drop("in the storm", str(error)[:300])
            say(f"storm: left out: {error}")
            break
        question.add("quiet", quiet)
        question.add("in the storm", storm)
        say(f"storm {number + 1}/{settings.rounds}  quiet {quiet.value:.2f} ms, in the storm {storm.value:.2f} ms")
    return [question]


class Probe:
    """The healthy channel's publisher and subscribers."""

    def __init__(self, port: int) -> None:
        self._publisher = Client(port)
        self._subscribers = {client.socket.fileno(): client for client in (Client(port) for _ in range(SUBSCRIBERS))}
        self._epoll = select.epoll()
        for number, client in self._subscribers.items():
            client.send(frame(wire.SUBSCRIBE))
            self._epoll.register(number, select.EPOLLIN)
        missing = set(self._subscribers)
        while missing:
            missing -= {number for number, _ in self._epoll.poll(PATIENCE) if self._subscribers[number].receive()}

    def run(self, seconds: float) -> list[float]:
        """Publish for a while; the delays of all messages to all subscribers, in seconds."""
        trigger, began = frame(wire.burst(1)), time.perf_counter()
        expected, sent, now = round(seconds * PUBLISHED), 0, 0.0
        got = dict.fromkeys(self._subscribers, 0)
        delays: list[float] = []
        while len(delays) < expected * SUBSCRIBERS:
            due = sent / PUBLISHED
            if sent < expected and now >= due:
                self._publisher.send(trigger)
                sent += 1
                continue
            ready = self._epoll.poll(max(0.0, due - now) if sent < expected else 0.1)
            now = time.perf_counter() - began
            for number, _ in ready:
                for _ in self._subscribers[number].receive():
                    delays.append(now - got[number] / PUBLISHED)
                    got[number] += 1
            if now > seconds + PATIENCE:
                raise BenchError(f"{len(delays)} of {expected * SUBSCRIBERS} messages came")
        self._publisher.receive()
        return delays


def _round(settings: Settings) -> tuple[Sample, Sample]:
    quiet: list[float] = []
    storm: list[float] = []
    crowds: list[dict[str, float]] = []
    with (
        serving(peers.HUBBUB, settings.programs) as server,
        generating("bench.crowd", server.port, CONNECTIONS, RATE) as crowd,
        pinned(LOAD_CORE),
    ):
        probe = Probe(server.port)
        probe.run(settings.warmup)
        cpu = 0.0
        for _ in range(settings.slices):
            quiet += probe.run(TURN_SECONDS)
            before = cpu_seconds(server.pid)
            crowd.tell(f"run {TURN_SECONDS}")
            storm += probe.run(TURN_SECONDS)
            crowds.append(crowd.answer())
            cpu += cpu_seconds(server.pid) - before
            time.sleep(CALM_SECONDS)  # for what is still to be told
    return Sample(percentile(quiet), len(quiet)), _storm_sample(storm, crowds, cpu)


def _storm_sample(delays: list[float], crowds: list[dict[str, float]], cpu: float) -> Sample:
    """The delay, and whether it was the generator that was slow."""
    seconds, answered, used = (sum(each[name] for each in crowds) for name in ("seconds", "answered", "cpu"))
    late = max(each["late"] for each in crowds)
    if answered < RATE * TURN_SECONDS * len(crowds):
        raise BenchError(f"only {answered:.0f} subscribes were answered in {len(crowds)} turns")
    rate, server, generator = answered / seconds, cpu / seconds, used / seconds
    say(f"storm: {rate:,.0f} subscribes a second, server {server:.0%} busy, generator {generator:.0%}")
    if late > LATE:
        say(f"storm: the generator was up to {late * 1000:.0f} ms late: this round says little of the server")
        return Sample(percentile(delays), len(delays), server, 1.0)
    return Sample(percentile(delays), len(delays))
