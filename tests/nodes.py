"""Nodes that are processes, around one broker that is processes too: killed, stopped, cut off, and started again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from services.nats import Nats
from services.valkey import Valkey
from tests.cable import Cable, Edit
from tests.serving import Process, free_port, process

__all__ = ["BROKERS", "SECRET", "BrokerProcesses", "NatsProcesses", "NodeProcess", "ValkeyProcess", "running_nodes"]

SECRET = "0123456789abcdef0123456789abcdef"
START = 30.0


class BrokerProcesses(Protocol):
    """The processes of a broker."""

    servers: int

    @property
    def ports(self) -> list[int]:
        """Where they listen."""

    def url(self, ports: list[int]) -> str:
        """How a node reaches them, through these ports."""

    def kill(self, number: int) -> None:
        """End one at once."""

    def start(self) -> None:
        """Start those that were ended again; returns when they answer."""

    def pause(self, number: int) -> None:
        """Let one stand still."""

    def resume(self, number: int) -> None:
        """Let it go on."""


class NatsProcesses:
    """NATS: one server, or a cluster whose streams are on all of its servers."""

    def __init__(self, nats: Nats) -> None:
        self._nats = nats
        self.servers = len(nats.servers)

    @property
    def ports(self) -> list[int]:
        """Where they listen."""
        return [server.port for server in self._nats.servers]

    @property
    def monitors(self) -> list[int]:
        """Where they tell of themselves."""
        return [server.monitor for server in self._nats.servers]

    def url(self, ports: list[int]) -> str:
        """How a node reaches them."""
        return f"nats://{','.join(f'127.0.0.1:{port}' for port in ports)}?replicas={self.servers}"

    def kill(self, number: int) -> None:
        """End one at once."""
        self._nats.servers[number].kill()

    def start(self) -> None:
        """Start those that were ended again."""
        self._nats.start()

    def pause(self, number: int) -> None:
        """Let one stand still."""
        self._nats.servers[number].pause()

    def resume(self, number: int) -> None:
        """Let it go on."""
        self._nats.servers[number].resume()


class ValkeyProcess:
    """Valkey: one server."""

    servers = 1

    def __init__(self, valkey: Valkey) -> None:
        self._valkey = valkey

    @property
    def ports(self) -> list[int]:
        """Where it listens."""
        return [self._valkey.port]

    def url(self, ports: list[int]) -> str:
        """How a node reaches it."""
        return f"redis://127.0.0.1:{ports[0]}"

    def kill(self, number: int) -> None:
        """End it at once."""
        self._valkey.kill()

    def start(self) -> None:
        """Start it again, if it was ended."""
        if self._valkey._process is None:
            self._valkey.start()

    def pause(self, number: int) -> None:
        """Let it stand still."""
        self._valkey.pause()

    def resume(self, number: int) -> None:
        """Let it go on."""
        self._valkey.resume()


@contextmanager
def _nats() -> Iterator[BrokerProcesses]:
    with Nats(sync=True) as nats:
        yield NatsProcesses(nats)


@contextmanager
def _nats_cluster() -> Iterator[BrokerProcesses]:
    with Nats(3, sync=True) as nats:
        yield NatsProcesses(nats)


@contextmanager
def _valkey() -> Iterator[BrokerProcesses]:
    with Valkey(append=True) as valkey:
        yield ValkeyProcess(valkey)


BROKERS: dict[str, Callable[[], Any]] = {"nats": _nats, "nats of three": _nats_cluster, "redis": _valkey}
"""Brokers that lose nothing that was acknowledged."""


class NodeProcess:
    """A `hubbub serve` that is one of several nodes; it keeps its port.

    Args:
        app: what it serves.
        cable: what is between it and the broker.
        url: how it reaches the broker.
        data: a directory that all nodes share.
        environment: more of its environment.
    """

    def __init__(self, app: str, cable: Cable, url: str, data: Path, environment: dict[str, str]) -> None:
        self.port = free_port()
        self.cable = cable
        self._command = ("-m", "hubbub.cli", "serve", app, "--port", str(self.port))
        self._environment: dict[str, Any] = {
            "HUBBUB_BROKER_URL": url,
            "HUBBUB_DATA_DIR": str(data),
            "HUBBUB_SECRET": SECRET,
            **environment,
        }
        self._stack: Any = None
        self.process: Process
        self.logs = ""

    @property
    def address(self) -> str:
        """Where clients connect."""
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def running(self) -> bool:
        """Whether it serves, or stands still."""
        return self._stack is not None and self.process.child.returncode is None

    async def start(self, *options: str) -> None:
        """Serve, and wait until it does; tried again while the broker cannot be reached."""
        until = asyncio.get_running_loop().time() + START
        while not await self._try(options):
            await self.kill()
            assert asyncio.get_running_loop().time() < until, self.logs

    async def _try(self, options: tuple[str, ...]) -> bool:
        self._stack = process(*self._command, *options, **self._environment)
        self.process = await self._stack.__aenter__()
        try:
            await self.process.says("Stop with", START)
        except AssertionError:
            return False
        return True

    async def kill(self) -> None:
        """Take it from the machine in the middle of whatever it does."""
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.__aexit__(None, None, None)
            self.logs += self.process.said

    def stop(self) -> None:
        """Let it stand still."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def wake(self) -> None:
        """Let it go on."""
        os.kill(self.process.pid, signal.SIGCONT)

    def terminate(self) -> None:
        """Ask it to end."""
        os.kill(self.process.pid, signal.SIGTERM)

    async def ended(self, seconds: float) -> int:
        """Wait until it has; its exit code."""
        return await self.process.end(seconds)


@asynccontextmanager
async def running_nodes(
    broker: BrokerProcesses,
    count: int,
    app: str,
    data: Path,
    *,
    edit: Callable[[], Edit] | None = None,
    **environment: str,
) -> AsyncIterator[list[NodeProcess]]:
    """So many nodes around a broker, each with a cable of its own.

    Args:
        broker: whose processes run.
        count: how many.
        app: what they serve.
        data: a directory for all of them.
        edit: of the cables; see `Cable`.
        environment: of the nodes.
    """
    async with AsyncExitStack() as stack:
        nodes = []
        for _ in range(count):
            cable = await stack.enter_async_context(Cable(broker.ports, edit))
            nodes.append(NodeProcess(app, cable, broker.url(cable.ports), data, environment))
            stack.push_async_callback(nodes[-1].kill)
        await asyncio.gather(*(node.start() for node in nodes))
        yield nodes
