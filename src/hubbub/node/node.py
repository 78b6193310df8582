"""One node: its parts, and the life of its connections from one to the other."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from hubbub.core.channels import Channels
from hubbub.core.limits import Limits, Timeouts
from hubbub.core.registry import Registry
from hubbub.core.session import ConnectionState
from hubbub.errors import CloseCode, UsageError
from hubbub.node.archiver import Archiver
from hubbub.node.auth import AUTHENTICATE, Gate, describe
from hubbub.node.builtin import install
from hubbub.node.cluster import Cluster
from hubbub.node.delivery import Delivery
from hubbub.node.dispatch import Dispatcher
from hubbub.node.drain import Drain
from hubbub.node.entrance import Entrance
from hubbub.node.expiry import Expiry
from hubbub.node.heartbeat import Heartbeat
from hubbub.node.inbox import Inbox
from hubbub.node.mirrors import Mirrors
from hubbub.node.presence import Presence
from hubbub.node.publishing import Publishing
from hubbub.node.sharing import Sharing
from hubbub.node.streams import Streams
from hubbub.node.subscriptions import Subscriptions
from hubbub.node.undelivered import Undelivered

if TYPE_CHECKING:
    from hubbub.contracts import Broker, Handshake
    from hubbub.node.connection import Connection
    from hubbub.node.database import Database
    from hubbub.node.outbox import Outbox
    from hubbub.node.relay import Relay

__all__ = ["Node"]

WELCOME = "Connected."
LAST_WRITES = 1.0  # seconds for what is being stored then
LAST_WORDS = 1.0  # seconds for streams to end
SWEEP = 10.0  # seconds between two looks for buckets that are full again
LAST_HOOKS = 1.0  # seconds for the close hooks of those that were cut at the end of the time


class Node:
    """What a hub is made of; it lives in one event loop, in one thread."""

    def __init__(
        self,
        limits: Limits,
        timeouts: Timeouts,
        databases: dict[str, Database],
        gate: Gate,
        broker: Broker,
        entrance: Entrance,
        *,
        per_device: bool,
    ) -> None:
        self.limits = limits
        self.timeouts = timeouts
        self.databases = databases
        self.gate = gate
        self.broker = broker
        self.entrance = entrance
        self.cluster = Cluster(self)
        self.publishing = Publishing(self)
        self.subscriptions = Subscriptions(self)
        self.presence = Presence(self)
        self.streams = Streams(self)
        self.mirrors = Mirrors(self)
        self.sharing = Sharing(self)
        broker.listen(self.publishing)
        self.inbox = Inbox(self, databases["inbox"], per_device)
        self.undelivered = Undelivered(self, databases["inbox"])
        self.archiver = Archiver(self, databases["archive"])
        self.relay: Relay | None = None
        # How often we look at the clock; a loop held longer than this shows in `lag`.
        self.width = min(0.25, timeouts.ping, timeouts.pong, timeouts.close, timeouts.handler)
        self.dispatcher = Dispatcher(self)
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread: int | None = None
        self.pid = 0
        self.guest = False
        self.ready = False
        self.closing = False
        self.draining = False
        self.stopped = False
        self.slow_consumers = 0
        self.dropped_publications = 0
        self.conflated = 0
        self.timed_out = 0
        self.lag = 0.0
        self._sweep_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._begin()
        install(self)
        self.dispatcher.routes[AUTHENTICATE.type] = AUTHENTICATE

    def _begin(self) -> None:
        """Have nobody: before the first start, and when the loop of the last one died without a stop."""
        self.registry: Registry[Connection] = Registry()
        self.channels: Channels[Outbox] = Channels()
        self.delivery = Delivery()
        self.heartbeat = Heartbeat(self.registry, self.timeouts, self.width)
        self.expiry = Expiry(self.registry, self.timeouts.authenticate, self.width)
        self.dispatcher.workers.reset()
        self.entrance.quotas.reset()
        self.inbox.reset()
        self.cluster.reset()
        self.subscriptions.reset()
        self.presence.reset()
        self.streams.reset()
        self.mirrors.reset()
        self.undelivered.reset()
        self.archiver.reset()
        if self.relay is not None:
            self.relay.reset()
        self.ready = False
        self._opening: asyncio.Future[None] | None = None
        self._open: set[Connection] = set()
        self._empty = asyncio.Event()

    # Start and stop

    @property
    def running(self) -> bool:
        """Whether the node has started and not stopped."""
        return self.loop is not None and not self.loop.is_closed()

    def start(self) -> None:
        """Begin to live in the running loop; a second start changes nothing.

        Raises:
            ConfigError: a rule is for channels that there are not.
        """
        loop = asyncio.get_running_loop()
        if self.running:
            if self.loop is not loop:
                raise UsageError(
                    "The hub runs in another loop already: one loop a hub (in tests: `with TestClient(app):`)."
                )
            return
        self.subscriptions.rules.check(self.subscriptions.namespaces.__contains__)
        if self.loop is not None:
            self._begin()
            for database in set(self.databases.values()):
                database.forget()
            self.gate.revocations.forget()
        self.loop = loop
        self.thread = threading.get_ident()
        self.pid = os.getpid()
        self.closing = self.draining = self.stopped = False
        self._empty = asyncio.Event()  # one for this loop
        self._schedule()

    def forked(self, broker: Broker) -> list[object]:
        """Begin anew in a fork of the process where this node lives.

        Args:
            broker: one for this process.

        Returns:
            What the other process goes on with; to collect it here would close it.
        """
        parts = [self, *vars(self).values(), *self.databases.values()]
        left: list[object] = [dict(vars(part)) for part in parts if hasattr(part, "__dict__")]
        self.broker = broker
        broker.listen(self.publishing)
        self._begin()
        for database in set(self.databases.values()):
            database.forget()
        self.gate.revocations.forget()
        self.loop = self.thread = self._timer = None
        return left

    async def open(self) -> None:
        """Open the databases; one that nobody chose and that does not exist is created with the first thing to keep.

        Raises:
            StoreError: one cannot be opened.
        """
        if self.ready:
            return
        if self._opening is None or self._opening.done():
            self._opening = asyncio.ensure_future(self._open_all())
        await asyncio.shield(self._opening)

    async def _open_all(self) -> None:
        for database in set(self.databases.values()):
            if not database.empty:
                await database.open()
        await self.broker.open(self.subscriptions.namespaces)
        await self.cluster.open()
        if self.broker.shared and not self.guest:
            self.sharing.open()
        await self.gate.revocations.ready()
        if self.relay is not None and not self.guest:
            await self.relay.open()
        self.ready = True

    async def drain(self, seconds: float) -> None:
        """Take no new connections, and send those there are to the other nodes, all within this time."""
        if self.loop is None or self.closing:
            return
        deadline, first, self.draining = self.loop.time() + seconds, not self.draining, True
        if first:
            await Drain(self, seconds).run(list(self.registry))
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._all_gone()

    async def stop(self, timeout: float) -> None:
        """Say goodbye to all, cut whoever is left after `timeout` seconds, and end the handlers."""
        loop = self.loop
        if loop is None:
            # An app that sent something after the end has opened them again.
            await self._close_databases(asyncio.get_running_loop().time() + LAST_WRITES)
        if loop is None or not self.running:
            return
        if self.dispatcher.workers.running_here:
            raise UsageError("A handler cannot wait for its own end: write `asyncio.create_task(hub.shutdown())`.")
        self.closing = True
        deadline = loop.time() + timeout
        await self.streams.stop(min(deadline, loop.time() + LAST_WORDS))
        for connection in list(self._open):
            connection.close(CloseCode.GOING_AWAY, "the server stops")
        try:
            async with asyncio.timeout_at(deadline):
                await self._all_gone()
        except TimeoutError:
            for connection in list(self._open):
                connection.outbox.transport.abort()
            await self._all_gone()
        await self.dispatcher.workers.stop(max(deadline, loop.time() + LAST_HOOKS))
        if self._timer is not None:
            self._timer.cancel()
        if self.relay is not None:
            await self.relay.stop()
        # Before the databases go: who sends from now on would open them again.
        self.loop = self.thread = self._timer = None
        self.stopped = True
        await self._close_databases(max(deadline, loop.time() + LAST_WRITES))

    async def _close_databases(self, deadline: float) -> None:
        self.undelivered.stop()
        await self.inbox.stop(deadline)
        self.subscriptions.stop()
        await self.archiver.stop()
        await self.cluster.close()
        await self.broker.close()
        await asyncio.gather(*(database.close() for database in set(self.databases.values())))
        self.gate.revocations.forget()
        self.ready = False

    async def _all_gone(self) -> None:
        self._empty.clear()
        while self._open:
            await self._empty.wait()
            self._empty.clear()

    def _schedule(self) -> None:
        assert self.loop is not None
        due = self.loop.time() + self.width

        def fire() -> None:
            assert self.loop is not None
            # How late the timer is, is how long something held the loop; the worst is kept and fades.
            self.lag = max(self.loop.time() - due, self.lag * 0.975)
            self.beat(monotonic())
            self._schedule()

        self._timer = self.loop.call_at(due, fire)

    def beat(self, now: float) -> None:
        """Do what is done from time to time, `now` in monotonic seconds."""
        self.heartbeat.beat(now)
        self.expiry.beat(now, time.time())
        self.dispatcher.workers.expire(now, self.timeouts.handler)
        self.inbox.beat()
        if not self.guest:  # a process that serves nobody leaves this to those that do
            self.undelivered.beat(now)
            self.archiver.beat(now)
            if self.relay is not None:
                self.relay.beat()
        self.subscriptions.beat(now)
        self.presence.beat(now)
        self.cluster.beat(now)
        self.sharing.beat(now)
        self.streams.beat(now)
        self.broker.sweep(time.time_ns() // 1_000_000)
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP
            self.entrance.quotas.sweep(now)
            self.dispatcher.throttle.sweep(now)

    def resumed(self) -> None:
        """Look for what was missed while the broker was out of reach."""
        self.cluster.resumed()
        self.inbox.wake()
        self.gate.revocations.forget()  # before the next sign-in they are read again
        if len(self.registry):
            self.cluster.spawn(self._revoke_late())

    async def _revoke_late(self) -> None:
        await self.gate.revocations.ready()
        for connection in self.registry:
            if connection.identity is not None and self.gate.revocations.concern(connection.identity):
                connection.close(CloseCode.UNAUTHORIZED, "the token was revoked")

    # The life of a connection

    def opened(self, connection: Connection, handshake: Handshake) -> None:
        """Take in a connection whose transport is ready: index it, welcome it, tell the app."""
        self._open.add(connection)
        entered = self.entrance.quotas.enter(connection, handshake.client)
        if self.closing or self.draining:
            code = CloseCode.GOING_AWAY if self.closing else CloseCode.SERVICE_RESTART
            connection.close(code, "the server stops")
            return
        if not entered:
            return
        identity = connection.identity
        if identity is not None and self.gate.revocations.concern(identity, connection.last_activity):
            connection.close(CloseCode.UNAUTHORIZED, "the token was revoked")  # while its handshake was answered
            return
        connection.announced = True
        self.registry.add(connection)
        if connection.user_id is not None:
            self.cluster.user_came(connection.user_id)
        self.heartbeat.watch(connection, connection.heard)
        self._admit(connection)
        connection.send("welcome", self._welcome(connection))
        if connection.identity is not None:
            connection.send("authenticated", describe(connection))
        self.inbox.join(connection)
        self.subscriptions.identified(connection, None)
        self.dispatcher.hooks.run("connect", connection, handshake)

    def identified(self, connection: Connection, before: str | None) -> None:
        """Take note that a connection belongs to another user than `before`, or to the same one for another time."""
        if connection.state is ConnectionState.OPEN:
            self.presence.identified(connection, before)  # first: nothing can have ended its subscriptions yet
            self._admit(connection)
        if before != connection.user_id:
            self._moved(before, connection.user_id)
            self.inbox.leave(connection, before)
            self.inbox.join(connection)
            self.subscriptions.identified(connection, before)
            if connection.state is ConnectionState.OPEN:
                self.entrance.quotas.join(connection)

    def _admit(self, connection: Connection) -> None:
        """Let a connection hear what all hear until its user's proof ends; a stranger only where everybody may."""
        everyone, outbox = self.delivery.everyone, connection.outbox
        if connection.identity is None and self.gate.required:
            everyone.remove(outbox)
            self.expiry.watch_stranger(connection, monotonic())
            return
        if outbox not in everyone.members:
            self.delivery.drain(outbox)
            everyone.add(outbox)
        if connection.identity is not None:
            self.expiry.watch(connection, time.time())

    def _moved(self, before: str | None, after: str | None) -> None:
        if before is not None:
            self.cluster.user_went(before)
        if after is not None:
            self.cluster.user_came(after)

    def leaving(self, connection: Connection) -> None:
        """Nothing more is sent to a connection once either side said goodbye."""
        self.registry.remove(connection)
        self._moved(connection.user_id, None)
        self.inbox.leave(connection, connection.user_id)
        if connection.outbox is not None:
            self.delivery.everyone.remove(connection.outbox)
            self.subscriptions.left(connection)
            connection.outbox.wake()
            self.heartbeat.watch_closing(connection, monotonic())

    def closed(self, connection: Connection, code: int, reason: str) -> None:
        """Let a connection go: stop what it waits for and tell the app."""
        self.dispatcher.stop(connection)
        if connection in self._open:
            self._open.remove(connection)
            self.dispatcher.throttle.leave(connection)
            self.entrance.quotas.leave(connection)
        if connection.announced:
            self.dispatcher.hooks.run("close", connection, code, reason)
        if not self._open:
            self._empty.set()

    # Publishing

    def broadcast(self, text: bytes, exclude: str | None = None) -> int:
        """Note an encoded message for every connection but the one with this id; how many they are."""
        everyone = self.delivery.everyone
        if not everyone.members:
            return 0
        left_out = None if exclude is None else self.registry.get(exclude)
        outbox = None if left_out is None else left_out.outbox
        self.delivery.note(everyone, text, outbox)
        return len(everyone.members) - (outbox in everyone.members)

    def _welcome(self, connection: Connection) -> dict[str, Any]:
        return {
            "protocol": 1,
            "connectionId": connection.id,
            "message": WELCOME,
            "pingInterval": int(self.timeouts.ping * 1000),
            "maxMessage": self.limits.message_size,
        }
