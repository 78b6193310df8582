"""What this node knows by itself, without asking others: synchronous, and of its own connections only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hubbub.node.connection import Connection
    from hubbub.node.node import Node

__all__ = ["Local"]


class Local:
    """The connections, users and channels of this node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def connection(self, connection_id: str) -> Connection | None:
        """The connection with this id, if it is open here."""
        return self._node.registry.get(connection_id)

    def connections(self, user_id: str | None = None) -> list[Connection]:
        """All open connections, or those of one user, oldest first."""
        registry = self._node.registry
        return list(registry if user_id is None else registry.of_user(user_id))

    def connection_ids(self) -> list[str]:
        """The ids of all open connections."""
        return self._node.registry.ids()

    def user_ids(self) -> list[str]:
        """The users that have an open connection."""
        return self._node.registry.users()

    def is_user_connected(self, user_id: str) -> bool:
        """Whether a user has an open connection."""
        return self._node.registry.count_of_user(user_id) > 0

    def user_connection_count(self, user_id: str) -> int:
        """How many open connections a user has."""
        return self._node.registry.count_of_user(user_id)

    def metadata(self, connection_id: str) -> dict[str, Any] | None:
        """The metadata of an open connection."""
        connection = self.connection(connection_id)
        return None if connection is None else connection.metadata

    def subscribers(self, channel: str) -> list[Connection]:
        """The connections subscribed to a channel."""
        found = self._node.channels.get(channel)
        return [] if found is None else [outbox.connection for outbox in found.members]
