"""The hub: what an application holds in its hands."""

from __future__ import annotations

import importlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from threading import get_ident
from typing import Any, Literal, TypeVar, get_args
from weakref import ref

from hubbub.config import ATTACH, DOOR, Auth, Settings, load_settings
from hubbub.core.bus import ALL, Broadcast, Close, Connections, Count, Put, Revoked, Send, user_topic
from hubbub.core.envelope import encode
from hubbub.core.frames import check_code
from hubbub.core.labels import check_text
from hubbub.core.limits import Limits, Timeouts
from hubbub.core.origins import Origins
from hubbub.core.rates import Rates
from hubbub.errors import CloseCode, ConfigError, UsageError
from hubbub.node import chat as chatting
from hubbub.node.api_key import ApiKey
from hubbub.node.asking import ask_client
from hubbub.node.auth import Authenticator, Gate
from hubbub.node.broker import make_broker
from hubbub.node.channel_methods import ChannelMethods
from hubbub.node.connected import Connected, read_connected
from hubbub.node.connection import Connection
from hubbub.node.database import databases
from hubbub.node.entrance import Entrance
from hubbub.node.hooks import HookName
from hubbub.node.local import Local
from hubbub.node.node import Node
from hubbub.node.publisher import take_over
from hubbub.node.quotas import Quotas, WhenFull
from hubbub.node.receipt import Receipt
from hubbub.node.relay import Relay
from hubbub.node.routing import Handler, Route
from hubbub.node.sync import Sync
from hubbub.node.tickets import Tickets

__all__ = ["Hub"]

F = TypeVar("F", bound=Handler)

USER = "A user's id"
NOTIFICATIONS = ("info", "success", "warning", "error")

_made: list[ref[Hub]] = []


