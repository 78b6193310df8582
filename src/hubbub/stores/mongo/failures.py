"""What MongoDB's driver raises, and what it means here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymongo.errors import BulkWriteError, OperationFailure, PyMongoError

from hubbub.errors import StorageFull, StoreError, StoreUnavailable

__all__ = ["duplicate", "named"]

DUPLICATE, OUT_OF_DISK_SPACE = 11000, 14031


@contextmanager
def named(place: str) -> Iterator[None]:
    """Raise the driver's failures as `StoreUnavailable` or `StorageFull` that name the database."""
    try:
        yield
    except PyMongoError as error:
        raise _failure(place, error) from error


def duplicate(error: BulkWriteError) -> int:
    """Where a batch first met a unique index; any other failure goes on."""
    details: Any = error.details
    if details["writeConcernErrors"] or {failure["code"] for failure in details["writeErrors"]} != {DUPLICATE}:
        raise error
    return int(details["writeErrors"][0]["index"])


def _failure(place: str, error: PyMongoError) -> StoreError:
    if OUT_OF_DISK_SPACE in _codes(error):
        return StorageFull(f"{place} has no room left: free some, or give it a larger disk.")
    if isinstance(error, OperationFailure):
        return StoreUnavailable(f"{place} refused: {_name(error)}.")
    # The rest of the text describes the driver's view of the whole cluster.
    reason = str(error).partition(", Timeout:")[0].partition(" (configured timeouts")[0]
    return StoreUnavailable(f"{place} does not answer: {reason or type(error).__name__}. Is it running?")


def _codes(error: PyMongoError) -> set[object]:
    if not isinstance(error, OperationFailure):
        return set()
    details: Any = error.details or {}
    failures = [*details.get("writeErrors", ()), *details.get("writeConcernErrors", ())]
    return {error.code, *(failure.get("code") for failure in failures)}


def _name(error: OperationFailure) -> str:
    """The server's name for it; its message might quote what was stored, or who asked."""
    details: Any = error.details or {}
    return str(details.get("codeName") or f"error {error.code}")
