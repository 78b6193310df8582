"""What the interchangeable parts promise each other; a door, a broker or a store satisfies these and no more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, TypeVarTuple

from hubbub.core.credentials import read_cookies
from hubbub.core.forms import Form
from hubbub.core.inbox import Ack, Draft, Entry, Page, Standing, Stored
from hubbub.core.namespaces import Namespace
from hubbub.core.outbox import Counts, Outcome
from hubbub.core.outbox import Entry as OutboxEntry
from hubbub.core.records import Journal, Kept, Record, Revocation
from hubbub.core.recovery import Past, Position, Publication

__all__ = ["Broker", "BrokerReceiver", "Handshake", "Ledger", "OutboxTable", "Receiver", "Store", "Transport"]

Ts = TypeVarTuple("Ts")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Handshake:
    """The request that opened a connection; valid while the connect hooks run, then gone.

    Args:
        scope: the ASGI scope as the app's own middleware left it (`user`, `session`, `path_params`, `state`).
    """

    scope: Mapping[str, Any] = field(repr=False)  # it may hold credentials

    def header(self, name: str) -> str | None:
        """The first header of this name, in any case."""
        wanted = name.lower().encode("latin-1")
        return next((value.decode("latin-1") for key, value in self.scope["headers"] if key == wanted), None)

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies, as they were sent; of two with one name the first."""
        return read_cookies(self.scope["headers"])

    @property
    def client(self) -> str | None:
        """The peer's address, as the server (or its trusted proxy) gives it."""
        return self.scope["client"][0] if self.scope.get("client") else None


class Transport(Protocol):
    """One client's socket, as a door hands it to the node."""

    form: Form
    """How this socket wants its messages: framed bytes, deflated frames, or text."""
    paused: bool
    """True from the moment a write was not taken whole until `Receiver.resume_writing` is called."""

    @property
    def buffered(self) -> int:
        """Bytes taken by `write` and not yet by the kernel (or the server underneath)."""

    def write(self, data: Any) -> None:
        """Take what `form.join` made; never blocks, never raises, never called while `paused`."""

    def ping(self) -> bool:
        """Ask the peer for a sign of life; False where this door has no ping of its own."""

    def pause_reading(self) -> None:
        """Stop handing over messages soon; control frames may stop as well."""

    def resume_reading(self) -> None:
        """Hand over messages again."""

    def close(self, code: int, reason: str) -> None:
        """Say goodbye behind what was written, then end within the close timeout; may come twice."""

    def abort(self) -> None:
        """End now, without goodbye."""


class Receiver(Protocol):
    """The node's side of one socket: what a door calls. None of these raises or blocks."""

    def receive_text(self, text: bytes) -> None:
        """Take one whole text message, valid UTF-8."""

    def receive_binary(self, data: bytes) -> None:
        """Take one whole binary message."""

    def receive_control(self) -> None:
        """Learn that a ping or a pong came: it is no message, but counts as one; the door answers it."""

    def touch(self) -> None:
        """Learn that the peer is alive: bytes came, if no message yet."""

    def cork(self) -> None:
        """Learn that several messages follow at once."""

    def uncork(self) -> None:
        """Learn that the last of them was handed over."""

    def pause_writing(self) -> None:
        """Learn that `Transport.paused` became true."""

    def resume_writing(self) -> None:
        """Learn that `Transport.paused` became false: write on."""

    def close(self, code: int, reason: str) -> None:
        """End the connection from this side: the server stops, or the app failed behind it."""

    def close_received(self, code: int, reason: str) -> None:
        """Learn that the peer says goodbye; the door answers by itself."""

    def lost(self, code: int, reason: str) -> None:
        """Learn that the socket is gone; called exactly once, and last."""


