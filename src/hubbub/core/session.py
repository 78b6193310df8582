"""The life of one connection, as a table: state and input give the next state.

    CONNECTING --accept--> OPEN --goodbye--> CLOSING --lost--> CLOSED

A goodbye is ours or the peer's; `lost` ends the life from every state.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

__all__ = ["BACKLOG", "TRANSITIONS", "UNREAD", "ConnectionState", "Input", "advance"]

BACKLOG = 1
"""Why reading is held back: too many messages wait for their handler."""
UNREAD = 2
"""Why reading is held back: the client does not read what it is answered."""


class ConnectionState(IntEnum):
    """Where a connection stands; the numbers are those of the browser's `WebSocket.readyState`."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3

    if not TYPE_CHECKING:  # type checkers know that there are no others

        def __setattr__(self, name: str, value: Any) -> None:
            """Keep an app from what it knows of `websocket.state`: these are the same for all connections."""
            if not name.startswith("_"):
                raise AttributeError(f"conn.state has no {name!r} of your own: use conn.metadata[{name!r}].")
            super().__setattr__(name, value)


class Input(IntEnum):
    """What can happen to a connection."""

    ACCEPT = 0
    GOODBYE = 1
    LOST = 2


TRANSITIONS: dict[tuple[ConnectionState, Input], ConnectionState] = {
    (ConnectionState.CONNECTING, Input.ACCEPT): ConnectionState.OPEN,
    (ConnectionState.CONNECTING, Input.GOODBYE): ConnectionState.CLOSING,
    (ConnectionState.CONNECTING, Input.LOST): ConnectionState.CLOSED,
    (ConnectionState.OPEN, Input.GOODBYE): ConnectionState.CLOSING,
    (ConnectionState.OPEN, Input.LOST): ConnectionState.CLOSED,
    (ConnectionState.CLOSING, Input.LOST): ConnectionState.CLOSED,
}


def advance(state: ConnectionState, event: Input) -> ConnectionState:
    """The next state; an input that the table does not know changes nothing."""
    return TRANSITIONS.get((state, event), state)
