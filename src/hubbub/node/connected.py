"""A connection, as other nodes and processes know it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec

__all__ = ["Connected", "read_connected"]


@dataclass(frozen=True, slots=True)
class Connected:
    """An open connection of a user, wherever it is.

    Args:
        id: the connection's.
        channels: those it is subscribed to, oldest first.
        last_activity: when its client was last heard of, seconds since 1970.
    """

    id: str
    channels: tuple[str, ...]
    last_activity: float


def read_connected(answers: Iterable[Any]) -> list[Connected]:
    """What other nodes say a user has.

    Raises:
        ValueError: it is nothing that a node of this version says.
    """
    return msgspec.convert(list(chain.from_iterable(answers)), list[Connected])
