"""Channels that have a subscriber here: told of in order and without gaps, whatever pub/sub loses.

Rules of this file:
1. A channel is listened to before its head is read: what is published later is told or shows as a gap.
2. The heads of all channels are compared with Redis every `OFTEN` seconds, and at once when it was not heard for a
   while.
3. What was missed is read from the channel's stream before anything behind it is passed on; where it is there no more,
   or the channel has another epoch, the channel is broken and begins anew. So it is where Redis has forgotten what it
   told.
4. Whoever comes back is answered up to where the channel's subscribers here were told, and goes on with them from
   there. Its recent past is read once, when the first one comes; many that need more wait for one reading.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from contextvars import Context
from time import time_ns
from typing import Any

from hubbub.brokers.redis.body import read_message
from hubbub.brokers.redis.history import Histories
from hubbub.brokers.redis.keys import Keys
from hubbub.brokers.redis.servers import Servers
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
MOST = 1 << 62
AT_ONCE = 256
TRIES = 3


class Watched:
    """One channel with a history that has a subscriber here.

    Attributes:
        tail: how far it was told of; None while that is being found out.
        held: messages that came before the head was known.
        asked: the positions of those who wait for a reading.
        turn: one reading at a time.
    """

    __slots__ = ("asked", "busy", "channel", "held", "namespace", "tail", "turn")

    def __init__(self, namespace: Namespace, channel: str) -> None:
        self.namespace = namespace
        self.channel = channel
        self.tail: Tail | None = None
        self.held: list[bytes] = []
        self.asked: list[int] = []
        self.busy = False
        self.turn = asyncio.Lock()

    def begin(self, recent: Past, *, whole: bool) -> Tail:
        """Start with where the channel is.

        Args:
            recent: the last of it.
            whole: whether there was no more.
        """
        head, found = recent.head, _last_run(recent)
        tail = self.tail = Tail(head, self.namespace.history, self.namespace.history_ttl)
        first = found[0].previous if found else head.offset
        tail.extend(Position(first, head.epoch), Past(found, head, True))
        tail.last = found[-1] if found else None
        tail.lost = first - 1 if whole else -1
        return tail

    def answer(self, since: Position | None, limit: int, now: int) -> Past | None:
        """What can be said without asking the broker's history."""
        return None if self.tail is None else self.tail.answer(since, limit, now)


