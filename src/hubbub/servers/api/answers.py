"""What the HTTP API answers: one Struct for each body, names in camelCase."""

from __future__ import annotations

from typing import Any

import msgspec

from hubbub.servers.api.failures import Failure

__all__ = [
    "Closed",
    "Connection",
    "Connections",
    "Done",
    "History",
    "Member",
    "Members",
    "Publication",
    "Result",
    "Results",
    "Sent",
    "Stats",
]


class Answer(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A body."""


class Sent(Answer, frozen=True, kw_only=True):
    """How far a message got: see `Receipt`."""

    connections: int
    stored: bool = False
    cursor: int | None = None
    offset: int | None = None
    epoch: str | None = None


class Result(Answer, frozen=True):
    """What became of one publication of many: one of the two."""

    sent: Sent | None = None
    error: Failure | None = None


class Results(Answer, frozen=True):
    """What became of each, in their order."""

    results: list[Result]


class Closed(Answer, frozen=True):
    """How many connections were closed."""

    connections: int


class Done(Answer, frozen=True):
    """It is done."""


class Member(Answer, frozen=True):
    """Somebody who is there."""

    user_id: str | None
    connection_ids: tuple[str, ...]
    state: Any = None


class Members(Answer, frozen=True):
    """Who is there, oldest first, and how many there are in all."""

    count: int
    members: list[Member]


class Publication(Answer, frozen=True, kw_only=True):
    """A publication that is remembered; `timestamp` in milliseconds since 1970."""

    offset: int
    timestamp: int
    event: str | None = None
    data: msgspec.Raw
    tags: dict[str, str] | None = None


class History(Answer, frozen=True):
    """Publications, oldest first, the place behind all there is, and whether nothing is missing before the first."""

    publications: list[Publication]
    offset: int
    epoch: str
    complete: bool


class Connection(Answer, frozen=True):
    """An open connection; `lastActivity` in milliseconds since 1970."""

    id: str
    channels: tuple[str, ...]
    last_activity: int


class Connections(Answer, frozen=True):
    """A user's connections."""

    connections: list[Connection]


class Stats(Answer, frozen=True):
    """Connections on all nodes, nodes, and what the one that answers knows of itself: see `Hub.stats`."""

    connections: int
    nodes: int
    node: dict[str, Any]
