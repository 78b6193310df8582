"""Run coroutine handlers in real tasks, without a new task for each call.

A worker is a task that runs the jobs of one tick, one after the other. A job that waits keeps its worker for itself,
and another worker takes the rest. So a handler sees a task like any other (timeouts, task groups, cancellation), and
pays for one only when it waits.

Rules of this file:
1. The lead worker is the one that has not waited yet; only it takes jobs.
2. Every worker starts with an empty context. One that waited, was cancelled or has variables in its context ends with
   its job: nothing leaks into the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from time import monotonic
from typing import Any, cast

__all__ = ["Job", "Workers"]

logger = logging.getLogger("hubbub.workers")

TURN = 64
STUBBORN = 1.0  # seconds for a cancelled job to end


class Job:
    """One call of a coroutine function; a subclass says what becomes of its end.

    Args:
        call: the coroutine function.
        args: its arguments.
    """

    __slots__ = ("args", "call", "dropped", "overdue", "started", "task")

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.call = call
        self.args = args
        self.task: asyncio.Task[None] | None = None
        self.dropped = False
        self.overdue = False
        self.started = 0.0

    def done(self, result: Any, error: BaseException | None) -> None:
        """Learn how it ended: an error, also of being cancelled, or a result."""

    def cancel(self) -> None:
        """Stop the call where it waits, or never start it."""
        self.dropped = True
        if self.task is not None:
            self.task.cancel()


class Workers:
    """The jobs that wait for a worker, and those that wait for something else."""

    def __init__(self) -> None:
        self.waiting: set[Job] = set()
        self._jobs: deque[Job] = deque()
        self._lead: asyncio.Task[None] | None = None
        self._current: Job | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, job: Job) -> None:
        """Run a job soon; never waits."""
        self._jobs.append(job)
        if self._lead is None:
            self._start()

    def expire(self, now: float, timeout: float) -> None:
        """Cancel the jobs that have waited longer than `timeout` seconds."""
        for job in list(self.waiting):
            if now - job.started > timeout and not job.dropped:
                job.overdue = True
                job.cancel()

    @property
    def running_here(self) -> bool:
        """Whether the caller is one of the jobs."""
        return asyncio.current_task() in self._tasks

    async def stop(self, deadline: float) -> None:
        """Let everything end until `deadline`, in the loop's seconds; then cancel it and wait for that."""
        try:
            async with asyncio.timeout_at(deadline):
                while self._tasks:
                    await asyncio.wait(self._tasks)
        except TimeoutError:
            pass
        for job in [*self._jobs, *self.waiting]:
            job.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STUBBORN)
        if self._tasks:
            logger.error("%d handlers do not let themselves be cancelled: left behind", len(self._tasks))

    def reset(self) -> None:
        """Forget what a loop that is dead has left."""
        self._lead = self._current = None
        for kept in (self._jobs, self._tasks, self.waiting):
            kept.clear()

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        # Not `create_task`: with eager tasks each job would run inside of the one that submitted it.
        task = self._lead = asyncio.Task(self._work(), loop=loop, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Runs right after the worker's first step: if a job is unfinished then, it waits for something.
        loop.call_soon(self._pass_on)

    def _pass_on(self) -> None:
        """Take the lead from a worker that waits."""
        job, self._current, self._lead = self._current, None, None
        if job is not None:
            job.started = monotonic()
            self.waiting.add(job)
        if self._jobs:
            self._start()

    async def _work(self) -> None:
        task, jobs = asyncio.current_task(), self._jobs
        assert task is not None
        for _ in range(TURN):
            if not jobs:
                return
            job = self._current = jobs.popleft()
            job.task = task
            result, error = None, cast("BaseException | None", None)
            try:
                if not job.dropped:
                    result = await job.call(*job.args)
            except GeneratorExit:
                job.task = None
                raise  # the loop is gone, and nobody is left to tell
            except BaseException as failure:
                error = failure
            job.task = None
            waited = self._current is not job
            if waited:
                self.waiting.discard(job)
            else:
                self._current = None
            if len(copy_context()):
                Context().run(job.done, result, error)
            else:
                job.done(result, error)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise error
            if waited or len(copy_context()) or task.cancelling():
                return