class Watch:
    """All channels with a history that have a subscriber here.

    Args:
        servers: tell of them.
        keys: how they are called there.
        histories: reads what was missed.
    """

    def __init__(self, servers: Servers, keys: Keys, histories: Histories) -> None:
        self._servers = servers
        self._keys = keys
        self._histories = histories
        self.receiver: BrokerReceiver
        self._channels: dict[str, Watched] = {}
        self._alarm = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Compare from now on."""
        self._alarm = asyncio.Event()  # one for this loop
        self._spawn(self._run())

    async def stop(self) -> None:
        """Listen to nothing more."""
        self._channels.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def alarm(self) -> None:
        """Compare all now: something may have been missed."""
        self._alarm.set()

    async def subscribe(self, namespace: Namespace, channel: str) -> None:
        """Listen to a channel."""
        watched = self._channels[channel] = Watched(namespace, channel)
        try:
            await self._servers.listen(self._live(watched), lambda message: self._hear(watched, message))
            await self._begin(watched)
        except BaseException:
            await self.unsubscribe(channel)
            raise

    async def unsubscribe(self, channel: str) -> None:
        """Listen no more."""
        watched = self._channels.pop(channel, None)
        if watched is not None:
            await self._servers.forget(self._live(watched))

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
        for _ in range(TRIES):
            watched = self._channels.get(channel)
            if watched is None:
                return None
            answer = watched.answer(since, limit, now)
            answer = answer or await self._ask(watched, since, limit, now)
            if answer is not None:
                return answer
        raise StoreUnavailable(f"This channel in {self._servers.place} begins anew: try again.")

    # Telling

    def _hear(self, watched: Watched, message: bytes) -> None:
        tail = watched.tail
        if not self._listens(watched):
            return
        if tail is None:
            if len(watched.held) < MOST_HELD:
                watched.held.append(message)
            return
        found = read_message(message)
        if found is None:
            logger.warning("a message on %r is none of ours", watched.channel)
            return
        head, previous, publication = found
        if head.epoch != tail.head.epoch:
            self._compare_soon(watched)  # perhaps an old one, perhaps the channel began anew
        elif publication is None:
            self._purged(watched, tail, head, previous)
        elif tail.take(publication):
            self._pass(watched, publication)
        elif tail.gap:
            self._heal(watched)

    def _purged(self, watched: Watched, tail: Tail, head: Position, previous: int) -> None:
        if tail.gap or previous > tail.head.offset:
            self._break(watched)  # what was missed is gone
        elif head.offset > tail.head.offset:
            watched.begin(Past([], head, True), whole=True)

    def _pass(self, watched: Watched, publication: Publication) -> None:
        self.receiver.published(watched.channel, publication)

    # Healing

    def _heal(self, watched: Watched) -> None:
        if not watched.busy:
            watched.busy = True
            self._spawn(self._catch_up(watched))

    async def _catch_up(self, watched: Watched) -> None:
        """Read and pass on what was missed, or break the channel."""
        try:
            while self._listens(watched) and (tail := watched.tail) is not None:
                first = tail.waiting[0].offset if tail.gap else 0
                past = await self._histories.past(watched.namespace, watched.channel, tail.head, PAGE, _now())
                if watched.tail is not tail:
                    continue
                found = tail.heal(past)
                if found is None:
                    self._break(watched)
                    return
                for publication in found:
                    self._pass(watched, publication)
                if tail.gap and past.head.offset < first:
                    logger.warning("messages on %r are none of ours", watched.channel)
                    tail.waiting.clear()
                if not tail.gap and tail.head.offset >= past.head.offset:
                    return
        except StoreError as error:
            logger.debug("a gap has to wait: %s", error)
            self._alarm.set()
        finally:
            watched.busy = False

    def _break(self, watched: Watched) -> None:
        """Tell that publications were missed, and begin anew."""
        if watched.tail is None or not self._listens(watched):
            return
        watched.tail = None
        self._spawn(self._renew(watched))
        self.receiver.broken(watched.channel)

    async def _renew(self, watched: Watched) -> None:
        while self._listens(watched) and watched.tail is None:
            try:
                await self._begin(watched)
            except StoreError as error:
                logger.debug("a channel has to wait: %s", error)
                await asyncio.sleep(SOON)

    async def _begin(self, watched: Watched) -> None:
        async with watched.turn:
            if watched.tail is None:
                await self._begin_now(watched)

    async def _begin_now(self, watched: Watched) -> None:
        limit = min(watched.namespace.history, PAGE)
        recent = await self._histories.past(watched.namespace, watched.channel, None, limit, _now())
        whole = limit == watched.namespace.history or len(recent.publications) < limit
        watched.begin(recent, whole=whole)
        held, watched.held = watched.held, []
        for message in held:
            self._hear(watched, message)

    def _listens(self, watched: Watched) -> bool:
        return self._channels.get(watched.channel) is watched

    def _live(self, watched: Watched) -> str:
        return self._keys.live(watched.channel, watched.namespace.archive)

    # Reading

    async def _ask(self, watched: Watched, since: Position | None, limit: int, now: int) -> Past | None:
        """What Redis has; None if the channel begins anew meanwhile."""
        if since is not None:
            watched.asked.append(since.offset)
        async with watched.turn:
            asked, watched.asked = watched.asked, []
            if watched.tail is None:
                await self._begin_now(watched)
            if watched.tail is not None and watched.tail.behind:
                await self._catch_up(watched)
            answer = watched.answer(since, limit, now)
            if answer is None:
                answer = await self._read(watched, since, min(asked, default=MOST), limit, now)
        return answer

    async def _read(self, watched: Watched, since: Position | None, lowest: int, limit: int, now: int) -> Past | None:
        tail = watched.tail
        if tail is None:
            return None
        if since is not None:
            lowest = max(0, min(lowest, since.offset))
            if since.offset > tail.head.offset:
                await self._catch_up(watched)  # another node was told more
        behind = since and since._replace(offset=lowest)
        past = await self._histories.past(watched.namespace, watched.channel, behind, limit, now)
        if watched.tail is not tail or past.head.epoch != tail.head.epoch:
            if watched.tail is tail:
                self._break(watched)
            return None
        if since is not None and behind is not None:
            if past.complete:
                tail.extend(behind, past)
            elif lowest < tail.head.offset:
                tail.lost = max(tail.lost, lowest)
            answer = watched.answer(since, limit, now)
            if answer is not None:
                return answer
            if lowest != since.offset:
                return await self._read(watched, since, since.offset, limit, now)
            if since.offset > tail.head.offset:
                if since.offset <= past.head.offset:
                    raise StoreUnavailable("This node was told less of this channel than another: try again.")
                return Past([], tail.head, False)
        known = [each for each in past.publications if each.offset <= tail.head.offset]
        return Past(known, tail.head, past.complete)

    # Comparing

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(OFTEN):
                    await self._alarm.wait()
            self._alarm.clear()
            try:
                await self._servers.aim()
                await self._compare(list(self._channels.values()))
            except StoreError as error:
                logger.debug("channels cannot be compared: %s", error)
                await asyncio.sleep(SOON)
                self._alarm.set()
            except Exception:
                logger.exception("channels cannot be compared")

    async def _compare(self, channels: Iterable[Watched]) -> None:
        watched = [each for each in channels if each.tail is not None]
        for start in range(0, len(watched), AT_ONCE):
            await asyncio.gather(*(self._compare_one(each) for each in watched[start : start + AT_ONCE]))

    async def _compare_one(self, watched: Watched) -> None:
        tail = watched.tail
        if tail is None:
            return
        told = tail.head  # before Redis is asked: it must know as much
        head = await self._histories.head(watched.namespace, watched.channel)
        if watched.tail is not tail or not self._listens(watched):
            return
        if head is None or head.epoch != told.epoch:
            self._break(watched)
        elif head.offset < told.offset:
            logger.error("%s has forgotten publications on %r", self._servers.place, watched.channel)
            await self._histories.reset(watched.namespace, watched.channel, told)
            self._break(watched)
        elif head.offset > tail.head.offset:
            self._heal(watched)

    def _compare_soon(self, watched: Watched) -> None:
        if watched.busy:
            self._alarm.set()
        else:
            watched.busy = True
            self._spawn(self._compare_again(watched))

    async def _compare_again(self, watched: Watched) -> None:
        try:
            await self._compare_one(watched)
        except StoreError as error:
            logger.debug("a channel cannot be compared: %s", error)
            self._alarm.set()
        finally:
            watched.busy = False

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _last_run(recent: Past) -> list[Publication]:
    """The last publications, up to the head, between which nothing is missing."""
    run: list[Publication] = []
    end = recent.head.offset
    for publication in reversed(recent.publications):
        if publication.offset != end:
            break
        run.append(publication)
        end = publication.previous
    return run[::-1]


def _now() -> int:
    return time_ns() // 1_000_000
