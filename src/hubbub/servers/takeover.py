"""How the hub's endpoint asks a native server for the socket: an ASGI scope extension."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from hubbub.contracts import Handshake
    from hubbub.core.limits import FrameLimits
    from hubbub.node.connection import Connection
    from hubbub.node.entrance import Entrance

__all__ = ["TAKEOVER", "Takeover", "takeover_of"]

TAKEOVER = "hubbub.takeover"


class Takeover(Protocol):
    """What a native server offers under `TAKEOVER` in `scope["extensions"]`."""

    entered: Entrance | None
    """The entrance that this client has passed before the app was called, so that the endpoint need not ask again."""

    def prepare(self, limits: FrameLimits, deflate: bool) -> None:
        """Before the accept: what the socket's messages may be, and whether they may be compressed."""

    def take(self, connection: Connection, handshake: Handshake) -> None:
        """After the accept: open `connection` on this socket; the ASGI call may end then."""


def takeover_of(scope: Any) -> Takeover | None:
    """The offer in a scope, if the server makes one."""
    offer: Takeover | None = (scope.get("extensions") or {}).get(TAKEOVER)
    return offer
