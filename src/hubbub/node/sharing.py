"""One rate for a user or an address over all nodes: each tells the others, once a second, who took much.

Rules of this file:
1. A message is not asked about anywhere: a node counts what it sees, and learns of the rest within the second.
2. What nobody hears of is little (`core/usage.py`), or lost with a word: then it is as if there were no other node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubbub.core.bus import ALL, MOST_KEYS, Spent

if TYPE_CHECKING:
    from hubbub.core.buckets import Buckets
    from hubbub.node.node import Node

__all__ = ["Sharing"]

EVERY = 1.0
"""Seconds from one word about it to the next."""


class Sharing:
    """Tells other nodes what users and addresses took here, and takes what they took there.

    Args:
        node: this one.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._kinds: dict[str, Buckets[str]] = {}
        self._due = 0.0

    def open(self) -> None:
        """Begin to note what is taken: there may be other nodes."""
        self._kinds = {**self._node.dispatcher.throttle.shared(), **self._node.entrance.quotas.shared()}
        for buckets in self._kinds.values():
            buckets.share()

    def beat(self, now: float) -> None:
        """Tell what is to be told, if there is anybody to tell; `now` in monotonic seconds."""
        if now < self._due:
            return
        self._due = now + EVERY
        cluster = self._node.cluster
        for kind, buckets in self._kinds.items():
            spent = list(buckets.spent().items())
            for start in range(0, len(spent) if cluster.peers else 0, MOST_KEYS):
                cluster.say(ALL, Spent(cluster.id, kind, dict(spent[start : start + MOST_KEYS])))

    def learn(self, spent: Spent, now: float) -> None:
        """Take what users or addresses took elsewhere; a kind that this node does not count is nothing to it."""
        buckets = self._kinds.get(spent.kind)
        if buckets is not None and spent.node != self._node.cluster.id:
            for key, seconds in spent.seconds.items():
                buckets.charge(key, seconds, now)
