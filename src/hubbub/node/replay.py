"""From a position in a channel's past to its present: what was missed, then what came meanwhile, then live.

Rules of this file:
1. While a subscriber reads the past, live publications wait in its catch-up. When the past is on its way, those behind
   its head follow, and the subscriber joins the channel in the same step: nothing is missed or doubled.
2. The answer to the subscription comes before all of them: the catch-up begins with the next turn of the loop.
3. What many clients that return miss is joined once for all of them.
4. A long past goes out in pages, each when the client's socket has taken the one before. What comes meanwhile waits in
   a bounded space; what does not fit is read from the history again, and only who falls behind that is closed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any

import msgspec

from hubbub.core.envelope import encode
from hubbub.core.recovery import Past, Position, Publication
from hubbub.core.session import ConnectionState
from hubbub.errors import CloseCode, StoreError
from hubbub.node.delivery import Batch
from hubbub.node.delivery import Publication as Noted

if TYPE_CHECKING:
    from hubbub.node.connection import Connection
    from hubbub.node.outbox import Outbox

__all__ = ["CatchUp", "Replays", "describe_publication", "message_text"]

MOST_HELD = 1024
PAGE_COUNT = 64
PAGE_BYTES = 64 * 1024
ENVELOPE = 256  # bytes of a message beside its data, about
Key = tuple[str, str, int, int]


class Body(msgspec.Struct, omit_defaults=True, gc=False):
    """The payload of `message`."""

    channel: str
    data: msgspec.Raw
    event: str | None = None
    offset: int = 0
    tags: dict[str, str] | None = None


def message_text(channel: str, publication: Publication) -> bytes:
    """The JSON of a publication as subscribers get it."""
    tags = None if publication.tags is None else dict(publication.tags)
    body = Body(channel, msgspec.Raw(publication.data), publication.event, publication.offset, tags)
    return encode("message", body, publication.published_at)


def describe_publication(publication: Publication) -> dict[str, Any]:
    """A publication as the answer to `history` has it."""
    more = {"event": publication.event, "tags": publication.tags}
    return {
        "offset": publication.offset,
        "timestamp": publication.published_at,
        **{name: value for name, value in more.items() if value is not None},
        "data": msgspec.Raw(publication.data),
    }


class CatchUp:
    """One subscriber that is not yet at the present.

    Attributes:
        held: the last of the live publications that came meanwhile.
        dropped: the offset of the last one before those, where there were too many.
        closed: whether it is no longer wanted.
        begun: whether the answer is sent, or none will be.
    """

    __slots__ = ("_size", "begun", "channel", "closed", "connection", "dropped", "held")

    def __init__(self, connection: Connection, channel: str) -> None:
        self.connection = connection
        self.channel = channel
        self.held: deque[Publication] = deque()
        self.dropped = 0
        self.closed = False
        self.begun = asyncio.Event()
        self._size = 0

    @property
    def wanted(self) -> bool:
        """Whether there is still somebody to send it to."""
        return not self.closed and self.connection.state is ConnectionState.OPEN

    def hold(self, publication: Publication) -> None:
        """Keep one for later, as many as one client's queue may have."""
        self.held.append(publication)
        self._size += _weigh(publication)
        while len(self.held) > MOST_HELD or self._size > self.connection.outbox.limit:
            oldest = self.held.popleft()
            self._size -= _weigh(oldest)
            self.dropped = oldest.offset

    def take(self, offset: int) -> list[Publication]:
        """Take out what is held; the part of it behind an offset."""
        held, self.held, self._size = self.held, deque(), 0
        return [publication for publication in held if publication.offset > offset]


