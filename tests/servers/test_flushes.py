"""Many sockets flushed by few jobs, and the one that has to wait."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from hubbub.node.workers import Workers
from hubbub.servers.flushes import TURN, Flushes
from tests.fakes import tick


class Socket:
    """A socket whose server takes everything, fails, or makes it wait until it is told to go on."""

    def __init__(self, error: Exception | None = None, gate: asyncio.Event | None = None) -> None:
        self.flushed = 0
        self.ends: list[bool] = []
        self._error = error
        self._gate = gate

    async def flush(self) -> None:
        """Be flushed."""
        if self._gate is not None:
            await self._gate.wait()
        if self._error is not None:
            raise self._error
        self.flushed += 1

    def written(self, overdue: bool) -> None:
        """Note how it ended."""
        self.ends.append(overdue)


@pytest.fixture
def workers() -> Workers:
    """What runs the jobs."""
    return Workers()


async def test_every_socket_is_flushed_once(workers: Workers) -> None:
    flushes, sockets = Flushes(workers), [Socket() for _ in range(2 * TURN + 10)]
    for socket in sockets:
        flushes.add(socket)
    await tick(8)
    assert {(socket.flushed, *socket.ends) for socket in sockets} == {(1, False)}


async def test_one_that_waits_holds_nobody_up(workers: Workers) -> None:
    gate = asyncio.Event()
    flushes, stuck = Flushes(workers), Socket(gate=gate)
    others = [Socket() for _ in range(5)]
    for socket in (others[0], stuck, *others[1:]):
        flushes.add(socket)
    await tick(6)
    late = Socket()
    flushes.add(late)
    await tick(6)
    assert [socket.flushed for socket in (*others, late)] == [1] * 6
    assert stuck.ends == []
    gate.set()
    await tick(3)
    assert (stuck.flushed, stuck.ends) == (1, [False])


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("gone, in other words")], ids=repr)
async def test_one_that_fails_is_done_and_the_others_go_on(workers: Workers, error: Exception) -> None:
    flushes, failing, other = Flushes(workers), Socket(error), Socket()
    flushes.add(failing)
    flushes.add(other)
    await tick(4)
    assert (failing.ends, other.flushed) == ([False], 1)


async def test_one_that_is_never_taken_is_told_so(workers: Workers) -> None:
    flushes, stuck = Flushes(workers), Socket(gate=asyncio.Event())
    flushes.add(stuck)
    await tick(3)
    workers.expire(monotonic() + 60, 30)
    await tick(3)
    assert stuck.ends == [True]


async def test_one_that_is_gone_is_let_go(workers: Workers) -> None:
    flushes, stuck, other = Flushes(workers), Socket(gate=asyncio.Event()), Socket()
    flushes.add(stuck)
    await tick(3)
    flushes.drop(stuck)
    flushes.add(other)
    await tick(4)
    assert (stuck.ends, other.flushed) == ([False], 1)
