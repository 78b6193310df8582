"""Which connections of a node are present where: the subscribers of the channels that keep presence.

Rules of this file:
1. Who is subscribed and has set nothing is not written down again: the entry is made when somebody asks for it.
2. Noted is what no subscription says: a state, and who is present already while its subscription begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hubbub.core.presence import Entry

if TYPE_CHECKING:
    from hubbub.node.connection import Connection
    from hubbub.node.node import Node

__all__ = ["Attendance"]


class Attendance:
    """The presence of a node's own connections.

    Args:
        node: whose.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._noted: dict[str, dict[Connection, Entry]] = {}

    def __iter__(self) -> Iterator[str]:
        """The channels in which somebody is present."""
        channels = self._node.channels
        yield from (channel.name for channel in channels if channel.present)
        yield from (channel for channel in self._noted if channels.get(channel) is None)

    def entries(self, channel: str) -> Iterator[Entry]:
        """The connections that are present in a channel, oldest first."""
        noted = self._noted.get(channel, {})
        found = self._node.channels.get(channel)
        subscribers = [outbox.connection for outbox in found.members] if found is not None and found.present else []
        for connection in subscribers:
            yield noted[connection] if connection in noted else _plain(connection)
        yield from (entry for connection, entry in noted.items() if not self._subscribed(connection, channel))

    def has(self, connection: Connection, channel: str) -> bool:
        """Whether a connection is present in a channel."""
        return connection in self._noted.get(channel, ()) or self._subscribed(connection, channel)

    def get(self, connection: Connection, channel: str) -> Entry | None:
        """The entry of a connection in a channel where it is present."""
        noted = self._noted.get(channel, {}).get(connection)
        return _plain(connection) if noted is None and self._subscribed(connection, channel) else noted

    def put(self, connection: Connection, channel: str, entry: Entry) -> None:
        """Set the entry of a connection."""
        if entry.state is not None or not self._subscribed(connection, channel):
            self._noted.setdefault(channel, {})[connection] = entry
        else:
            self.forget(connection, channel)

    def forget(self, connection: Connection, channel: str) -> Entry | None:
        """Note nothing of a connection any more; what was."""
        noted = self._noted.get(channel)
        entry = None if noted is None else noted.pop(connection, None)
        if noted is not None and not noted:
            del self._noted[channel]
        return entry

    def _subscribed(self, connection: Connection, channel: str) -> bool:
        found = self._node.channels.get(channel)
        return found is not None and found.present and connection.outbox in found.members


def _plain(connection: Connection) -> Entry:
    return Entry(connection.id, connection.user_id)
