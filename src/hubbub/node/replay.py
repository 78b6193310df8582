"""From a position in a channel's past to its present: what was missed, then what came meanwhile, then live.

Rules of this file:
1. While a subscriber reads the past, live publications wait in its catch-up. When the past is on its way, those behind
   its head follow, and the subscriber joins the channel in the same step: nothing is missed or doubled.
2. The answer to the subscription comes before all of them: the catch-up begins with the next turn of the loop.
3. What many clients that return miss is joined once for all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any

import msgspec

from hubbub.core.envelope import encode
from hubbub.core.recovery import Position, Publication
from hubbub.core.session import ConnectionState
from hubbub.errors import CloseCode
from hubbub.node.delivery import Batch
from hubbub.node.delivery import Publication as Noted

if TYPE_CHECKING:
    from hubbub.node.connection import Connection

__all__ = ["CatchUp", "Replays", "describe_publication", "message_text"]

MOST_HELD = 1024
CHUNK = 64
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
    """

    __slots__ = ("channel", "closed", "connection", "dropped", "held")

    def __init__(self, connection: Connection, channel: str) -> None:
        self.connection = connection
        self.channel = channel
        self.held: deque[Publication] = deque()
        self.dropped = 0
        self.closed = False

    def hold(self, publication: Publication) -> None:
        """Keep one for later."""
        self.held.append(publication)
        if len(self.held) > MOST_HELD:
            self.dropped = self.held.popleft().offset


class Replays:
    """Sends the past.

    Args:
        join: makes a connection a subscriber, in the step in which it is called.
    """

    def __init__(self, join: Callable[[CatchUp], None]) -> None:
        self._join = join
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
        if catch_up.closed or catch_up.connection.state is not ConnectionState.OPEN:
            return
        if len(missed) <= CHUNK and not catch_up.connection.outbox.full:
            self._put(catch_up, missed, head.epoch)
            self._finish(catch_up, head)
            return
        task = asyncio.get_running_loop().create_task(self._send_slowly(catch_up, missed, head), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send_slowly(self, catch_up: CatchUp, missed: Sequence[Publication], head: Position) -> None:
        """Send a long past as fast as the client reads it."""
        connection = catch_up.connection
        for start in range(0, len(missed), CHUNK):
            self._put(catch_up, missed[start : start + CHUNK], head.epoch)
            while connection.outbox.full and not catch_up.closed:
                await connection.outbox.room()
            if catch_up.closed or connection.state is not ConnectionState.OPEN:
                return
        if catch_up.dropped > head.offset:
            connection.close(CloseCode.SLOW_CONSUMER, "read its past too slowly")
        else:
            self._finish(catch_up, head)

    def _finish(self, catch_up: CatchUp, head: Position) -> None:
        held = [publication for publication in catch_up.held if publication.offset > head.offset]
        self._put(catch_up, held, head.epoch)
        if not catch_up.closed:
            self._join(catch_up)

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
