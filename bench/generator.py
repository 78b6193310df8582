"""A generator in a process of its own: it takes one command a line, and answers with a line of JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench.measure import LOAD_CORE, ROOT, BenchError, pinned

__all__ = ["Generator", "generating"]


class Generator:
    """A running generator."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def tell(self, line: str) -> None:
        """Give it a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")

    def answer(self) -> dict[str, float]:
        """Wait for what it says.

        Raises:
            BenchError: it ended.
        """
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(self._process.stderr.read().strip()[-300:] or "a generator ended")
        answer: dict[str, float] = json.loads(line)
        return answer


@contextmanager
def generating(module: str, *arguments: object) -> Iterator[Generator]:
    """`python -m module`, which has said that it is ready; it ends with the block."""
    command, pipe = [sys.executable, "-m", module, *map(str, arguments)], subprocess.PIPE
    with pinned(LOAD_CORE):
        process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1)
    with process:
        try:
            generator = Generator(process)
            generator.answer()
            yield generator
        finally:
            process.kill()
