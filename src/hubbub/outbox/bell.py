"""Tells the relays of this process that something was committed, where the database tells nobody by itself."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["ring", "rung"]

_listeners: set[Callable[[], object]] = set()


def ring() -> None:
    """Something may have been committed; called from any thread."""
    for listener in tuple(_listeners):
        listener()


def rung(listener: Callable[[], object]) -> Callable[[], None]:
    """Call a plain function, in whatever thread, whenever it rings; what is returned ends that."""
    _listeners.add(listener)
    return lambda: _listeners.discard(listener)
