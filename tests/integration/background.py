"""Programs that serve in the background for as long as a module's tests need them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.serving import DEADLINE, REPOSITORY, RunningServer, free_port

__all__ = ["Background", "background", "hubbub_serve", "program"]

MIRROR = "tests.integration.mirror:app"


class Background(RunningServer):
    """A server in a process of its own, and the file with all it says."""

    def __init__(self, port: int, log: Path, *, tls: bool) -> None:
        super().__init__(port, tls)
        self.log = log

    @property
    def said(self) -> str:
        """All it said so far."""
        return self.log.read_text()


@contextmanager
def background(log: Path, port: int, *command: str, tls: bool = False, **environment: str) -> Iterator[Background]:
    """Run a program that listens on `port`, until the block ends."""
    own = {name: text for name, text in os.environ.items() if not name.startswith(("WS_", "HUBBUB_", "PORT", "DEPLOY"))}
    env = {**own, "PYTHONPATH": str(REPOSITORY), "HUBBUB_DATA_DIR": str(log.parent), **environment}
    with log.open("wb") as file:
        child = subprocess.Popen(command, cwd=log.parent, env=env, stdout=file, stderr=file)
    found = Background(port, log, tls=tls)
    try:
        _wait_for(found, child)
        yield found
        assert child.poll() is None, found.said
    finally:
        child.terminate()
        try:
            child.wait(2 * DEADLINE)
        finally:
            child.kill()


@contextmanager
def hubbub_serve(log: Path, *arguments: str, **environment: str) -> Iterator[Background]:
    """Run `hubbub serve` with the app that mirrors its clients."""
    port = free_port()
    command = (sys.executable, "-m", "hubbub.cli", "serve", MIRROR, "--port", str(port), *arguments)
    with background(log, port, *command, tls="--ssl-certfile" in arguments, **environment) as found:
        yield found


def program(name: str) -> str:
    """Where a program of the system is; Debian keeps servers out of everybody's PATH."""
    path = shutil.which(name, path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    assert path is not None, f"{name} is missing: run scripts/system {name} {name}"
    return path


def _wait_for(found: Background, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 4 * DEADLINE
    while time.monotonic() < deadline and child.poll() is None:
        with suppress(OSError), socket.create_connection((found.host, found.port), 0.1):
            return
        time.sleep(0.02)
    raise AssertionError(found.said)
