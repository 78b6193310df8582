"""A publication for many: encoded once for each form, joined once for each set of subscribers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from hubbub.core.envelope import encode
from hubbub.core.forms import Form
from hubbub.core.streams import StreamMessage

if TYPE_CHECKING:
    from hubbub.core.channels import Channel
    from hubbub.core.namespaces import Slow

__all__ = ["Batch", "Key", "Publication", "join_stream"]

Key = tuple[str | None, str | None]
"""What a publication is the latest of: its tag `key`, or else its event."""


class Publication:
    """One message for many: its number, its JSON, its wire data by form, and where it comes from."""

    __slots__ = ("_wire", "channel", "key", "number", "offset", "slow", "text")

    def __init__(
        self, number: int, text: bytes, channel: Channel[Any] | None = None, offset: int = 0, key: Key | None = None
    ) -> None:
        self.number = number
        self.text = text
        self.channel = channel
        self.slow: Slow = "close" if channel is None else channel.slow
        self.offset = offset
        self.key = key
        self._wire: dict[Form, Any] = {}

    def wire(self, form: Form) -> Any:
        """The data for sockets of this form, made once."""
        data = self._wire.get(form)
        if data is None:
            data = self._wire[form] = form.encode(self.text)
        return data


class Batch:
    """Publications that go to one set of subscribers, joined once per form."""

    __slots__ = ("_data", "_droppable", "publications")

    def __init__(self, publications: list[Publication]) -> None:
        self.publications = publications
        self._data: dict[Form, Any] = {}
        self._droppable: bool | None = None

    @property
    def droppable(self) -> bool:
        """Whether a client that does not keep up may go without any of them."""
        if self._droppable is None:
            self._droppable = any(publication.slow != "close" for publication in self.publications)
        return self._droppable

    def data(self, form: Form) -> Any:
        """All of them as one piece of wire data."""
        data = self._data.get(form)
        if data is None:
            data = self._data[form] = form.join([publication.wire(form) for publication in self.publications])
        return data


def join_stream(messages: list[StreamMessage]) -> Batch:
    """Messages of a stream for its subscribers."""
    now = time.time_ns() // 1_000_000
    return Batch([Publication(0, encode("stream", message, now)) for message in messages])
