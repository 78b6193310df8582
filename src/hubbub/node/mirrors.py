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
from hubbub.node.interest import Interest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hubbub.node.batch import Batch
    from hubbub.node.connection import Connection
    from hubbub.node.node import Node
    from hubbub.node.outbox import Outbox

__all__ = ["Mirrors"]

AGAIN = 0.5  # seconds to wait for a broker that is out of reach

_messages = msgspec.json.Decoder(list[StreamMessage])


class Mirror:
    """One stream of another node.

    Attributes:
        peer: the node.
        copy: what it has said, None until that is known.
        asking: whether it is asked for the whole: then something may be missing in the copy.
        held: what was told meanwhile.
        newcomers: subscribers that are to be given the whole.
        slow: those of them that have much to read: each is waited for, once.
    """

    def __init__(self, channel: str, peer: str) -> None:
        self.channel = channel
        self.peer = peer
        self.copy: Copy | None = None
        self.held: list[StreamMessage] = []
        self.newcomers: dict[Outbox, None] = {}
        self.slow: set[Outbox] = set()
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
        self._interest = Interest(self._follow, self._unfollow, self._wants)

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
            self._abroad[channel] = peer
            self._node.streams.give_way(channel)
            before = self._mirrors.get(channel)
            if self._node.channels.get(channel) is not None:
                mirror = self._mirrors[channel] = Mirror(channel, peer)
                mirror.copy = None if before is None else before.copy  # it may be the same stream
                self._ask_anew(mirror)

    def ran(self, peer: str, channels: Iterable[str]) -> None:
        """Learn that nothing is left of them."""
        for channel in channels:
            if self._abroad.get(channel) == peer:
                del self._abroad[channel]
                self._fail(self._mirrors.get(channel))
                self._drop(channel)

    def gone(self, peer: str) -> None:
        """End the streams of a node that is gone."""
        for channel in [channel for channel, each in self._abroad.items() if each == peer]:
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
        if mirror.copy is not None and not mirror.asking:
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

    async def cancel(self, channel: str, stream_id: str | None) -> str | None:
        """Ask the node on which a stream runs to end it; the id of what was ended there."""
        answers = await self._node.cluster.ask(Cancel(channel, stream_id), only=self._abroad.get(channel, ""))
        return next((id for id in answers if isinstance(id, str)), None)

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
        """Give newcomers the whole, if it is known, and still the latest that was heard of on this channel."""
        if mirror.copy is None or mirror.asking or self._mirrors.get(mirror.channel, mirror) is not mirror:
            return
        newcomers = [outbox for outbox in mirror.newcomers if outbox not in mirror.slow]
        if newcomers:
            batch = join_stream(mirror.copy.whole())
            for outbox in newcomers:
                del mirror.newcomers[outbox]
                self._put(mirror, outbox, batch)

    async def _welcome_slowly(self, mirror: Mirror, outbox: Outbox) -> None:
        try:
            await outbox.room()
        finally:
            mirror.slow.discard(outbox)
        self._welcome(mirror)

    def _put(self, mirror: Mirror, outbox: Outbox, batch: Batch) -> None:
        """Send to a subscriber; one that has much to read is given the whole later."""
        found = self._node.channels.get(mirror.channel)
        if found is None or outbox not in found.members:
            return  # it left when the stream was over
        if outbox.full:
            mirror.newcomers[outbox] = None
            mirror.slow.add(outbox)
            self._node.cluster.spawn(self._welcome_slowly(mirror, outbox))
            return
        self._node.delivery.drain(outbox)
        if outbox.connection.is_open:
            outbox.put(batch.data(outbox.transport.form))

    def _take_held(self, mirror: Mirror, copy: Copy) -> None:
        held, mirror.held = mirror.held, []
        fresh: list[StreamMessage] = []
        for message in held:
            if copy.take(message):
                fresh.append(message)
            elif not copy.knows(message):
                self._ask_anew(mirror)
                return
        if fresh:
            self._tell(mirror, fresh)

    def _tell(self, mirror: Mirror, messages: list[StreamMessage]) -> None:
        batch = join_stream(messages)
        for outbox in [each for each in self._members(mirror) if each not in mirror.newcomers]:
            self._put(mirror, outbox, batch)

    def _fail(self, mirror: Mirror | None) -> None:
        """Let a stream end of which nothing more will come."""
        if mirror is not None and mirror.copy is not None and not mirror.copy.ended:
            self._tell(mirror, [mirror.copy.fail()])
            mirror.asking = False
            self._welcome(mirror)

    def _ask_anew(self, mirror: Mirror) -> None:
        """Ask for the whole on behalf of all subscribers: what they have may be out of date."""
        mirror.newcomers |= dict.fromkeys(self._members(mirror))
        self._ask(mirror)

    def _ask(self, mirror: Mirror) -> None:
        if not mirror.asking:
            mirror.asking = True
            self._node.cluster.spawn(self._fetch(mirror))

    async def _fetch(self, mirror: Mirror) -> None:
        """Follow a stream and ask for the whole of it, until its node answers or is gone."""
        cluster, channel = self._node.cluster, mirror.channel
        answers: list[bytes | None] = []
        while not answers and self._mirrors.get(channel) is mirror and mirror.peer in cluster.peers:
            mirror.held.clear()  # the whole will contain it
            try:
                await self._interest.begin(channel)
                answers = await cluster.ask(Whole(channel), only=mirror.peer)
            except StoreError:
                await asyncio.sleep(AGAIN)
        if self._mirrors.get(channel) is not mirror:
            return
        whole = answers[0] if answers else None
        if whole is None:
            self.ran(mirror.peer, [channel])  # it is over, or its node will say that it is there
            return
        mirror.asking = False
        mirror.copy = Copy(_messages.decode(whole))
        self._take_held(mirror, mirror.copy)
        self._welcome(mirror)

    def _members(self, mirror: Mirror) -> list[Outbox]:
        found = self._node.channels.get(mirror.channel)
        return [] if found is None else list(found.members)

    def _drop(self, channel: str) -> None:
        if self._mirrors.pop(channel, None) is not None:
            self._node.cluster.spawn(self._interest.end(channel))

    def _wants(self, channel: str) -> bool:
        return channel in self._mirrors

    async def _follow(self, channel: str) -> None:
        await self._node.broker.follow(stream_topic(channel))

    async def _unfollow(self, channel: str) -> None:
        await self._node.broker.unfollow(stream_topic(channel))
