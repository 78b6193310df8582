"""What channels remember, and whether that is enough for a client that comes back.

Rules of this file:
1. All channels share one counter and one epoch. An offset grows along a channel and is not dense: the next one of a
   channel may be any larger number. Nobody computes `offset + 1`.
2. A window knows its `floor`: everything of its channel above it is there, of what is at or below it something may be
   gone. The floor of a channel without a window is the `watermark` of all windows that were dropped.
3. An answer is complete only if the position is of this epoch and not below the floor. There are no partial answers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import NamedTuple

from hubbub.core.wheel import Wheel

__all__ = ["DEDUPE", "Memory", "Past", "Position", "Publication", "Window"]

WIDTH = 1.0
MOST_KEYS = 100_000
DEDUPE = 120.0
"""Seconds for which an idempotency key is known."""
MOST = 1 << 62
FEW = 8  # publications, for which a tuple is as fast


class Position(NamedTuple):
    """A place in a channel's life: behind the publication of this offset."""

    offset: int
    epoch: str


@dataclass(frozen=True, slots=True)
class Publication:
    """A publication that is remembered.

    Args:
        offset: its place.
        previous: the offset of the one before it in its channel, 0 if nothing is known of one.
        published_at: milliseconds since 1970.
        event: its name, if it has one.
        data: JSON.
        tags: what else its publisher says of it; with a tag `key` it replaces an earlier one of that key, and without
            one an earlier one of its event, for subscribers that want the latest only.
    """

    offset: int
    previous: int
    published_at: int
    event: str | None
    data: bytes
    tags: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """What a channel remembers behind a position.

    Args:
        publications: oldest first.
        head: the place behind all there is: where to go on from.
        complete: whether nothing is missing between the position and the first of these; without a position, True.
    """

    publications: list[Publication]
    head: Position
    complete: bool


class Window:
    """The last publications of one channel, oldest first.

    A few are a tuple, which is the smallest thing that holds them; a list takes over where there are many.
    """

    __slots__ = ("channel", "floor", "publications", "ttl")

    def __init__(self, floor: int, ttl: float, channel: str = "") -> None:
        self.channel = channel
        self.floor = floor
        self.ttl = ttl
        self.publications: tuple[Publication, ...] | list[Publication] = ()

    def add(self, publication: Publication, size: int) -> None:
        """Remember one more, at most `size` of them."""
        if isinstance(self.publications, list):
            self.publications.append(publication)
        elif len(self.publications) < FEW:
            self.publications = (*self.publications, publication)
        else:
            self.publications = [*self.publications, publication]
        self._forget(len(self.publications) - size)

    def expire(self, now: int) -> None:
        """Forget what is older than `ttl` seconds."""
        oldest = now - round(self.ttl * 1000)
        kept = (index for index, each in enumerate(self.publications) if each.published_at > oldest)
        self._forget(next(kept, len(self.publications)))

    def since(self, offset: int) -> list[Publication]:
        """Those behind an offset."""
        return list(islice(self.publications, bisect_right(self.publications, offset, key=_offset), None))

    def _forget(self, count: int) -> None:
        """Let the oldest go."""
        if count > 0:
            self.floor = self.publications[count - 1].offset
            if isinstance(self.publications, list) and len(self.publications) > count + FEW:
                del self.publications[:count]
            else:
                self.publications = tuple(self.publications[count:])


