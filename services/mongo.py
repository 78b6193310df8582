"""A MongoDB wire server of its own for tests and the demo: `nx-27017`, pure Python over SQLite.

It is no MongoDB: it stands alone (no replica set), and knows the commands the store needs. What a real server does is
tried with `HUBBUB_TEST_MONGODB_URL`.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from services.server import Server, free_port

__all__ = ["Mongo"]

START = 20.0


class Mongo(Server):
    """One server on a free port of 127.0.0.1 that keeps its data until the end of the `with` block.

    Args:
        directory: where the data is kept; a temporary one without it.

    Raises:
        RuntimeError: the wheel is missing, or the server does not come up.
    """

    def __init__(self, directory: Path | None = None) -> None:
        if find_spec("nx_27017") is None:
            raise RuntimeError("The MongoDB wire server is missing. Install it: pip install nx-27017")
        self._temporary = tempfile.TemporaryDirectory(prefix="hubbub-mongo-")
        self._directory = directory or Path(self._temporary.name)
        super().__init__()
        self.port = free_port()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._temporary.cleanup()

    def url(self, database: str = "hubbub") -> str:
        """Where a database of it is."""
        return f"mongodb://127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Run it, on the same port and data as before, and wait until it answers."""
        data, log = self._directory / "data", self._directory / "server.log"
        data.mkdir(parents=True, exist_ok=True)
        places = ["--data-dir", data, "--log-file", log, "--pid-file", self._directory / "pid"]
        command = [sys.executable, "-m", "nx_27017.nx_27017", "--port", str(self.port), *map(str, places)]
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        self._wait(log)

    def _wait(self, log: Path) -> None:
        until = time.monotonic() + START
        while not self._answers():
            if self._process is None or self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise RuntimeError(f"The MongoDB wire server did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True
