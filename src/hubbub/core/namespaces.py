"""What kinds of channels there are: `room:42` belongs to the namespace `room`, `lobby` to `lobby`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from hubbub.core.channels import check_name
from hubbub.errors import ConfigError, RequestError

__all__ = ["ANY", "Namespace", "NamespaceOptions", "Namespaces", "PresenceOption", "Publishers", "Slow"]

ANY = "*"
"""The namespace of all channels that no other one has."""
Publishers = Literal["members", "anyone", "server"]
Slow = Literal["close", "drop_oldest", "latest_per_key"]
PresenceOption = bool | Literal["hidden"]


@dataclass(frozen=True, slots=True)
class Namespace:
    """What a group of channels can do.

    Args:
        name: what stands before the first colon of their names, or `*` for all that have no other.
        history: publications each channel remembers; 0 for none.
        history_ttl: seconds for which it does.
        recover: whether a client that comes back is given what it missed.
        latest: give the last publication to each new subscriber.
        durable: keep the history in the database: it outlives the process. None: where a database was chosen.
        archive: keep every publication in the archive as well; this makes them durable.
        presence: know who is subscribed, and tell subscribers; "hidden": tell only who asks and may.
        personal: each channel is the one of the user in its name, whose connections are subscribed by themselves.
        publish: which clients may: subscribers, anyone, or none.
        slow: what becomes of a client that does not keep up: `close` it (it comes back and recovers), `drop_oldest`
            of what waits for it, or keep the `latest_per_key` only.
        max_subscribers: connections to one channel, on this node.
    """

    name: str
    history: int = 0
    history_ttl: float = 300.0
    recover: bool = True
    latest: bool = False
    durable: bool | None = None
    archive: bool = False
    presence: PresenceOption = False
    personal: bool = False
    publish: Publishers = "members"
    slow: Slow = "close"
    max_subscribers: int | None = None

    def __post_init__(self) -> None:
        if self.name != ANY and (not self.name or ":" in self.name or not _is_plain(self.name)):
            raise ConfigError(f"A namespace is named by letters, digits, - and _, not {self.name!r}.")
        if self.history < 0 or self.history_ttl <= 0 or (self.max_subscribers is not None and self.max_subscribers < 1):
            raise ConfigError(f"Namespace {self.name}: give numbers above 0 (history may be 0: none).")
        if self.publish not in get_args(Publishers) or self.slow not in get_args(Slow):
            raise ConfigError(f"Namespace {self.name}: publish is one of {Publishers}, slow one of {Slow}.")
        if self.presence not in (True, False, "hidden"):
            raise ConfigError(f'Namespace {self.name}: presence is True, False or "hidden".')
        if not self.history and (self.latest or self.durable or self.archive):
            raise ConfigError(f"Namespace {self.name}: latest, durable and archive need a history.")
        if self.archive and self.durable is False:
            raise ConfigError(f"Namespace {self.name}: archive=True is durable; leave durable=False out.")

    @property
    def remembers(self) -> bool:
        """Whether its channels have a history."""
        return self.history > 0

    def outlives(self, chosen: bool) -> bool:
        """Whether their history outlives the process; `chosen` says whether somebody chose a database."""
        return self.history > 0 and (self.archive or (chosen if self.durable is None else self.durable))


class NamespaceOptions(TypedDict, total=False):
    """The fields of `Namespace` but its name, as keywords."""

    history: int
    history_ttl: float
    recover: bool
    latest: bool
    durable: bool | None
    archive: bool
    presence: PresenceOption
    personal: bool
    publish: Publishers
    slow: Slow
    max_subscribers: int | None


class Namespaces:
    """The namespaces of one hub."""

    def __init__(self) -> None:
        self._by_name: dict[str, Namespace] = {}

    def __iter__(self) -> Iterator[Namespace]:
        return iter(self._by_name.values())

    def declare(self, namespace: Namespace) -> None:
        """Add one.

        Raises:
            ConfigError: there is one of this name.
        """
        if namespace.name in self._by_name:
            raise ConfigError(f"The namespace {namespace.name} is declared twice.")
        self._by_name[namespace.name] = namespace

    def __contains__(self, name: object) -> bool:
        """Whether channels of a namespace may be: it is declared, or any is."""
        return name in self._by_name or ANY in self._by_name

    def personal(self) -> list[Namespace]:
        """Those whose channels are users' own."""
        return [namespace for namespace in self._by_name.values() if namespace.personal]

    def find(self, channel: str, size: int) -> Namespace:
        """The namespace of a channel.

        Args:
            channel: its name, as somebody gave it.
            size: bytes of UTF-8 allowed.

        Raises:
            RequestError: `bad_channel`: not a channel's name, or of no namespace.
        """
        check_name(channel, size)
        namespace = self._by_name.get(channel.partition(":")[0]) or self._by_name.get(ANY)
        if namespace is None:
            error = RequestError("bad_channel", "There are no channels of this kind here.", "channel")
            # For the app's own tracebacks; a client is not told what there is.
            error.add_note(f'{channel!r} has no namespace: declare hub.namespace("{channel.partition(":")[0]}").')
            raise error
        return namespace


def _is_plain(name: str) -> bool:
    return name.isascii() and name.replace("-", "").replace("_", "").isalnum()
