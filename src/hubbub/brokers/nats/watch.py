"""Channels that have a subscriber here: told of in order and without gaps, whatever becomes of the server's copies.

Rules of this file:
1. A channel is listened to before its head is read, on one connection: what is stored later is told or shows as a gap.
2. The server sends its copies of publications at most once. The heads of all channels are compared with the leader's
   every `OFTEN` seconds, soon after the first subscription, and at once after the connection was lost.
3. What was missed is read from the stream before anything behind it is passed on; where it is there no more, or the
   stream has another epoch, the channel is broken and begins anew.
4. Whoever comes back is answered up to where the channel's subscribers here were told, and goes on with them from
   there. Many of them wait for one reading.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from contextvars import Context
from time import monotonic, time_ns
from typing import Any

from hubbub.brokers.nats.body import decode_body, field, milliseconds
from hubbub.brokers.nats.history import Found, Histories
from hubbub.brokers.nats.link import PATIENCE, Link
from hubbub.brokers.nats.streams import Stream, Streams
from hubbub.brokers.nats.wire import Message, Subscription
from hubbub.contracts import BrokerReceiver
from hubbub.core.namespaces import Namespace
from hubbub.core.recovery import Past, Position, Publication
from hubbub.core.tails import Tail
from hubbub.errors import StoreError, StoreUnavailable

__all__ = ["Watch"]

logger = logging.getLogger("hubbub.broker")

OFTEN, SOON = 10.0, 1.0
PAGE = 300
MOST_HELD = 1024
MOST_MISSES = 3
WIDE = 1024
MOST = 1 << 62
ANEW = "The stream of this channel begins anew: try again."
BEHIND = "This node was told less of this channel than another: try again."


class Watched:
    """One channel with a history that has a subscriber here.

    Attributes:
        tail: how far it was told of; None while that is being found out.
        held: copies that came before the head was known.
        asked: the positions of those who wait for a reading.
        suspect: whether its stream seemed to end before what was told.
    """

    __slots__ = (
        "asked",
        "busy",
        "channel",
        "held",
        "namespace",
        "ready",
        "stream",
        "subscription",
        "suspect",
        "tail",
        "turn",
    )

    def __init__(self, namespace: Namespace, channel: str, stream: Stream) -> None:
        self.namespace = namespace
        self.channel = channel
        self.stream = stream
        self.tail: Tail | None = None
        self.held: list[Message] = []
        self.asked: list[int] = []
        self.busy = self.suspect = False
        self.ready = asyncio.Event()
        self.turn = asyncio.Lock()
        self.subscription: Subscription

    def begin(self, head: Position, found: Found | None) -> None:
        """Start with where the channel is."""
        self.tail = Tail(head, self.namespace.history, self.namespace.history_ttl)
        if found is not None and found.body is not None and not found.purged:
            self.tail.last = found.body.publication(found.offset, found.offset - 1, found.at)
            self.tail.extend(Position(found.offset - 1, head.epoch), Past([self.tail.last], head, True))
        self.ready.set()

    def answer(self, since: Position | None, limit: int, now: int) -> Past | None:
        """What can be said without asking the broker's history."""
        return None if self.tail is None else self.tail.answer(since, limit, now)


