"""What waits for a client that does not read: wire data that must arrive, publications that may be dropped, and gaps.

Rules of this file:
1. Nothing changes its place: what is left arrives in the order in which it was added.
2. What is dropped becomes a gap, which tells the client. Gaps of one channel with nothing of it in between are one
   gap, in the place of the last: right before the channel's next message, behind all that came before.
3. A place is a number that stays when something is taken from the front; where gaps are joined, what is before them
   moves towards the end. Joining is put off until there are many, so that each costs little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hubbub.core.envelope import encode
from hubbub.node.batch import Publication

if TYPE_CHECKING:
    from hubbub.core.channels import Channel
    from hubbub.core.forms import Form
    from hubbub.node.batch import Key

__all__ = ["Backlog", "Gap"]

LOOSE = 32


class Gap:
    """Publications of one channel, next to each other in it, that a client goes without."""

    __slots__ = ("channel", "count", "first", "last")

    def __init__(self, publication: Publication) -> None:
        self.channel = publication.channel
        self.count = 1
        self.first = self.last = publication.offset

    def begin_with(self, earlier: Gap) -> None:
        """Take in the one before."""
        self.first = earlier.first
        self.count += earlier.count

    def text(self, now: int) -> bytes:
        """The message that tells; offsets only where the channel has any. `now` in milliseconds since 1970."""
        assert self.channel is not None
        places = {"from": self.first, "to": self.last} if self.last else {}
        return encode("skipped", {"channel": self.channel.name, **places, "count": self.count}, now)


class Backlog:
    """A queue for sockets of one form.

    Attributes:
        size: what waits, as `Form.size` weighs it, gaps left out.
    """

    __slots__ = ("_base", "_conflated", "_dropped", "_form", "_items", "_latest", "_oldest", "size")

    def __init__(self, form: Form) -> None:
        self.size = 0
        self._form = form
        self._items: list[Any] = []
        self._base = 0  # the place of the first item
        self._oldest = 0  # no publication of `drop_oldest` stands before this place
        self._latest: dict[tuple[Channel[Any] | None, Key | None], int] | None = None
        self._conflated = self._dropped = 0  # gaps, since they were joined last

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Any, size: int) -> None:
        """Add wire data that must arrive, or a publication that may be dropped."""
        self._items.append(item)
        self.size += size

    def conflate(self, publication: Publication, size: int) -> bool:
        """Add a publication and drop the one of its channel and key that waits; whether there was one."""
        if self._latest is None:
            self._latest = {}
        name = (publication.channel, publication.key)
        place = self._latest.get(name)
        self._latest[name] = self._base + len(self._items)
        self.add(publication, size)
        if place is None:
            return False
        self._drop(place - self._base)
        self._conflated += 1
        if self._conflated > max(LOOSE, len(self._items) // 2):
            self._join_all()
        return True

    def drop_oldest(self, excess: int) -> int:
        """Drop the oldest of channels that say so, until `excess` is gone or none is left; how many they were."""
        count, index = 0, self._oldest - self._base
        enough = self.size - excess
        while self.size > enough and index < len(self._items):
            item = self._items[index]
            if isinstance(item, Publication) and item.slow == "drop_oldest":
                self._drop(index)
                count += 1
            index += 1
        self._oldest = self._base + index
        self._dropped += count
        if self._dropped > max(LOOSE, index // 2):
            self._join_gaps(index)
            self._dropped = 0
        return count

    def take(self, size: int, now: int) -> Any:
        """Take the first `size` and a bit out, as one piece of wire data; `now` in milliseconds since 1970."""
        if self._conflated or self._dropped:
            self._join_all()
        pieces: list[Any] = []
        taken = 0
        for item in self._items:
            pieces.append(self._piece(item, now))
            weight = self._form.size(pieces[-1])
            taken += weight
            self.size -= 0 if isinstance(item, Gap) else weight
            if taken >= size:
                break
        self._forget(len(pieces))
        return self._form.join(pieces)

    def _piece(self, item: Any, now: int) -> Any:
        if isinstance(item, Publication):
            return item.wire(self._form)
        return self._form.encode(item.text(now)) if isinstance(item, Gap) else item

    def _forget(self, count: int) -> None:
        """Let go of the first so many."""
        if self._latest:
            for place, item in enumerate(self._items[:count], self._base):
                if isinstance(item, Publication) and self._latest.get((item.channel, item.key)) == place:
                    del self._latest[item.channel, item.key]
        del self._items[:count]
        self._base += count
        self._oldest = max(self._oldest, self._base)

    def _drop(self, index: int) -> None:
        publication = self._items[index]
        self.size -= self._form.size(publication.wire(self._form))
        self._items[index] = Gap(publication)

    def _join_all(self) -> None:
        self._join_gaps(len(self._items))
        self._conflated = self._dropped = 0

    def _join_gaps(self, end: int) -> None:
        """Make one of the gaps that belong together, in front of an index."""
        later: dict[Any, Gap] = {}
        left: list[Any] = []
        top = self._base + end
        for place in reversed(range(self._base, top)):
            item = self._items[place - self._base]
            if isinstance(item, Gap):
                gap = later.setdefault(item.channel, item)
                if gap is not item:
                    gap.begin_with(item)
                    continue
            elif isinstance(item, Publication):
                later.pop(item.channel, None)
                if self._latest and self._latest.get((item.channel, item.key)) == place:
                    self._latest[item.channel, item.key] = top - 1 - len(left)
            left.append(item)
        left.reverse()
        self._items[:end] = left
        self._base = top - len(left)
        self._oldest = max(self._oldest, self._base)
