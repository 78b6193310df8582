"""What nodes say to each other: one struct for each thing to say, MessagePack on the way.

Rules of this file:
1. What comes from the broker is checked against these types before anybody acts on it; nothing of it is ever executed.
2. A message that is too long for a broker is said in parts, in order; a listener that misses one drops the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from hubbub.core.leases import Delta, Snapshot

__all__ = [
    "ALL",
    "Acked",
    "Alive",
    "Answer",
    "Ask",
    "Broadcast",
    "Bye",
    "Cancel",
    "Close",
    "Connections",
    "Count",
    "Joiner",
    "Put",
    "Question",
    "Ran",
    "Recheck",
    "Request",
    "Revoked",
    "Runs",
    "Said",
    "Send",
    "Spent",
    "Stored",
    "Streamed",
    "Subscribe",
    "Totals",
    "Unsubscribe",
    "Want",
    "Whole",
    "decode",
    "encode",
    "node_topic",
    "stream_topic",
    "user_topic",
]

ALL = "nodes"
"""The topic that every node follows."""
PART = 256 * 1024
MOST_PARTS = 1024
MOST_OPEN = PART * MOST_PARTS  # bytes of all that is not complete
MOST_KEYS = 500
"""Keys in one `Spent`."""
LONGEST = 1e9  # seconds; and no infinity

Seconds = Annotated[float, msgspec.Meta(ge=0, le=LONGEST)]


def node_topic(node: str) -> str:
    """The topic that one node follows."""
    return f"node:{node}"


def stream_topic(channel: str) -> str:
    """The topic that the nodes follow which have subscribers of a stream."""
    return f"stream:{channel}"


def user_topic(user_id: str) -> str:
    """The topic that the nodes follow to which a user is connected."""
    return f"user:{user_id}"


class Say(msgspec.Struct, frozen=True, tag=True, tag_field="say", array_like=True):
    """Something said."""


class Send(Say, frozen=True):
    """Send this message to a user's connections."""

    user_id: str
    text: bytes


class Broadcast(Say, frozen=True):
    """Send this message to every connection but one."""

    text: bytes
    exclude: str | None = None


class Stored(Say, frozen=True):
    """A message was stored in a user's inbox: send it."""

    user_id: str
    cursor: int
    dropped: int = 0


class Acked(Say, frozen=True):
    """A device of a user has everything up to a cursor."""

    user_id: str
    device: str
    cursor: int


class Alive(Say, frozen=True):
    """A node lives; the number of its last presence delta, and how many connections it has."""

    node: str
    version: int
    connections: int


class Bye(Say, frozen=True):
    """A node ends."""

    node: str


class Want(Say, frozen=True):
    """A node wants to know all that the one it asks answers for."""

    node: str


class Count(Say, frozen=True):
    """How many connections has a user?"""

    user_id: str


class Connections(Say, frozen=True):
    """Which connections has a user?"""

    user_id: str


class Totals(Say, frozen=True):
    """How many connections, users and channels are there?"""


class Close(Say, frozen=True):
    """Close a user's connections; how many were there?"""

    user_id: str
    code: int
    reason: str


class Revoked(Say, frozen=True):
    """A token, or a user's, count no more, which is kept already; how many connections were closed?"""

    subject: str
    at: int
    until: int


class Recheck(Say, frozen=True):
    """Ask the app's rules again about a channel's subscribers, or a user's subscriptions."""

    channel: str | None
    user_id: str | None


class Subscribe(Say, frozen=True):
    """Subscribe a user's connections, or one; how many were not subscribed?"""

    user_id: str | None
    connection_id: str | None
    channel: str


class Unsubscribe(Say, frozen=True):
    """End the subscriptions of a user's connections, or of one; how many were there?"""

    user_id: str | None
    connection_id: str | None
    channel: str


class Put(Say, frozen=True):
    """Send this message to one connection; is it open?"""

    connection_id: str
    text: bytes


class Request(Say, frozen=True):
    """Ask a client; what does it answer, in JSON?"""

    connection_id: str
    type: str
    payload: bytes
    timeout: float


class Whole(Say, frozen=True):
    """What has the stream on a channel said so far, in JSON? None if there is none."""

    channel: str


