"""One connection of the client library `nats-py`, without its queues and its tasks for each subscription.

It stands on some of the library's inner parts; `tests/brokers/test_nats.py` says when they change.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

from nats.aio.client import Client
from nats.errors import Error

from hubbub.brokers.nats.address import Address
from hubbub.errors import ConfigError, StoreUnavailable

__all__ = ["CONNECT", "Handler", "Message", "Subscription", "Wire"]

logger = logging.getLogger("hubbub.broker")

CONNECT = 3.0
PING, MOST_PINGS = 5.0, 2
"""Seconds between pings, and how many may be unanswered: a connection that is only half there is found out in 15 s."""


class Message(NamedTuple):
    """What came: its subject, its headers as they were sent, and what is in it."""

    subject: str
    headers: bytes
    data: bytes
    reply: str

    @property
    def status(self) -> bytes:
        """The status of an answer that is not data: 204, 404, 503..."""
        return self.headers[9:12] if self.headers[8:9] == b" " else b""


Handler = Callable[[Message], None]


@dataclass(slots=True, eq=False)
class Subscription:
    """A subject that is listened to; `number` is that of the present connection."""

    subject: str
    handler: Handler
    number: int = 0


class Wire(Client):
    """One connection of the client library, without its queues and tasks for each subscription.

    Args:
        lost: called when it is closed.
    """

    def __init__(self, lost: Callable[[Wire], None]) -> None:
        super().__init__()
        self.failure: Exception | None = None
        self._lost = lost
        self._handlers: dict[int, Handler] = {}

    async def dial(self, server: str, address: Address) -> None:
        """Connect to one server, once."""
        options: dict[str, Any] = {"token" if address.password is None else "user": address.user}
        if address.credentials is not None and find_spec("nkeys") is None:
            raise ConfigError('nkeys is not installed, which ?credentials= needs: pip install "nats-py[nkeys]"')
        tls = _trust(address) if address.scheme == "tls" or address.ca else None
        await self.connect(
            f"{address.scheme}://{server}",
            **(options if address.user else {}),
            password=address.password,
            user_credentials=address.credentials,
            tls=tls,
            name=address.name,
            error_cb=self._note,
            closed_cb=self._closed,
            allow_reconnect=False,
            connect_timeout=CONNECT,  # type: ignore[arg-type]  # seconds of any kind
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            ping_interval=PING,  # type: ignore[arg-type]
            max_outstanding_pings=MOST_PINGS,
            no_echo=True,
            skip_subject_validation=True,
        )

    async def listen(self, subscription: Subscription) -> None:
        """Subscribe; its messages go to its handler."""
        subscription.number = self._sid + 1
        self._handlers[subscription.number] = subscription.handler
        await self.subscribe(subscription.subject)

    async def leave(self, subscription: Subscription) -> None:
        """Unsubscribe."""
        if self._handlers.get(subscription.number) is subscription.handler:
            del self._handlers[subscription.number]
            self._remove_sub(subscription.number)
            await self._send_unsubscribe(subscription.number)

    async def abandon(self) -> None:
        """Close it, whether or not the server still reads."""
        self._drop()
        with suppress(OSError, Error, TimeoutError):
            async with asyncio.timeout(CONNECT):
                await self.close()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        """Hand a message on here and now; see the rules."""
        handler = self._handlers.get(sid)
        if handler is None:
            return
        try:
            handler(Message(subject.decode("ascii"), headers or b"", data, reply.decode("ascii")))
        except Exception:
            logger.exception("a message of NATS cannot be handled")

    async def _process_op_err(self, e: Exception) -> None:
        """Take the connection for lost at once: the library first writes what a dead server will not read."""
        self._lost(self)
        self._drop()
        await super()._process_op_err(e)

    def _drop(self) -> None:
        self._pending.clear()
        self._pending_data_size = 0
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    async def _note(self, error: Exception) -> None:
        self.failure = error
        logger.debug("NATS: %r", error)

    async def _closed(self) -> None:
        self._lost(self)


def _trust(address: Address) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=address.ca)
    except OSError as error:
        raise StoreUnavailable(f"?ca={address.ca} in the URL of NATS is no file of certificates: {error}") from None
