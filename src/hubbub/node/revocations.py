"""Revoked tokens: kept in the store, known in memory, and asked about each time somebody signs in."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from hubbub.core.identity import Identity, check_user_id
from hubbub.core.records import Revocation
from hubbub.errors import UsageError

if TYPE_CHECKING:
    from hubbub.contracts import Store
    from hubbub.node.database import Database

__all__ = ["Revocations"]

KEEP = 30 * 86400.0
"""Seconds for which a revocation is kept where nobody says how long: no token should live longer."""
LATEST = 1e11
"""Seconds since 1970: who gives more has milliseconds, or something that no database can keep."""


class Revocations:
    """What was revoked and has not expired.

    Args:
        database: where revocations are kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._found: dict[str, Revocation] = {}
        self._lock = asyncio.Lock()
        self.loaded = False

    async def load(self, store: Store, now: int) -> None:
        """Learn what a store has.

        Args:
            store: an open one.
            now: milliseconds since 1970.

        Raises:
            StoreError: it cannot be read.
        """
        for revocation in await store.revocations(now):
            self._found[revocation.subject] = revocation
        self.loaded = True

    async def ready(self) -> None:
        """Learn what the database has, unless that was done; nobody is let in before.

        Raises:
            StoreError: it cannot be read.
        """
        if self.loaded:
            return
        async with self._lock:
            if self.loaded:
                return
            if self._database.empty:
                self.loaded = True  # what does not exist yet holds nothing
            else:
                await self._database.call(self.load, self._database.store, time.time_ns() // 1_000_000)

    def forget(self) -> None:
        """Read the database again before the next sign-in: the node stopped."""
        self.loaded = False
        self._lock = asyncio.Lock()  # one for the next loop

    async def add(self, user_id: str | None, jti: str | None, until: float | None) -> Revocation:
        """Keep the revocation of a token by its id, or of all that a user has by now; `learn` lets it count.

        Args:
            user_id: the user, or None.
            jti: the token's `jti`, or None.
            until: when every such token has expired, seconds since 1970; 30 days from now by default.

        Raises:
            UsageError: not one of the two, or no such time.
            StoreError: it could not be kept, and nothing is revoked.
        """
        if (user_id is None) == (jti is None):
            raise UsageError("Revoke either a user's tokens, `user_id=`, or one token, `jti=`.")
        if until is not None and not 0 <= until <= LATEST:
            raise UsageError(f"until={until!r} is not allowed: give seconds since 1970, up to {LATEST:g}.")
        now = time.time()
        subject = f"jti:{jti}" if user_id is None else f"user:{check_user_id(user_id)}"
        end = now + KEEP if until is None else until
        revocation = Revocation(subject, int(now * 1000), int(end * 1000))
        await self._database.call(self._database.store.revoke, revocation)
        return revocation

    def learn(self, revocation: Revocation) -> None:
        """Know a revocation that the database has."""
        self._sweep(int(time.time() * 1000))
        self._found[revocation.subject] = revocation

    def concern(self, identity: Identity, issued_at: float | None = None) -> bool:
        """Whether this identity was revoked.

        Args:
            identity: what a token or authenticator said.
            issued_at: when, where its claims do not say; None if it cannot have been before.
        """
        if not self._found:
            return False
        claims, now = identity.claims, time.time() * 1000
        of_token = self._found.get(f"jti:{claims['jti']}") if "jti" in claims else None
        if of_token is not None and of_token.until > now:
            return True
        of_user = self._found.get(f"user:{identity.user_id}")
        if of_user is None or of_user.until <= now:
            return False
        issued = claims.get("iat", issued_at)
        return isinstance(issued, int | float) and issued * 1000 < of_user.at + 1

    def _sweep(self, now: int) -> None:
        self._found = {subject: each for subject, each in self._found.items() if each.until > now}
