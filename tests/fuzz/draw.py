"""Reads one fuzzed input as the arguments of a target; an input that is too short reads as zeros."""

from __future__ import annotations

__all__ = ["Draw"]


class Draw:
    """Takes bytes off the front of an input."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        """Take one byte."""
        return (self.take(1) or b"\0")[0]

    def take(self, size: int) -> bytes:
        """Take as many bytes, or what is left."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def rest(self) -> bytes:
        """Take all that is left."""
        return self.take(len(self._data))
