"""The hub: what an application holds in its hands."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from threading import get_ident
from typing import Any, TypeVar
from weakref import WeakSet

from hubbub.config import ATTACH, DOOR, load_settings
from hubbub.core.limits import Limits, Timeouts
from hubbub.errors import CloseCode, UsageError
from hubbub.node.connection import Connection
from hubbub.node.hooks import HookName
from hubbub.node.local import Local
from hubbub.node.node import Node
from hubbub.node.receipt import Receipt
from hubbub.node.routing import Handler, Route
from hubbub.node.sync import Sync

__all__ = ["Hub"]

F = TypeVar("F", bound=Handler)

_running: WeakSet[Hub] = WeakSet()


class Hub:
    """A live connection between your app and its users.

    Args:
        path: where clients connect; `WS_PATH` or `/ws` by default.
        heartbeat_interval: seconds of silence before a ping; `WS_HEARTBEAT_INTERVAL` or 30 by default.
        limits: what one connection may cost.
        timeouts: how long the hub waits; the two above win over it.
        deflate: compress messages for clients that offer permessage-deflate (native door).
        native: take sockets over from `hubbub serve`; False keeps every message inside ASGI.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        heartbeat_interval: float | None = None,
        limits: Limits | None = None,
        timeouts: Timeouts | None = None,
        deflate: bool = False,
        native: bool = True,
    ) -> None:
        settings = load_settings(**({} if path is None else {"ws_path": path}))
        times = timeouts or Timeouts(
            ping=settings.ws_heartbeat_interval / 1000, shutdown=settings.ws_shutdown_timeout / 1000 or 0.001
        )
        if heartbeat_interval is not None:
            times = replace(times, ping=heartbeat_interval)
        self.path = settings.ws_path
        self.deflate = deflate
        self.native = native
        self._attached = False
        self.node = Node(limits or Limits(), times)
        self.local = Local(self.node)
        self.sync = Sync(self)

    # Handlers

    def on(self, type: str, *, reply: str | None = None, auth: bool = False, thread: bool = False) -> Callable[[F], F]:
        """Handle messages of one type with `f(conn)` or `f(conn, payload)`, plain or `async def`.

        The payload is decoded into the annotated type. What the handler returns is sent back; `RequestError` says no.

        Args:
            type: the message's type; a built-in one is replaced.
            reply: the type of the message that carries the return value, `{type}_response` by default.
            auth: only for connections with a user; others get `error unauthorized`.
            thread: run a blocking plain function in a thread.

        Raises:
            ConfigError: the function cannot be a handler.
        """

        def register(function: F) -> F:
            dispatcher = self.node.dispatcher
            dispatcher.routes[type] = Route.build(type, function, reply=reply, auth=auth, thread=thread)
            dispatcher.urgent.pop(type, None)
            return function

        return register

    def on_connect(self, function: F) -> F:
        """Call `f(conn)` or `f(conn, handshake)` for each new connection; messages wait until it is done."""
        return self._hook("connect", function)

    def on_message(self, function: F) -> F:
        """Call `f(conn, message)` for each message whose type has no handler."""
        return self._hook("message", function)

    def on_binary(self, function: F) -> F:
        """Call `f(conn, data)` for each binary message; without such a hook they close with 1003."""
        return self._hook("binary", function)

    def on_close(self, function: F) -> F:
        """Call `f(conn)` or `f(conn, code, reason)` after a connection ended; a node that dies calls nothing."""
        return self._hook("close", function)

    def on_error(self, function: F) -> F:
        """Call `f(conn, error)` when a handler failed with anything but `RequestError`."""
        return self._hook("error", function)

    def _hook(self, name: HookName, function: F) -> F:
        self.node.dispatcher.hooks.add(name, function)
        return function

    # Attaching

    def attach(self, app: Any) -> None:
        """Serve this hub inside a FastAPI, Starlette or Litestar app, ahead of its routes, with its lifespan.

        Raises:
            UsageError: another kind of app; `app = hub.wrap(app)` works for all.
        """
        _resolve(ATTACH)(self, app)
        self._attached = True

    def wrap(self, app: Any) -> Any:
        """Give back an ASGI app that serves this hub at its path and `app` everywhere else."""
        self._attached = True
        return _resolve(DOOR)(self, app)

    # Life

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Hub]:
        """Run the hub for as long as the block lasts; inside a hub that runs already, change nothing."""
        if self.node.running:
            yield self
            return
        self.start()
        try:
            yield self
        finally:
            await self.shutdown()

    def start(self) -> None:
        """Start in the running loop; `running`, the app's lifespan or the first client does it for you."""
        if not self.node.running:
            _running.add(self)
        self.node.start()

    async def shutdown(self, timeout: float | None = None) -> None:
        """Say goodbye (1001) to every client, cut those left, end the handlers.

        Args:
            timeout: seconds from the goodbye to the cut, `Timeouts.shutdown` by default.
        """
        await self.node.stop(self.node.timeouts.shutdown if timeout is None else timeout)
        _running.discard(self)

    @staticmethod
    def all_running() -> list[Hub]:
        """The hubs that run in this process."""
        return list(_running)

    # Sending, to wherever the client is connected

    async def publish(self, channel: str, event: str | None, data: Any = None) -> Receipt:
        """Send `message {channel, event, data}` to every subscriber of a channel.

        Raises:
            RequestError: `bad_channel`.
        """
        return Receipt(self._here().publish(channel, event, data))

    async def broadcast(self, type: str, payload: Any = None, exclude: Connection | str | None = None) -> Receipt:
        """Send a message to every connection but `exclude` (a connection or its id)."""
        node = self._here()
        left_out = node.registry.get(exclude) if isinstance(exclude, str) else exclude
        return Receipt(node.broadcast(type, payload, None if left_out is None else left_out.outbox))

    async def send_to_user(self, user_id: str, type: str, payload: Any = None) -> Receipt:
        """Send a message to every connection of one user."""
        return Receipt(sum(each.send(type, payload) for each in self._here().registry.of_user(user_id)))

    async def send_to_connection(self, connection_id: str, type: str, payload: Any = None) -> Receipt:
        """Send a message to one connection."""
        connection = self._here().registry.get(connection_id)
        return Receipt(int(connection is not None and connection.send(type, payload)))

    async def notify(self, user_id: str, title: str, message: str, type: str = "info") -> Receipt:
        """Send `notification {title, message, type}`; the type is info, success, warning or error."""
        return await self.send_to_user(user_id, "notification", {"title": title, "message": message, "type": type})

    async def disconnect_user(self, user_id: str, code: int = CloseCode.NORMAL, reason: str = "") -> int:
        """Close every connection of one user; how many there were."""
        connections = list(self._here().registry.of_user(user_id))
        for connection in connections:
            connection.close(code, reason)
        return len(connections)

    # Asking

    async def is_user_connected(self, user_id: str) -> bool:
        """Whether a user has an open connection."""
        return await self.user_connection_count(user_id) > 0

    async def user_connection_count(self, user_id: str) -> int:
        """How many open connections a user has."""
        return self.node.registry.count_of_user(user_id)

    @property
    def connection_count(self) -> int:
        """How many connections are open on this node."""
        return len(self.node.registry)

    async def stats(self) -> dict[str, Any]:
        """Counts and health: connections, users, channels, slow consumers and timeouts so far, loop lag in ms."""
        node = self.node
        return {
            "connections": len(node.registry),
            "users": len(node.registry.users()),
            "channels": len(node.channels),
            "slowConsumers": node.slow_consumers,
            "handlerTimeouts": node.timed_out,
            "loopLagMs": round(node.lag * 1000, 1),
        }

    def _here(self) -> Node:
        if not self.node.running:
            if not self._attached:
                raise UsageError("The hub has not started: attach it to the app, or use `async with hub.running():`.")
            return self.node  # an app without lifespan, and no client has come yet: it sends to nobody
        if self.node.thread != get_ident():
            raise UsageError("The hub lives in another thread: use `hub.sync` here, like `hub.sync.publish(...)`.")
        return self.node


def _resolve(target: str) -> Any:
    """Import a part by its name, so that the node depends on no server."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
