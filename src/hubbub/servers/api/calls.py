"""The calls of the HTTP API: each decodes one body, asks the hub, and encodes what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

import msgspec

from hubbub.core.frames import may_travel
from hubbub.core.recovery import Position
from hubbub.errors import RequestError, StoreError, UsageError
from hubbub.node.hub import Hub
from hubbub.node.receipt import Receipt
from hubbub.servers.api.answers import (
    Closed,
    Connection,
    Connections,
    Done,
    History,
    Member,
    Members,
    Publication,
    Result,
    Results,
    Sent,
    Stats,
)
from hubbub.servers.api.failures import failure
from hubbub.servers.api.requests import (
    Broadcast,
    ConnectionsQuery,
    Disconnect,
    HistoryQuery,
    Notify,
    PresenceQuery,
    Publish,
    PublishBatch,
    Recheck,
    Revoke,
    SendToUser,
    StatsQuery,
)

__all__ = ["CALLS", "Call"]

Run = Callable[[Hub, Any], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Call:
    """One call.

    Args:
        run: does it.
        asked: the Struct of its body.
        answer: the Struct of what it gives back.
        decoder: reads the body.
    """

    run: Run
    asked: type
    answer: type
    decoder: msgspec.json.Decoder[Any]

    @classmethod
    def of(cls, run: Run) -> Call:
        """The call that a function says it is."""
        hints = get_type_hints(run)
        return cls(run, hints["asked"], hints["return"], msgspec.json.Decoder(hints["asked"]))


async def publish(hub: Hub, asked: Publish) -> Sent:
    """Publish on a channel."""
    return _sent(await hub.publish(asked.channel, asked.event, _given(asked.data), key=asked.key, tags=asked.tags))


async def publish_batch(hub: Hub, asked: PublishBatch) -> Results:
    """Publish many at once."""
    results: dict[int, Result] = {}
    channels: dict[str, list[int]] = {}
    for index, each in enumerate(asked.publications):
        channels.setdefault(each.channel, []).append(index)

    async def publish_in_order(indexes: list[int]) -> None:
        for index in indexes:
            try:
                results[index] = Result(sent=await publish(hub, asked.publications[index]))
            except (RequestError, StoreError, UsageError) as error:
                results[index] = Result(error=failure(error).body)

    async with asyncio.TaskGroup() as group:
        for indexes in channels.values():
            group.create_task(publish_in_order(indexes))
    return Results([results[index] for index in range(len(results))])


async def send_to_user(hub: Hub, asked: SendToUser) -> Sent:
    """Send a message to a user."""
    options: dict[str, Any] = {"durable": asked.durable, "key": asked.key, "ttl": asked.ttl}
    return _sent(await hub.send_to_user(asked.user_id, asked.type, _given(asked.payload), **options))


async def notify(hub: Hub, asked: Notify) -> Sent:
    """Send a user a notification."""
    options: dict[str, Any] = {"durable": asked.durable, "key": asked.key, "ttl": asked.ttl}
    return _sent(await hub.notify(asked.user_id, asked.title, asked.message, asked.type, **options))


async def broadcast(hub: Hub, asked: Broadcast) -> Sent:
    """Send a message to everybody."""
    return _sent(await hub.broadcast(asked.type, _given(asked.payload), asked.exclude))


async def presence(hub: Hub, asked: PresenceQuery) -> Members:
    """Who is in a channel."""
    found = await hub.presence(asked.channel)
    shown = [Member(each.user_id, each.connection_ids, each.state) for each in found[: asked.limit]]
    return Members(len(found), shown)


async def history(hub: Hub, asked: HistoryQuery) -> History:
    """What a channel remembers."""
    since = None if asked.since is None else Position(asked.since.offset, asked.since.epoch)
    past = await hub.history(asked.channel, since, asked.limit)
    shown = [
        Publication(
            offset=each.offset,
            timestamp=each.published_at,
            event=each.event,
            data=msgspec.Raw(each.data),
            tags=None if each.tags is None else dict(each.tags),
        )
        for each in past.publications
    ]
    return History(shown, past.head.offset, past.head.epoch, past.complete)


async def stats(hub: Hub, asked: StatsQuery) -> Stats:
    """Count connections and nodes."""
    found = await hub.stats()
    return Stats(found["connections"] + found["connectionsElsewhere"], found["nodes"], found)


async def connections(hub: Hub, asked: ConnectionsQuery) -> Connections:
    """List the connections of a user."""
    found = await hub.user_connections(asked.user_id)
    return Connections([Connection(each.id, each.channels, round(each.last_activity * 1000)) for each in found])


async def disconnect(hub: Hub, asked: Disconnect) -> Closed:
    """Close the connections of a user."""
    if not may_travel(asked.code):
        raise RequestError("invalid_payload", "A close code is 1000-1003, 1007-1014 or 3000-4999.", "code")
    return Closed(await hub.disconnect_user(asked.user_id, asked.code, asked.reason))


async def revoke(hub: Hub, asked: Revoke) -> Closed:
    """Take tokens back."""
    if (asked.user_id is None) == (asked.jti is None):
        raise RequestError("invalid_payload", "Give either `userId` or `jti`.")
    return Closed(await hub.revoke(user_id=asked.user_id, jti=asked.jti, until=asked.until))


async def recheck(hub: Hub, asked: Recheck) -> Done:
    """Ask the app's rules again."""
    if asked.channel is None and asked.user_id is None:
        raise RequestError("invalid_payload", "Give `channel`, `userId` or both.")
    await hub.recheck(channel=asked.channel, user_id=asked.user_id)
    return Done()


def _given(value: msgspec.Raw) -> msgspec.Raw | None:
    return None if bytes(value) in (b"", b"null") else value


def _sent(receipt: Receipt) -> Sent:
    return Sent(
        connections=receipt.connections,
        stored=receipt.stored,
        cursor=receipt.cursor,
        offset=receipt.offset,
        epoch=receipt.epoch,
    )


CALLS = {
    run.__name__: Call.of(run)
    for run in (
        publish,
        publish_batch,
        send_to_user,
        notify,
        broadcast,
        presence,
        history,
        stats,
        connections,
        disconnect,
        revoke,
        recheck,
    )
}
"""Each call by its name, which is the last part of its path."""
