"""Channels without a history: told to whoever listens at the moment, at most once, in order from each node."""

from __future__ import annotations

import logging
from functools import partial

from hubbub.brokers.nats.address import Address
from hubbub.brokers.nats.body import Body, decode_body, encode_body
from hubbub.brokers.nats.link import Link
from hubbub.brokers.nats.publisher import Publisher
from hubbub.brokers.nats.streams import Streams
from hubbub.brokers.nats.subjects import token
from hubbub.brokers.nats.wire import Message, Subscription
from hubbub.contracts import BrokerReceiver
from hubbub.core.namespaces import Namespace
from hubbub.core.recovery import Past, Position

__all__ = ["Fleeting"]

logger = logging.getLogger("hubbub.broker")

NOWHERE = Position(0, "live")


class Fleeting:
    """Passes publications on.

    Args:
        link: the connection.
        address: names the subjects.
        streams: have one for the keys that publishers gave.
        publisher: stores a key.
    """

    def __init__(self, link: Link, address: Address, streams: Streams, publisher: Publisher) -> None:
        self._link = link
        self._app = address.name
        self._streams = streams
        self._publisher = publisher
        self.receiver: BrokerReceiver
        self._channels: dict[str, Subscription] = {}

    async def publish(self, body: Body, key: str | None) -> Position:
        """Tell all nodes, unless the key is known."""
        if key is not None:
            note = Body(body.channel, body.at, None, b"null")
            if (await self._publisher.store(self._streams.keys, note, key))[1].duplicate:
                return NOWHERE
        await self._link.publish(self._subject(body.channel), encode_body(body))
        if body.channel in self._channels:  # the server does not tell this node what it said itself
            self.receiver.published(body.channel, body.publication(0, 0, body.at))
        return NOWHERE

    async def subscribe(self, _: Namespace, channel: str) -> None:
        """Listen to a channel."""
        self._channels[channel] = await self._link.subscribe(self._subject(channel), partial(self._hear, channel))
        try:
            await self._link.settle()
        except BaseException:
            await self.unsubscribe(channel)
            raise

    async def unsubscribe(self, channel: str) -> None:
        """Listen no more."""
        subscription = self._channels.pop(channel, None)
        if subscription is not None:
            await self._link.unsubscribe(subscription)

    def past(self, since: Position | None) -> Past:
        """Nothing."""
        return Past([], NOWHERE, since is None)

    def _subject(self, channel: str) -> str:
        return f"{self._app}.live.{token(channel)}"

    def _hear(self, channel: str, message: Message) -> None:
        body = decode_body(message.data)
        if body is None or body.channel != channel or body.purged:
            logger.warning("a message on %s is none of ours", message.subject)
        elif channel in self._channels:
            self.receiver.published(channel, body.publication(0, 0, body.at))
