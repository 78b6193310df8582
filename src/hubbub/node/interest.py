"""Which channels the broker tells this node of: those that have a subscriber here, or are about to.

Rules of this file:
1. One call of the broker about a channel at a time: whoever comes while the last one's leave is under way waits for it.
2. What is wanted is looked at when it is the turn of a leave, not when it was asked for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from hubbub.contracts import Broker

__all__ = ["Interest"]


class Interest:
    """The node's subscriptions at its broker.

    Args:
        broker: gives the broker, which may be exchanged before the start.
        wanted: whether a channel has a subscriber here, or is about to.
    """

    def __init__(self, broker: Callable[[], Broker], wanted: Callable[[str], bool]) -> None:
        self._broker = broker
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
                    await self._broker().subscribe(channel)
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
                await self._broker().unsubscribe(channel)

    def forget(self) -> None:
        """Be told of nothing: the broker is closed."""
        self._told.clear()

    def _turn(self, channel: str) -> asyncio.Lock:
        return self._turns.setdefault(channel, asyncio.Lock())
