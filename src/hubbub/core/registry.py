"""Who is connected: connections by id, and by user, both ways."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

__all__ = ["Member", "Registry"]


class Member(Protocol):
    """What the registry needs to know of a connection."""

    id: str

    @property
    def user_id(self) -> str | None:
        """The user it belongs to, None while anonymous."""


M = TypeVar("M", bound=Member)


class Registry(Generic[M]):
    """Index connections by id and user; every operation is O(1) in the number of connections."""

    def __init__(self) -> None:
        self._by_id: dict[str, M] = {}
        self._by_user: dict[str, dict[str, M]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[M]:
        return iter(list(self._by_id.values()))

    def add(self, member: M) -> None:
        """Take in a connection that is open."""
        self._by_id[member.id] = member
        if member.user_id is not None:
            self._by_user.setdefault(member.user_id, {})[member.id] = member

    def remove(self, member: M) -> None:
        """Forget a connection; unknown ones do no harm."""
        if self._by_id.pop(member.id, None) is not None:
            self._leave(member, member.user_id)

    def move(self, member: M, before: str | None) -> None:
        """Index a connection anew after its user changed from `before`."""
        if member.id in self._by_id:
            self._leave(member, before)
            self.add(member)

    def get(self, connection_id: str) -> M | None:
        """The connection with this id, if it is here."""
        return self._by_id.get(connection_id)

    def ids(self) -> list[str]:
        """The ids of all connections, oldest first."""
        return list(self._by_id)

    def users(self) -> list[str]:
        """The users that have a connection here."""
        return list(self._by_user)

    def of_user(self, user_id: str) -> Iterable[M]:
        """The connections of one user, oldest first."""
        return list(self._by_user.get(user_id, {}).values())

    def count_of_user(self, user_id: str) -> int:
        """How many connections one user has here."""
        return len(self._by_user.get(user_id, ()))

    def _leave(self, member: M, user_id: str | None) -> None:
        if user_id is None:
            return
        others = self._by_user.get(user_id, {})
        others.pop(member.id, None)
        if not others:
            self._by_user.pop(user_id, None)
