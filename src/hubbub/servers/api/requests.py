"""What may be asked of the HTTP API: one Struct for each body, names in camelCase, unknown ones refused."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from hubbub.core.identity import check_user_id
from hubbub.errors import RequestError

__all__ = [
    "MOST_PUBLICATIONS",
    "Broadcast",
    "ConnectionsQuery",
    "Disconnect",
    "HistoryQuery",
    "Notify",
    "PresenceQuery",
    "Publish",
    "PublishBatch",
    "Recheck",
    "Revoke",
    "SendToUser",
    "Since",
    "StatsQuery",
]

MOST_PUBLICATIONS = 1000

UserId = Annotated[str, Meta(min_length=1, max_length=255, description="a user")]
Channel = Annotated[str, Meta(min_length=1, description="a channel of a declared namespace")]
Type = Annotated[str, Meta(min_length=1, max_length=255, description="the message's type")]
Key = Annotated[str, Meta(min_length=1, max_length=255, description="your name for it: with the same key it is one")]
Seconds = Annotated[float, Meta(ge=0, description="seconds")]
Json = Annotated[msgspec.Raw, Meta(description="any JSON; null or nothing for none")]
Many = Annotated[int, Meta(ge=1, le=1000, description="how many at most")]


class Asked(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A body."""

    def __post_init__(self) -> None:
        """Refuse what cannot be a user."""
        user_id: str | None = getattr(self, "user_id", None)
        if user_id is not None:
            try:
                check_user_id(user_id)
            except RequestError as error:
                raise RequestError(error.code, error.message, "userId") from None


class Publish(Asked, frozen=True):
    """Send a message to every subscriber of a channel."""

    channel: Channel
    event: str | None = None
    data: Json = msgspec.field(default_factory=msgspec.Raw)
    key: Key | None = None
    tags: Annotated[dict[str, str], Meta(max_length=16)] | None = None


class PublishBatch(Asked, frozen=True):
    """Publish many; those of one channel in this order."""

    publications: Annotated[list[Publish], Meta(min_length=1, max_length=MOST_PUBLICATIONS)]


class SendToUser(Asked, frozen=True):
    """Send a message to every connection of a user; a durable one waits until it is acked."""

    user_id: UserId
    type: Type
    payload: Json = msgspec.field(default_factory=msgspec.Raw)
    durable: bool = False
    key: Key | None = None
    ttl: Seconds | None = None


class Notify(Asked, frozen=True):
    """Send a user `notification {title, message, type}`."""

    user_id: UserId
    title: str
    message: str
    type: Literal["info", "success", "warning", "error"] = "info"
    durable: bool = False
    key: Key | None = None
    ttl: Seconds | None = None


class Broadcast(Asked, frozen=True):
    """Send a message to every connection, but for one."""

    type: Type
    payload: Json = msgspec.field(default_factory=msgspec.Raw)
    exclude: Annotated[str, Meta(description="a connection's id")] | None = None


class PresenceQuery(Asked, frozen=True):
    """Who is subscribed to a channel whose namespace keeps presence?"""

    channel: Channel
    limit: Many = 1000


class Since(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A place in a channel's history: behind the publication of this offset."""

    offset: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    epoch: str


class HistoryQuery(Asked, frozen=True):
    """What does a channel remember: the latest publications, or those behind a place?"""

    channel: Channel
    since: Since | None = None
    limit: Many = 100


class StatsQuery(Asked, frozen=True):
    """How many are there, and how is the node that answers?"""


class ConnectionsQuery(Asked, frozen=True):
    """Which connections has a user, on all nodes?"""

    user_id: UserId


class Disconnect(Asked, frozen=True):
    """Close every connection of a user."""

    user_id: UserId
    code: Annotated[int, Meta(description="1000-1003, 1007-1014 or 3000-4999")] = 1000
    reason: Annotated[str, Meta(max_length=123)] = ""


class Revoke(Asked, frozen=True):
    """Take a token back, or all that a user has by now, and close the connections they opened: give one of the two."""

    user_id: UserId | None = None
    jti: Annotated[str, Meta(min_length=1, max_length=255, description="one token's id")] | None = None
    until: Annotated[float, Meta(description="when they have all expired, seconds since 1970")] | None = None


class Recheck(Asked, frozen=True):
    """Ask the app's rules again about the subscribers of a channel, or the subscriptions of a user."""

    channel: Channel | None = None
    user_id: UserId | None = None
