"""What the interchangeable parts promise each other; a door, a broker or a store satisfies these and no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from hubbub.core.forms import Form

__all__ = ["Handshake", "Receiver", "Transport"]


@dataclass(frozen=True, slots=True)
class Handshake:
    """The request that opened a connection; valid while the connect hooks run, then gone.

    Args:
        scope: the ASGI scope as the app's own middleware left it (`user`, `session`, `path_params`, `state`).
    """

    scope: Mapping[str, Any]

    def header(self, name: str) -> str | None:
        """The first header of this name, in any case."""
        wanted = name.lower().encode("latin-1")
        return next((value.decode("latin-1") for key, value in self.scope["headers"] if key == wanted), None)

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