class Store(Protocol):
    """A database that keeps what must outlive a process: inboxes, channels' history, the archive, revocations.

    Rules for every store:
    1. What a call returned is on the disk. What a call raised for may be there or not.
    2. Within one user's inbox the order in which messages become visible is the order of their cursors, also between
       processes: a reader that was given cursor 7 is never given 6 later.
    3. All times are milliseconds since 1970, given by the caller.
    4. Every call may raise `StoreUnavailable` or `StorageFull`, and then again works by itself once the database does.
    5. Ids, keys, types and payloads are data: whatever text they are, they come back as they were.
    """

    place: str
    """What and where it is, for people: `PostgreSQL at db.example.com:5432/app`; never a user name or password."""
    exists: bool
    """False only while opening would create a database, as a SQLite file that is not there yet."""

    async def open(self) -> None:
        """Connect and bring the tables up to date.

        Raises:
            StoreError: it cannot; the message names the database and what to do.
        """

    async def close(self) -> None:
        """Let go of the connections; an open call may fail."""

    async def pending(self) -> int:
        """How many steps `open` would take to bring the tables up to date; nothing is changed, open or not.

        Raises:
            StoreError: nobody knows; the message names the database and what to do.
        """

    # The inbox

    async def append(self, drafts: Sequence[Draft], cap: int) -> list[Stored]:
        """Put messages into inboxes, all or none, in this order.

        Args:
            drafts: at most some hundred, for any users; one whose key the user's inbox has seen is not stored again.
            cap: messages one inbox may hold; the oldest go as soon as it is `full`, a sixteenth above that.

        Returns:
            What became of each draft, in their order.
        """

    async def read(self, user_id: str, after: int, limit: int, now: int) -> Page:
        """The next messages of an inbox behind a cursor, oldest first, expired ones left out."""

    async def ack(self, acks: Sequence[Ack], now: int) -> None:
        """Move devices' cursors forward (never back) and forget what every known device of the user has acked."""

    async def standing(self, user_id: str, device: str, now: int) -> Standing:
        """Where a device of a user stands; one that was not seen before starts with the oldest message kept.

        Beyond `MOST_DEVICES` of them, that which was not seen for longest is forgotten.
        """

    async def claim(self, sent_before: int, limit: int, now: int) -> list[tuple[str, Entry]]:
        """Messages that no device has acked and that were sent before a time, each given out once, with their users."""

    # Revoked tokens

    async def revoke(self, revocation: Revocation) -> None:
        """Remember a revocation; a later one of the same subject replaces it."""

    async def revocations(self, now: int) -> list[Revocation]:
        """All that have not expired."""

    # The journal: the history of channels, one process has it at a time

    async def take_journal(self, owner: str, epoch: str, now: int, until: int, instead_of: str | None) -> Journal:
        """Have the journal until a time, unless another has it by now; whose it is.

        Args:
            owner: the one that wants it; it may have it already.
            epoch: the name of the journal's life, if it begins with this.
            now: the time.
            until: when another may take it.
            instead_of: a former owner that is known to be dead.
        """

    async def keep(self, owner: str, behind: int, entries: Sequence[Kept]) -> bool:
        """Keep publications, all or none, and nothing else behind an offset; the last is the journal's head.

        Args:
            owner: who has the journal.
            behind: the last offset that the owner knows to be kept: what is behind it is of a write that failed.
            entries: at most some hundred, by offset.

        Returns:
            False, and nothing was done, if another one has the journal.
        """

    async def trim(
        self, owner: str, until: int, watermark: int, floors: Mapping[str, int], *, archived: int, forget: int
    ) -> bool:
        """Go on having the journal, and forget what may be forgotten.

        Args:
            owner: who has the journal.
            until: when another may take it.
            watermark: the journal's new one.
            floors: offsets up to which channels have forgotten.
            archived: the offset up to which all is in the archive.
            forget: keys of what was published up to this time are forgotten.

        Returns:
            False, and nothing was done, if another one has the journal.
        """

    async def kept(self, behind: int, limit: int, *, archive: bool = False) -> list[Kept]:
        """What is in the journal behind an offset, by offset; only what is for the archive, if `archive`."""

    # The archive

    async def archive(self, records: Sequence[Record], position: str) -> None:
        """Keep publications and how far the archiver came with them; a record that is there already does no harm."""

    async def archive_position(self) -> str | None:
        """What the last `archive` was given; None before the first."""

    async def archived(
        self, channel: str, limit: int, *, after: tuple[str, int] | None = None, since: int = 0, back: bool = False
    ) -> list[Record]:
        """Publications of a channel, oldest first.

        Args:
            channel: its name.
            limit: how many at most.
            after: epoch and offset of the record to go on behind; nothing is found behind an unknown one.
            since: when the first was published, or later.
            back: the last ones, or with `after` the last ones before it.
        """

    # Care

    async def sweep(self, now: int) -> None:
        """Delete what has expired: messages, keys, revocations, devices that were not seen for `FORGET_DEVICE`."""


