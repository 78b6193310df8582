"""Every error Hubbub raises, and the one table of codes that reach a client.

HubbubError
├── UsageError            the application called us in a way that cannot work
│   └── ConfigError       a setting has a value that is not allowed
├── PeerError             the client sent something it may not
│   ├── HandshakeError    asked for a connection in a way we refuse: answered with the HTTP `status`
│   ├── ProtocolError     broke RFC 6455 or 7692: the connection is closed with `code`
│   └── RequestError      a message we cannot accept: answered with `error`, the connection stays
├── DeliveryError         the client could not be reached
│   ├── ConnectionClosed  it has gone
│   └── RequestTimeout    it did not answer in time
└── StoreError            a database is not as it should be; a client is told the `code`
    ├── StoreUnavailable  it cannot be reached, or took too long
    └── StorageFull       it has no room left
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "CLOSE_CODES",
    "ERROR_CODES",
    "CloseCode",
    "CloseMeaning",
    "ConfigError",
    "ConnectionClosed",
    "DeliveryError",
    "ErrorMeaning",
    "HandshakeError",
    "HubbubError",
    "PeerError",
    "ProtocolError",
    "RequestError",
    "RequestTimeout",
    "StorageFull",
    "StoreError",
    "StoreUnavailable",
    "UsageError",
]


class CloseCode(IntEnum):
    """Why a connection ends: RFC 6455 section 7.4, then ours (4000-4499 reconnect, 4500-4999 do not)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005
    ABNORMAL = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    TOKEN_EXPIRED = 4001
    SLOW_CONSUMER = 4002
    NO_PONG = 4003
    RESYNC = 4004
    RATE_LIMITED = 4005
    BAD_REQUEST = 4500
    UNAUTHORIZED = 4501
    FORBIDDEN = 4503
    CONNECTION_LIMIT = 4504
    AUTH_TIMEOUT = 4505
    REPLACED = 4506


@dataclass(frozen=True, slots=True)
class CloseMeaning:
    """One row of the close code table: what happened, and whether the client should come back."""

    meaning: str
    reconnect: bool


CLOSE_CODES: dict[CloseCode, CloseMeaning] = {
    CloseCode.NORMAL: CloseMeaning("the work is done", False),
    CloseCode.GOING_AWAY: CloseMeaning("the server stops, or the page was left", True),
    CloseCode.PROTOCOL_ERROR: CloseMeaning("a frame broke the WebSocket protocol", False),
    CloseCode.UNSUPPORTED_DATA: CloseMeaning("a binary message, and no handler for them", False),
    CloseCode.NO_STATUS: CloseMeaning("the close frame gave no code (never sent)", True),
    CloseCode.ABNORMAL: CloseMeaning("the connection was cut without a close frame (never sent)", True),
    CloseCode.INVALID_DATA: CloseMeaning("text that is not UTF-8, or a corrupt compressed message", False),
    CloseCode.POLICY_VIOLATION: CloseMeaning("a rule of this server was broken", False),
    CloseCode.MESSAGE_TOO_BIG: CloseMeaning("a message over the size or part limit", False),
    CloseCode.INTERNAL_ERROR: CloseMeaning("the server failed; its log has the reason", True),
    CloseCode.SERVICE_RESTART: CloseMeaning("the server restarts", True),
    CloseCode.TRY_AGAIN_LATER: CloseMeaning("the server is overloaded", True),
    CloseCode.TOKEN_EXPIRED: CloseMeaning("the token expired: bring a new one", True),
    CloseCode.SLOW_CONSUMER: CloseMeaning("the client read too slowly and its queue was full", True),
    CloseCode.NO_PONG: CloseMeaning("the client did not answer a ping in time", True),
    CloseCode.RESYNC: CloseMeaning("the server lost its place: subscribe again", True),
    CloseCode.RATE_LIMITED: CloseMeaning("too many messages, in spite of the errors sent before", True),
    CloseCode.BAD_REQUEST: CloseMeaning("too many messages that are not JSON", False),
    CloseCode.UNAUTHORIZED: CloseMeaning("the credentials are not accepted", False),
    CloseCode.FORBIDDEN: CloseMeaning("this user may not connect", False),
    CloseCode.CONNECTION_LIMIT: CloseMeaning("too many connections", False),
    CloseCode.AUTH_TIMEOUT: CloseMeaning("no credentials came in time", False),
    CloseCode.REPLACED: CloseMeaning("a newer connection took this one's place", False),
}


