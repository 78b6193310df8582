"""Channels without a history: publications are told to whoever listens, and forgotten."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from hubbub.brokers.redis.body import Body, encode_body, encode_fleeting, read_message
from hubbub.brokers.redis.keys import Keys
from hubbub.brokers.redis.scripts import MENTION
from hubbub.brokers.redis.servers import Servers
from hubbub.contracts import BrokerReceiver
from hubbub.core.recovery import DEDUPE, Past, Position

__all__ = ["Fleeting"]

logger = logging.getLogger("hubbub.broker")

NOWHERE = Position(0, "live")


class Fleeting:
    """Tells of what is not kept.

    Args:
        servers: where it is told.
        keys: how it is called there.
    """

    def __init__(self, servers: Servers, keys: Keys) -> None:
        self._servers = servers
        self._keys = keys
        self._listens: set[str] = set()
        self.receiver: BrokerReceiver

    async def publish(
        self, channel: str, event: str | None, data: bytes, tags: Mapping[str, str] | None, now: int, key: str | None
    ) -> Position:
        """Tell once, whatever becomes of it."""
        body = encode_body(Body(event, data, None if tags is None else dict(tags)))
        live, message = self._keys.live(channel, False), encode_fleeting(body, now)
        if key is None:
            await self._servers.call(live, self._servers.tell, live, message, again=False)
        else:
            known = self._keys.known(channel, False, key)
            words = (known, round(DEDUPE * 1000), self._servers.tell, live, message)
            await self._servers.call(known, *words, script=MENTION, keys=1)
        return NOWHERE

    async def subscribe(self, channel: str) -> None:
        """Listen to a channel."""
        await self._servers.listen(self._keys.live(channel, False), lambda message: self._hear(channel, message))
        self._listens.add(channel)

    async def unsubscribe(self, channel: str) -> None:
        """Listen no more."""
        if channel in self._listens:
            self._listens.discard(channel)
            await self._servers.forget(self._keys.live(channel, False))

    def past(self, since: Position | None) -> Past:
        """Nothing."""
        return Past([], NOWHERE, since is None)

    def _hear(self, channel: str, message: bytes) -> None:
        found = read_message(message)
        if found is None or found[2] is None or found[2].offset:
            logger.warning("a message on %r is none of ours", channel)
        elif channel in self._listens:
            self.receiver.published(channel, found[2])
