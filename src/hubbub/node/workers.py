"""Run coroutine handlers in real tasks, without a new task for each call.

A worker is a task that runs the jobs of one tick, one after the other. A job that waits keeps its worker for itself,
and another worker takes the rest. So a handler sees a task like any other (timeouts, task groups, cancellation), and
pays for one only when it waits.

Rules of this file:
1. The lead worker is the one that has not waited yet; only it takes jobs.
2. A worker that waited, was cancelled or has a changed context ends with its job: nothing leaks into the next.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, cast

__all__ = ["Job", "Workers"]

TURN = 64


class Job:
    """One call of a coroutine function.

    Args:
        call: the coroutine function.
        args: its arguments.
        done: told the result and the error, whatever the end.
    """

    __slots__ = ("args", "call", "done", "dropped", "overdue", "started", "task")

    def __init__(self, call: Callable[..., Any], args: tuple[Any, ...], done: Callable[[Job, Any, Any], None]) -> None:
        self.call = call
        self.args = args
        self.done = done
        self.task: asyncio.Task[None] | None = None
        self.dropped = False
        self.overdue = False
        self.started = 0.0

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
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        task = self._lead = loop.create_task(self._work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Runs right after the worker's first step: if a job is unfinished then, it waits for something.
        loop.call_soon(self._pass_on)

    def _pass_on(self) -> None:
        """Take the lead from a worker that waits."""
        job, self._current, self._lead = self._current, None, None
        if job is not None:
            job.started = time.monotonic()
            self.waiting.add(job)
        if self._jobs:
            self._start()

    async def _work(self) -> None:
        task, clean = self._lead, copy_context()
        for _ in range(TURN):
            if not self._jobs:
                return
            job = self._current = self._jobs.popleft()
            job.task = task
            await self._run(job)
            if self._current is not job:
                self.waiting.discard(job)
                return
            self._current = None
            if copy_context() != clean or (task is not None and task.cancelling()):
                return

    async def _run(self, job: Job) -> None:
        result, error = None, cast("BaseException | None", None)
        try:
            if not job.dropped:
                result = await job.call(*job.args)
        except asyncio.CancelledError as cancelled:
            error = cancelled
        except Exception as failure:
            error = failure
        job.task = None
        job.done(job, result, error)
