"""What a hub does with channels: their kinds, who may use them, what is published on them, what they remember."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from hubbub.core.bus import Recheck, Subscribe, Unsubscribe
from hubbub.core.labels import check_text
from hubbub.core.namespaces import Namespace, NamespaceOptions
from hubbub.core.records import Record
from hubbub.core.recovery import Past, Position
from hubbub.errors import RequestError, UsageError
from hubbub.node.connection import Connection
from hubbub.node.presence import Present
from hubbub.node.receipt import Receipt
from hubbub.node.routing import Handler
from hubbub.node.streams import KEPT, LIMIT, PATIENCE, Stream

if TYPE_CHECKING:
    from hubbub.node.node import Node

__all__ = ["ChannelMethods"]

F = TypeVar("F", bound=Handler)


class ChannelMethods:
    """The methods of `Hub` that are about channels."""

    node: Node

    def _here(self) -> Node:
        """The node, if it may be used from here."""
        raise NotImplementedError

    # What there is

    def namespace(self, name: str, **options: Unpack[NamespaceOptions]) -> Namespace:
        """Declare a kind of channels: `room` for `room:42`; `*` for all that have no other.

        Args:
            name: what stands before the first colon of their names.
            options: see `Namespace`.

        Raises:
            ConfigError: it is declared already, or an option is not allowed.
        """
        namespace = Namespace(name, **options)
        self.node.subscriptions.namespaces.declare(namespace)
        return namespace

    def channel(self, pattern: str) -> Callable[[F], F]:
        """Decide who may do what on some channels, by `f(access, **parameters)`; `doc:{id}` has the parameter `id`.

        The function is asked before a client subscribes, publishes, reads history or presence, or cancels a
        stream. It returns True, False, or a `Lease`: yes, and ask me again then. It is plain or `async def`.

        Args:
            pattern: a channel's name with parameters in braces; their types are the function's annotations.

        Raises:
            ConfigError: the function does not take the pattern's parameters, or no channel has such a name.
            UsageError: the pattern is no text, as where `@hub.channel` stands without one.
        """
        check_text(pattern, 'A pattern, as in @hub.channel("room:{id}"),')

        def register(function: F) -> F:
            self.node.subscriptions.rules.add(pattern, function)
            return function

        return register

    async def subscribe(self, who: Connection | str, channel: str) -> int:
        """Subscribe a connection, or all of a user's, without asking the app's rules; they are told.

        Returns:
            How many were not subscribed before.

        Raises:
            RequestError: `bad_channel`, `channel_limit` or `channel_full`.
        """
        node = self._here()
        node.subscriptions.find(channel)  # also where nobody is there
        return await node.cluster.everywhere(Subscribe(*_meant(who), channel))

    async def unsubscribe(self, who: Connection | str, channel: str) -> int:
        """End the subscription of a connection, or of all of a user's; they are told. How many there were."""
        return await self._here().cluster.everywhere(Unsubscribe(*_meant(who), channel))

    async def recheck(self, *, channel: str | None = None, user_id: str | None = None) -> None:
        """Ask the app's rules again, now, about the subscribers of a channel or the subscriptions of a user.

        Raises:
            RequestError: `bad_channel`.
            UsageError: neither is given, or a user's id that is no text.
        """
        node = self._here()
        if channel is None and user_id is None:
            raise UsageError("Recheck either a channel, `channel=`, or a user, `user_id=`.")
        if channel is not None:
            node.subscriptions.find(channel)
        if user_id is not None:
            check_text(user_id, "A user's id")
        await node.cluster.everywhere(Recheck(channel, user_id))

    async def history(self, channel: str, since: Position | None = None, limit: int = 100) -> Past:
        """What a channel remembers: the latest publications, or those behind a position."""
        node = self._here()
        return await node.broker.past(node.subscriptions.find(channel), channel, since, limit, _now())

    async def archived(
        self, channel: str, limit: int = 100, *, after: Position | None = None, since: int = 0, back: bool = False
    ) -> list[Record]:
        """Publications of a channel with an archive, oldest first; all that were published before are there.

        Args:
            channel: its name.
            limit: how many at most.
            after: go on behind the publication of this offset and epoch: the last one of the page before.
            since: when the first was published, or later, in milliseconds since 1970.
            back: read towards the past: the latest ones, or those before `after`: the first one of the page before.

        Raises:
            RequestError: `bad_channel`: not a channel, or one without an archive.
            StoreError: the database is out of reach.
        """
        return await self._here().archiver.read(channel, limit, after, since, back)

    async def presence(self, channel: str) -> list[Present]:
        """Who is subscribed to a channel whose namespace keeps presence, oldest first, with their connections.

        Raises:
            RequestError: `bad_channel`: not a channel, or one without presence.
        """
        node = self._here()
        if not node.subscriptions.find(channel).presence:
            raise RequestError("bad_channel", "This channel keeps no presence.", "channel")
        await node.cluster.met()
        return node.presence.members(channel)

    async def purge(self, channel: str) -> None:
        """Forget a channel's history; clients that come back are told that it is not complete.

        Raises:
            RequestError: `bad_channel`.
        """
        node = self._here()
        node.subscriptions.find(channel)
        await node.broker.purge(channel)

    def on_subscribe(self, function: F) -> F:
        """Call `f(conn, channel)` when a connection has become a subscriber."""
        self.node.dispatcher.hooks.add("subscribe", function)
        return function

    def on_unsubscribe(self, function: F) -> F:
        """Call `f(conn, channel)` when a connection is a subscriber no more."""
        self.node.dispatcher.hooks.add("unsubscribe", function)
        return function

    def on_occupied(self, function: F) -> F:
        """Call `f(channel)` when a channel has its first subscriber on this node."""
        self.node.dispatcher.hooks.add_about("occupied", function)
        return function

    def on_vacated(self, function: F) -> F:
        """Call `f(channel)` when a channel has lost its last subscriber on this node."""
        self.node.dispatcher.hooks.add_about("vacated", function)
        return function

    def listen(self, pattern: str) -> Callable[[F], F]:
        """Call a plain `f(channel, data)` for every publication on channels that fit `room:*`; at most once.

        Raises:
            ConfigError: the function does not take these two, or is `async def`.
            UsageError: the pattern is no text, as where `@hub.listen` stands without one.
        """
        check_text(pattern, 'A pattern, as in @hub.listen("room:*"),')

        def register(function: F) -> F:
            self.node.publishing.listen(pattern, function)
            return function

        return register

    # Publishing

    async def publish(
        self,
        channel: str,
        event: str | None,
        data: Any = None,
        *,
        key: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Receipt:
        """Send `message {channel, event, data}` to every subscriber of a channel.

        Args:
            channel: the channel's name; its namespace must be declared.
            event: what happened, in a word; None for none.
            data: anything with a JSON form.
            key: your name for this publication: with the same key it is published once in 120 s.
            tags: what else there is to say, as short texts by name.

        Returns:
            With the offset and epoch where the channel has a history: it is remembered by then.

        Raises:
            RequestError: `bad_channel`.
            StoreError: it is not remembered for sure.
        """
        node = self._here()
        namespace = node.subscriptions.find(channel)
        place = await node.publishing.publish(namespace, channel, event, data, key=key, tags=tags)
        found = node.channels.get(channel)
        count = 0 if found is None else len(found.members)
        return Receipt(count, False, None, *(place if namespace.remembers else ()))

    def stream(self, channel: str, *, limit: int = LIMIT, ttl: float = KEPT, patience: float = PATIENCE) -> Stream:
        """Tell subscribers something that grows: `async with hub.stream("run:42") as s: await s.append("Hi")`.

        Who comes late, or comes back, gets all there is so far, then goes on live. A subscriber may `cancel`: the block
        ends by `CancelledError`, which does not leave it. It lives in this process, and ends with it.

        Args:
            channel: the channel's name; its namespace must be declared.
            limit: bytes of JSON of all its text and its latest progress.
            ttl: seconds for which who comes late still gets it behind its end.
            patience: seconds that the producer waits for one subscriber that reads slowly, in all.

        Raises:
            RequestError: `bad_channel`.
            UsageError: on `async with`: a stream is running on this channel, or the hub stops.
        """
        node = self._here()
        node.subscriptions.find(channel)
        return Stream(node, channel, limit, ttl, patience)


def _meant(who: Connection | str) -> tuple[str | None, str | None]:
    """A user's id, or a connection's."""
    return (None, who.id) if isinstance(who, Connection) else (check_text(who, "A user's id"), None)


def _now() -> int:
    return time.time_ns() // 1_000_000
