"""A loop that does not wait: its clock jumps to whatever is due next, and the hub reads that clock too."""

from __future__ import annotations

import asyncio
import selectors
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["TimelessLoop", "reading"]

BEGINNING = 1_700_000_000
"""What the hub's wall clock says at second 0 of the loop."""


class TimelessLoop(asyncio.SelectorEventLoop):
    """Runs what is due in the order in which it would be, without the time between; for work without real I/O."""

    def __init__(self) -> None:
        self._seconds = 0.0
        super().__init__(Jump(self))

    def time(self) -> float:
        """Seconds since the beginning."""
        return self._seconds

    def jump(self, seconds: float | None) -> None:
        """Let time pass; without an end there would be nobody to wake."""
        assert seconds is not None, "everything waits, and nothing will happen"
        self._seconds += seconds


class Jump(selectors.SelectSelector):
    """Lets the time pass for which the loop would have waited."""

    def __init__(self, loop: TimelessLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        """What is ready, which is only ever the loop's own pipe."""
        ready = super().select(0)
        if not ready:
            self._loop.jump(timeout)
        return ready


class _Clock:
    """The module `time`, as the loop's clock has it."""

    def __init__(self, loop: TimelessLoop) -> None:
        self.monotonic = loop.time
        self._loop = loop

    def time(self) -> float:
        return BEGINNING + self._loop.time()

    def time_ns(self) -> int:
        return round(self.time() * 1000) * 1_000_000

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@contextmanager
def reading(loop: TimelessLoop) -> Iterator[None]:
    """Let the node read the loop's clock for the length of the block."""
    clock = _Clock(loop)
    theirs = {"time": clock, "monotonic": clock.monotonic, "time_ns": clock.time_ns}
    ours = {"time": time, "monotonic": time.monotonic, "time_ns": time.time_ns}
    modules = [vars(module) for name, module in list(sys.modules.items()) if name.startswith("hubbub.node.")]
    changed = [(names, name) for names in modules for name in theirs if names.get(name) is ours[name]]
    for names, name in changed:
        names[name] = theirs[name]
    try:
        yield
    finally:
        for names, name in changed:
            names[name] = ours[name]