class Memory:
    """The windows of all channels; time is given, in milliseconds since 1970.

    Args:
        epoch: the name of this life; another one than any before.
        dedupe: seconds for which an idempotency key is known.
        step: gives the distance to the next offset, 1 or more.
    """

    def __init__(self, epoch: str, *, dedupe: float = DEDUPE, step: Callable[[], int] = lambda: 1) -> None:
        self.epoch = epoch
        self.counter = 0
        self.watermark = 0
        self._dedupe = round(dedupe * 1000)
        self._step = step
        self._windows: dict[str, Window] = {}
        self._keys: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()
        self._ends: Wheel[Window] = Wheel(WIDTH)

    def __len__(self) -> int:
        return len(self._windows)

    def __contains__(self, channel: str) -> bool:
        return channel in self._windows

    def known(self, channel: str, key: str, now: int) -> int | None:
        """The offset of the publication that had this key, if it is not too long ago."""
        while self._keys and next(iter(self._keys.values()))[1] <= now:
            self._keys.popitem(last=False)
        found = self._keys.get((channel, key))
        return None if found is None else found[0]

    def publish(
        self,
        channel: str,
        event: str | None,
        data: bytes,
        now: int,
        *,
        size: int,
        ttl: float,
        idempotency: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Publication:
        """Remember a publication; it is the channel's next.

        Args:
            channel: its name.
            event: the publication's name.
            data: JSON.
            now: milliseconds since 1970.
            size: how many the channel remembers.
            ttl: seconds for which it does.
            idempotency: the publisher's name for it, to be asked for by `known`.
            tags: see `Publication`.
        """
        # What `place` and `remember` do, in one step: this is the way of every publication in memory.
        self.counter += self._step()
        window = self._windows.get(channel)
        if window is None:
            window = self._windows[channel] = Window(self.watermark, ttl, channel)
            self._ends.add(window, now / 1000 + ttl)
        last = window.publications[-1] if window.publications else None
        at = now if last is None else max(now, last.published_at)
        previous = window.floor if last is None else last.offset
        publication = Publication(self.counter, previous, at, event, data, tags)
        window.add(publication, size)
        if idempotency is not None:
            self.note_key(channel, idempotency, publication.offset, now)
        return publication

    def place(self, channel: str, now: int) -> tuple[int, int]:
        """The offset before a channel's next publication, and the time of that, which does not go back."""
        window = self._windows.get(channel)
        if window is None:
            return self.watermark, now
        if not window.publications:
            return window.floor, now
        last = window.publications[-1]
        return last.offset, max(now, last.published_at)

    def remember(self, channel: str, publication: Publication, size: int, ttl: float) -> int | None:
        """Take in a publication that has its place, the channel's last; the floor, if that rose."""
        window = self._windows.get(channel)
        if window is None:
            window = self._windows[channel] = Window(publication.previous, ttl, channel)
            self._ends.add(window, publication.published_at / 1000 + ttl)
        floor, window.ttl = window.floor, ttl
        window.add(publication, size)
        self.counter = publication.offset
        return window.floor if window.floor != floor else None

    def restore(self, channel: str, publication: Publication, ttl: float) -> None:
        """Take in a publication of an earlier life of this process, the channel's last so far."""
        window = self._windows.get(channel)
        while window is not None and window.publications and window.publications[-1].offset > publication.previous:
            window.publications = window.publications[:-1]  # it failed half-way: the next knows nothing of it
        self.remember(channel, publication, MOST, ttl)

    def note_key(self, channel: str, key: str, offset: int, now: int) -> None:
        """Know an idempotency key for a while."""
        self._keys[channel, key] = (offset, now + self._dedupe)
        if len(self._keys) > MOST_KEYS:
            self._keys.popitem(last=False)

    def past(self, channel: str, since: Position | None, limit: int, now: int) -> Past:
        """What a channel remembers behind a position, at most `limit`; without one, the latest `limit`."""
        window = self._windows.get(channel)
        if window is not None:
            window.expire(now)
            found = window.since(-1 if since is None else since.offset)
            floor = window.floor
            head = window.publications[-1].offset if window.publications else max(floor, self.watermark)
        else:
            found, floor, head = [], self.watermark, self.counter
        if since is None:
            return Past(found[-limit:] if limit else [], Position(head, self.epoch), True)
        complete = since.epoch == self.epoch and floor <= since.offset <= self.counter
        return Past(found[:limit] if complete else [], Position(head, self.epoch), complete)

    def purge(self, channel: str, at: int | None = None) -> None:
        """Forget a channel's past; no position from before, or from before the offset `at`, is good any more."""
        self.counter = self.counter + self._step() if at is None else at
        window = self._windows.pop(channel, None)
        if window is not None:
            window.publications = ()  # the wheel has it for some time yet
        self.watermark = self.counter

    def flush(self, epoch: str) -> None:
        """Forget everything and begin a new life."""
        self.__init__(epoch, dedupe=self._dedupe / 1000, step=self._step)  # type: ignore[misc]  # born again

    def sweep(self, now: int) -> list[tuple[str, int]]:
        """Drop the windows in which everything has expired; the channels that forgot something, and their floors."""
        forgot = []
        for window in self._ends.turn(now / 1000):
            channel = window.channel
            if self._windows.get(channel) is not window:
                continue
            window.expire(now)
            forgot.append((channel, window.floor))
            if window.publications:
                self._ends.add(window, window.publications[0].published_at / 1000 + window.ttl)
            else:
                self.watermark = max(self.watermark, window.floor)
                del self._windows[channel]
        return forgot


_offset = attrgetter("offset")