class Replays:
    """Sends the past.

    Args:
        join: makes a connection a subscriber, in the step in which it is called.
        read: gives what a channel remembers behind a position, or the first page of it.
    """

    def __init__(self, join: Callable[[CatchUp], None], read: Callable[[str, Position], Awaitable[Past]]) -> None:
        self._join = join
        self._read = read
        self._batches: dict[Key, Batch] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def open_soon(self, catch_up: CatchUp, missed: Sequence[Publication], head: Position) -> None:
        """Send what was missed and what came meanwhile, then go live, all behind the answer."""
        asyncio.get_running_loop().call_soon(self._open, catch_up, missed, head)

    def forget(self) -> None:
        """Let go of what was joined; called from time to time."""
        self._batches.clear()

    def stop(self) -> None:
        """End the replays that wait for their client."""
        for task in self._tasks:
            task.cancel()

    def _open(self, catch_up: CatchUp, missed: Sequence[Publication], head: Position) -> None:
        catch_up.begun.set()
        if not catch_up.wanted:
            return
        outbox = catch_up.connection.outbox
        at_once = next(_pages([*missed, *catch_up.held], _page_size(outbox)), [])
        if len(at_once) == len(missed) + len(catch_up.held) and not outbox.full and catch_up.dropped <= head.offset:
            self._put(catch_up, missed, head.epoch)
            self._put(catch_up, catch_up.take(head.offset), head.epoch)
            if not catch_up.closed:
                self._join(catch_up)
            return
        task = asyncio.get_running_loop().create_task(self._send_slowly(catch_up, missed, head), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_slowly(self, catch_up: CatchUp, missed: Sequence[Publication], head: Position) -> None:
        """Send a long past as fast as the client reads it, then what came meanwhile, until there is nothing more."""
        while await self._send(catch_up, missed, head.epoch):
            if catch_up.dropped <= head.offset:
                missed = catch_up.take(head.offset)
                if not missed:
                    self._join(catch_up)
                    return
            else:
                missed = await self._read_on(catch_up, head)
                if not missed:
                    catch_up.connection.close(CloseCode.SLOW_CONSUMER, "read its past too slowly")
                    return
            head = head._replace(offset=missed[-1].offset)

    async def _send(self, catch_up: CatchUp, publications: Sequence[Publication], epoch: str) -> bool:
        """Send page by page; whether there is still somebody who wants more."""
        outbox = catch_up.connection.outbox
        await outbox.drained()
        for page in _pages(publications, _page_size(outbox)):
            if not catch_up.wanted:
                return False
            self._put(catch_up, page, epoch)
            await outbox.drained()
        return catch_up.wanted

    async def _read_on(self, catch_up: CatchUp, head: Position) -> Sequence[Publication]:
        """What did not fit in; nothing, where a part of it is lost."""
        try:
            past = await self._read(catch_up.channel, head)
        except StoreError:
            return []
        return past.publications if past.complete else []

    def _put(self, catch_up: CatchUp, publications: Sequence[Publication], epoch: str) -> None:
        if publications:
            outbox = catch_up.connection.outbox
            catch_up.connection.node.delivery.drain(outbox)
            outbox.put(self._batch(catch_up.channel, epoch, publications).data(outbox.transport.form))

    def _batch(self, channel: str, epoch: str, publications: Sequence[Publication]) -> Batch:
        key = (channel, epoch, publications[0].offset, publications[-1].offset)
        batch = self._batches.get(key)
        if batch is None:
            texts = [Noted(0, message_text(channel, publication)) for publication in publications]
            batch = self._batches[key] = Batch(texts)
        return batch


def _weigh(publication: Publication) -> int:
    tags = publication.tags or {}
    return ENVELOPE + len(publication.data) + sum(len(name) + len(value) for name, value in tags.items())


def _page_size(outbox: Outbox) -> int:
    return min(PAGE_BYTES, outbox.limit // 2)


def _pages(publications: Sequence[Publication], most: int) -> Iterator[Sequence[Publication]]:
    """Cut by count and by bytes: one that is too big has a page of its own."""
    start = size = 0
    for index, publication in enumerate(publications):
        weight = _weigh(publication)
        if index > start and (index - start == PAGE_COUNT or size + weight > most):
            yield publications[start:index]
            start, size = index, 0
        size += weight
    if start < len(publications):
        yield publications[start:]