class Hub(ChannelMethods):
    """A live connection between your app and its users.

    Args:
        path: where clients connect; `WS_PATH` or `/ws` by default.
        heartbeat_interval: seconds of silence before a ping; `WS_HEARTBEAT_INTERVAL` or 30 by default.
        limits: what one connection may cost.
        timeouts: how long the hub waits; the two above win over it.
        deflate: compress messages for clients that offer permessage-deflate (native door).
        native: take sockets over from `hubbub serve`; False keeps every message inside ASGI.
        inbox: "per_user", or "per_device" where each device that names itself reads and acks on its own.
        inbox_url: the database of inboxes and revocations; `HUBBUB_INBOX_URL` by default, else a SQLite file.
        archive_url: the database of the archive; `HUBBUB_ARCHIVE_URL` by default, else a SQLite file.
        chat: offer `chat {recipientId, message}` from one signed-in user to any other.
        auth: which tokens are accepted, and where.
        authenticator: your own way to sign in, in place of tokens at the handshake: `f(handshake)`, plain or `async`,
            returns an `Identity`, a user's id, or None for nobody; `RequestError("forbidden", ...)` says no.
        require_auth: nobody may do anything before signing in, and has `Timeouts.authenticate` for it.
        origins: whose pages may connect, like `https://example.com`; `HUBBUB_ORIGINS` by default, and without either
            only pages of this very host and port, on loopback.
        rates: how often clients may do what.
        when_full: where a user has `Limits.connections_per_user`, "refuse" one more (4504) or "replace_oldest" (4506).
        broker_url: what is between several nodes; `HUBBUB_BROKER_URL` by default, else this process is alone.
        api_key: turns the HTTP API on, for who has this key of 32 characters or more; `HUBBUB_API_KEY` by default.
        outbox_url: the database of your app whose outbox this hub relays; `HUBBUB_OUTBOX_URL` by default, else none.
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
        inbox: Literal["per_user", "per_device"] = "per_user",
        inbox_url: str | None = None,
        archive_url: str | None = None,
        chat: bool = False,
        auth: Auth | None = None,
        authenticator: Authenticator | None = None,
        require_auth: bool = False,
        origins: Sequence[str] | None = None,
        rates: Rates | None = None,
        when_full: WhenFull = "refuse",
        broker_url: str | None = None,
        api_key: str | None = None,
        outbox_url: str | None = None,
    ) -> None:
        _check_options(inbox, when_full, {Limits: limits, Timeouts: timeouts, Rates: rates, Auth: auth})
        settings = load_settings(
            ws_path=path,
            hubbub_inbox_url=inbox_url,
            hubbub_archive_url=archive_url,
            hubbub_broker_url=broker_url,
            hubbub_api_key=api_key,
            hubbub_outbox_url=outbox_url,
        )
        times = _times(timeouts, settings, heartbeat_interval)
        self.path = settings.ws_path
        self.api_key = ApiKey(settings)
        self.deflate, self.native, self.attached = deflate, native, False
        kept = databases(settings, times.store)
        gate = Gate(
            auth or Auth(),
            settings,
            kept["inbox"],
            authenticator=authenticator,
            required=require_auth,
            patience=times.authenticate,
            claim=self._claim,
        )
        self.make_broker = partial(make_broker, settings.hubbub_broker_url, kept["archive"], path)
        allowed = settings.origins if origins is None else origins
        cookie = gate.cookie if authenticator is None else None  # an app's own way may read any
        bounds = limits or Limits()
        quotas = Quotas(rates or Rates(), bounds, when_full)
        entrance = Entrance(Origins(allowed), cookie, quotas, way="environment" if origins is None else "code")
        self.node = Node(bounds, times, kept, gate, self.make_broker(), entrance, per_device=inbox == "per_device")
        if settings.hubbub_outbox_url is not None:
            self.node.relay = Relay(self, settings.hubbub_outbox_url)
        if chat:
            chatting.install(self)
        self.local = Local(self.node)
        self.sync = Sync(self)
        _made.append(ref(self, _made.remove))

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
            UsageError: the type is no text, as where `@hub.on` stands without one.
        """

        check_text(type, 'A message\'s type, as in @hub.on("say"),')

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

    def on_undelivered(self, *, after: float = 30.0) -> Callable[[F], F]:
        """Call `f(user_id, message)` once for each durable message not acked in time: for push or e-mail.

        Args:
            after: seconds from sending to the call.
        """

        def register(function: F) -> F:
            self.node.undelivered.register(function, after)
            return function

        return register

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
        self.attached = True

    def wrap(self, app: Any) -> Any:
        """Give back an ASGI app that serves this hub at its path and `app` everywhere else."""
        self.attached = True
        return _resolve(DOOR)(self, app)

    # Life

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Hub]:
        """Run the hub for as long as the block lasts; inside a hub that runs already, change nothing."""
        if self.node.running and not self.node.guest:
            yield self
            return
        self.start()
        try:
            await self.node.open()
            yield self
        finally:
            await self.shutdown()

    def start(self) -> None:
        """Start in the running loop; `running`, the app's lifespan or the first client does it for you.

        Databases are opened by those, or when something is to be kept.
        """
        take_over(self)

    async def drain(self, seconds: float = 30.0) -> None:
        """Send clients to the other nodes, a few at a time, before a `shutdown`; nobody new is taken meanwhile.

        Each is told `reconnect {delay, ticket, restores}`, and closed with 1012 if it does not go by itself.

        Args:
            seconds: for all of it; it ends as soon as all are gone.
        """
        await self.node.drain(seconds)

    async def shutdown(self, timeout: float | None = None) -> None:
        """Say goodbye (1001) to every client, cut those left, end the handlers.

        Args:
            timeout: seconds from the goodbye to the cut, `Timeouts.shutdown` by default.
        """
        await self.node.stop(self.node.timeouts.shutdown if timeout is None else timeout)

    @staticmethod
    def all_running() -> list[Hub]:
        """The hubs that run in this process."""
        return [hub for hub in Hub.all_made() if hub.node.running]

    @staticmethod
    def all_at(path: str) -> list[Hub]:
        """Those of them that have this path."""
        return [hub for each in _made if (hub := each()) is not None and hub.path == path and hub.node.running]

    @staticmethod
    def all_made() -> list[Hub]:
        """The hubs of this process, running or not."""
        return [hub for each in _made if (hub := each()) is not None]

    # Sending, to wherever the client is connected

    async def broadcast(self, type: str, payload: Any = None, exclude: Connection | str | None = None) -> Receipt:
        """Send a message to every connection but `exclude` (a connection or its id)."""
        node, text = self._here(), encode(type, payload, _now())
        left_out = exclude if isinstance(exclude, str) or exclude is None else exclude.id
        here = node.broadcast(text, left_out)
        await node.cluster.tell(ALL, Broadcast(text, left_out))
        return Receipt(here + node.cluster.connections)

    async def send_to_user(
        self,
        user_id: str,
        type: str,
        payload: Any = None,
        *,
        durable: bool = False,
        key: str | None = None,
        ttl: float | None = None,
    ) -> Receipt:
        """Send a message to every connection of one user.

        Args:
            user_id: the user.
            type: the message's type.
            payload: anything with a JSON form.
            durable: keep it in the user's inbox until it is acked, and send it (again) whenever the user connects.
            key: names a durable message: with the same key it is stored once a day at most.
            ttl: seconds for which a durable message is worth reading, `Timeouts.inbox` by default.

        Raises:
            StoreError: a durable message was not stored for sure, and not sent.
            UsageError: the user's id or the type is no text.
        """
        node = self._here()
        check_text(user_id, USER)
        if durable:
            return await node.inbox.send(user_id, type, payload, key, ttl)
        if key is not None or ttl is not None:
            raise UsageError("key and ttl are for durable=True: nothing else is kept.")
        text = encode(type, payload, _now())
        here = node.cluster.answers.send(user_id, text)
        return Receipt(here + await node.cluster.tell(user_topic(user_id), Send(user_id, text)))

    async def send_to_connection(self, connection_id: str, type: str, payload: Any = None) -> Receipt:
        """Send a message to one connection."""
        question = Put(check_text(connection_id, "A connection's id"), encode(type, payload, _now()))
        return Receipt(await self._here().cluster.at(connection_id, question) or 0)

    async def request(
        self,
        connection_id: str,
        type: str,
        payload: Any = None,
        timeout: float | None = None,
        returns: Any = Any,
    ) -> Any:
        """Ask one client and wait for its answer, whichever node it is connected to; see `Connection.request`.

        Raises:
            RequestTimeout: no answer in time.
            ConnectionClosed: no such connection is open, or it closed.
            RequestError: the client answered with an error, or with something else than `returns`.
        """
        return await ask_client(
            self._here(), check_text(connection_id, "A connection's id"), type, payload, timeout, returns
        )

    async def notify(self, user_id: str, title: str, message: str, type: str = "info", **options: Any) -> Receipt:
        """Send `notification {title, message, type}`; the type is info, success, warning or error.

        Args:
            user_id: the user.
            title: in a few words.
            message: in a sentence.
            type: how it is meant.
            options: `durable`, `key` and `ttl` of `send_to_user`.
        """
        if type not in NOTIFICATIONS:
            raise UsageError(f"A notification is of type {', '.join(NOTIFICATIONS)}, not {type!r}.")
        payload = {"title": title, "message": message, "type": type}
        return await self.send_to_user(user_id, "notification", payload, **options)

    async def broadcast_system(self, message: str, **more: Any) -> Receipt:
        """Send `system_message {message, timestamp}`, and whatever more is given, to every connection."""
        return await self.broadcast("system_message", {"message": message, "timestamp": _now(), **more})

    async def disconnect_user(self, user_id: str, code: int = CloseCode.NORMAL, reason: str = "") -> int:
        """Close every connection of one user; how many there were."""
        check_code(code)  # here: on another node nobody would hear of it
        return await self._here().cluster.everywhere(Close(check_text(user_id, USER), code, reason))

    # Who may sign in

    @property
    def tickets(self) -> Tickets:
        """Makes short-lived, single-use tickets for pages that your app knows: `hub.tickets.issue(user_id)`."""
        return self.node.gate.tickets

    async def revoke(self, *, user_id: str | None = None, jti: str | None = None, until: float | None = None) -> int:
        """Take a token back, or all that a user has by now, and close the connections they opened (4501).

        Args:
            user_id: the user; later tokens are good.
            jti: the `jti` of one token.
            until: when they have all expired, seconds since 1970; 30 days from now by default.

        Returns:
            How many connections were closed.

        Raises:
            UsageError: give one of the two.
            StoreError: it could not be kept, and nothing is revoked.
        """
        node = self._here()
        kept = await node.gate.revocations.add(user_id, jti, until)
        return await node.cluster.everywhere(Revoked(kept.subject, kept.at, kept.until))

    # Asking

    async def is_user_connected(self, user_id: str) -> bool:
        """Whether a user has an open connection."""
        return self.local.is_user_connected(check_text(user_id, USER)) or await self.user_connection_count(user_id) > 0

    async def user_connection_count(self, user_id: str) -> int:
        """How many open connections a user has."""
        return await self.node.cluster.everywhere(Count(check_text(user_id, USER)))

    async def user_connections(self, user_id: str) -> list[Connected]:
        """The open connections of a user, on all nodes, each with its `id`, `channels` and `last_activity`."""
        question, cluster = Connections(check_text(user_id, USER)), self.node.cluster
        here = await cluster.answers.give(question)
        return [*here, *read_connected(await cluster.ask(question))]

    @property
    def connection_count(self) -> int:
        """How many connections are open on this node."""
        return len(self.node.registry)

    async def stats(self) -> dict[str, Any]:
        """Counts and health: connections, users, channels, slow consumers and timeouts so far, loop lag in ms."""
        node = self.node
        return {
            "connections": len(node.registry),
            "nodes": 1 + len(node.cluster.peers),
            "connectionsElsewhere": node.cluster.connections,
            "users": len(node.registry.users()),
            "channels": len(node.channels),
            "slowConsumers": node.slow_consumers,
            "droppedPublications": node.dropped_publications,
            "conflated": node.conflated,
            "handlerTimeouts": node.timed_out,
            "refused": node.entrance.refused + node.entrance.quotas.refused,
            "rateLimited": node.dispatcher.throttle.refused,
            "loopLagMs": round(node.lag * 1000, 1),
            "databases": {role: await database.answers() for role, database in node.databases.items()},
        } | ({} if node.relay is None else {"outbox": node.relay.state})

    async def _claim(self, name: str, owner: str, ttl: float) -> bool:
        return await self.node.broker.claim(name, owner, ttl)

    def _here(self) -> Node:
        if not self.node.running:
            if not self.attached:
                raise UsageError("The hub has not started: attach it to the app, or use `async with hub.running():`.")
            return self.node  # an app without lifespan, and no client has come yet: it sends to nobody
        if self.node.thread != get_ident():
            raise UsageError("The hub lives in another thread: use `hub.sync` here, like `hub.sync.publish(...)`.")
        return self.node


def _check_options(inbox: str, when_full: str, parts: dict[type, Any]) -> None:
    if inbox not in ("per_user", "per_device"):
        raise ConfigError(f"Hub(inbox={inbox!r}) is not allowed: give 'per_user' or 'per_device'.")
    if when_full not in get_args(WhenFull):
        raise ConfigError(f"Hub(when_full={when_full!r}) is not allowed: give 'refuse' or 'replace_oldest'.")
    for kind, part in parts.items():
        if part is not None and not isinstance(part, kind):
            name = kind.__name__
            raise ConfigError(f"Hub({name.lower()}=...) takes {name}(...), not a {type(part).__name__}.")


def _times(timeouts: Timeouts | None, settings: Settings, ping: float | None) -> Timeouts:
    """How long the hub waits: what the code says, before what the environment does."""
    times = timeouts or Timeouts(
        ping=settings.ws_heartbeat_interval / 1000, shutdown=settings.ws_shutdown_timeout / 1000 or 0.001
    )
    return times if ping is None else replace(times, ping=ping)


def _now() -> int:
    return time.time_ns() // 1_000_000


def _resolve(target: str) -> Any:
    """Import a part by its name, so that the node depends on no server."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)
