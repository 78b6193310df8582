"""What the broker tells this node of: channels that have a subscriber here or are about to, users that are here.

Rules of this file:
1. One call of the broker about a channel at a time: whoever comes while the last one's leave is under way waits for it.
2. What is wanted is looked at when it is the turn of a leave, not when it was asked for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

__all__ = ["Interest"]

Call = Callable[[str], Awaitable[None]]


class Interest:
    """The node's subscriptions at its broker.

    Args:
        subscribe: lets the broker tell of a channel, or whatever it is.
        unsubscribe: lets it tell no more.
        wanted: whether a channel has a subscriber here, or is about to.
    """

    def __init__(self, subscribe: Call, unsubscribe: Call, wanted: Callable[[str], bool]) -> None:
        self._subscribe = subscribe
        self._unsubscribe = unsubscribe
        self._wanted = wanted
        self._told: set[str] = set()
        self._coming: Counter[str] = Counter()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def __contains__(self, channel: str) -> bool:
        return channel in self._told

    async def begin(self, channel: str) -> None:
        """Be told of a channel; whoever asked subscribes in the step in which this returns, or is `wanted` already."""
        if channel in self._told:
            return
        self._coming[channel] += 1
        try:
            async with self._turn(channel):
                if channel not in self._told:
                    await self._subscribe(channel)
                    self._told.add(channel)
        finally:
            self._coming[channel] -= 1
            if not self._coming[channel]:
                del self._coming[channel]

    async def end(self, channel: str) -> None:
        """Be told of it no more, unless it is wanted again by then."""
        async with self._turn(channel):
            if channel in self._told and channel not in self._coming and not self._wanted(channel):
                self._told.discard(channel)
                await self._unsubscribe(channel)

    def forget(self) -> None:
        """Be told of nothing: the broker is closed."""
        self._told.clear()

    def _turn(self, channel: str) -> asyncio.Lock:
        return self._turns.setdefault(channel, asyncio.Lock())
