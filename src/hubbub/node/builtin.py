"""The message types every hub understands; an app may replace each with a handler of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from hubbub.core.envelope import Incoming
from hubbub.errors import RequestError
from hubbub.node.connection import Connection
from hubbub.node.routing import Route

if TYPE_CHECKING:
    from hubbub.node.node import Node

__all__ = ["ChannelName", "ClientPublish", "install"]

NULL = msgspec.Raw(b"null")


class ChannelName(msgspec.Struct):
    """The payload of `subscribe` and `unsubscribe`."""

    channel: str


class ClientPublish(msgspec.Struct):
    """The payload of `publish`."""

    channel: str
    data: msgspec.Raw = NULL
    event: str | None = None


def install(node: Node) -> None:
    """Give a node its built-in types."""
    node.dispatcher.urgent.update(ping=_ping, response=_response, error=_response)
    for type, function, reply in (
        ("echo", _echo, "echo_response"),
        ("subscribe", _subscribe, "subscribed"),
        ("unsubscribe", _unsubscribe, "unsubscribed"),
        ("publish", _publish, "published"),
    ):
        node.dispatcher.routes[type] = Route.build(type, function, reply=reply, auth=False, thread=False)


def _ping(connection: Connection, message: Incoming) -> None:
    connection.send("pong", id=message.id)


def _response(connection: Connection, message: Incoming) -> None:
    connection.answered(message)


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
