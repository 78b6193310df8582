"""Streams: text that a producer writes bit by bit, and progress, told live and as one to whoever comes late.

Rules of this file:
1. What a producer says within one turn of the loop goes out as one, with the turn.
2. A new subscriber is a newcomer until it was given the whole, behind its `subscribed`. First the others are given what
   is pending, so that the whole has it and the newcomer goes on behind it: nothing is missed or doubled.
3. A producer waits for subscribers that read slowly, for none of them longer than its `patience` in all.
4. Only the cancellation that a subscriber asked for ends with the block; every other error passes.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from contextvars import Context
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from hubbub.core.envelope import encode_payload
from hubbub.core.streams import Aggregate, StreamMessage
from hubbub.core.wheel import Wheel
from hubbub.errors import RequestError, UsageError
from hubbub.node.batch import Batch, join_stream

if TYPE_CHECKING:
    from hubbub.node.connection import Connection
    from hubbub.node.node import Node
    from hubbub.node.outbox import Outbox

__all__ = ["KEPT", "LIMIT", "PATIENCE", "Stream", "Streams"]

LIMIT = 1024 * 1024
"""Bytes of JSON that a stream may say, by default."""
KEPT = 300.0
"""Seconds for which a stream that has ended is kept, by default."""
PATIENCE = 5.0
"""Seconds that a producer waits for one slow subscriber, by default."""
TURN = 16 * 1024  # characters without a turn of the loop
LEAST = 256  # of them that everything counts as


class Stream:
    """A producer's side of a stream, for one `async with`; made by `hub.stream`.

    Args:
        node: where it runs.
        channel: whose subscribers it is for, checked.
        limit: bytes of JSON of all its text and its latest progress.
        ttl: seconds for which it is kept behind its end.
        patience: seconds that it waits for one slow subscriber, in all.

    Attributes:
        id: its name, as subscribers see it.
        cancelled: whether a subscriber asked for its end.
        in_handler: whether its producer is a handler, which ends with its connection.
    """

    def __init__(self, node: Node, channel: str, limit: int, ttl: float, patience: float) -> None:
        self.id = secrets.token_urlsafe(9)
        self.channel = channel
        self.ttl = ttl
        self.cancelled = False
        self.in_handler = False
        self.ended: asyncio.Future[None] | None = None
        self.task: asyncio.Task[Any] | None = None
        self._aggregate = Aggregate(channel, self.id, limit)
        self._audience = Audience(node, channel, patience)
        self._node = node
        self._untold = 0
        self._cancelling = 0

    async def __aenter__(self) -> Stream:
        if self.ended is not None:
            raise UsageError("A stream is for one `async with`: call hub.stream again.")
        self._node.streams.open(self)
        self.task = asyncio.current_task()
        assert self.task is not None
        self._cancelling = self.task.cancelling()
        self.in_handler = self._node.dispatcher.workers.running_here
        self.ended = asyncio.get_running_loop().create_future()
        self._audience.tell(self._aggregate.whole())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        stopped = kind is not None and issubclass(kind, asyncio.CancelledError)
        if kind is not None and not stopped:
            last = self._aggregate.finish("error")
        else:
            last = self._aggregate.finish("end", "cancelled" if stopped or self.cancelled else "done")
        task, self.task = self.task, None
        assert task is not None
        assert self.ended is not None
        if self._node.streams.find(self.channel) is self:  # not where the hub has another life by now
            self._audience.tell(last)
            self._node.streams.close(self)
            self.ended.set_result(None)
        # As `asyncio.timeout` does: if somebody else cancels the task as well, that is not ours to swallow.
        return self.cancelled and task.uncancel() <= self._cancelling and stopped

    async def append(self, text: str) -> None:
        """Say more; waits while subscribers have too much to read.

        Raises:
            UsageError: outside of the block, not text, or more than the stream's limit; nothing is said.
        """
        self._check_open()
        if not isinstance(text, str):
            raise UsageError(f"append takes text, not {type(text).__name__}: use update for progress.")
        self._aggregate.append(text)
        await self._said(len(text))

    async def update(self, data: Any) -> None:
        """Say how far it is, in place of what was said before; waits while subscribers have too much to read.

        Args:
            data: anything with a JSON form.

        Raises:
            UsageError: outside of the block, or more than the stream's limit; nothing is said.
        """
        self._check_open()
        text = encode_payload(data) or b"null"
        self._aggregate.update(text)
        await self._said(len(text))

    @property
    def running(self) -> bool:
        """Whether the block has begun and not ended."""
        return self.ended is not None and not self.ended.done()

    def cancel(self) -> None:
        """End the producer's block by `CancelledError`; a second call changes nothing."""
        if self.running and not self.cancelled:
            assert self.task is not None
            self.cancelled = True
            self.task.cancel()

    # For `Streams`

    def whole(self) -> list[StreamMessage]:
        """What it has told so far."""
        return self._aggregate.whole()

    def joined(self, outbox: Outbox) -> None:
        """Give a new subscriber the whole, with the next turn of the loop."""
        self._audience.newcomers[outbox] = None
        asyncio.get_running_loop().call_soon(self._welcome, outbox)

    def left(self, outbox: Outbox) -> None:
        """Forget a subscriber."""
        self._audience.forget(outbox)

    def _welcome(self, outbox: Outbox) -> None:
        audience = self._audience
        if outbox not in audience.newcomers or self._node.streams.find(self.channel) is not self:
            return
        if outbox.full:
            self._node.streams.spawn(self._welcome_slowly(outbox))
            return
        self._tell()
        audience.welcome(outbox, self._aggregate)

    async def _welcome_slowly(self, outbox: Outbox) -> None:
        await outbox.room()
        self._welcome(outbox)

    # Inside

    async def _said(self, size: int) -> None:
        if not self._untold:
            asyncio.get_running_loop().call_soon(self._tell)
        self._untold += max(size, LEAST)
        if self._untold >= TURN:
            await asyncio.sleep(0)  # let it go out, and the others have their turn
        if self._audience.slow:
            await self._audience.room()

    def _tell(self) -> None:
        self._untold = 0
        messages = self._aggregate.take()
        if messages:
            self._audience.tell(messages)

    def _check_open(self) -> None:
        if not self.running:
            raise UsageError("A stream says something inside of its `async with` block only.")


