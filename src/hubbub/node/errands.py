"""Work that is done by the side, for nobody who waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextvars import Context
from typing import Any

from hubbub.errors import StoreError

__all__ = ["Errands"]


class Errands:
    """Runs coroutines by the side; what fails is logged.

    Args:
        logger: where to.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something by the side."""
        task = asyncio.get_running_loop().create_task(self._run(work), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: work.close())  # one that was cancelled first has not begun it

    def stop(self) -> None:
        """Give up what is not done."""
        for task in self._tasks:
            task.cancel()

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except StoreError as error:
            self._logger.warning("%s", error)
        except Exception:
            self._logger.exception("something by the side failed")
