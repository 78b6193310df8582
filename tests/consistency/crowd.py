"""Publishers and subscribers without manners: they drop, stall, leave, repeat themselves and come back, by chance.

What they do depends on the seed alone: each has a generator of random numbers of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

from hubbub.core.recovery import Position
from hubbub.errors import StoreError
from tests.consistency.checker import Kept, Log, View
from tests.consistency.links import Hear, Link

__all__ = ["CHANNELS", "KEPT", "NAMESPACES", "Crowd", "Pace"]

NAMESPACES: dict[str, dict[str, Any]] = {
    "room": {"history": 150, "history_ttl": 60.0, "publish": "anyone"},
    "feed": {"history": 1000, "history_ttl": 60.0, "publish": "anyone"},
    "brief": {"history": 30, "history_ttl": 1.5, "publish": "anyone"},
}
CHANNELS = {"room:1": 30, "room:2": 30, "feed:1": 30, "feed:2": 8, "brief:1": 8, "brief:2": 1}
"""Every channel, and how often something is published there."""
KEPT = {name: Kept(*list(NAMESPACES[name.partition(":")[0]].values())[:2]) for name in CHANNELS}
SIZES = (0, 0, 20, 200, 2000)
MOMENT = 0.3
"""Seconds after which somebody tries again whom the hub could not serve."""
UNSURE = 15.0
"""Seconds within which a broker does what it did not answer, if it ever does."""

Json = dict[str, Any]
Dial = Callable[[Hear], Awaitable[Link]]
Disturb = Callable[[Callable[[], None], asyncio.Event], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Pace:
    """How many there are, and how fast; seconds are means.

    Args:
        publications: in all.
        between: from one publication of a publisher to the next.
        stay: from the return of a subscriber to its next whim.
        away: between a loss and the return, most of the time.
        purges: from one purge of some channel to the next.
        calm: when nothing has happened for so long, nothing will: the time in which a link may still end for what its
            client did before, and in which somebody hears something, if anybody does.
        patience: what takes longer is given up.
        late: within these everything arrives on a link that flows.
    """

    publications: int
    publishers: int = 12
    subscribers: int = 24
    between: float = 0.04
    stay: float = 1.0
    away: float = 0.4
    purges: float = 4.0
    calm: float = 1.0
    patience: float = 5.0
    late: float = 3.0


@dataclass
class Crowd:
    """All of them around one hub.

    Args:
        seed: decides what they do.
        dial: opens a link.
        publish: publishes from the server: channel, body, key.
        purge: forgets a channel's history.

    Attributes:
        unanswered: how often nobody said whether something was published.
    """

    seed: str
    pace: Pace
    dial: Dial
    publish: Callable[[str, Json, str | None], Awaitable[Position]]
    purge: Callable[[str], Awaitable[Any]]
    log: Log = field(default_factory=lambda: Log(KEPT))
    views: list[View] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.numbers = count(1)
        self._goes_on = False
        self.unanswered = 0
        self.clock = asyncio.get_running_loop().time

    def random(self, *who: Any) -> Random:
        """A generator for one of them."""
        return Random(f"{self.seed} {who}")

    async def play(self, disturb: Disturb | None = None) -> None:
        """Publish everything among subscribers that come and go; then let all return and see the rest.

        Args:
            disturb: breaks things meanwhile. It calls the first function when it has broken enough, before which
                publishers go on, and mends all when the event is set, which is when they are done.
        """
        pace, over = self.pace, asyncio.Event()
        subscribers = [Subscriber(self, number) for number in range(pace.subscribers)]
        self.views = [subscriber.view for subscriber in subscribers]
        async with asyncio.TaskGroup() as living:
            for subscriber in subscribers:
                living.create_task(subscriber.live(over))
            published, self._goes_on = asyncio.Event(), disturb is not None
            disturbing = None if disturb is None else living.create_task(disturb(self._enough, published))
            async with asyncio.TaskGroup() as working:
                purging = asyncio.create_task(self._purge())
                for number in range(pace.publishers):
                    publisher = ServerPublisher if number % 2 else ClientPublisher
                    working.create_task(publisher(self, number).work(-(-pace.publications // pace.publishers)))
            purging.cancel()
            published.set()
            if disturbing is not None:
                await disturbing
            over.set()
        await self._settle()
        while away := [subscriber for subscriber in subscribers if subscriber.link.gone.is_set()]:
            await asyncio.gather(*(subscriber.stay() for subscriber in away))
            await self._settle()
        for subscriber in subscribers:
            subscriber.view.must_have()
            subscriber.link.leave()

    def goes_on(self, done: int, publications: int) -> bool:
        """Whether somebody who has published so many of so many publishes more."""
        return done < publications or self._goes_on

    def _enough(self) -> None:
        self._goes_on = False

    async def _settle(self) -> None:
        """Wait until nobody hears anything more."""
        before, end = -1, self.clock() + self.pace.patience
        while before != (now := self._heard()) or (self._behind() and self.clock() < end):
            before = now
            await asyncio.sleep(self.pace.calm)

    def _heard(self) -> int:
        return sum(len(run.seen) for view in self.views for run in view.runs)

    def _behind(self) -> bool:
        """Whether somebody has not seen the last of what was acknowledged."""
        last: dict[str, int] = {}
        for (channel, _), place in self.log.places.items():
            last[channel] = max(place.offset, last.get(channel, 0))
        return any(view.places[channel].offset < last.get(channel, 0) for view in self.views for channel in view.now)

    async def _purge(self) -> None:
        random = self.random("purges")
        while True:
            await asyncio.sleep(random.expovariate(1 / self.pace.purges))
            channel = random.choice(list(CHANNELS))
            began, unsure = self.clock(), 0.0
            try:
                await self.purge(channel)
            except StoreError:
                unsure = UNSURE
            self.log.purges[channel].append((began, self.clock() + unsure))


class Publisher:
    """Publishes, often under a key, and sometimes again under the same."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self.crowd = crowd
        self.number = number
        self.random = crowd.random("publisher", number)

    async def work(self, publications: int) -> None:
        """Publish until so much is acknowledged."""
        random, crowd = self.random, self.crowd
        done = 0
        while crowd.goes_on(done, publications):
            await asyncio.sleep(random.expovariate(1 / crowd.pace.between))
            [channel] = random.choices(list(CHANNELS), list(CHANNELS.values()))
            body = next(crowd.numbers)
            data = {"n": body, "text": "x" * random.choice(SIZES)}
            key = f"key-{body}" if random.random() < 0.5 else None
            crowd.log.sends(channel, body, crowd.clock())
            for _ in range(2 if key is not None and random.random() < 0.2 else 1):
                place = await self.publish(channel, data, key)
                if place is not None:
                    crowd.log.acked(channel, body, place, crowd.clock())
            done += (channel, body) in crowd.log.places

    async def publish(self, channel: str, data: Json, key: str | None) -> Position | None:
        """Publish one, again and again if it has a key; where it is, None if nobody said."""
        while True:
            place = await self.attempt(channel, data, key)
            if place is not None or key is None:
                return place

    async def attempt(self, channel: str, data: Json, key: str | None) -> Position | None:
        """Publish one; where it is, None if nobody said."""
        raise NotImplementedError


