"""What a stream has said so far: text that grows and progress that changes, joined for whoever comes late.

Rules of this file:
1. Each message has the next position. `start` says all there is up to its own; the others say what came behind it.
2. What changed since the last look is said at once: the texts joined, then the latest progress.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from hubbub.core.envelope import encode_payload
from hubbub.errors import UsageError

__all__ = ["Aggregate", "Copy", "Event", "Reason", "StreamMessage"]

Event = Literal["start", "append", "update", "end", "error"]
Reason = Literal["done", "cancelled"]
NOTHING = msgspec.Raw()


class StreamMessage(msgspec.Struct, omit_defaults=True, gc=False):
    """The payload of `stream`.

    Args:
        channel: where it runs.
        id: which stream of this channel it is.
        event: `start`, `append` (text goes behind the text), `update` (data takes the place of the data), and last
            `end` or `error`.
        position: the number of this message in its stream; a `start` has that of the last it contains.
        text: of `append`, what is new; of `start`, all of it.
        data: of `update` and `start`, the latest progress.
        reason: of `end`.
    """

    channel: str
    id: str
    event: Event
    position: int
    text: str | None = None
    data: msgspec.Raw = NOTHING  # in a union with None it could not be read
    reason: Reason | None = None


class Aggregate:
    """Everything that one stream has said.

    Args:
        channel: where it runs.
        id: its name there.
        limit: bytes of JSON that its text and its latest progress may have.
    """

    def __init__(self, channel: str, id: str, limit: int) -> None:
        self.channel = channel
        self.id = id
        self.limit = limit
        self.position = 0
        self._texts: list[str] = []
        self._size = 0
        self._data = NOTHING
        self._new_texts: list[str] = []
        self._new_data = False
        self._last: StreamMessage | None = None

    def append(self, text: str) -> None:
        """Add text.

        Raises:
            UsageError: the aggregate would be too big; nothing is added.
        """
        size = len(encode_payload(text)) - 2  # without the quotes
        self._check(self._size + size, self._data)
        self._size += size
        if text:
            self._new_texts.append(text)

    def update(self, data: bytes) -> None:
        """Put JSON in the place of the latest progress.

        Raises:
            UsageError: the aggregate would be too big; nothing is changed.
        """
        self._check(self._size, data)
        self._data = msgspec.Raw(data)
        self._new_data = True

    def take(self) -> list[StreamMessage]:
        """What is to be told: what changed since it was last asked for."""
        messages = []
        if self._new_texts:
            text = "".join(self._new_texts)
            self._texts.append(text)
            self._new_texts.clear()
            messages.append(self._next("append", text=text))
        if self._new_data:
            self._new_data = False
            messages.append(self._next("update", data=self._data))
        return messages

    def finish(self, event: Literal["end", "error"], reason: Reason | None = None) -> list[StreamMessage]:
        """The last that is to be told; nothing changes behind it."""
        messages = self.take()
        self._texts = ["".join(self._texts)]
        self._last = self._next(event, reason=reason)
        return [*messages, self._last]

    def whole(self) -> list[StreamMessage]:
        """What somebody who comes late is told: all that was taken so far, and that it is over if it is."""
        self._texts = ["".join(self._texts)]
        position = self.position if self._last is None else self.position - 1
        start = StreamMessage(self.channel, self.id, "start", position, self._texts[0] or None, self._data)
        return [start] if self._last is None else [start, self._last]

    def _next(
        self,
        event: Event,
        *,
        text: str | None = None,
        data: msgspec.Raw = NOTHING,
        reason: Reason | None = None,
    ) -> StreamMessage:
        self.position += 1
        return StreamMessage(self.channel, self.id, event, self.position, text, data, reason)

    def _check(self, size: int, data: bytes | msgspec.Raw) -> None:
        if size + memoryview(data).nbytes > self.limit:
            raise UsageError(
                f"The stream on {self.channel!r} would have more than {self.limit} bytes: "
                "give hub.stream a higher limit, or end it and begin another."
            )


class Copy:
    """What a stream on another node has said so far, as far as it was heard here.

    Args:
        whole: what `Aggregate.whole` said there.
    """

    def __init__(self, whole: list[StreamMessage]) -> None:
        start = whole[0]
        self.channel = start.channel
        self.id = start.id
        self.position = start.position
        self._texts = [start.text or ""]
        self._data = start.data
        self._last: StreamMessage | None = None
        for message in whole[1:]:
            self.take(message)

    @property
    def ended(self) -> bool:
        """Whether nothing more will be said."""
        return self._last is not None

    def take(self, message: StreamMessage) -> bool:
        """Take in the next message; False if it is none: something before it was missed, or it is another stream's.

        A message that is known already is none either, and does no harm.
        """
        if message.id != self.id or message.position != self.position + 1 or self.ended:
            return False
        self.position = message.position
        if message.event == "append":
            self._texts.append(message.text or "")
        elif message.event == "update":
            self._data = message.data
        else:
            self._last = message
        return True

    def knows(self, message: StreamMessage) -> bool:
        """Whether a message is of this stream and in here."""
        return message.id == self.id and message.position <= self.position

    def fail(self) -> StreamMessage:
        """The last message of a stream whose node is gone."""
        message = StreamMessage(self.channel, self.id, "error", self.position + 1)
        self.take(message)
        return message

    def whole(self) -> list[StreamMessage]:
        """What somebody who comes late is told; see `Aggregate.whole`."""
        self._texts = ["".join(self._texts)]
        position = self.position if self._last is None else self.position - 1
        start = StreamMessage(self.channel, self.id, "start", position, self._texts[0] or None, self._data)
        return [start] if self._last is None else [start, self._last]
