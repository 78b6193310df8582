"""What is done from time to time about inboxes: tell the app what nobody has read, and sweep what has expired."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

import msgspec

from hubbub.core.envelope import Message
from hubbub.errors import ConfigError, StoreError
from hubbub.node.routing import refuse_unawaited, takes, underlying

if TYPE_CHECKING:
    from hubbub.core.inbox import Entry
    from hubbub.node.database import Database
    from hubbub.node.node import Node

__all__ = ["Undelivered"]

logger = logging.getLogger("hubbub.inbox")

SWEEP = 60.0
OFTEN = 1.0
PAGE = 100


class Undelivered:
    """The one hook for messages that were not acked in time, and the sweep.

    Args:
        node: tells the time.
        database: where the inboxes are.
    """

    def __init__(self, node: Node, database: Database) -> None:
        self._node = node
        self._database = database
        self._hook: Callable[..., Any] | None = None
        self._after = 0.0
        self._due = self._sweep_due = 0.0
        self.reset()

    def reset(self) -> None:
        """Be about nothing."""
        self._task: asyncio.Task[None] | None = None

    def register(self, function: Callable[..., Any], after: float) -> None:
        """Call `function(user_id, message)` for what was not acked `after` seconds after it was sent.

        Raises:
            ConfigError: there is such a hook already, or the function takes something else.
        """
        if self._hook is not None:
            raise ConfigError("There is an on_undelivered hook already: one decides for all messages.")
        takes(function, "(user_id, message)", 2, 2)
        self._hook, self._after = function, after

    def beat(self, now: float) -> None:
        """Do what is due, `now` in monotonic seconds."""
        if self._task is not None or self._database.empty:
            return  # what is not open here may have been made, and written to, by another process
        sweep, look = now >= self._sweep_due, self._hook is not None and now >= self._due
        if sweep or look:
            self._sweep_due = now + SWEEP if sweep else self._sweep_due
            self._due = now + OFTEN
            self._task = asyncio.get_running_loop().create_task(self._run(sweep), context=Context())
            self._task.add_done_callback(self._done)

    def stop(self) -> None:
        """Let it be."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self, sweep: bool) -> None:
        database, now = self._database, time.time_ns() // 1_000_000
        if sweep:
            await database.call(database.store.sweep, now)
        if self._hook is None:
            return
        before = now - round(self._after * 1000)
        while found := await database.call(database.store.claim, before, PAGE, now):
            for user_id, entry in found:
                await self._tell(self._hook, user_id, entry)

    async def _tell(self, hook: Callable[..., Any], user_id: str, entry: Entry) -> None:
        try:
            payload = msgspec.json.decode(entry.payload) if entry.payload else None
            message = Message(entry.type, payload, entry.sent_at, cursor=entry.cursor)
            if inspect.iscoroutinefunction(underlying(hook)):
                async with asyncio.timeout(self._node.timeouts.handler):
                    await hook(user_id, message)
            else:
                refuse_unawaited(hook(user_id, message))
        except Exception:
            logger.exception("on_undelivered failed for a %r of %r", entry.type, user_id)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is not None and not isinstance(task.exception(), StoreError):
            logger.error("inboxes cannot be looked after", exc_info=task.exception())
