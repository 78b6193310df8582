"""The time for which a process has a journal, and what it does with it then."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial

from hubbub.brokers.memory.owner import Owner
from hubbub.contracts import Ledger
from hubbub.core.records import Journal, Kept
from hubbub.core.recovery import DEDUPE
from hubbub.errors import StoreError

__all__ = ["LEASE", "Tenure"]

logger = logging.getLogger("hubbub.journal")

LEASE = 15_000
"""Milliseconds after which a process that was not heard of has lost the journal."""
GLANCE = 0.25


class Tenure:
    """A lease of the journal in a database; every write prolongs it or finds out that another process took it.

    Args:
        ledger: the database.

    Attributes:
        held: whether we have the journal, and know what is in it.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.held = False
        self._owner = Owner()

    async def take(self, epoch: str, *, patient: bool) -> Journal:
        """Take the journal.

        Args:
            epoch: the name of its life, if it begins with this.
            patient: wait for the lease of an owner of whom nothing is heard.

        Raises:
            StoreError: another process has it.
        """
        store, name, first, instead_of = self.ledger.store, self._owner.name, None, None
        while True:
            now = _now()
            state = await self.ledger.call(store.take_journal, name, epoch, now, now + LEASE, instead_of)
            if state.owner == name:
                return state
            first = first or state
            if instead_of is None and Owner.died(state.owner):
                instead_of = state.owner
            elif not patient or state.until != first.until:
                raise self._lost()
            else:
                await asyncio.sleep(GLANCE)

    async def keep(self, behind: int, entries: Sequence[Kept]) -> None:
        """See `Store.keep`.

        Raises:
            StoreError: they are not kept for sure.
        """
        if not await self.ledger.call(self.ledger.store.keep, self._owner.name, behind, entries):
            raise self._lost()

    async def trim(self, watermark: int, floors: Mapping[str, int], archived: int, *, leave: bool = False) -> None:
        """Prolong the lease, or leave, and forget; see `Store.trim`.

        Raises:
            StoreError: it is not done for sure.
        """
        now = _now()
        trim = partial(self.ledger.store.trim, archived=archived, forget=now - round(DEDUPE * 1000))
        until = 0 if leave else now + LEASE
        if not await self.ledger.call(trim, self._owner.name, until, watermark, floors):
            raise self._lost()

    def _lost(self) -> StoreError:
        error = StoreError(
            f"Another process has the durable channels in {self.ledger.store.place}, and one process can: several "
            "processes need a NATS or Redis broker, or namespaces with durable=False."
        )
        if self.held:
            logger.error("%s Until it ends, nothing is published on them here.", error)
        self.held = False
        return error


def _now() -> int:
    return time.time_ns() // 1_000_000
