"""Who is subscribed to what: channels and their members, both ways.

A member carries its own channels in a tuple: most have one or two, and a tuple is the smallest thing that holds them.
So do most channels their members, one device of one user; a dict takes over where there are many.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from hubbub.core.labels import check_text
from hubbub.errors import RequestError

if TYPE_CHECKING:
    from hubbub.core.namespaces import Slow

__all__ = ["Channel", "Channels", "Subscriber", "check_name"]

FORBIDDEN = frozenset("*>")
FEW = 8  # members, for which a tuple is as fast


class Subscriber(Protocol):
    """What a member of a channel must be able to keep."""

    channels: tuple[Channel[Subscriber], ...]


S = TypeVar("S", bound=Subscriber)


class Channel(Generic[S]):
    """One channel: its name, its members, oldest first, what becomes of a slow one, and whether presence is kept."""

    __slots__ = ("members", "name", "present", "slow")

    def __init__(self, name: str, slow: Slow = "close", present: bool = False) -> None:
        self.name = name
        self.slow = slow
        self.present = present
        self.members: tuple[S, ...] | dict[S, None] = ()

    def add(self, member: S) -> None:
        """Take one more in."""
        if isinstance(self.members, dict):
            self.members[member] = None
        elif len(self.members) < FEW:
            self.members = (*self.members, member)
        else:
            self.members = dict.fromkeys((*self.members, member))

    def remove(self, member: S) -> None:
        """Let one go, if it is there."""
        if isinstance(self.members, dict):
            self.members.pop(member, None)
        else:
            self.members = tuple(other for other in self.members if other is not member)


class Channels(Generic[S]):
    """All channels that have a member; the others do not exist."""

    def __init__(self) -> None:
        self._by_name: dict[str, Channel[S]] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Channel[S]]:
        return iter(self._by_name.values())

    def get(self, name: str) -> Channel[S] | None:
        """The channel of this name, if anybody is subscribed."""
        return self._by_name.get(name)

    def subscribe(self, member: S, name: str, slow: Slow = "close", present: bool = False) -> bool:
        """Make `member` a subscriber; False if it was one. `slow` and `present` are for a channel that is new."""
        channel = self._by_name.get(name)
        if channel is None:
            channel = self._by_name[name] = Channel(name, slow, present)
        elif member in channel.members:
            return False
        channel.add(member)
        member.channels = (*member.channels, channel)  # type: ignore[arg-type]
        return True

    def unsubscribe(self, member: S, name: str) -> bool:
        """Take `member` out; False if it was not subscribed."""
        channel = self._by_name.get(name)
        if channel is None or member not in channel.members:
            return False
        member.channels = tuple(other for other in member.channels if other is not channel)
        self._drop(member, channel)
        return True

    def leave_all(self, member: S) -> Iterable[str]:
        """Take `member` out of every channel and say which they were."""
        channels, member.channels = member.channels, ()
        for channel in channels:
            self._drop(member, channel)  # type: ignore[arg-type]
        return [channel.name for channel in channels]

    def _drop(self, member: S, channel: Channel[S]) -> None:
        channel.remove(member)
        if not channel.members:
            del self._by_name[channel.name]


def check_name(name: str, size: int) -> str:
    """Give back a channel name that is fit to use.

    Args:
        name: what somebody called the channel.
        size: bytes of UTF-8 allowed.

    Raises:
        RequestError: `bad_channel`: empty, too long, control characters, `*`, `>`, or not in Unicode's form NFC.
        UsageError: no text.
    """
    if not check_text(name, "A channel's name") or len(name.encode("utf-8", "surrogatepass")) > size:
        raise RequestError("bad_channel", f"A channel name has 1 to {size} bytes.", "channel")
    if name.isascii() and name.isprintable() and FORBIDDEN.isdisjoint(name):
        return name
    # Look-alikes of a name would be other channels: one spelling only (format characters count as control).
    if not FORBIDDEN.isdisjoint(name) or any(unicodedata.category(letter)[0] == "C" for letter in name):
        raise RequestError("bad_channel", "A channel name has no control characters, `*` or `>`.", "channel")
    if not unicodedata.is_normalized("NFC", name):
        raise RequestError("bad_channel", "A channel name is written in Unicode's form NFC.", "channel")
    return name
