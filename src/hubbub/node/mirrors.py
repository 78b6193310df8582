"""Streams that run on other nodes, for the subscribers of this one.

Rules of this file:
1. A node says on which channels its streams run. Another node that has a subscriber there follows the stream, asks once
   for the whole, and goes on with what is told behind it; a message that is not the next one makes it ask again.
2. A subscriber that comes late, or reads slowly, is given the whole in one: `start` takes the place of what it has.
3. The producer waits for the slow subscribers of its own node only.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from hubbub.core.bus import ALL, Cancel, Ran, Runs, Streamed, Whole, stream_topic
from hubbub.core.streams import Copy, StreamMessage
from hubbub.errors import StoreError
from hubbub.node.batch import join_stream

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hubbub.node.connection import Connection
    from hubbub.node.node import Node
    from hubbub.node.outbox import Outbox

__all__ = ["Mirrors"]

_messages = msgspec.json.Decoder(list[StreamMessage])


class Mirror:
    """One stream of another node.

    Attributes:
        peer: the node.
        copy: what it has said, None until that is known.
        held: what was told meanwhile.
        newcomers: subscribers that are to be given the whole.
    """

    def __init__(self, channel: str, peer: str) -> None:
        self.channel = channel
        self.peer = peer
        self.copy: Copy | None = None
        self.held: list[StreamMessage] = []
        self.newcomers: dict[Outbox, None] = {}
        self.asking = False


class Mirrors:
    """The streams of other nodes that somebody here is subscribed to.

    Args:
        node: whose subscribers.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self.reset()

    def reset(self) -> None:
        """Know of none."""
        self._abroad: dict[str, str] = {}
        self._mirrors: dict[str, Mirror] = {}

    # What this node says of its own

    def say(self, channel: str, messages: list[StreamMessage]) -> None:
        """Pass on what a stream of this node says."""
        self._node.cluster.say(stream_topic(channel), Streamed(channel, msgspec.json.encode(messages)))

    def began(self, channels: list[str], *, to: str = ALL) -> None:
        """Tell other nodes that streams run on these channels."""
        if channels:
            self._node.cluster.say(to, Runs(self._node.cluster.id, channels))

    def ended(self, channel: str) -> None:
        """Tell them that nothing is left of one."""
        self._node.cluster.say(ALL, Ran(self._node.cluster.id, [channel]))

    # What other nodes say

    def runs(self, peer: str, channels: Iterable[str]) -> None:
        """Learn that streams run on another node."""
        for channel in channels:
            self._drop(channel)
            self._abroad[channel] = peer
            found = self._node.channels.get(channel)
            for outbox in list(found.members) if found is not None else ():
                self._welcome_soon(channel, outbox)

    def ran(self, peer: str, channels: Iterable[str]) -> None:
        """Learn that nothing is left of them."""
        for channel in channels:
            if self._abroad.get(channel) == peer:
                del self._abroad[channel]
                self._drop(channel)

    def gone(self, peer: str) -> None:
        """End the streams of a node that is gone."""
        for channel in [channel for channel, each in self._abroad.items() if each == peer]:
            mirror = self._mirrors.get(channel)
            if mirror is not None and mirror.copy is not None and not mirror.copy.ended:
                self._tell(mirror, [mirror.copy.fail()])
            self.ran(peer, [channel])

    def told(self, channel: str, data: bytes) -> None:
        """Pass on what a stream says.

        Raises:
            ValueError: no node says that.
        """
        mirror, messages = self._mirrors.get(channel), _messages.decode(data)
        if mirror is None:
            return
        mirror.held += messages
        if mirror.copy is not None:
            self._take_held(mirror, mirror.copy)

    # Subscribers

    def joined(self, connection: Connection, channel: str) -> None:
        """Give a new subscriber the whole."""
        if channel in self._abroad:
            self._welcome_soon(channel, connection.outbox)

    def left(self, connection: Connection, channel: str) -> None:
        """Forget a subscriber, and the stream with the last one."""
        mirror = self._mirrors.get(channel)
        if mirror is not None:
            mirror.newcomers.pop(connection.outbox, None)
            if self._node.channels.get(channel) is None:
                self._drop(channel)

    def runs_abroad(self, channel: str) -> bool:
        """Whether a stream runs, or ran a moment ago, on another node."""
        return channel in self._abroad

    async def cancel(self, channel: str, stream_id: str | None) -> None:
        """Ask the node on which a stream runs to end it."""
        await self._node.cluster.ask(Cancel(channel, stream_id), only=self._abroad.get(channel, ""))

    # Inside

    def _welcome_soon(self, channel: str, outbox: Outbox) -> None:
        mirror = self._mirrors.get(channel)
        if mirror is None:
            mirror = self._mirrors[channel] = Mirror(channel, self._abroad[channel])
        mirror.newcomers[outbox] = None
        if mirror.copy is None:
            self._ask(mirror)
        else:
            asyncio.get_running_loop().call_soon(self._welcome, mirror)

    def _welcome(self, mirror: Mirror) -> None:
        if mirror.copy is None or not mirror.newcomers or self._mirrors.get(mirror.channel) is not mirror:
            return
        batch = join_stream(mirror.copy.whole())
        for outbox in list(mirror.newcomers):
            if outbox.full:
                self._node.cluster.spawn(self._welcome_slowly(mirror, outbox))
            else:
                del mirror.newcomers[outbox]
                self._node.delivery.drain(outbox)
                if outbox.connection.is_open:
                    outbox.put(batch.data(outbox.transport.form))

    async def _welcome_slowly(self, mirror: Mirror, outbox: Outbox) -> None:
        await outbox.room()
        self._welcome(mirror)

    def _take_held(self, mirror: Mirror, copy: Copy) -> None:
        held, mirror.held = mirror.held, []
        fresh: list[StreamMessage] = []
        for message in held:
            if copy.take(message):
                fresh.append(message)
            elif not copy.knows(message):
                mirror.copy = None
                self._ask(mirror)
                break
        if fresh and mirror.copy is not None:
            self._tell(mirror, fresh)
        elif mirror.copy is None:
            found = self._node.channels.get(mirror.channel)
            mirror.newcomers |= dict.fromkeys(found.members if found is not None else ())

    def _tell(self, mirror: Mirror, messages: list[StreamMessage]) -> None:
        found = self._node.channels.get(mirror.channel)
        batch = join_stream(messages)
        for outbox in [] if found is None else [each for each in found.members if each not in mirror.newcomers]:
            if outbox.full:
                mirror.newcomers[outbox] = None
                self._node.cluster.spawn(self._welcome_slowly(mirror, outbox))
            else:
                self._node.delivery.drain(outbox)
                if outbox.connection.is_open:
                    outbox.put(batch.data(outbox.transport.form))

    def _ask(self, mirror: Mirror) -> None:
        if not mirror.asking:
            mirror.asking = True
            self._node.cluster.spawn(self._fetch(mirror))

    async def _fetch(self, mirror: Mirror) -> None:
        """Follow a stream and ask for the whole of it."""
        node, channel = self._node, mirror.channel
        try:
            await node.broker.follow(stream_topic(channel))
            [whole] = await node.cluster.ask(Whole(channel), only=mirror.peer) or [None]
        except StoreError:
            whole = None
        mirror.asking = False
        if self._mirrors.get(channel) is not mirror:
            return
        if whole is None:
            self.ran(mirror.peer, [channel])  # it is over, or its node will say that it is there
            return
        mirror.copy = Copy(_messages.decode(whole))
        self._take_held(mirror, mirror.copy)
        self._welcome(mirror)

    def _drop(self, channel: str) -> None:
        if self._mirrors.pop(channel, None) is not None:
            self._node.cluster.spawn(self._unfollow(channel))

    async def _unfollow(self, channel: str) -> None:
        if channel not in self._mirrors:
            await self._node.broker.unfollow(stream_topic(channel))
