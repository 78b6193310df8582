"""Publications on their way: from whoever publishes to the broker, from the broker to this node's subscribers."""

from __future__ import annotations

import inspect
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from hubbub.core.envelope import encode_payload
from hubbub.core.labels import check_event, check_key, check_tags
from hubbub.core.recovery import Position, Publication
from hubbub.errors import CloseCode, ConfigError
from hubbub.node.replay import message_text
from hubbub.node.routing import refuse_unawaited, takes, underlying

if TYPE_CHECKING:
    from hubbub.core.namespaces import Namespace
    from hubbub.node.batch import Key
    from hubbub.node.node import Node

__all__ = ["Listener", "Publishing"]

logger = logging.getLogger("hubbub.publishing")

Listener = Callable[[str, Any], Any]


class Publishing:
    """The node's side of its broker (`contracts.BrokerReceiver`), and the way to it.

    Args:
        node: whose subscribers.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._listeners: list[tuple[re.Pattern[str], Listener]] = []

    async def publish(
        self,
        namespace: Namespace,
        channel: str,
        event: str | None,
        data: Any,
        *,
        publisher: str = "",
        key: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Position:
        """Give a publication to the broker; where it is, once it is remembered.

        Args:
            namespace: the channel's.
            channel: its name, checked.
            event: the publication's name.
            data: anything with a JSON form.
            publisher: who publishes: keys of two publishers are two keys.
            key: the publisher's name for it.
            tags: see `core.recovery.Publication`.

        Raises:
            UsageError: an event, a key or tags that cannot be.
            StoreError: it is not remembered for sure.
        """
        body = bytes(data) if isinstance(data, msgspec.Raw) else encode_payload(data)
        idempotency = None if key is None else f"{publisher}\n{check_key(key)}"
        if tags is not None:
            check_tags(tags)
        return await self._node.broker.publish(
            namespace,
            channel,
            check_event(event),
            body or b"null",
            idempotency=idempotency,
            tags=tags,
            now=time.time_ns() // 1_000_000,
        )

    def published(self, channel: str, publication: Publication) -> None:
        """Pass a publication on to subscribers, to those who still read the past, and to listeners."""
        node = self._node
        found = node.channels.get(channel)
        if found is not None:
            key = _latest_of(publication) if found.slow == "latest_per_key" else None
            node.delivery.note(found, message_text(channel, publication), None, publication.offset, key)
        node.subscriptions.published(channel, publication)
        if self._listeners:
            self._tell(channel, publication)

    def broken(self, channel: str) -> None:
        """Send subscribers away that missed something for good: when they come back they are told."""
        logger.warning("publications on %r were missed: its subscribers must come back", channel)
        for connection in self._node.subscriptions.subscribers(channel):
            connection.close(CloseCode.RESYNC, "publications were missed")

    def told(self, topic: str, data: bytes) -> None:
        """Take what another node says."""
        self._node.cluster.hear(data)

    def resumed(self) -> None:
        """Ask for what may have been lost."""
        self._node.resumed()

    def listen(self, pattern: str, listener: Listener) -> None:
        """Call `listener(channel, data)` for publications on the channels that fit `room:*`; plain functions only.

        Raises:
            ConfigError: it is a coroutine function, or does not take the two.
        """
        takes(listener, "(channel, data)", 2, 2)
        if inspect.iscoroutinefunction(underlying(listener)):
            name = underlying(listener).__qualname__
            raise ConfigError(f"{name} is `async def`: a listener is a plain function, which may start a task.")
        self._listeners.append((re.compile(".*".join(map(re.escape, pattern.split("*")))), listener))

    def _tell(self, channel: str, publication: Publication) -> None:
        for pattern, listener in self._listeners:
            if pattern.fullmatch(channel):
                try:
                    refuse_unawaited(listener(channel, msgspec.json.decode(publication.data)))
                except Exception:
                    logger.exception("the listener for %r failed", pattern.pattern)


def _latest_of(publication: Publication) -> Key:
    tag = None if publication.tags is None else publication.tags.get("key")
    return (None, publication.event) if tag is None else (tag, None)
