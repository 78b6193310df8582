"""A store as the node uses it: bounded in time, and left alone for a moment after it failed."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar, TypeVarTuple

from hubbub.config import STORES, Settings
from hubbub.contracts import Store
from hubbub.errors import ConfigError, HubbubError, StorageFull, StoreError, StoreUnavailable

__all__ = ["Database", "databases"]

logger = logging.getLogger("hubbub.database")

REST = 1.0  # seconds for which a database that failed is not asked
CLOSING = 2.0  # seconds for which a database that does not let go is waited for
Ts = TypeVarTuple("Ts")
T = TypeVar("T")


class Database:
    """What keeps one or more roles' data.

    A call that takes longer than `timeout` fails; after a failure everything fails at once for `REST` seconds, so that
    nobody waits for a database that is down. Then the next call tries again.

    Args:
        url: where it is.
        given: whether somebody chose it; one that nobody chose is created with the first thing to keep.
        timeout: seconds for one call.
    """

    def __init__(self, url: str, *, given: bool, timeout: float) -> None:
        self.url = url
        self.given = given
        self._timeout = timeout
        self._store: Store | None = None
        self._opening: asyncio.Future[None] | None = None
        self._failed_at = self._answered_at = -REST
        self._reason = ""

    def __str__(self) -> str:
        return self.store.place + (", made when something is to be kept" if self.empty else "")

    @property
    def store(self) -> Store:
        """The store behind it, which may not be open yet.

        Raises:
            ConfigError: what it needs is not installed.
        """
        if self._store is None:
            self._store = _make(self.url)
        return self._store

    @property
    def healthy(self) -> bool:
        """Whether the last call reached it, or none was made yet."""
        return not self._reason

    @property
    def empty(self) -> bool:
        """Whether nothing can be in it: it does not even exist."""
        return self._opening is None and not self.given and not self.store.exists

    @property
    def reached(self) -> bool:
        """Whether it is open."""
        return self._opening is not None and self._opening.done()

    async def open(self) -> None:
        """Open the store; calls that come meanwhile wait for the same.

        Raises:
            StoreError: it cannot be opened.
        """
        if self._opening is None:
            self._opening = asyncio.ensure_future(self.store.open())
            self._opening.add_done_callback(self._opened)
        opening = self._opening
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not opening.cancelled() or (task is not None and task.cancelling()):
                raise
            raise StoreUnavailable(f"{self.store.place} was closed while it was being opened.") from None

    async def close(self) -> None:
        """Let go of it; the next call would open it anew."""
        store, self._store, opening, self._opening = self._store, None, self._opening, None
        if store is not None and opening is not None:
            opening.cancel()
            try:
                async with asyncio.timeout(CLOSING):
                    await store.close()
            except TimeoutError:
                logger.error("%s did not let go in %g s: left behind.", store.place, CLOSING)

    def forget(self) -> None:
        """Begin anew: the loop that its connections belong to is gone."""
        self._store = self._opening = None
        self._failed_at = self._answered_at = -REST
        self._reason = ""

    async def call(self, method: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Call a method of `store`.

        Raises:
            StoreError: it failed, took too long, or failed a moment ago.
        """
        if monotonic() - self._failed_at < REST:
            raise StoreUnavailable(self._reason)
        try:
            async with asyncio.timeout(self._timeout):
                await self.open()
                result = await method(*args)
        except TimeoutError:
            raise self._failed(StoreUnavailable(f"{self.store.place} did not answer in {self._timeout:g} s.")) from None
        except StorageFull:
            raise
        except StoreError as error:
            raise self._failed(error) from error.__cause__
        self._recovered()
        self._answered_at = monotonic()
        return result

    async def answers(self) -> bool:
        """Whether it answers: unless it did a moment ago it is asked, for without traffic nobody else does."""
        if self.empty or monotonic() - self._answered_at < REST:
            return True
        try:
            await self.call(self.store.archive_position)
        except HubbubError:
            return False
        return True

    def _opened(self, opening: asyncio.Future[None]) -> None:
        if (opening.cancelled() or opening.exception() is not None) and self._opening is opening:
            self._opening = None  # the next call tries again

    def _failed(self, error: StoreError) -> StoreError:
        if not self._reason:
            logger.error("%s Live messages go on, durable ones are refused until it is back.", error)
        self._failed_at, self._answered_at, self._reason = monotonic(), -REST, str(error)
        return error

    def _recovered(self) -> None:
        if self._reason:
            logger.warning("%s is back.", self.store.place)
            self._reason = ""


def databases(settings: Settings, timeout: float) -> dict[str, Database]:
    """The database of each role; roles with one URL share it.

    Args:
        settings: where they are.
        timeout: seconds for one call.
    """
    inbox = Database(settings.inbox_url, given=settings.inbox_given, timeout=timeout)
    same = settings.archive_url == settings.inbox_url
    archive = inbox if same else Database(settings.archive_url, given=settings.archive_given, timeout=timeout)
    return {"inbox": inbox, "archive": archive}


def _make(url: str) -> Store:
    """Find the class for a URL and make the store."""
    module, _, name = STORES[url.partition("://")[0]].partition(":")
    try:
        store: Store = getattr(importlib.import_module(module), name)(url)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("hubbub"):
            raise
        extra = "mongo" if "mongo" in module else "postgres"
        raise ConfigError(f'{error.name} is not installed: pip install "hubbub[{extra}]"') from None
    return store