class Cancel(Say, frozen=True):
    """End the stream on a channel, or only the one of this id; was there one?"""

    channel: str
    id: str | None


class Runs(Say, frozen=True):
    """Streams run, or ran a moment ago, on these channels of a node."""

    node: str
    channels: list[str]


class Ran(Say, frozen=True):
    """Nothing is left of the streams on these channels of a node."""

    node: str
    channels: list[str]


class Streamed(Say, frozen=True):
    """A stream goes on: its messages in JSON."""

    channel: str
    messages: bytes


class Spent(Say, frozen=True):
    """Users or addresses took much of a rate on a node: the seconds, by user or address, in which it comes back."""

    node: str
    kind: str
    seconds: Annotated[dict[str, Seconds], msgspec.Meta(max_length=MOST_KEYS)]


Question = (
    Count | Connections | Totals | Close | Revoked | Recheck | Subscribe | Unsubscribe | Put | Request | Whole | Cancel
)


class Ask(Say, frozen=True):
    """A question of a node, which waits for an answer."""

    node: str
    id: int
    question: Question


class Answer(Say, frozen=True):
    """What a node answers; `error` is a code and a sentence in place of a value."""

    node: str
    id: int
    value: Any = None
    error: tuple[str, str] | None = None


class Part(Say, frozen=True):
    """A part of something long."""

    node: str
    id: int
    index: int
    count: int
    data: bytes


Said = (
    Send
    | Broadcast
    | Stored
    | Acked
    | Alive
    | Bye
    | Want
    | Ask
    | Answer
    | Runs
    | Ran
    | Streamed
    | Spent
    | Delta
    | Snapshot
)

_decoder = msgspec.msgpack.Decoder(Said | Part)


def encode(said: Said, node: str = "", id: int = 0) -> Iterator[bytes]:
    """The bytes of something said: one text, or the parts of a long one.

    Args:
        said: what.
        node: who says it.
        id: a number that no other long message of this node has.
    """
    data = msgspec.msgpack.encode(said)
    if len(data) <= PART:
        yield data
        return
    pieces = range(0, len(data), PART)
    for index, start in enumerate(pieces):
        yield msgspec.msgpack.encode(Part(node, id, index, len(pieces), data[start : start + PART]))


def decode(data: bytes) -> Said | Part:
    """What was said.

    Raises:
        ValueError: nothing a node of this version says.
    """
    said: Said | Part = _decoder.decode(data)
    return said


class Joiner:
    """Puts what comes in parts together; a node may say several long messages at a time."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], list[bytes]] = {}
        self._growing: set[tuple[str, int]] = set()
        self._size = 0

    def __len__(self) -> int:
        return len(self._open)

    def join(self, said: Said | Part) -> Said | None:
        """What was said, None while parts of it are missing.

        Raises:
            ValueError: see `decode`.
        """
        if not isinstance(said, Part):
            return said
        key = said.node, said.id
        pieces = self._take(key)
        if said.index == 0:
            pieces = []
        if said.index != len(pieces) or not 0 < said.count <= MOST_PARTS:
            return None
        pieces.append(said.data)
        if len(pieces) < said.count:
            self._keep(key, pieces)
            return None
        whole = decode(b"".join(pieces))
        return None if isinstance(whole, Part) else whole

    def forget(self, node: str) -> None:
        """Drop what a node began to say."""
        for key in [key for key in self._open if key[0] == node]:
            self._take(key)

    def sweep(self) -> None:
        """Drop what has not grown since the last time: the rest of it will not come."""
        for key in self._open.keys() - self._growing:
            self._take(key)
        self._growing.clear()

    def _take(self, key: tuple[str, int]) -> list[bytes]:
        pieces = self._open.pop(key, [])
        self._size -= sum(map(len, pieces))
        return pieces

    def _keep(self, key: tuple[str, int], pieces: list[bytes]) -> None:
        """Keep what has come so far; where there is too much of it all, what has waited longest goes."""
        self._open[key] = pieces
        self._growing.add(key)
        self._size += sum(map(len, pieces))
        while self._size > MOST_OPEN:
            self._take(next(iter(self._open)))
