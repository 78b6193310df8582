"""One client: who it is, what it is sent, how it ends."""

from __future__ import annotations

import time
from base64 import urlsafe_b64encode
from collections import deque
from math import ceil
from os import urandom
from threading import get_ident
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any

from hubbub.core.envelope import encode, encode_stored
from hubbub.core.frames import check_code
from hubbub.core.identity import Identity, check_user_id
from hubbub.core.session import ConnectionState, Input, advance
from hubbub.errors import CloseCode, RequestError, UsageError
from hubbub.node.outbox import ENDED, Outbox
from hubbub.node.requests import Requests

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hubbub.contracts import Handshake, Transport
    from hubbub.core.envelope import Incoming
    from hubbub.core.inbox import Entry
    from hubbub.node.node import Node
    from hubbub.node.workers import Job

__all__ = ["Connection"]


class Connection:
    """A client's live connection to this node.

    Attributes:
        id: unguessable, unique.
        identity: who the user is, and until when; None while anonymous.
        state: where it stands, see `ConnectionState`.
    """

    __slots__ = (
        "_holds",
        "_metadata",
        "_requests",
        "announced",
        "backlog",
        "bad_messages",
        "byte_credit",
        "close_reason",
        "credit",
        "heard",
        "id",
        "identity",
        "network",
        "node",
        "outbox",
        "pinged",
        "running",
        "state",
        "trusted",
    )

    def __init__(self, node: Node) -> None:
        self.id = node.cluster.prefix + urlsafe_b64encode(urandom(12)).decode()
        self.node = node
        self.state = ConnectionState.CONNECTING
        self.outbox: Outbox = None  # type: ignore[assignment]  # from `accept` on
        self.identity: Identity | None = None
        self._metadata: dict[str, Any] | None = None
        self._requests: Requests | None = None
        self.backlog: deque[Incoming | bytes] | None = None
        self.running: Job | None = None
        self._holds = 0
        self.announced = False
        self.bad_messages = 0
        self.network: str | None = None
        self.trusted = False
        self.credit = self.byte_credit = 0
        self.heard = monotonic()
        self.pinged = 0.0
        self.close_reason: tuple[int, str] | None = None

    def __repr__(self) -> str:
        return f"<Connection {self.id} user={self.user_id!r} {self.state.name}>"

    # Who it is

    @property
    def user_id(self) -> str | None:
        """The user this connection belongs to, None while anonymous."""
        return None if self.identity is None else self.identity.user_id

    @property
    def claims(self) -> Mapping[str, Any]:
        """What the token or authenticator said of the user, empty while anonymous."""
        return {} if self.identity is None else self.identity.claims

    def identify(self, user: str | Identity | None) -> None:
        """Bind this connection to a user, another user, or nobody; what waits in the user's inbox follows.

        Raises:
            RequestError: `invalid_payload`: no id for a user.
        """
        self._check_thread("identify")
        identity = user if user is None or isinstance(user, Identity) else Identity(user)
        if identity is not None:
            check_user_id(identity.user_id)
        before, self.identity = self.user_id, identity
        self.node.registry.move(self, before)
        self.node.identified(self, before)

    @property
    def metadata(self) -> dict[str, Any]:
        """A dict of your own that lives as long as the connection."""
        if self._metadata is None:
            self._metadata = {}
        return self._metadata

    @property
    def channels(self) -> list[str]:
        """The names of the channels it is subscribed to, oldest first."""
        return [channel.name for channel in self.outbox.channels]

    @property
    def last_activity(self) -> float:
        """When the client was last heard of, in seconds since 1970."""
        return time.time() - (monotonic() - self.heard)

    @property
    def is_alive(self) -> bool:
        """False from a ping on until the client is heard of again."""
        return self.heard >= self.pinged

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self.state is ConnectionState.OPEN

    # Its channels

    def subscribe(self, channel: str) -> bool:
        """Let it get what is published on a channel from now on, whatever the app's rules say; False if it did already.

        The client is not told: `hub.subscribe` tells it, and from where it can come back.

        Raises:
            RequestError: `bad_channel`, `channel_limit` or `channel_full`.
        """
        self._check_thread("subscribe")
        subscriptions = self.node.subscriptions
        if self.state is ConnectionState.CONNECTING:
            return False
        subscriptions.check(self, channel)
        return subscriptions.join(self, channel)

    def unsubscribe(self, channel: str) -> bool:
        """Get nothing more that is published on a channel; False if it did not."""
        self._check_thread("unsubscribe")
        return self.node.subscriptions.remove(self, channel)

    # What it is sent

    def send(self, type: str, payload: Any = None, id: str | None = None) -> bool:
        """Queue one message for this client; never blocks.

        Args:
            type: the message's type.
            payload: anything with a JSON form.
            id: the request this answers.

        Returns:
            True if it was queued, False if the connection is no longer open.

        Raises:
            UsageError: called from another thread than the hub's.
        """
        node = self.node
        if self.state is not ConnectionState.OPEN:
            return False
        if get_ident() != node.thread:
            self._check_thread("send")
        outbox = self.outbox
        if node.delivery.noted:
            node.delivery.drain(outbox)
            if self.close_reason is not None:
                return False
        outbox.put(outbox.transport.form.encode(encode(type, payload, time_ns() // 1_000_000, id)))
        return self.close_reason is None  # it may have been one too many

    def send_entry(self, entry: Entry) -> bool:
        """Queue one message of the user's inbox, as `send` does."""
        return self.send_text(encode_stored(entry.type, entry.payload, entry.sent_at, entry.cursor))

    def send_text(self, text: bytes) -> bool:
        """Queue one encoded message, as `send` does."""
        if self.state is not ConnectionState.OPEN:
            return False
        outbox = self.outbox
        self.node.delivery.drain(outbox)
        if self.close_reason is None:
            outbox.put(outbox.transport.form.encode(text))
        return self.close_reason is None

    def send_error(self, error: RequestError, id: str | None = None) -> bool:
        """Answer a message with `error`."""
        payload: dict[str, Any] = {"code": error.code, "message": error.message}
        if error.field is not None:
            payload["field"] = error.field
        if error.retry_after is not None:
            payload["retryAfter"] = ceil(error.retry_after * 1000)
        return self.send("error", payload, id)

    async def request(self, type: str, payload: Any = None, *, timeout: float | None = None, returns: Any = Any) -> Any:
        """Ask the client and wait for its answer.

        Args:
            type: what is asked; the client sees `request` with this type and payload.
            payload: anything with a JSON form.
            timeout: seconds to wait, by default `Timeouts.request`.
            returns: the type the answer is decoded into.

        Raises:
            RequestTimeout: no answer in time.
            ConnectionClosed: the connection is or was closed.
            RequestError: the client answered with an error, or with something else than `returns`.
        """
        if self._requests is None:
            self._requests = Requests()
        seconds = self.node.timeouts.request if timeout is None else timeout
        return await self._requests.ask(self, type, payload, seconds, returns)

    def answered(self, message: Incoming) -> None:
        """Take the client's `response` or `error` to a request of ours."""
        if self._requests is not None:
            self._requests.answer(message)

    # What it is heard

    @property
    def reading(self) -> bool:
        """Whether its messages are read, not held back."""
        return not self._holds

    def hold_reading(self, reason: int) -> None:
        """Read nothing more until every reason is gone."""
        if not self._holds:
            self.outbox.transport.pause_reading()
        self._holds |= reason

    def resume_reading(self, reason: int) -> None:
        """Take one reason back."""
        if self._holds == reason:
            if not self.is_alive:
                self.pinged = monotonic()  # its answer may be among what is still to be read
            self.outbox.transport.resume_reading()
        self._holds &= ~reason

    @property
    def asking(self) -> bool:
        """Whether a request of ours is waiting for its answer."""
        return bool(self._requests)

    # How it ends

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Say goodbye behind what was sent; the socket ends when the client agrees, or after `Timeouts.close`.

        Args:
            code: why, see `CloseCode`.
            reason: at most 123 bytes for the client's developer.

        Raises:
            UsageError: a code that no endpoint may send, or another thread than the hub's.
        """
        if self.state not in (ConnectionState.CONNECTING, ConnectionState.OPEN):
            return
        self._check_thread("close")
        check_code(code)
        if self.outbox is not None:
            self.node.delivery.drain(self.outbox)
        if self.close_reason is not None:
            return  # what was drained was too much: it is being closed already
        self._goodbye(code, reason)
        if self.outbox is not None:
            self.outbox.close(code, reason)

    # What the door calls (`contracts.Receiver`)

    def accept(self, transport: Transport, handshake: Handshake, head: Any = None) -> None:
        """Open: from here on messages flow, behind `head`, which is wire data."""
        self.outbox = Outbox(self, transport, self.node.limits.send_queue, self.node.delivery.number)
        self.state = advance(self.state, Input.ACCEPT)
        self.outbox.hold()
        if head is not None:
            self.outbox.put(head)
        self.node.opened(self, handshake)
        self.outbox.release()

    def receive_text(self, text: bytes) -> None:
        """Take one whole text message, valid UTF-8."""
        self.heard = monotonic()
        self.node.dispatcher.receive(self, text)

    def receive_binary(self, data: bytes) -> None:
        """Take one whole binary message."""
        self.heard = monotonic()
        self.node.dispatcher.receive_binary(self, data)

    def receive_control(self) -> None:
        """Take note of a ping or a pong."""
        self.heard = monotonic()
        self.node.dispatcher.receive_control(self)

    def touch(self) -> None:
        """Learn that the peer is alive: bytes came, if no message yet."""
        self.heard = monotonic()

    def pause_writing(self) -> None:
        """Learn that the transport is paused."""
        self.outbox.hold()

    def resume_writing(self) -> None:
        """Learn that the transport takes data again."""
        self.outbox.release()

    def cork(self) -> None:
        """Several messages follow at once: keep the replies together."""
        self.outbox.hold()

    def uncork(self) -> None:
        """The last of them was handed over: send the replies."""
        self.outbox.release()

    def close_received(self, code: int, reason: str) -> None:
        """Learn that the peer says goodbye; whatever waits for it would come behind the answer, so it is dropped."""
        self._goodbye(code, reason)
        self.outbox.drop()

    def lost(self, code: int, reason: str) -> None:
        """Learn that the socket is gone."""
        if self.state is ConnectionState.CLOSED:
            return
        self._goodbye(code, reason)
        self.state = advance(self.state, Input.LOST)
        if self._requests is not None:
            self._requests.give_up()
        self.node.closed(self, *(self.close_reason or (code, reason)))
        self.outbox = ENDED

    def _check_thread(self, method: str) -> None:
        node = self.node
        if node.thread is not None and node.thread != get_ident():
            way = f"elsewhere use hub.sync.call(conn.{method}, ...)"
            raise UsageError(f"Connection.{method} is for the hub's own thread: {way}.")

    def _goodbye(self, code: int, reason: str) -> None:
        if self.close_reason is None:
            self.close_reason = (code, reason)
            self.node.leaving(self)
        self.state = advance(self.state, Input.GOODBYE)
