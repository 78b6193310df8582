"""The hub for processes that serve nobody: task queues, cron, Django and Flask under a sync server.

Rules of this file:
1. A hub lives once in a process, in a thread of its own, from the first call to `close` or the end of the process.
2. A fork begins anew. What it inherited belongs to its parent: it is neither used nor closed, and never collected.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401  # what is registered last is called first: its end comes after ours
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar

from hubbub.errors import UsageError
from hubbub.node.sync import Sync

if TYPE_CHECKING:
    from hubbub.node.hub import Hub

__all__ = ["Publisher", "take_over"]

T = TypeVar("T")
GOODBYE = 5.0  # seconds for a hub to stop
ALONE = "No other process can reach this hub: set HUBBUB_BROKER_URL for all of them, or use the HTTP API."


class Publisher(Sync):
    """Publishes from a process that serves nobody, straight through the broker: `Publisher(hub).publish(...)`.

    It has the methods of `hub.sync`, for any thread, and connects with the first call; the process takes no clients.
    Where the app itself runs, it does the same through the hub that is there.

    Args:
        hub: the app's own hub, which has the broker's URL and knows the namespaces.
        timeout: seconds for one call.
    """

    def __init__(self, hub: Hub, timeout: float = 10.0) -> None:
        super().__init__(hub, timeout)

    def __enter__(self) -> Self:
        """Connect now.

        Raises:
            UsageError: the hub has no broker that other processes share.
            StoreError: the broker or a database cannot be reached.
        """
        self._connect()
        return self

    def __exit__(self, *error: object) -> None:
        """Let go of all connections."""
        self.close()

    def close(self) -> None:
        """Let go of all connections; a later call connects again."""
        with _lock:  # nobody begins again before it has ended
            life = _lives.pop(self._hub, None)
            if life is not None:
                life.end()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            self._connect()
        except BaseException:
            work.close()
            raise
        return super()._run(work)

    def _connect(self) -> None:
        life = self._life()
        if life is None:
            return
        try:
            life.started.result(self._timeout)
        except BaseException as error:
            if life.started.done():
                _forget(life)
                raise
            place = self._hub.node.broker.place
            raise TimeoutError(f"{place} was not reached within {self._timeout:g} s.") from error

    def _life(self) -> _Life | None:
        """The hub's life in this process, begun now if need be; None where a server runs it."""
        hub = self._hub
        with _lock:
            if hub not in _lives:
                if hub.node.loop is not None and hub.node.pid != os.getpid():
                    _left_behind.append(hub.node.forked(hub.make_broker()))
                if hub.node.running:
                    return None
                if not hub.node.broker.shared:
                    raise UsageError(ALONE)
                _lives[hub] = _Life(hub)
            return _lives[hub]


def take_over(hub: Hub) -> None:
    """Start the app's hub in the running loop; if a `Publisher` runs it so far, in its place."""
    if hub.node.running and not hub.node.guest:
        hub.node.start()
        return
    with _lock:
        life = _lives.pop(hub, None)
        if life is not None:
            life.end()
        hub.node.start()


class _Life:
    """One run of a hub, in a thread.

    Args:
        hub: whose.
    """

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.started: Future[None] = Future()
        self._end = asyncio.Event()
        self._over = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="hubbub-publisher", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop the hub, and wait until it has."""
        self._over = True
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._stop)
        self._thread.join(GOODBYE)

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except asyncio.CancelledError:
            self.started.set_exception(UsageError("The publisher was closed while it connected."))
        except BaseException as error:
            if self.started.done():
                raise
            self.started.set_exception(error)

    def _stop(self) -> None:
        self._end.set()
        if self._task is not None and not self.started.done():
            self._task.cancel()

    async def _live(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self._over:  # before it began
            raise asyncio.CancelledError
        node = self.hub.node
        node.guest = True
        try:
            node.start()
            try:
                await node.open()
                self.started.set_result(None)
                await self._end.wait()
            finally:
                await self.hub.shutdown()
        finally:
            node.guest = node.stopped = False  # the app's own life may be still to come


_lock = threading.Lock()
_lives: dict[Hub, _Life] = {}
_left_behind: list[object] = []


def _forget(life: _Life) -> None:
    with _lock:
        if _lives.get(life.hub) is life:
            del _lives[life.hub]


def _end_all() -> None:
    while _lives:
        _lives.popitem()[1].end()


def _begin_anew() -> None:
    global _lock
    _lock = threading.Lock()  # a thread that is not in this process may have held the other
    _left_behind.append(dict(_lives))
    _lives.clear()


# At `atexit` it is too late: by then Python's thread pools take no work, and some databases are closed by one.
getattr(threading, "_register_atexit", atexit.register)(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
