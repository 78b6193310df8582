"""A broker that takes its time by chance, and brokers that do something wrong by chance, to be found out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import Any

from hubbub.brokers.memory import MOST_SKIPPED, MemoryBroker
from hubbub.contracts import BrokerReceiver
from hubbub.core.namespaces import Namespace
from hubbub.core.recovery import Past, Position, Publication

__all__ = ["MUTANTS", "RARELY", "UnsteadyBroker"]

RARELY = 0.02
SLOWEST = 0.02
"""Seconds."""


class UnsteadyBroker(MemoryBroker):
    """The broker in memory as if it were elsewhere: every answer takes a while, and offsets have gaps.

    It tells of a channel only while the node is subscribed to it, as the contract says.

    Args:
        random: decides how long things take.
    """

    shared = True

    def __init__(self, random: Random) -> None:
        super().__init__(skip=True)
        self.memory._step = lambda: random.randint(1, MOST_SKIPPED)  # as it does, and the same with every run
        self.random = random
        self._told: set[str] = set()
        self._listener: BrokerReceiver

    def listen(self, receiver: BrokerReceiver) -> None:
        """Come between the memory and the node."""
        self._listener = receiver
        super().listen(self)

    def published(self, channel: str, publication: Publication) -> None:
        """Pass on what is subscribed to."""
        if channel in self._told:
            self.pass_on(channel, publication)

    def broken(self, channel: str) -> None:
        """Pass on that publications were missed."""
        self._listener.broken(channel)

    def told(self, topic: str, data: bytes) -> None:
        """Pass on what another node says."""
        self._listener.told(topic, data)

    def resumed(self) -> None:
        """Pass on that something may be lost."""
        self._listener.resumed()

    def pass_on(self, channel: str, publication: Publication) -> None:
        """Pass a publication on to the node."""
        self._listener.published(channel, publication)

    async def publish(
        self, namespace: Namespace, channel: str, event: str | None, data: bytes, **more: Any
    ) -> Position:
        """Publish, some time between now and the answer."""
        await self._dawdle()
        place = await super().publish(namespace, channel, event, data, **more)
        await self._dawdle()
        return place

    async def past(self, namespace: Namespace, channel: str, since: Position | None, limit: int, now: int) -> Past:
        """Read the past, some time between now and the answer."""
        await self._dawdle()
        past = await super().past(namespace, channel, since, limit, now)
        await self._dawdle()
        return past

    async def subscribe(self, namespace: Namespace, channel: str) -> None:
        """Tell of it, from the answer on."""
        await self._dawdle()
        self._told.add(channel)

    async def unsubscribe(self, channel: str) -> None:
        """Tell of it no more."""
        await self._dawdle()
        self._told.discard(channel)
        await self._dawdle()

    async def _dawdle(self) -> None:
        chance = self.random.random()
        if chance < 0.5:
            await asyncio.sleep(self.random.random() * SLOWEST if chance < 0.3 else 0)


class _Dropping(UnsteadyBroker):
    """Leaves a live publication out."""

    def pass_on(self, channel: str, publication: Publication) -> None:
        if self.random.random() > RARELY:
            super().pass_on(channel, publication)


class _Inventing(UnsteadyBroker):
    """Tells of a publication that nobody published."""

    def pass_on(self, channel: str, publication: Publication) -> None:
        super().pass_on(channel, publication)
        if self.random.random() < RARELY:
            super().pass_on(channel, replace(publication, offset=publication.offset + 1, data=b'{"n":0}'))


class _Doubling(UnsteadyBroker):
    """Tells of a publication twice."""

    def pass_on(self, channel: str, publication: Publication) -> None:
        super().pass_on(channel, publication)
        if self.random.random() < RARELY:
            super().pass_on(channel, publication)


class _Forgetful(UnsteadyBroker):
    """Does not know a key again."""

    async def publish(
        self, namespace: Namespace, channel: str, event: str | None, data: bytes, **more: Any
    ) -> Position:
        more["idempotency"] = None
        return await super().publish(namespace, channel, event, data, **more)


class _Swapping(UnsteadyBroker):
    """Tells of two publications in the wrong order."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self._held: dict[str, Publication] = {}

    def pass_on(self, channel: str, publication: Publication) -> None:
        if channel not in self._held and self.random.random() < RARELY:
            self._held[channel] = publication
            return
        super().pass_on(channel, publication)
        if channel in self._held:
            super().pass_on(channel, self._held.pop(channel))


class _Changing(UnsteadyBroker):
    """Changes what it remembers."""

    def change(self, past: Past) -> Past:
        """What it says instead."""
        raise NotImplementedError

    async def past(self, *args: Any) -> Past:
        """Read the past, and sometimes say something else."""
        past = await super().past(*args)
        return self.change(past) if len(past.publications) > 2 and self.random.random() < 0.2 else past


class _Patchy(_Changing):
    """Leaves one out of a recovery, and calls it complete."""

    def change(self, past: Past) -> Past:
        return replace(past, publications=[past.publications[0], *past.publications[2:]])


class _Rewriting(_Changing):
    """Remembers two publications in each other's place."""

    def change(self, past: Past) -> Past:
        one, two, *rest = past.publications
        return replace(past, publications=[replace(one, data=two.data), replace(two, data=one.data), *rest])


class _Timid(_Changing):
    """Says of a complete past that it is not."""

    def change(self, past: Past) -> Past:
        return replace(past, publications=[], complete=False)


MUTANTS: Mapping[str, tuple[Callable[[Random], UnsteadyBroker], str]] = {
    "drops": (_Dropping, "lost"),
    "invents": (_Inventing, "phantom"),
    "doubles": (_Doubling, "duplicated"),
    "forgets keys": (_Forgetful, "duplicated"),
    "swaps": (_Swapping, "reordered"),
    "leaves out of a recovery": (_Patchy, "gap"),
    "rewrites": (_Rewriting, "diverged"),
    "says it is incomplete": (_Timid, "refused"),
}
"""What is wrong with a broker, its class, and the column in which that must show."""
