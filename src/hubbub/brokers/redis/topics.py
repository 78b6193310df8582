"""What nodes say to each other: pub/sub, at most once."""

from __future__ import annotations

import logging
import secrets

from hubbub.brokers.redis.keys import Keys
from hubbub.brokers.redis.servers import Servers
from hubbub.contracts import BrokerReceiver

__all__ = ["Topics"]

logger = logging.getLogger("hubbub.broker")

TAG = 8  # bytes of who says it


class Topics:
    """The topics that this node follows.

    Args:
        servers: where they are.
        keys: what they are called there.
    """

    def __init__(self, servers: Servers, keys: Keys) -> None:
        self._servers = servers
        self._keys = keys
        self._tag = secrets.token_bytes(TAG)
        self.receiver: BrokerReceiver

    async def follow(self, topic: str) -> None:
        """Listen to a topic."""
        await self._servers.listen(self._keys.topic(topic), lambda data: self._hear(topic, data))

    async def unfollow(self, topic: str) -> None:
        """Listen no more."""
        await self._servers.forget(self._keys.topic(topic))

    async def tell(self, topic: str, data: bytes) -> int:
        """Say something to other nodes; how many hear it."""
        name = self._keys.topic(topic)
        mine = self._servers.hears(name)
        heard: int = await self._servers.call(name, self._servers.tell, name, self._tag + data, again=False)
        return max(0, heard - mine)

    def _hear(self, topic: str, data: bytes) -> None:
        if len(data) < TAG:
            logger.warning("what was said to %r is nothing a node says", topic)
        elif not data.startswith(self._tag):  # a node does not listen to itself
            self.receiver.told(topic, data[TAG:])
