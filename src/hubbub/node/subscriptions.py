"""Who gets what: subscriptions made and ended, what subscribers missed, and whether they still may."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from hubbub.core.namespaces import Namespace, Namespaces
from hubbub.core.recovery import Past, Position
from hubbub.core.session import ConnectionState
from hubbub.core.wheel import Wheel
from hubbub.errors import RequestError, StoreError
from hubbub.node.access import Access, Action, Lease, Rules
from hubbub.node.errands import Errands
from hubbub.node.interest import Interest
from hubbub.node.replay import CatchUp, Replays

if TYPE_CHECKING:
    from hubbub.core.identity import Place
    from hubbub.core.recovery import Publication
    from hubbub.node.connection import Connection
    from hubbub.node.node import Node

__all__ = ["PAGE", "Subscriptions"]

logger = logging.getLogger("hubbub.subscriptions")

PAGE = 300
"""Publications of one recovery or history page, at most."""
AGAIN = 1.0
"""Seconds until the broker is asked again for channels that it did not give."""
TRIES = 3
"""How often the app is asked about one subscription whose rights change meanwhile."""


class Subscriptions:
    """The subscriptions of a node's connections.

    Args:
        node: whose connections.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self.namespaces = Namespaces()
        self.rules = Rules()
        self.reset()

    def reset(self) -> None:
        """Have nobody."""
        self.replays = Replays(self._go_live, self._read)
        self._interest = Interest(self._follow, self._unfollow, self._wants)
        self._catch_ups: dict[str, dict[Connection, CatchUp]] = {}
        self._waiting: dict[Connection, set[str]] = {}
        self._leases: Wheel[tuple[str, str]] = Wheel(1.0)
        self._errands = Errands(logger)
        self._rechecked = 0
        self._deaf: set[str] = set()  # channels with subscribers of which we could not be told
        self._again = 0.0

    # Asking

    def find(self, channel: str) -> Namespace:
        """The namespace of a channel; see `Namespaces.find`."""
        return self.namespaces.find(channel, self._node.limits.channel_name)

    def has(self, connection: Connection, channel: str) -> bool:
        """Whether a connection is a subscriber, or about to be."""
        found = self._node.channels.get(channel)
        return (found is not None and connection.outbox in found.members) or self._catch_up(
            connection, channel
        ) is not None

    def channels(self, connection: Connection) -> tuple[str, ...]:
        """What a connection is subscribed to, or about to be."""
        return (*connection.channels, *self._waiting.get(connection, ()))

    async def permit(self, action: Action, connection: Connection, channel: str) -> Lease | None:
        """Let the app decide.

        Raises:
            RequestError: `forbidden`, `bad_channel`, or what the app says.
        """
        namespace = self.find(channel)
        if namespace.personal and channel.partition(":")[2] != connection.user_id:
            raise RequestError("forbidden", "This channel is another user's.", "channel")
        return await self.rules.ask(Access(action, channel, connection))

    async def past(self, connection: Connection, channel: str, since: Position | None, limit: int) -> Past:
        """A page of a channel's history, for a client."""
        await self.permit("history", connection, channel)
        return await self._node.broker.past(self.find(channel), channel, since, min(limit, PAGE), _now())

    # Subscribing

    async def subscribe(self, connection: Connection, channel: str, since: Position | None) -> dict[str, Any]:
        """Subscribe a client that asks; the answer, behind which what it missed follows.

        Raises:
            RequestError: `bad_channel`, `forbidden`, `channel_limit`, `channel_full`.
        """
        for _ in range(TRIES):
            before = self._rechecked
            self.check(connection, channel)
            lease = await self.permit("subscribe", connection, channel)
            answer = await self.add(connection, channel, since, lease)
            if self._rechecked == before:
                return answer
            self.remove(connection, channel)  # rights have changed since the app was asked
        raise RequestError("forbidden", "The rights on this channel change all the time.", "channel")

    async def add(
        self, connection: Connection, channel: str, since: Position | None = None, lease: Lease | None = None
    ) -> dict[str, Any]:
        """Subscribe without asking the app; the payload of `subscribed`."""
        namespace = self.check(connection, channel)
        if lease is not None:
            self._leases.add((connection.id, channel), monotonic() + lease.recheck)
        while (underway := self._catch_up(connection, channel)) is not None and not underway.begun.is_set():
            await underway.begun.wait()  # or who asks would be told that it has what it has not yet
        if self.has(connection, channel):
            return {"channel": channel}
        if not namespace.remembers:
            sees = await self._node.presence.look(connection, namespace, channel)
            await self._hear(channel)
            present = self._node.presence.answer(connection, namespace, channel, sees)
            if not self.join(connection, channel):
                self._lose_interest(channel)
            return {"channel": channel, **present}
        return await self._replay(connection, namespace, channel, since)

    async def _replay(
        self, connection: Connection, namespace: Namespace, channel: str, since: Position | None
    ) -> dict[str, Any]:
        catch_up = CatchUp(connection, channel)
        self._catch_ups.setdefault(channel, {})[connection] = catch_up
        self._waiting.setdefault(connection, set()).add(channel)
        try:
            sees = await self._node.presence.look(connection, namespace, channel)
            await self._hear(channel)
            wanted = since if namespace.recover else None
            past, recovered = await self._missed(namespace, channel, wanted)
        except BaseException:
            self._close(catch_up)
            raise
        if connection.state is not ConnectionState.OPEN:
            self._close(catch_up)
        elif catch_up.closed:
            raise RequestError("forbidden", "The server ended this subscription while it began.", "channel")
        head, missed = past.head, past.publications
        if catch_up.dropped > head.offset:
            head, missed, recovered = head._replace(offset=catch_up.dropped), [], False
        self.replays.open_soon(catch_up, missed, head)
        offset, epoch = head
        present = self._node.presence.answer(connection, namespace, channel, sees)
        return {"channel": channel, "offset": offset, "epoch": epoch, "recovered": recovered, **present}

    async def _missed(self, namespace: Namespace, channel: str, since: Position | None) -> tuple[Past, bool]:
        """What a new subscriber is sent of the past, and whether that is all it missed."""
        broker = self._node.broker
        if since is not None:
            past = await broker.past(namespace, channel, since, PAGE, _now())
            if past.complete and _reaches_head(past):
                return past, True
        if since is None or namespace.latest:
            past = await broker.past(namespace, channel, None, 1, _now())
        return past if namespace.latest else replace(past, publications=[]), False

    async def _read(self, channel: str, since: Position) -> Past:
        """A page of what is behind a position, for a subscriber that reads the past slowly."""
        return await self._node.broker.past(self.find(channel), channel, since, PAGE, _now())

    def _go_live(self, catch_up: CatchUp) -> None:
        """Join when the past is on its way."""
        self._close(catch_up)
        self.join(catch_up.connection, catch_up.channel)

    def join(self, connection: Connection, channel: str) -> bool:
        """Make an open connection a subscriber here and now; False if it was one."""
        if connection.state is ConnectionState.OPEN:
            self._node.delivery.drain(connection.outbox)  # which may be one message too many
        if connection.state is not ConnectionState.OPEN:
            self._node.presence.ended(connection, channel, subscribed=False)  # it began with the answer
            return False
        first, namespace = self._node.channels.get(channel) is None, self.find(channel)
        if not self._node.channels.subscribe(connection.outbox, channel, namespace.slow, bool(namespace.presence)):
            return False
        self._node.presence.began(connection, connection.outbox.channels[-1])
        self._began(connection, channel, first)
        return True

    def check(self, connection: Connection, channel: str) -> Namespace:
        """Whether there is room for one more subscription; the channel's namespace.

        Raises:
            RequestError: `bad_channel`, `channel_limit` or `channel_full`.
        """
        namespace = self.find(channel)
        if self.has(connection, channel):
            return namespace
        most = self._node.limits.channels
        if len(connection.outbox.channels) + len(self._waiting.get(connection, ())) >= most:
            raise RequestError("channel_limit", f"One connection may have {most} channels.", "channel")
        found = self._node.channels.get(channel)
        if namespace.max_subscribers is not None and found and len(found.members) >= namespace.max_subscribers:
            raise RequestError("channel_full", f"A channel has {namespace.max_subscribers} subscribers.", "channel")
        return namespace

    async def give(self, connection: Connection, channel: str) -> bool:
        """Subscribe a client that did not ask, and tell it; False if it was a subscriber.

        Raises:
            RequestError: `bad_channel`, `channel_limit` or `channel_full`.
        """
        if self.has(connection, channel):
            return False
        connection.send("subscribed", await self.add(connection, channel))
        return True

    def identified(self, connection: Connection, before: str | None) -> None:
        """Exchange the personal channels of the user before for the present one's, and ask again about all others."""
        if connection.state is not ConnectionState.OPEN:
            return
        kept = self.channels(connection)
        places = connection.identity.resume if before is None and connection.identity is not None else ()
        restored = {channel for channel, _ in places}
        if places:
            self._errands.spawn(self.restore(connection, places))
        for namespace in self.namespaces.personal():
            if before is not None:
                self.remove(connection, f"{namespace.name}:{before}")
            channel = f"{namespace.name}:{connection.user_id}"
            if connection.user_id is not None and channel not in restored:
                self._errands.spawn(self._give_personal(connection, channel))
        if kept:
            self._errands.spawn(self.recheck(connection, kept))

    async def _give_personal(self, connection: Connection, channel: str) -> None:
        try:
            await self.give(connection, channel)
        except (RequestError, StoreError) as error:
            logger.warning("no personal channel for %r: %s", connection, error)

    # Leaving

    def remove(self, connection: Connection, channel: str) -> bool:
        """End a subscription; False if there was none."""
        if connection.state is ConnectionState.CONNECTING:
            return False
        catch_up = self._catch_up(connection, channel)
        if catch_up is not None:
            self._close(catch_up)
        self._node.delivery.drain(connection.outbox)
        found = self._node.channels.get(channel)
        if found is not None and self._node.channels.unsubscribe(connection.outbox, channel):
            self._node.presence.ended(connection, channel, subscribed=found.present)
            self._ended(connection, channel)
            return True
        self._node.presence.ended(connection, channel, subscribed=False)
        return catch_up is not None

    def left(self, connection: Connection) -> None:
        """End all subscriptions of a connection that says goodbye."""
        for channel in list(self._waiting.get(connection, ())):
            self._close(self._catch_ups[channel][connection])
            self._node.presence.ended(connection, channel, subscribed=False)
        channels = connection.outbox.channels
        self._node.channels.leave_all(connection.outbox)
        for found in channels:  # before a hook can ask who is there
            self._node.presence.ended(connection, found.name, subscribed=found.present)
        for found in channels:
            self._ended(connection, found.name)

    def _began(self, connection: Connection, channel: str, first: bool) -> None:
        """Take note of a subscription; `first` on this node."""
        self._node.streams.joined(connection, channel)
        self._node.mirrors.joined(connection, channel)
        hooks = self._node.dispatcher.hooks
        if first:
            hooks.tell("occupied", channel)
            if self._node.broker.shared and channel not in self._interest:
                self._errands.spawn(self._listen(channel))
        if "subscribe" in hooks:
            hooks.run("subscribe", connection, channel)

    def _ended(self, connection: Connection, channel: str) -> None:
        """Take note of the end of a subscription."""
        self._node.streams.left(connection, channel)
        self._node.mirrors.left(connection, channel)
        hooks = self._node.dispatcher.hooks
        if "unsubscribe" in hooks:
            hooks.run("unsubscribe", connection, channel)
        if self._node.channels.get(channel) is None:
            hooks.tell("vacated", channel)
            self._lose_interest(channel)

    # A node that goes, and one that its clients come to

    def places(self, connection: Connection) -> tuple[Place, ...] | None:
        """A connection's subscriptions, and how far it was told of each; None while it reads the past of one."""
        if connection in self._waiting:
            return None
        broker = self._node.broker
        return tuple((channel, broker.position(self.find(channel), channel)) for channel in connection.channels)

    async def restore(self, connection: Connection, places: Iterable[Place]) -> None:
        """Subscribe a client again where it was on another node, if it still may, and tell it."""
        for channel, since in places:
            if connection.state is not ConnectionState.OPEN:
                return
            try:
                answer = await self.subscribe(connection, channel, since)
            except RequestError as error:
                connection.send("unsubscribed", {"channel": channel, "code": error.code})
            except StoreError as error:
                logger.warning("the subscription of %r to %r is not restored: %s", connection, channel, error)
                connection.send("unsubscribed", {"channel": channel, "code": StoreError.code})
            else:
                connection.send("subscribed", answer)

    # Publications

    def published(self, channel: str, publication: Publication) -> None:
        """Keep a live publication for those who still read the past."""
        for catch_up in self._catch_ups.get(channel, {}).values():
            catch_up.hold(publication)

    # Rights that change

    def beat(self, now: float) -> None:
        """Ask again about subscribers whose lease has ended, `now` in monotonic seconds."""
        self.replays.forget()
        if self._deaf and now >= self._again:
            self._again = now + AGAIN
            deaf, self._deaf = self._deaf, set()
            for channel in filter(self._wants, deaf):
                self._errands.spawn(self._listen(channel))
        for connection_id, channel in self._leases.turn(now):
            connection = self._node.registry.get(connection_id)
            if connection is not None and self.has(connection, channel):
                self._errands.spawn(self.recheck(connection, [channel]))

    def note_recheck(self) -> None:
        """Take note that rights have changed: who is just being asked about is asked about again."""
        self._rechecked += 1

    async def recheck(self, connection: Connection, channels: Iterable[str]) -> None:
        """Ask again whether a subscriber may stay, and send it away if not."""
        for channel in channels:
            try:
                lease = await self.permit("subscribe", connection, channel)
            except RequestError as error:
                if self.remove(connection, channel):
                    connection.send("unsubscribed", {"channel": channel, "code": error.code})
            else:
                if lease is not None:
                    self._leases.add((connection.id, channel), monotonic() + lease.recheck)
                await self._node.presence.recheck(connection, channel)

    def catching_up(self, channel: str) -> Iterable[Connection]:
        """Who still reads the past of a channel."""
        return self._catch_ups.get(channel, ())

    def subscribers(self, channel: str) -> list[Connection]:
        """Who is subscribed to a channel here, or about to be."""
        found = self._node.channels.get(channel)
        members = [] if found is None else [outbox.connection for outbox in found.members]
        return [*members, *self._catch_ups.get(channel, ())]

    def stop(self) -> None:
        """Ask and replay no more."""
        self._interest.forget()
        self.replays.stop()
        self._errands.stop()

    # Inside

    async def _follow(self, channel: str) -> None:
        await self._node.broker.subscribe(self.find(channel), channel)

    async def _unfollow(self, channel: str) -> None:
        await self._node.broker.unsubscribe(channel)

    def _wants(self, channel: str) -> bool:
        return self._node.channels.get(channel) is not None or channel in self._catch_ups

    async def _hear(self, channel: str) -> None:
        """Be told of a channel; a broker that has no other nodes tells of all."""
        if self._node.broker.shared:
            await self._interest.begin(channel)

    async def _listen(self, channel: str) -> None:
        """Be told of a channel that has subscribers already, as soon as the broker can be reached."""
        self._deaf.add(channel)
        await self._interest.begin(channel)
        self._deaf.discard(channel)

    def _lose_interest(self, channel: str) -> None:
        if self._node.broker.shared and not self._wants(channel):
            self._errands.spawn(self._interest.end(channel))

    def _catch_up(self, connection: Connection, channel: str) -> CatchUp | None:
        return self._catch_ups.get(channel, {}).get(connection)

    def _close(self, catch_up: CatchUp) -> None:
        connection, channel = catch_up.connection, catch_up.channel
        if catch_up.closed:
            return
        catch_up.closed = True
        catch_up.begun.set()
        del self._catch_ups[channel][connection]
        if not self._catch_ups[channel]:
            del self._catch_ups[channel]
            self._lose_interest(channel)  # unless it joins now
        self._waiting[connection].discard(channel)
        if not self._waiting[connection]:
            del self._waiting[connection]


def _reaches_head(past: Past) -> bool:
    """Whether it is all there is, not only the first page of it."""
    return not past.publications or past.publications[-1].offset == past.head.offset


def _now() -> int:
    return time.time_ns() // 1_000_000
