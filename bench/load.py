"""Compiles and drives the C programs: the load generator and the floor server."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.measure import LOAD_CORE, BenchError, pinned

__all__ = ["Load", "LoadResult", "Workload", "compile_programs", "drive"]

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Workload:
    """What a generator does; `load.c` has the modes.

    Args:
        subscribe: what each connection sends first, if anything.
        message: what an echo, the trigger of a fan-out, or the end of a subscription sends.
        expect: what each measured frame must hold.
        count: messages per subscriber and trigger, or per recovery.
    """

    mode: Literal["echo", "fanout", "step", "recover", "upgrade", "idle"]
    connections: int
    subscribe: str = ""
    message: str = ""
    expect: str = ""
    count: int = 1

    def arguments(self) -> list[str]:
        """The generator's command line, after the address."""
        return [self.mode, str(self.connections), self.subscribe, self.message, self.expect, str(self.count)]


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What the generator did in one run: verified operations, seconds of time and of its own CPU."""

    operations: int
    seconds: float
    cpu: float


class Load:
    """A running load generator, connected and ready."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._answer()

    def run(self, seconds: float) -> LoadResult:
        """Load the server for `seconds` and wait for the last answer.

        Raises:
            BenchError: a message was lost, doubled, out of order or not what it should be.
        """
        self._command(f"run {seconds}")
        return LoadResult(**self._answer())

    def send(self, text: str) -> None:
        """Send one message on the connection that is not measured."""
        self._command(f"send {text}")

    def _command(self, line: str) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it ended between two runs: _answer says why
            self.process.stdin.write(f"{line}\n".encode())

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        line = self.process.stdout.readline()
        if not line:
            reason = self.process.stderr.read().decode(errors="replace").strip()
            raise BenchError(reason or "the load generator ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


def compile_programs(folder: Path) -> None:
    """Compile the load generator and the floor server into `folder`."""
    if shutil.which("gcc") is None:
        raise BenchError("the load generator is a C program: install gcc")
    for name, source in {"load": HERE / "load.c", "floor": HERE / "peers" / "floor.c"}.items():
        command = ["gcc", "-O2", "-Wall", "-Wextra", "-o", str(folder / name), str(source)]
        subprocess.run(command, check=True)


@contextmanager
def drive(programs: Path, port: int, workload: Workload, *, other: int | None = None) -> Iterator[Load]:
    """A load generator with its connections open; it ends with the block.

    Args:
        programs: the folder of compiled programs.
        port: where its connections go.
        workload: what it does.
        other: the port for the one connection that is not measured, if it is another server's.
    """
    command = [str(programs / "load"), "127.0.0.1", str(port), *workload.arguments(), str(other or port)]
    pipe = subprocess.PIPE
    with pinned(LOAD_CORE):
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
    with process:
        try:
            yield Load(process)
        finally:
            process.kill()