class Ledger(Protocol):
    """A store whose calls end in time, with a `StoreError` if need be: `node.database.Database`."""

    @property
    def given(self) -> bool:
        """Whether somebody chose it."""

    @property
    def empty(self) -> bool:
        """Whether nothing can be in it."""

    @property
    def store(self) -> Store:
        """The store; `call` opens it."""

    async def call(self, method: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Call a method of `store`."""


class BrokerReceiver(Protocol):
    """The node's side of a broker: what it is told. Plain, quick, never raises."""

    def published(self, channel: str, publication: Publication) -> None:
        """Pass a publication on to the channel's subscribers here; in the order of the offsets, along a channel."""

    def broken(self, channel: str) -> None:
        """Learn that publications of a channel with a history were missed for good: its subscribers must come back."""

    def told(self, topic: str, data: bytes) -> None:
        """Learn what another node says to those that follow a topic."""

    def resumed(self) -> None:
        """Learn that the broker was out of reach, or this node too slow for it: something told may be lost."""


class Broker(Protocol):
    """Moves publications between nodes, and remembers the latest of each channel.

    Rules for every broker:
    1. A publication of a channel with a history has an offset. Offsets grow along a channel, the same for all nodes;
       they are not dense. Without a history it is 0, and the publication may be lost between nodes.
    2. What `publish` returned for is remembered and will be told to every node with a subscriber, or shows as a gap
       that the node can see: `previous` names the publication before it.
    3. `past` is complete or says that it is not; see `core.recovery`.
    4. What is told to a topic gets to the other nodes that follow it at most once, in order from each node.
    5. Names of channels, topics and leases are data: whatever text they are, no broker reads anything else into them.
    """

    place: str
    """What and where it is, for people: `NATS at nats.example.com:4222`; never a user name or password."""
    shared: bool
    """Whether there may be other nodes; without, nothing is told and a claim is this process's own."""

    @property
    def healthy(self) -> bool:
        """Whether it answers, as far as is known."""

    def listen(self, receiver: BrokerReceiver) -> None:
        """Tell this receiver, from the start on; called once, first."""

    async def open(self, namespaces: Iterable[Namespace]) -> None:
        """Connect.

        Args:
            namespaces: the kinds of channels there will be.

        Raises:
            StoreError: it cannot be reached.
        """

    async def close(self) -> None:
        """Tell nothing more, let go of everything."""

    async def publish(
        self,
        namespace: Namespace,
        channel: str,
        event: str | None,
        data: bytes,
        *,
        idempotency: str | None,
        tags: Mapping[str, str] | None,
        now: int,
    ) -> Position:
        """Publish; return once it is remembered.

        Args:
            namespace: the channel's, which says how much is remembered.
            channel: the channel's name.
            event: the publication's name.
            data: JSON.
            idempotency: publisher and the publisher's name for it: a second one within 120 s is not published again.
            tags: what else the publisher says of it.
            now: milliseconds since 1970.

        Returns:
            Where it is: the first one's place for a known `idempotency`; offset 0 without a history.

        Raises:
            StoreError: it is not remembered for sure.
        """

    async def subscribe(self, namespace: Namespace, channel: str) -> None:
        """Tell of this channel's publications from now on: this node has its first subscriber.

        Raises:
            StoreError: it cannot now; nothing is told.
        """

    async def unsubscribe(self, channel: str) -> None:
        """Tell no more: the last one has gone."""

    async def past(self, namespace: Namespace, channel: str, since: Position | None, limit: int, now: int) -> Past:
        """What a channel remembers behind a position, at most `limit`; without one the latest `limit`."""

    def position(self, namespace: Namespace, channel: str) -> Position | None:
        """How far this node was told of a channel it is subscribed to; None without a history, and if nobody knows."""

    async def purge(self, channel: str) -> None:
        """Forget a channel's history; positions from before are good no more."""

    async def unarchived(self, position: str | None, limit: int) -> tuple[list[Record], str | None]:
        """Publications for the archive, of all channels and each in order, and the position behind the last of them.

        Args:
            position: go on behind it, and forget what is before; None is the beginning.
            limit: how many at most.
        """

    async def follow(self, topic: str) -> None:
        """Tell what other nodes say to this topic from now on.

        Raises:
            StoreError: it cannot now.
        """

    async def unfollow(self, topic: str) -> None:
        """Tell no more of it."""

    async def tell(self, topic: str, data: bytes) -> int:
        """Say something to the other nodes that follow a topic; how many do, at least, as far as the broker knows.

        Raises:
            StoreError: it was not said for sure.
        """

    async def claim(self, name: str, owner: str, ttl: float) -> bool:
        """Have a name for `ttl` seconds, or have it on: True unless another owner has it by now.

        Raises:
            StoreError: nobody knows.
        """

    def sweep(self, now: int) -> None:
        """Forget what has expired in this process; called from time to time."""


class OutboxTable(Protocol):
    """An application's outbox, as its relay sees it. Every call but the last three may raise `StoreError`."""

    place: str
    """What and where it is, for people; never a user name or password."""
    migrated: tuple[int, int]
    """The version of its tables before and after `open`."""

    async def open(self) -> None:
        """Connect, if that is not done, and bring the tables up to date."""

    async def lead(self, owner: str, seconds: float) -> int | None:
        """Be the one that relays, for so long; the fence, which grows with each other owner. None: another one is."""

    async def read(self, limit: int, without: Sequence[str]) -> tuple[list[OutboxEntry], bool]:
        """The next entries, by number, but for those of some lines; and whether there are more that are not ripe yet.

        An entry is ripe when no transaction older than the one that put it there is open.
        """

    async def settle(self, fence: int, seconds: float, outcome: Outcome) -> bool:
        """Delete what was sent, note what was refused, and lead on for so long; False, and nothing done: no more."""

    async def counts(self) -> Counts:
        """How much there is."""

    async def look(self) -> Counts | None:
        """How much there is, without `open`; nothing is changed. None: there are no tables."""

    async def leave(self, owner: str) -> None:
        """Lead no longer, so that another can at once."""

    async def wait(self, seconds: float) -> None:
        """Return when something may have been committed, or the time is over."""

    def wake(self) -> None:
        """End a `wait`, this or the next."""

    async def close(self) -> None:
        """Let go of the connections."""
