"""What became of a message."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Receipt"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """How far a message got when the call returned.

    Args:
        connections: open connections on whose queue it was put, or right behind what is being put there; not:
            received, only an answer or an ack says that.
        stored: whether it waits in the user's inbox as well, until it is acked.
        cursor: its place there.
        offset: a publication's place in its channel, where that has a history.
        epoch: which life of the channel the offset belongs to.
    """

    connections: int
    stored: bool = False
    cursor: int | None = None
    offset: int | None = None
    epoch: str | None = None

    @property
    def delivered(self) -> bool:
        """Whether at least one open connection has it on its queue."""
        return self.connections > 0