@dataclass(frozen=True, slots=True)
class ErrorMeaning:
    """One row of the error code table: what the client did, and whether sending it again can help."""

    meaning: str
    retry: bool


ERROR_CODES: dict[str, ErrorMeaning] = {
    "bad_json": ErrorMeaning("the message is not JSON, or nested too deep", False),
    "bad_envelope": ErrorMeaning("the message is JSON but not an object of the envelope's shape", False),
    "unknown_type": ErrorMeaning("`type` is missing, not a string, or nobody handles it", False),
    "invalid_payload": ErrorMeaning("`payload` does not fit the type; `field` says where", False),
    "unauthorized": ErrorMeaning("this type needs a signed-in user", False),
    "forbidden": ErrorMeaning("this user may not do that", False),
    "bad_channel": ErrorMeaning("not a valid channel name", False),
    "channel_limit": ErrorMeaning("too many channels on one connection", False),
    "bad_cursor": ErrorMeaning("an ack of a message this connection was not sent", False),
    "rate_limited": ErrorMeaning("too much in too short a time; `retryAfter` says when to go on", True),
    "channel_full": ErrorMeaning("a channel has as many subscribers as it may have", True),
    "refused": ErrorMeaning("the client answered a request of ours with an error", False),
    "timeout": ErrorMeaning("the handler took too long and was stopped", True),
    "unavailable": ErrorMeaning("a database or the broker is out of reach; nothing was stored for sure", True),
    "storage_full": ErrorMeaning("a database has no room left; nothing was stored", True),
    "internal": ErrorMeaning("the handler failed; the reference in the message is in the server's log", True),
}


class HubbubError(Exception):
    """Base of every error Hubbub raises."""


class UsageError(HubbubError):
    """The application called Hubbub in a way that cannot work; the message names the way out."""


class ConfigError(UsageError):
    """A setting has a value that is not allowed; the message names the variable and what is."""


class PeerError(HubbubError):
    """The client sent something it may not; nothing the application did."""


class HandshakeError(PeerError):
    """The client's request cannot become a connection; it is answered with an HTTP error.

    Args:
        status: the HTTP status.
        reason: what is wrong with the request, for the client's developer.
        headers: what the answer must carry, as names and values.
    """

    def __init__(self, status: int, reason: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.headers = headers


class ProtocolError(PeerError):
    """The client broke the WebSocket protocol; its connection closes with `code`."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(f"{code.value} {reason}")
        self.code = code
        self.reason = reason


class RequestError(PeerError):
    """Answer a client's message with `error`; raise it in a handler to say no.

    Args:
        code: one of `ERROR_CODES`, or a code of your own.
        message: a sentence for the client's developer; never a secret, never their input.
        field: the part of the payload at fault, as a path like `items[2].price`.
        close: end the connection behind the answer, with this code; None lets it go on.
        retry_after: seconds until the same message may be sent again; `retryAfter` in ms on the wire.
    """

    def __init__(
        self,
        code: str,
        message: str,
        field: str | None = None,
        *,
        close: CloseCode | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.field = field
        self.close = close
        self.retry_after = retry_after


class DeliveryError(HubbubError):
    """The client could not be reached."""


class ConnectionClosed(DeliveryError):
    """The connection has gone, or went while we waited for it."""


class RequestTimeout(DeliveryError):
    """The client did not answer `Connection.request` in time."""


class StoreError(HubbubError):
    """A database is not as it should be; the message names it and what to do.

    Attributes:
        code: what a client whose request needed it is told, one of `ERROR_CODES`.
    """

    code = "unavailable"


class StoreUnavailable(StoreError):
    """The database cannot be reached, took too long, or failed to write: what was asked for may be done or not."""


class StorageFull(StoreError):
    """The database has no room left: what was asked for is not done."""

    code = "storage_full"
