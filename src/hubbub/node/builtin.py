"""The message types every hub understands; an app may replace each with a handler of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from hubbub.core.envelope import Incoming
from hubbub.core.namespaces import Namespace
from hubbub.core.recovery import Position
from hubbub.errors import RequestError
from hubbub.node.connection import Connection
from hubbub.node.presence import MOST_ASKED, MOST_SHOWN
from hubbub.node.replay import describe_publication
from hubbub.node.routing import Route, payload_decoder
from hubbub.node.subscriptions import PAGE

if TYPE_CHECKING:
    from hubbub.node.node import Node

__all__ = [
    "AckCursor",
    "Cancel",
    "ChannelName",
    "ClientPublish",
    "HistoryQuery",
    "InboxQuery",
    "PresenceQuery",
    "Since",
    "Subscribe",
    "install",
]

NULL = msgspec.Raw(b"null")
NOTHING = msgspec.Raw(b"")
ShortText = Annotated[str, msgspec.Meta(max_length=255)]
MOST_MESSAGES = 300


class ChannelName(msgspec.Struct):
    """The payload of `unsubscribe`."""

    channel: str


class Since(msgspec.Struct):
    """A position, as a client has it from `subscribed` and `message`."""

    offset: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    epoch: Annotated[str, msgspec.Meta(max_length=64)]


class Subscribe(msgspec.Struct):
    """The payload of `subscribe`."""

    channel: str
    since: Since | None = None


class ClientPublish(msgspec.Struct):
    """The payload of `publish`."""

    channel: str
    data: msgspec.Raw = NULL
    event: Annotated[str, msgspec.Meta(max_length=255)] | None = None
    key: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[ -~]+$")] | None = None
    tags: Annotated[dict[ShortText, ShortText], msgspec.Meta(max_length=16)] | None = None


class Cancel(msgspec.Struct):
    """The payload of `cancel`."""

    channel: str
    id: ShortText | None = None


class HistoryQuery(msgspec.Struct):
    """The payload of `history`."""

    channel: str
    since: Since | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=PAGE)] = PAGE
    archive: bool = False
    back: bool = False
    start: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = msgspec.field(default=0, name="from")


class PresenceQuery(msgspec.Struct):
    """The payload of `presence`: with a `state` it is set, without one it is asked who is there, or how many."""

    channel: str
    state: msgspec.Raw = NOTHING
    count: bool = False
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_ASKED)] = MOST_SHOWN


class AckCursor(msgspec.Struct):
    """The payload of `ack`."""

    cursor: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class InboxQuery(msgspec.Struct):
    """The payload of `inbox`."""

    after: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_MESSAGES)] = MOST_MESSAGES


def install(node: Node) -> None:
    """Give a node its built-in types."""
    node.dispatcher.urgent.update(ping=_ping, ack=_ack, cancel=_cancel, response=_response, error=_response)
    for type, function, reply, auth in (
        ("echo", _echo, "echo_response", False),
        ("subscribe", _subscribe, "subscribed", False),
        ("unsubscribe", _unsubscribe, "unsubscribed", False),
        ("publish", _publish, "published", False),
        ("history", _history, "history", False),
        ("presence", _presence, "presence", False),
        ("inbox", _inbox, "inbox", True),
    ):
        node.dispatcher.routes[type] = Route.build(type, function, reply=reply, auth=auth, thread=False)


def _ping(connection: Connection, message: Incoming) -> None:
    connection.send("pong", id=message.id)


def _response(connection: Connection, message: Incoming) -> None:
    connection.answered(message)


def _ack(connection: Connection, message: Incoming) -> None:
    try:
        connection.node.inbox.ack(connection, _read_ack(message.payload).cursor)
    except RequestError as error:
        connection.send_error(error, message.id)


async def _inbox(connection: Connection, payload: InboxQuery | None) -> dict[str, Any]:
    query = payload or InboxQuery()
    return await connection.node.inbox.pending(connection, query.after, query.limit)


def _cancel(connection: Connection, message: Incoming) -> None:
    """Not behind the handler that may be what is to be cancelled."""
    try:
        wanted = _read_cancel(message.payload)
        connection.node.streams.cancel(connection, wanted.channel, wanted.id, message.id)
    except RequestError as error:
        connection.send_error(error, message.id)


def _echo(connection: Connection, payload: msgspec.Raw) -> msgspec.Raw:
    return payload if bytes(payload) else NULL


async def _subscribe(connection: Connection, payload: Subscribe) -> dict[str, Any]:
    return await connection.node.subscriptions.subscribe(connection, payload.channel, _position(payload.since))


def _unsubscribe(connection: Connection, payload: ChannelName) -> dict[str, Any]:
    connection.node.subscriptions.find(payload.channel)  # which says so if it is none
    connection.unsubscribe(payload.channel)
    return {"channel": payload.channel}


async def _publish(connection: Connection, payload: ClientPublish) -> dict[str, Any]:
    channel, subscriptions = payload.channel, connection.node.subscriptions
    namespace = subscriptions.find(channel)
    if namespace.publish == "server":
        raise RequestError("forbidden", "Clients do not publish on this channel.", "channel")
    if namespace.publish == "members" and not subscriptions.has(connection, channel):
        raise RequestError("forbidden", "Subscribe to a channel before you publish on it.", "channel")
    await subscriptions.permit("publish", connection, channel)
    place = await connection.node.publishing.publish(
        namespace,
        channel,
        payload.event,
        payload.data,
        publisher=connection.user_id or connection.id,
        key=payload.key,
        tags=payload.tags,
    )
    return {"channel": channel, **_describe(namespace, place)}


async def _history(connection: Connection, payload: HistoryQuery) -> dict[str, Any]:
    channel, since = payload.channel, _position(payload.since)
    if payload.archive:
        return await connection.node.archiver.ask(
            connection, channel, payload.limit, since, payload.start, payload.back
        )
    past = await connection.node.subscriptions.past(connection, channel, since, payload.limit)
    publications = [describe_publication(publication) for publication in past.publications]
    return {
        "channel": channel,
        "publications": publications,
        "offset": past.head.offset,
        "epoch": past.head.epoch,
        "complete": past.complete,
    }


async def _presence(connection: Connection, payload: PresenceQuery) -> dict[str, Any]:
    presence, state = connection.node.presence, bytes(payload.state)
    if state:
        return await presence.set_state(connection, payload.channel, state)
    return await presence.ask(connection, payload.channel, payload.limit, payload.count)


def _position(since: Since | None) -> Position | None:
    return None if since is None else Position(since.offset, since.epoch)


def _describe(namespace: Namespace, place: Position) -> dict[str, Any]:
    return {"offset": place.offset, "epoch": place.epoch} if namespace.remembers else {}


_read_ack, _read_cancel = payload_decoder(AckCursor), payload_decoder(Cancel)
