"""Names that one owner has for a time: leases, and tickets that are used once."""

from __future__ import annotations

__all__ = ["Claims"]

FEW = 64


class Claims:
    """Who has which name, and until when; times are seconds of any one clock."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[str, float]] = {}
        self._look_at = FEW

    def __len__(self) -> int:
        return len(self._held)

    def claim(self, name: str, owner: str, now: float, until: float) -> bool:
        """Let an owner have a name until then, unless another has it now."""
        holder, end = self._held.get(name, (owner, now))
        if holder != owner and end > now:
            return False
        self._held[name] = owner, until
        if len(self._held) >= self._look_at:
            self._forget(now)
        return True

    def _forget(self, now: float) -> None:
        """Drop what has ended; next when there are twice as many: it costs no claim more than a moment."""
        self._held = {name: held for name, held in self._held.items() if held[1] > now}
        self._look_at = max(FEW, 2 * len(self._held))
