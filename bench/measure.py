"""A server process: started on its own core, and what it costs.

CPU is the kernel's nanosecond clock of the process (user and system, all threads), over the process tree.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bench.peers import Peer

__all__ = [
    "LOAD_CORE",
    "ROOT",
    "SERVER_CORE",
    "BenchError",
    "Server",
    "cpu_seconds",
    "peak_bytes",
    "pinned",
    "processes",
    "rss_bytes",
    "say",
    "serving",
    "waited_seconds",
]

ROOT = Path(__file__).parent.parent
SERVER_CORE, LOAD_CORE = 0, -1  # the first and the last we may use: not two threads of one core
START_SECONDS = 20.0


class BenchError(Exception):
    """A peer could not be measured; the message says why."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running peer."""

    pid: int
    port: int


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Processes started inside the block run on one core: an index into those we may use."""
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(ours)[core]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)


@contextmanager
def serving(peer: Peer, programs: Path, *, variables: Mapping[str, str] | None = None) -> Iterator[Server]:
    """`peer`, accepting connections on a port of its own; it ends with the block.

    Args:
        peer: what to run.
        programs: the folder of compiled programs.
        variables: more of its environment.

    Raises:
        BenchError: it did not start; the message ends with what it said.
    """
    port = _free_port()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"} | dict(variables or {})
    with tempfile.TemporaryFile("w+") as log, tempfile.TemporaryDirectory() as data:
        with pinned(SERVER_CORE):
            process = subprocess.Popen(
                peer.command(port, programs),
                cwd=ROOT,
                env=environment | {"HUBBUB_DATA_DIR": data},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            _wait_for(process, port, log)
            yield Server(process.pid, port)
        finally:
            with suppress(ProcessLookupError):  # it may have ended by itself
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its children, user and system, in seconds."""
    # clock_getcpuclockid(3) of another process, as the kernel numbers it: ~pid << 3 | CPUCLOCK_SCHED.
    return sum(time.clock_gettime(~process << 3 | 2) for process in processes(pid))


def rss_bytes(pid: int) -> int:
    """Resident memory of a process and its children, in bytes."""
    pages = sum(int(Path(f"/proc/{process}/statm").read_text().split()[1]) for process in processes(pid))
    return pages * os.sysconf("SC_PAGESIZE")


def peak_bytes(pid: int) -> int:
    """The most resident memory that a process and its children ever had, in bytes."""
    status = (Path(f"/proc/{process}/status").read_text() for process in processes(pid))
    return sum(int(text.partition("VmHWM:")[2].split()[0]) * 1024 for text in status)


def waited_seconds(pid: int) -> float:
    """How long a process and its children were ready to run, but something else had the core, in seconds."""
    threads = (each for process in processes(pid) for each in Path(f"/proc/{process}/task").glob("*/schedstat"))
    return sum(int(thread.read_text().split()[1]) for thread in threads) / 1e9


def processes(pid: int) -> Iterator[int]:
    """A process and its children, and theirs."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            yield from processes(int(child))


def say(line: str) -> None:
    """Print a line of progress with the time since the start."""
    minutes, seconds = divmod(int(time.monotonic() - _BEGAN), 60)
    print(f"[{minutes:2}:{seconds:02}] {line}", file=sys.stderr, flush=True)


_BEGAN = time.monotonic()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait_for(process: subprocess.Popen[bytes], port: int, log: IO[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if _answers(port):
            return
        time.sleep(0.02)
    log.seek(0)
    ended = "did not answer in time" if process.poll() is None else f"ended with {process.returncode}"
    raise BenchError(f"the server {ended}: {log.read()[-2000:].strip()}")


def _answers(port: int) -> bool:
    # A server may listen before it has loaded its app: only an answer, or a hang-up, says that it is there.
    try:
        with socket.create_connection(("127.0.0.1", port), START_SECONDS) as probe:
            probe.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            probe.recv(1)
    except OSError:
        return False
    return True
