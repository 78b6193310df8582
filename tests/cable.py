"""The cable between a node and its broker: it can be cut, it can hang, and it can lose what somebody picks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Self

__all__ = ["Cable", "Edit"]

Edit = Callable[[bytes], bytes]
"""Takes what the broker says on one connection, and gives back what arrives of it."""


class Cable:
    """TCP from a port of its own to each port of a broker, for as long as the `async with` block lasts.

    Args:
        ports: the broker's.
        edit: makes the `Edit` of a connection.
    """

    def __init__(self, ports: Sequence[int], edit: Callable[[], Edit] | None = None) -> None:
        self._targets = ports
        self._edit = edit
        self._servers: list[asyncio.Server] = []
        self._ends: set[_End] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.ports: list[int] = []
        self.is_cut = self.stalled = False

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for target in self._targets:
            server = await loop.create_server(partial(self._near, target), "127.0.0.1", 0)
            self._servers.append(server)
            self.ports.append(server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        for server in self._servers:
            server.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """End all connections, and take no others."""
        self.is_cut = True
        for end in list(self._ends):
            end.transport.abort()

    def stall(self) -> None:
        """Let nothing through, and tell nobody."""
        self.stalled = True
        for end in self._ends:
            end.throttle()

    def heal(self) -> None:
        """Let all through."""
        self.is_cut = self.stalled = False
        for end in self._ends:
            end.throttle()

    # What its ends ask

    def _near(self, target: int) -> asyncio.Protocol:
        return _End(self, lambda near: self._begin(near, target))

    def _begin(self, near: _End, target: int) -> None:
        if self.is_cut:
            near.transport.abort()
            return
        near.held = True
        near.throttle()
        task = asyncio.get_running_loop().create_task(self._reach(near, target))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reach(self, near: _End, target: int) -> None:
        far = _End(self, lambda _: None, self._edit() if self._edit else None)
        try:
            await asyncio.get_running_loop().create_connection(lambda: far, "127.0.0.1", target)
        except OSError:
            near.transport.abort()
            return
        if near not in self._ends or self.is_cut:
            far.transport.abort()
            return
        near.peer, far.peer, near.held = far, near, False
        near.throttle()


class _End(asyncio.Protocol):
    """One end of one connection; what it reads, its peer writes."""

    transport: asyncio.Transport

    def __init__(self, cable: Cable, begin: Callable[[_End], None], edit: Edit | None = None) -> None:
        self.peer: _End | None = None
        self.held = False
        self._cable = cable
        self._begin = begin
        self._edit = edit
        self._waiting: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._cable._ends.add(self)
        self.throttle()
        self._begin(self)

    def data_received(self, data: bytes) -> None:
        if self._edit is not None:
            data = self._edit(data)
        if self.peer is None:
            self._waiting.append(data)  # read before the other end was there
        elif data:
            self.peer.transport.write(b"".join(self._waiting) + data)
            self._waiting.clear()

    def throttle(self) -> None:
        """Read, or do not."""
        if self.held or self._cable.stalled:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        if self.peer is not None:
            self.peer.held = True
            self.peer.throttle()

    def resume_writing(self) -> None:
        if self.peer is not None:
            self.peer.held = False
            self.peer.throttle()

    def connection_lost(self, error: Exception | None) -> None:
        self._cable._ends.discard(self)
        if self.peer is not None:
            with suppress(RuntimeError):
                self.peer.transport.close() if error is None else self.peer.transport.abort()