class Audience:
    """The subscribers of a stream, and how it reaches them.

    Attributes:
        newcomers: those who were not given the whole yet.
        slow: those who have much to read, and are still waited for.
    """

    def __init__(self, node: Node, channel: str, patience: float) -> None:
        self.newcomers: dict[Outbox, None] = {}
        self.slow: dict[Outbox, None] = {}
        self._node = node
        self._channel = channel
        self._patience = patience
        self._left: dict[Outbox, float] = {}  # of the patience
        self._whole: tuple[int, Batch] | None = None

    def tell(self, messages: list[StreamMessage]) -> None:
        """Send messages to all but newcomers."""
        self._node.mirrors.say(self._channel, messages)
        found = self._node.channels.get(self._channel)
        if found is not None:
            batch = join_stream(messages)
            for outbox in [each for each in found.members if each not in self.newcomers]:
                self._put(outbox, batch)

    def welcome(self, newcomer: Outbox, aggregate: Aggregate) -> None:
        """Send one newcomer the whole, joined once for all of them that come at this position."""
        if self._whole is None or self._whole[0] != aggregate.position:
            self._whole = (aggregate.position, join_stream(aggregate.whole()))
        del self.newcomers[newcomer]
        self._put(newcomer, self._whole[1])

    def forget(self, outbox: Outbox) -> None:
        """Take out somebody who is no longer subscribed."""
        for kept in (self.newcomers, self.slow, self._left):
            kept.pop(outbox, None)

    async def room(self) -> None:
        """Wait until nobody who is still waited for has too much to read."""
        loop = asyncio.get_running_loop()
        while self.slow:
            began = loop.time()
            first, least = next(iter(self.slow)), min(self._left.get(each, self._patience) for each in self.slow)
            with suppress(TimeoutError):
                async with asyncio.timeout(least):
                    await first.room()
            for outbox in list(self.slow):  # one wait was a wait for all of them
                self._left[outbox] = self._left.get(outbox, self._patience) - (loop.time() - began)
                if not self._waits_for(outbox):
                    del self.slow[outbox]

    def _put(self, outbox: Outbox, batch: Batch) -> None:
        self._node.delivery.drain(outbox)
        if outbox.connection.is_open:  # what was drained may have been too much
            outbox.put(batch.data(outbox.transport.form))
        if self._waits_for(outbox):
            self.slow[outbox] = None

    def _waits_for(self, outbox: Outbox) -> bool:
        return outbox.full and outbox.connection.is_open and self._left.get(outbox, self._patience) > 0


