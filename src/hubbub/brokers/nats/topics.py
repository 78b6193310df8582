"""What nodes say to each other: at most once, in order from each, never back to who said it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import Context

from hubbub.brokers.nats.address import Address
from hubbub.brokers.nats.link import INFO, Away, Link, Nobody, Unanswered
from hubbub.brokers.nats.subjects import token
from hubbub.brokers.nats.wire import Message, Subscription
from hubbub.contracts import BrokerReceiver
from hubbub.errors import StoreError

__all__ = ["Topics"]

PROMPT = 1.0
"""Seconds in which a node says that it has been told, if it is alive."""


class Topics:
    """Follows topics, and tells them something.

    Args:
        link: the connection.
        address: names the subjects.
    """

    def __init__(self, link: Link, address: Address) -> None:
        self._link = link
        self._app = address.name
        self.receiver: BrokerReceiver
        self._followed: dict[str, Subscription] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def follow(self, topic: str) -> None:
        """Listen to a topic."""
        if topic in self._followed:
            return
        self._followed[topic] = await self._link.subscribe(self._subject(topic), lambda told: self._hear(topic, told))
        try:
            await self._link.settle()
        except BaseException:
            await self.unfollow(topic)
            raise

    async def unfollow(self, topic: str) -> None:
        """Listen no more."""
        subscription = self._followed.pop(topic, None)
        if subscription is not None:
            await self._link.unsubscribe(subscription)

    async def tell(self, topic: str, data: bytes) -> int:
        """Say it; 1 as soon as the first node has it, 0 if the server knows none, or none says that it has it."""
        try:
            await self._link.ask(self._subject(topic), data, timeout=PROMPT)
        except Nobody:
            return 0
        except Away:
            raise
        except Unanswered:
            await self._link.ask(INFO, b"")  # if this is answered, it was said: who listens stands still
            return 0
        return 1

    def _subject(self, topic: str) -> str:
        return f"{self._app}.told.{token(topic)}"

    def _hear(self, topic: str, message: Message) -> None:
        if topic not in self._followed:
            return
        self.receiver.told(topic, message.data)
        if message.reply:
            task = asyncio.get_running_loop().create_task(self._answer(message.reply), context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, reply: str) -> None:
        with suppress(StoreError):
            await self._link.publish(reply, b"")