class Watch:
    """All channels with a history that have a subscriber here.

    Args:
        link: the connection.
        streams: where channels are.
        histories: reads what is in them.
    """

    def __init__(self, link: Link, streams: Streams, histories: Histories) -> None:
        self._link = link
        self._streams = streams
        self._histories = histories
        self.receiver: BrokerReceiver
        self._channels: dict[str, Watched] = {}
        self._fresh: list[Watched] = []
        self._ends: dict[str, int] = {}
        self._alarm = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Compare from now on."""
        self._alarm = asyncio.Event()  # one for this loop
        self._task = asyncio.get_running_loop().create_task(self._run(), context=Context())

    async def stop(self) -> None:
        """Listen to nothing more."""
        tasks = [*self._tasks, *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._channels.clear()

    def alarm(self) -> None:
        """Compare all now: something may have been missed."""
        self._ends.clear()
        self._alarm.set()

    def gone(self, stream: Stream) -> None:
        """Break the channels of a stream that is no longer."""
        for watched in [each for each in self._channels.values() if each.stream is stream]:
            self._break(watched)

    async def subscribe(self, namespace: Namespace, channel: str) -> None:
        """Listen to a channel."""
        watched = Watched(namespace, channel, await self._streams.of(namespace, channel))
        subject = watched.stream.copies(channel)
        watched.subscription = await self._link.subscribe(subject, lambda message: self._hear(watched, message))
        self._channels[channel] = watched
        try:
            await self._begin(watched)
        except BaseException:
            await self.unsubscribe(channel)
            raise

    async def unsubscribe(self, channel: str) -> None:
        """Listen no more."""
        watched = self._channels.pop(channel, None)
        if watched is not None:
            await self._link.unsubscribe(watched.subscription)

    def published(self, channel: str, place: Position) -> None:
        """Take note of a publication of this node."""
        watched = self._channels.get(channel)
        if watched is not None and watched.tail is not None:
            watched.tail.published(place)

    def position(self, channel: str) -> Position | None:
        """How far this node was told of a channel; None if nobody knows."""
        watched = self._channels.get(channel)
        return None if watched is None or watched.tail is None else watched.tail.head

    async def past(self, channel: str, since: Position | None, limit: int, now: int) -> Past | None:
        """What a channel remembers, as far as its subscribers here know it; None if it has none."""
        watched = self._channels.get(channel)
        if watched is None:
            return None
        try:
            async with asyncio.timeout(PATIENCE):
                await watched.ready.wait()
        except TimeoutError:
            raise StoreUnavailable(ANEW) from None
        answer = watched.answer(since, limit, now)
        if answer is not None:
            return answer
        if since is not None:
            watched.asked.append(since.offset)
        async with watched.turn:
            asked, watched.asked = watched.asked, []
            if watched.tail is not None and watched.tail.behind:
                await self._catch_up(watched)
            answer = watched.answer(since, limit, now)
            if answer is None:
                answer = await self._read(watched, since, min(asked, default=MOST), limit, now)
        return answer

    # Telling

    def _hear(self, watched: Watched, message: Message) -> None:
        tail = watched.tail
        if not self._listens(watched):
            return
        if tail is None:
            if len(watched.held) < MOST_HELD:
                watched.held.append(message)
            return
        if message.subject.split(".", 3)[2] != watched.stream.epoch:
            self._alarm.set()  # the stream was made anew, or another kind of node has another one for this channel
            return
        offset, previous = field(message.headers, b"Nats-Sequence"), field(message.headers, b"Nats-Last-Sequence")
        body = decode_body(message.data)
        if body is None or body.channel != watched.channel or not (offset.isdigit() and previous.isdigit()):
            logger.warning("a message on %s is none of ours", message.subject)
            return
        at = milliseconds(field(message.headers, b"Nats-Time-Stamp").decode("ascii"))
        if body.purged:
            self._purged(watched, tail, int(offset), int(previous))
        elif tail.take(publication := body.publication(int(offset), int(previous), at)):
            self._pass(watched, publication)
        elif tail.gap:
            self._heal(watched)

    def _purged(self, watched: Watched, tail: Tail, offset: int, previous: int) -> None:
        if previous > tail.head.offset or tail.gap:
            self._break(watched)  # what was missed is gone
        elif offset > tail.head.offset:
            watched.begin(Position(offset, tail.head.epoch), None)

    def _pass(self, watched: Watched, publication: Publication) -> None:
        self.receiver.published(watched.channel, publication)

    # Healing

    def _heal(self, watched: Watched) -> None:
        if not watched.busy:
            watched.busy = True
            self._spawn(self._catch_up(watched))

    async def _catch_up(self, watched: Watched) -> None:
        """Read and pass on what was missed, or break the channel."""
        misses = 0
        try:
            while self._listens(watched) and (tail := watched.tail) is not None:
                past = await self._histories.past(
                    watched.stream, watched.namespace, watched.channel, tail.head, PAGE, _now()
                )
                if watched.tail is not tail:
                    continue
                found = tail.heal(past)
                misses += not past.publications
                if found is None or misses > MOST_MISSES:
                    self._break(watched)
                    return
                whole = not past.publications or past.publications[-1].offset == past.head.offset
                if whole and tail.head < past.head:  # there may be what is none of ours at its end
                    tail.head = past.head
                    found += tail.heal(Past([], past.head, True)) or []
                for publication in found:
                    self._pass(watched, publication)
                if whole and not tail.gap:
                    return
        except StoreError as error:
            logger.debug("a gap has to wait: %s", error)
            self._ends.pop(watched.stream.epoch, None)
            self._fresh.append(watched)
        finally:
            watched.busy = False

    def _break(self, watched: Watched) -> None:
        """Tell that publications were missed, and begin anew."""
        if watched.tail is None or not self._listens(watched):
            return
        watched.tail = None
        watched.ready.clear()
        self._spawn(self._renew(watched))
        self.receiver.broken(watched.channel)

    async def _renew(self, watched: Watched) -> None:
        while self._listens(watched) and watched.tail is None:
            try:
                watched.stream = await self._streams.of(watched.namespace, watched.channel)
                await self._begin(watched)
            except StoreError as error:
                logger.debug("a channel has to wait: %s", error)
                await asyncio.sleep(SOON)

    async def _begin(self, watched: Watched) -> None:
        async with watched.turn:
            head, found = await self._histories.head(watched.stream, watched.channel)
            watched.begin(head, found)
            held, watched.held = watched.held, []
            for message in held:
                self._hear(watched, message)
        self._fresh.append(watched)  # servers of a cluster learn a moment later that we listen

    def _listens(self, watched: Watched) -> bool:
        return self._channels.get(watched.channel) is watched

    # Reading

    async def _read(self, watched: Watched, since: Position | None, lowest: int, limit: int, now: int) -> Past:
        tail = watched.tail
        if tail is None:
            raise StoreUnavailable(ANEW)
        if since is not None:
            lowest = max(0, min(lowest, since.offset))
            if since.offset > tail.head.offset:
                await self._catch_up(watched)  # another node was told more
        # More than one asks for, so that it reaches what is known here and need not be read again.
        many = limit if since is None else max(limit, min(watched.namespace.history, WIDE))
        place = None if since is None else since._replace(offset=lowest)
        past = await self._histories.past(watched.stream, watched.namespace, watched.channel, place, many, now)
        if watched.tail is not tail or past.head.epoch != tail.head.epoch:
            raise StoreUnavailable(ANEW)
        if since is not None:
            if past.complete:
                tail.extend(since._replace(offset=lowest), past)
            elif lowest < tail.head.offset:
                tail.lost = max(tail.lost, lowest)
            answer = watched.answer(since, limit, now)
            if answer is not None:
                return answer
            if lowest != since.offset:
                return await self._read(watched, since, since.offset, limit, now)
            if since.offset > tail.head.offset:
                if since.offset <= past.head.offset:
                    raise StoreUnavailable(BEHIND)
                return Past([], tail.head, False)
        known = [each for each in past.publications if each.offset <= tail.head.offset]
        return Past(known[:limit] if since is not None else known, tail.head, past.complete)

    # Comparing

    async def _run(self) -> None:
        due = monotonic() + OFTEN
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(SOON):
                    await self._alarm.wait()
            if self._alarm.is_set() or monotonic() >= due:
                self._alarm.clear()
                self._fresh.clear()
                due = monotonic() + OFTEN
                await self._compare(self._channels.values(), whole=True)
            elif self._fresh:
                fresh, self._fresh = self._fresh, []
                await self._compare(fresh, whole=False)

    async def _compare(self, channels: Iterable[Watched], *, whole: bool) -> None:
        by_stream: defaultdict[Stream, list[Watched]] = defaultdict(list)
        for watched in channels:
            if self._listens(watched) and watched.tail is not None:
                by_stream[watched.stream].append(watched)
        for stream, some in by_stream.items():
            try:
                await self._compare_stream(stream, some, whole)
            except StoreError as error:
                logger.debug("channels cannot be compared: %s", error)
                if whole:
                    self._alarm.set()
            except Exception:
                logger.exception("channels cannot be compared")

    async def _compare_stream(self, stream: Stream, channels: list[Watched], whole: bool) -> None:
        before = [(watched, watched.tail.head.offset) for watched in channels if watched.tail is not None]
        state = await self._streams.state(stream)
        if state is None or (whole and self._ends.get(stream.epoch) == state["last_seq"]):
            return  # it is gone, or nothing was published since
        ends = await self._histories.ends(stream, [watched.channel for watched, _ in before], state["last_seq"])
        for watched, head in before:
            end = ends.get(stream.subject(watched.channel), 0)
            if watched.stream is not stream or watched.tail is None:
                continue
            if 0 < end < head or state["last_seq"] < head:
                self._suspect(watched)
                continue
            watched.suspect = False
            if end > watched.tail.head.offset:
                self._heal(watched)
        if whole and not self._alarm.is_set() and not any(watched.suspect for watched, _ in before):
            self._ends[stream.epoch] = state["last_seq"]

    def _suspect(self, watched: Watched) -> None:
        """The stream ends before what was told: a leader that is not ready yet, or one that lost what it had."""
        if watched.suspect:
            self._break(watched)
        watched.suspect = not watched.suspect
        self._ends.pop(watched.stream.epoch, None)
        self._fresh.append(watched)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _now() -> int:
    return time_ns() // 1_000_000
