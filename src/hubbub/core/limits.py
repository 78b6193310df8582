"""Every bound the hub keeps but rates, in three frozen groups; each has a finite default."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from hubbub.errors import ConfigError

__all__ = ["FrameLimits", "Limits", "Timeouts"]


class _Positive:
    """Refuses zero and negative values at construction, by the field's name."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = getattr(self, field.name)
            if not (isinstance(value, int | float) and 0 < value < math.inf):
                raise ConfigError(f"{type(self).__name__}.{field.name} is {value!r}: give a number above 0.")


@dataclass(frozen=True, slots=True)
class FrameLimits(_Positive):
    """What one incoming message may weigh; over it the connection closes with 1009.

    Args:
        message_size: bytes of a message, all parts together, on the wire and again after inflating.
        parts: frames that a fragmented message may come in, empty ones counted.
    """

    message_size: int = 64 * 1024
    parts: int = 1024


@dataclass(frozen=True, slots=True)
class Limits(_Positive):
    """What one connection may cost, and how many there may be.

    Args:
        message_size: bytes of one message, also after inflating.
        parts: fragments of one message.
        depth: levels of JSON arrays and objects.
        send_queue: bytes that wait for a slow client; beyond it a channel's policy drops some, or 4002 closes it.
        channel_name: bytes of a channel's name.
        channels: channels one connection may be subscribed to.
        in_flight: messages of one connection accepted and not finished; reading pauses there.
        bad_messages: messages that are not JSON before the connection is closed with 4500.
        inbox: messages that wait for one user; the oldest go once there are a sixteenth more.
        connections: of this node; beyond it HTTP 503.
        connections_per_address: of one address, with IPv6 of its /64 network; beyond it HTTP 429.
        connections_per_user: of one user; beyond it 4504, or the oldest goes with 4506, see `Hub(when_full=...)`.
    """

    message_size: int = 64 * 1024
    parts: int = 1024
    depth: int = 32
    send_queue: int = 1024 * 1024
    channel_name: int = 255
    channels: int = 128
    in_flight: int = 16
    bad_messages: int = 5
    inbox: int = 1000
    connections: int = 20_000
    connections_per_address: int = 4_096
    connections_per_user: int = 200

    @property
    def frames(self) -> FrameLimits:
        """The part of these that the frame parser keeps."""
        return FrameLimits(self.message_size, self.parts)


@dataclass(frozen=True, slots=True)
class Timeouts(_Positive):
    """How long the hub waits, each in seconds.

    Args:
        ping: silence before a ping.
        pong: from a ping to any sign of life, then 4003.
        close: from our goodbye to the end of the socket.
        handler: one handler's run.
        request: the client's answer to `Connection.request`.
        shutdown: from the goodbye to all until the sockets are cut.
        authenticate: from the start of a connection to its sign-in, where that is required.
        inbox: how long a message waits for its user.
        store: one call of a database.
    """

    ping: float = 30.0
    pong: float = 10.0
    close: float = 5.0
    handler: float = 30.0
    request: float = 10.0
    shutdown: float = 10.0
    authenticate: float = 10.0
    inbox: float = 30 * 86400.0
    store: float = 5.0
