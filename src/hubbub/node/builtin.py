"""The message types every hub understands; an app may replace each with a handler of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from hubbub.core.envelope import Incoming
from hubbub.errors import RequestError
from hubbub.node.connection import Connection
from hubbub.node.routing import Route, payload_decoder

if TYPE_CHECKING:
    from hubbub.node.node import Node

__all__ = ["AckCursor", "ChannelName", "ClientPublish", "InboxQuery", "install"]

NULL = msgspec.Raw(b"null")
MOST_MESSAGES = 300


class ChannelName(msgspec.Struct):
    """The payload of `subscribe` and `unsubscribe`."""

    channel: str


class ClientPublish(msgspec.Struct):
    """The payload of `publish`."""

    channel: str
    data: msgspec.Raw = NULL
    event: str | None = None


class AckCursor(msgspec.Struct):
    """The payload of `ack`."""

    cursor: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class InboxQuery(msgspec.Struct):
    """The payload of `inbox`."""

    after: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_MESSAGES)] = MOST_MESSAGES


def install(node: Node) -> None:
    """Give a node its built-in types."""
    node.dispatcher.urgent.update(ping=_ping, ack=_ack, response=_response, error=_response)
    for type, function, reply, auth in (
        ("echo", _echo, "echo_response", False),
        ("subscribe", _subscribe, "subscribed", False),
        ("unsubscribe", _unsubscribe, "unsubscribed", False),
        ("publish", _publish, "published", False),
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


def _echo(connection: Connection, payload: msgspec.Raw) -> msgspec.Raw:
    return payload if bytes(payload) else NULL


def _subscribe(connection: Connection, payload: ChannelName) -> dict[str, Any]:
    connection.subscribe(payload.channel)
    return {"channel": payload.channel}


def _unsubscribe(connection: Connection, payload: ChannelName) -> dict[str, Any]:
    connection.unsubscribe(payload.channel)
    return {"channel": payload.channel}


def _publish(connection: Connection, payload: ClientPublish) -> dict[str, Any]:
    if payload.channel not in connection.channels:
        raise RequestError("forbidden", "Subscribe to a channel before you publish on it.", "channel")
    connection.node.publish(payload.channel, payload.event, payload.data)
    return {"channel": payload.channel}


_read_ack = payload_decoder(AckCursor)