class ServerPublisher(Publisher):
    """Publishes as the app does."""

    async def attempt(self, channel: str, data: Json, key: str | None) -> Position | None:
        """Publish one."""
        try:
            return await self.crowd.publish(channel, data, key)
        except StoreError:
            self.crowd.unanswered += 1
            await asyncio.sleep(MOMENT)
            return None


class ClientPublisher(Publisher):
    """Publishes over a link that breaks; what had a key is published again then."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        super().__init__(crowd, number)
        self._answers: dict[str, asyncio.Future[Json]] = {}
        self._ids = count()
        self._link: Link | None = None

    async def work(self, publications: int) -> None:
        """Publish so much, then leave."""
        await super().work(publications)
        if self._link is not None:
            self._link.leave()

    async def attempt(self, channel: str, data: Json, key: str | None) -> Position | None:
        """Publish one."""
        answer = await self._ask("publish", {"channel": channel, "event": "said", "data": data, "key": key})
        if answer is None:
            return None
        if answer["type"] == "error":
            assert answer["payload"]["code"] == StoreError.code, answer
            self.crowd.unanswered += 1
            await asyncio.sleep(MOMENT)
            return None
        return Position(answer["payload"]["offset"], answer["payload"]["epoch"])

    async def _ask(self, type: str, payload: Any) -> Json | None:
        if self._link is None or self._link.gone.is_set():
            self._link = await self.crowd.dial(self._hear)
            self._link.send("sign_in", f"publisher-{self.number}", "sign-in")
        link, id = self._link, str(next(self._ids))
        answer = self._answers[id] = asyncio.get_running_loop().create_future()
        link.send(type, payload, id)
        if self.random.random() < 0.02:
            await asyncio.sleep(self.random.random() * 0.02)
            link.drop()
        gone = asyncio.ensure_future(link.gone.wait())
        patience = self.crowd.pace.patience
        if not (await asyncio.wait([answer, gone], timeout=patience, return_when=asyncio.FIRST_COMPLETED))[0]:
            self.crowd.unanswered += 1
            link.drop()
        gone.cancel()
        del self._answers[id]
        return answer.result() if answer.done() else None

    def _hear(self, message: Json) -> None:
        answer = self._answers.get(message.get("id", ""))
        if answer is not None:
            answer.set_result(message)


class Subscriber:
    """Subscribes to several channels, follows its whims, and comes back to where it was."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self.view = View()
        self.link: Link
        self._crowd = crowd
        self._pace = crowd.pace
        self._random = crowd.random("subscriber", number)
        self._channels = self._random.sample(list(CHANNELS), self._random.randint(1, 4))
        self._ids = count()
        self._asked: dict[str, tuple[str, Position | None]] = {}
        self._leaving: list[str] = []
        self._flowing = 0.0
        self._all = asyncio.Event()

    async def live(self, over: asyncio.Event) -> None:
        """Come, sooner or later; come and go until it is over; then come to stay, and wait for the answers."""
        random = self._random
        if random.random() < 0.4:
            await self._wait(over, random.random() * self._pace.stay * 10)
        await self._come()
        while not over.is_set():
            await self._wait(over, random.expovariate(1 / self._pace.stay))
            if not self.link.gone.is_set() and self._flowing + self._pace.late < self._crowd.clock():
                self.view.must_have(self._crowd.clock() - self._pace.late)
            whims = (self._drop, self._leave, self._stall, self._sulk, self._pause, self._forget, self._flicker)
            [whim] = random.choices(whims, (30, 10, 12, 10, 24, 6, 8))
            await whim()
        await self.stay()

    async def stay(self) -> None:
        """Come back for good, and wait for the answers."""
        self.link.flow()
        async with asyncio.timeout(4 * self._pace.patience):
            await self._wait(self.link.gone, self._pace.calm)
            while self.link.gone.is_set() or not self._all.is_set():
                await self._return()
                await self._either(self._all.wait(), self.link.gone.wait())
                await self._wait(self.link.gone, self._pace.calm)

    # Whims

    async def _drop(self) -> None:
        """Lose the link."""
        self.link.drop()
        await self._come_back()

    async def _leave(self) -> None:
        """Say goodbye."""
        self.link.leave()
        await self._come_back()

    async def _stall(self) -> None:
        """Read nothing for a while; the hub may have had enough of it then."""
        self.link.stall()
        await self._sleep(2 * self._pace.stay)
        self.link.flow()
        self._flowing = self._crowd.clock()
        await self._sleep(0.1 * self._pace.stay)
        if self.link.gone.is_set():
            await self._come_back()

    async def _sulk(self) -> None:
        """Read nothing for a while, then lose the link, and what was underway."""
        self.link.stall()
        await self._sleep(self._pace.stay)
        await self._drop()

    async def _pause(self) -> None:
        """Leave a channel, and come back to it on the same link."""
        channel = self._random.choice(self._channels)
        self.view.left(channel)
        self._leaving.append(channel)
        self.link.send("unsubscribe", {"channel": channel}, "left")
        if self._random.random() < 0.7:
            await self._away()
        self._subscribe(channel)

    async def _forget(self) -> None:
        """Come back as somebody new to a channel."""
        self.link.drop()
        self.view.places.pop(self._random.choice(self._channels), None)
        await self._come_back()

    async def _flicker(self) -> None:
        """Come back and go again at once, in the middle of what was missed."""
        self.link.drop()
        for _ in range(3):
            await self._come_back()
            await self._sleep(0.02)
            self.link.drop()
        await self._come_back()

    # Coming

    async def _come_back(self) -> None:
        await self._away()
        await self._return()

    async def _return(self) -> None:
        self.view.reconnects += 1
        await self._come()

    async def _come(self) -> None:
        self.view.left()
        self._asked.clear()
        self._leaving.clear()
        self.link = await self._crowd.dial(self._hear)
        self._flowing = self._crowd.clock()
        for channel in self._channels:
            self._subscribe(channel)

    def _subscribe(self, channel: str) -> None:
        since = self.view.places.get(channel)
        payload = {"channel": channel, "since": None if since is None else since._asdict()}
        id = str(next(self._ids))
        self._asked[id] = channel, since
        self._all.clear()
        self.link.send("subscribe", payload, id)

    def _subscribe_again(self, link: Link, channel: str) -> None:
        asked = [each for each, _ in self._asked.values()]
        if link is self.link and not link.gone.is_set() and channel not in [*self.view.now, *asked]:
            self._subscribe(channel)

    def _hear(self, message: Json) -> None:
        payload: Json = message.get("payload", {})
        match message["type"]:
            case "message":
                if payload["channel"] not in self._leaving:  # else it was underway when we left
                    self.view.message(payload["channel"], payload["offset"], payload["data"]["n"])
            case "subscribed":
                _, since = self._asked.pop(message["id"])
                if payload["channel"] not in self._leaving:  # else it was underway when we left
                    self.view.subscribed(since, payload, self._crowd.clock())
                if not self._asked and len(self.view.now) == len(self._channels):
                    self._all.set()
            case "unsubscribed":
                self._leaving.remove(payload["channel"])
            case "error":
                self.view.errors.append(payload)
                channel, _ = self._asked.pop(message["id"])
                asyncio.get_running_loop().call_later(MOMENT, self._subscribe_again, self.link, channel)

    # Time

    async def _away(self) -> None:
        [factor] = self._random.choices((0.2, 1, 5, 15), (30, 50, 15, 5))
        await self._sleep(factor * self._pace.away)

    async def _sleep(self, mean: float) -> None:
        await asyncio.sleep(min(4 * mean, self._random.expovariate(1 / mean)))

    async def _wait(self, over: asyncio.Event, seconds: float) -> None:
        await self._either(over.wait(), asyncio.sleep(seconds))

    async def _either(self, *waits: Any) -> None:
        tasks = [asyncio.ensure_future(wait) for wait in waits]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
