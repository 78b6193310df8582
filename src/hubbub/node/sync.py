"""The hub for code that runs in a thread: `def` routes, Django views, background threads."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from hubbub.errors import CloseCode, UsageError

if TYPE_CHECKING:
    from hubbub.core.recovery import Past, Position
    from hubbub.node.connected import Connected
    from hubbub.node.connection import Connection
    from hubbub.node.hub import Hub
    from hubbub.node.presence import Present
    from hubbub.node.receipt import Receipt

__all__ = ["Sync"]

T = TypeVar("T")


class Sync:
    """Blocking twins of the hub's awaited methods; they return when the hub has done it.

    Args:
        hub: the hub that does the work in its own loop.
        timeout: seconds to wait for it.
    """

    def __init__(self, hub: Hub, timeout: float = 10.0) -> None:
        self._hub = hub
        self._timeout = timeout

    def publish(self, channel: str, event: str | None, data: Any = None, **options: Any) -> Receipt:
        """See `Hub.publish`."""
        return self._run(self._hub.publish(channel, event, data, **options))

    def broadcast(self, type: str, payload: Any = None, exclude: Connection | str | None = None) -> Receipt:
        """See `Hub.broadcast`."""
        return self._run(self._hub.broadcast(type, payload, exclude))

    def send_to_user(self, user_id: str, type: str, payload: Any = None, **options: Any) -> Receipt:
        """See `Hub.send_to_user`."""
        return self._run(self._hub.send_to_user(user_id, type, payload, **options))

    def send_to_connection(self, connection_id: str, type: str, payload: Any = None) -> Receipt:
        """See `Hub.send_to_connection`."""
        return self._run(self._hub.send_to_connection(connection_id, type, payload))

    def notify(self, user_id: str, title: str, message: str, type: str = "info", **options: Any) -> Receipt:
        """See `Hub.notify`."""
        return self._run(self._hub.notify(user_id, title, message, type, **options))

    def broadcast_system(self, message: str, **more: Any) -> Receipt:
        """See `Hub.broadcast_system`."""
        return self._run(self._hub.broadcast_system(message, **more))

    def revoke(self, **what: Any) -> int:
        """See `Hub.revoke`."""
        return self._run(self._hub.revoke(**what))

    def disconnect_user(self, user_id: str, code: int = CloseCode.NORMAL, reason: str = "") -> int:
        """See `Hub.disconnect_user`."""
        return self._run(self._hub.disconnect_user(user_id, code, reason))

    def subscribe(self, who: Connection | str, channel: str) -> int:
        """See `Hub.subscribe`."""
        return self._run(self._hub.subscribe(who, channel))

    def unsubscribe(self, who: Connection | str, channel: str) -> int:
        """See `Hub.unsubscribe`."""
        return self._run(self._hub.unsubscribe(who, channel))

    def recheck(self, *, channel: str | None = None, user_id: str | None = None) -> None:
        """See `Hub.recheck`."""
        self._run(self._hub.recheck(channel=channel, user_id=user_id))

    def presence(self, channel: str) -> list[Present]:
        """See `Hub.presence`."""
        return self._run(self._hub.presence(channel))

    def history(self, channel: str, since: Position | None = None, limit: int = 100) -> Past:
        """See `Hub.history`."""
        return self._run(self._hub.history(channel, since, limit))

    def is_user_connected(self, user_id: str) -> bool:
        """See `Hub.is_user_connected`."""
        return self._run(self._hub.is_user_connected(user_id))

    def user_connection_count(self, user_id: str) -> int:
        """See `Hub.user_connection_count`."""
        return self._run(self._hub.user_connection_count(user_id))

    def user_connections(self, user_id: str) -> list[Connected]:
        """See `Hub.user_connections`."""
        return self._run(self._hub.user_connections(user_id))

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Run a plain function in the hub's thread, for what belongs there: `hub.sync.call(conn.close, 4500)`."""

        async def run() -> T:
            return function(*args)

        return self._run(run())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        loop, thread = self._hub.node.loop, self._hub.node.thread
        if loop is not None and self._hub.node.pid != os.getpid():
            work.close()
            raise UsageError("The hub lives in the process that this one was forked from: use `Publisher(hub)` here.")
        if loop is None or thread == threading.get_ident():
            work.close()
            way = "the hub has not started" if loop is None else "in the hub's own loop write `await hub....` instead"
            raise UsageError(f"hub.sync works from other threads: {way}.")
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result(self._timeout)
        except TimeoutError:
            if future.done():
                raise
            future.cancel()
            raise TimeoutError(f"The hub did not do this within {self._timeout:g} s: it may be done or not.") from None
