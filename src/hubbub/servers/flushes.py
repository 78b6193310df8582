"""Give what many sockets have to write to a server that takes it by coroutines, without a job for each of them.

One job flushes socket after socket for as long as the server takes everything at once. When it has to wait for one, the
next job, which was put in line before, goes on with the others.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, Protocol

from hubbub.node.workers import Job, Workers

__all__ = ["Flushable", "Flushes"]

logger = logging.getLogger("hubbub.asgi")

TURN = 256  # sockets that one job flushes before others have their turn


class Flushable(Protocol):
    """A socket with something to write."""

    async def flush(self) -> None:
        """Give everything to the server; may wait, may raise."""

    def written(self, overdue: bool) -> None:
        """Learn that this is done, or was stopped because the server did not take it in time."""


class Flushes:
    """The sockets of one hub that wait to be flushed.

    Args:
        workers: run the jobs.
    """

    def __init__(self, workers: Workers) -> None:
        self.pending: deque[Flushable] = deque()
        self._workers = workers
        self._next: _Flushing | None = None
        self._stuck: dict[Flushable, _Flushing] = {}

    def add(self, socket: Flushable) -> None:
        """Flush a socket soon."""
        self.pending.append(socket)
        self.go_on()

    def drop(self, socket: Flushable) -> None:
        """Flush a socket no more: it is gone."""
        stuck = self._stuck.get(socket)
        if stuck is not None:
            stuck.cancel()

    def go_on(self) -> None:
        """See to it that there is a job in line."""
        if self._next is None:
            self._next = _Flushing(self)
            self._workers.submit(self._next)

    async def run(self, job: _Flushing) -> None:
        """Flush what is pending; `job.socket` is the one that is waited for."""
        self._next = None
        if len(self.pending) > 1:
            self.go_on()
        for _ in range(min(TURN, len(self.pending))):
            if not self.pending:
                return
            socket = job.socket = self.pending.popleft()
            self._stuck[socket] = job
            try:
                await socket.flush()
            except OSError:
                pass  # the client is gone: whoever reads from it learns so, too
            except Exception as error:
                # Some servers say that in words of their own; the reader decides, and this is for who looks closer.
                logger.debug("a server did not take what was written", exc_info=error)
            finally:
                del self._stuck[socket]
            job.socket = None
            socket.written(overdue=False)


class _Flushing(Job):
    """One run over the pending sockets."""

    __slots__ = ("socket",)

    def __init__(self, flushes: Flushes) -> None:
        super().__init__(flushes.run, self)
        self.socket: Flushable | None = None

    def done(self, result: Any, error: BaseException | None) -> None:
        if self.socket is not None:
            self.socket.written(self.overdue)