class Streams:
    """The streams of a node: one a channel, running or kept for those who come late.

    Args:
        node: where they run.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self.reset()

    def reset(self) -> None:
        """Have none."""
        self._streams: dict[str, Stream] = {}
        self._ends: Wheel[Stream] = Wheel(1.0)
        self._asked: set[tuple[Connection, str]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def find(self, channel: str) -> Stream | None:
        """The stream on a channel, running or kept."""
        return self._streams.get(channel)

    def open(self, stream: Stream) -> None:
        """Take in a stream that begins, in place of one that has ended.

        Raises:
            UsageError: one is running on this channel, or the hub stops.
        """
        before = self._streams.get(stream.channel)
        if before is not None and before.running:
            raise UsageError(f"A stream is running on {stream.channel!r}: a channel has one at a time.")
        if self._node.closing:
            raise UsageError("The hub stops: no stream can begin.")
        self._streams[stream.channel] = stream
        self._node.mirrors.began([stream.channel])

    def close(self, stream: Stream) -> None:
        """Keep a stream that has ended for as long as its `ttl` says."""
        if self.find(stream.channel) is stream:
            self._ends.add(stream, monotonic() + stream.ttl)

    def give_way(self, channel: str) -> None:
        """Forget a stream that has ended, for a later one on another node."""
        stream = self.find(channel)
        if stream is not None and not stream.running:
            del self._streams[channel]
            self._node.mirrors.ended(channel)

    def joined(self, connection: Connection, channel: str) -> None:
        """Take note of a new subscriber."""
        if channel in self._streams:
            self._streams[channel].joined(connection.outbox)

    def left(self, connection: Connection, channel: str) -> None:
        """Take note of the end of a subscription."""
        if channel in self._streams:
            self._streams[channel].left(connection.outbox)

    def beat(self, now: float) -> None:
        """Forget those that were kept long enough, `now` in monotonic seconds."""
        for stream in self._ends.turn(now):
            if self.find(stream.channel) is stream:
                del self._streams[stream.channel]
                self._node.mirrors.ended(stream.channel)

    def cancel(self, connection: Connection, channel: str, stream_id: str | None, id: str | None) -> None:
        """End a channel's stream for a subscriber, once the app's rule says yes, and answer.

        Args:
            connection: who asks.
            channel: the channel's name.
            stream_id: the one stream that is meant; None for whichever runs.
            id: of the request.

        Raises:
            RequestError: `forbidden`: not a subscriber; `bad_channel`.
        """
        if not self._node.subscriptions.has(connection, channel):
            self._node.subscriptions.find(channel)
            raise RequestError("forbidden", "Only its subscribers can cancel a stream.", "channel")
        here, abroad = self.meant(channel, stream_id), self._node.mirrors.runs_abroad(channel)
        asked = (connection, channel)
        if (here is None and not abroad) or asked in self._asked:
            connection.send("cancelled", {"channel": channel}, id)
        else:
            self._asked.add(asked)
            self.spawn(self._ask(connection, channel, stream_id, id))

    def meant(self, channel: str, stream_id: str | None) -> Stream | None:
        """The stream that runs on a channel, if it is the one that is meant."""
        stream = self.find(channel)
        return stream if stream is not None and stream.running and stream_id in (None, stream.id) else None

    def end(self, channel: str, stream_id: str | None) -> str | None:
        """Cancel the stream that is meant, and say its id; None if there is none."""
        stream = self.meant(channel, stream_id)
        if stream is None:
            return None
        stream.cancel()
        return stream.id

    def whole(self, channel: str) -> bytes | None:
        """What the stream on a channel has told so far, in JSON; None if there is none."""
        stream = self.find(channel)
        return None if stream is None else msgspec.json.encode(stream.whole())

    @property
    def channels(self) -> list[str]:
        """Where streams run, or ran a moment ago."""
        return list(self._streams)

    async def _ask(self, connection: Connection, channel: str, stream_id: str | None, id: str | None) -> None:
        try:
            async with asyncio.timeout(self._node.timeouts.handler):
                await self._node.subscriptions.permit("cancel", connection, channel)
        except TimeoutError:
            connection.send_error(RequestError("timeout", "The rule for this channel took too long."), id)
        except RequestError as error:
            self._node.dispatcher.answer(connection, error, id)
        else:
            ended = self.end(channel, stream_id) or await self._node.mirrors.cancel(channel, stream_id)
            more = {} if ended is None else {"id": ended}
            connection.send("cancelled", {"channel": channel, **more}, id)
        finally:
            self._asked.discard((connection, channel))

    def spawn(self, work: Any) -> None:
        """Run a coroutine until the node stops."""
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self, deadline: float) -> None:
        """Cancel the producers, and let them end until a time, in the loop's seconds."""
        for task in self._tasks:
            task.cancel()
        here = asyncio.current_task()
        ends = []
        for stream in self._streams.values():
            if stream.running and not stream.in_handler and stream.task is not here:
                assert stream.task is not None
                assert stream.ended is not None
                stream.task.cancel()
                ends.append(stream.ended)
        if ends:
            await asyncio.wait(ends, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
