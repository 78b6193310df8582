"""What one node knows of a channel whose history is elsewhere: how far it was told, and the latest publications.

Rules of this file:
1. Publications are passed on in order, each once. One that names a predecessor which was not passed on shows a gap: it
   and all behind it wait until the gap is healed from the channel's history, which is complete or breaks the channel.
2. A tail answers for the past itself where it knows all that is behind a position: many clients that come back to one
   channel cost one reading of the history.
"""

from __future__ import annotations

from hubbub.core.recovery import Past, Position, Publication, Window

__all__ = ["Tail"]

MOST_WAITING = 1024


class Tail:
    """The present of one channel, and the part of its past that this node has seen.

    Args:
        head: where the channel stood when this node began to be told of it.
        size: how many publications the channel remembers.
        ttl: seconds for which it does.

    Attributes:
        head: how far the subscribers here were told.
        last: the last publication, if it is known and was not purged.
        lost: the last position known not to be good.
        due: the offset of the last publication that this node made itself: whoever asks is told of that.
        waiting: publications behind a gap, in order.
    """

    __slots__ = ("_size", "_window", "due", "head", "last", "lost", "waiting")

    def __init__(self, head: Position, size: int, ttl: float) -> None:
        self.head = head
        self.last: Publication | None = None
        self.lost = -1
        self.due = 0
        self.waiting: list[Publication] = []
        self._size = size
        self._window = Window(head.offset, ttl)

    @property
    def gap(self) -> bool:
        """Whether something is missing."""
        return bool(self.waiting)

    @property
    def behind(self) -> bool:
        """Whether this node has published more than it was told of."""
        return self.head.offset < self.due

    def published(self, place: Position) -> None:
        """Take note of a publication of this node."""
        if place.epoch == self.head.epoch:
            self.due = max(self.due, place.offset)

    def take(self, publication: Publication) -> bool:
        """Take the next publication in; whether it is to be passed on now. If not it is known, or behind a gap."""
        if publication.offset <= self.head.offset:
            return False
        if self.waiting or publication.previous > self.head.offset:
            if len(self.waiting) >= MOST_WAITING:
                self.waiting.pop()  # the history has it; that the latest waits shows that more is missing
            self.waiting.append(publication)
            return False
        self._pass(publication)
        return True

    def heal(self, past: Past) -> list[Publication] | None:
        """What to pass on after reading the history behind `head`; None: it does not have all, the channel is broken.

        Args:
            past: what the history has behind `head`; if it is one page of many, `gap` stays true or more is found by
                the next reading.
        """
        if not past.complete or past.head.epoch != self.head.epoch:
            return None
        found = [publication for publication in past.publications if publication.offset > self.head.offset]
        for publication in found:
            self._pass(publication)
        waiting, self.waiting = self.waiting, []
        return found + [publication for publication in waiting if self.take(publication)]

    def answer(self, since: Position | None, limit: int, now: int) -> Past | None:
        """What is behind a position, or without one the latest; None: ask the history."""
        if self.behind:
            return None
        if since is None:
            if limit > 1 or self.gap:
                return None
            young = self.last is not None and self.last.published_at > now - round(self._window.ttl * 1000)
            return Past([self.last] if self.last and young and limit else [], self.head, True)
        if since.epoch != self.head.epoch or since.offset <= self.lost:
            return Past([], self.head, False)
        return self.past(since, limit, now)

    def past(self, since: Position, limit: int, now: int) -> Past | None:
        """What is behind a position, at most `limit`; None: ask the history."""
        self._window.expire(now)
        known = since.epoch == self.head.epoch and self._window.floor <= since.offset <= self.head.offset
        if not known or self.waiting:
            return None
        return Past(self._window.since(since.offset)[:limit], self.head, True)

    def extend(self, since: Position, past: Past) -> None:
        """Remember what the history had behind a position, if it reaches what is known here."""
        publications, floor = past.publications, self._window.floor
        reaches = publications[-1].offset >= floor if publications else since.offset >= floor
        if not past.complete or since.epoch != self.head.epoch or since.offset >= floor or not reaches:
            return
        older = [publication for publication in publications if publication.offset <= floor]
        self._window.publications = [*older, *self._window.publications]
        self._window.floor = since.offset

    def _pass(self, publication: Publication) -> None:
        self.head, self.last = Position(publication.offset, self.head.epoch), publication
        self._window.add(publication, self._size)
