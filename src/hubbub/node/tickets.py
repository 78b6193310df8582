"""Tickets: a page that is signed in by its app's session asks a route for one, and connects with `?ticket=` at once."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from hubbub.core.credentials import LONGEST
from hubbub.core.identity import Identity, Place, check_user_id
from hubbub.core.recovery import Position
from hubbub.errors import CloseCode, UsageError
from hubbub.node.secret import SHORTEST, Secret
from hubbub.node.tokens import is_time, refused, sign, verify

__all__ = ["TYPE", "Tickets"]

TYPE = "hubbub-ticket"
"""The `typ` and the only `aud` of a ticket: no token is one, and no ticket is a token."""
HEAD = sign({}, b"\0" * SHORTEST, TYPE).partition(".")[0] + "."
LONGEST_LIFE = 3600.0
LEEWAY = 5.0  # seconds by which the clocks of two nodes may differ

Claim = Callable[[str, str, float], Awaitable[bool]]
"""See `Broker.claim`: of all nodes one is the first to have a ticket."""


class Tickets:
    """Makes tickets, and takes each of them once.

    Args:
        secret: signs them.
        claim: lets each be used once.
    """

    def __init__(self, secret: Secret, claim: Claim) -> None:
        self._secret = secret
        self._claim = claim

    def issue(
        self,
        user_id: str,
        claims: Mapping[str, Any] | None = None,
        device: str = "",
        ttl: float = 30.0,
        expires_at: float | None = None,
        resume: Sequence[Place] = (),
    ) -> str:
        """Make a ticket for a user your app knows; from any thread.

        Args:
            user_id: the user.
            claims: what else is known, for `conn.claims`; anything with a JSON form.
            device: the client's name for itself, see `Identity`.
            ttl: seconds in which it must be used.
            expires_at: when a connection made with it ends, seconds since 1970; None for never.
            resume: subscriptions to restore.

        Raises:
            UsageError: it would live for too long, or be too long itself, or `expires_at` is no such time.
            ConfigError: there is no secret to sign with.
            RequestError: `invalid_payload`: no id for a user.
        """
        if not 0 < ttl <= LONGEST_LIFE:
            raise UsageError(f"A ticket cannot live for {ttl!r} seconds: give up to {LONGEST_LIFE:g}.")
        if not is_time(expires_at):
            raise UsageError(f"expires_at={expires_at!r} is not in seconds since 1970.")
        now = time.time()
        body = {
            "sub": check_user_id(user_id),
            "aud": TYPE,
            "iat": now,
            "exp": math.ceil(now + ttl),
            "jti": secrets.token_urlsafe(),
        }
        places = [[channel, *(since or ())] for channel, since in resume]
        more = {"claims": dict(claims or {}), "device": device, "until": expires_at, "resume": places}
        ticket = sign(body | {name: value for name, value in more.items() if value}, self._secret.need(), TYPE)
        if len(ticket) > LONGEST:
            raise UsageError(f"A ticket of {len(ticket)} bytes is too long: give fewer claims.")
        return ticket

    @staticmethod
    def is_ticket(text: str) -> bool:
        """Whether a text says that it is a ticket, true or not."""
        return text.startswith(HEAD)

    async def redeem(self, ticket: str) -> Identity:
        """Take a ticket; whose it is.

        Raises:
            RequestError: `unauthorized`: it is not one of ours, it has expired, or it was used before.
            StoreError: nobody knows whether it was used.
        """
        secret = self._secret.find()
        if secret is None or len(ticket) > LONGEST:
            raise refused("The ticket is not valid here.")
        found = verify(ticket, secret, "HS256", TYPE, leeway=LEEWAY)
        claims = found.claims
        if claims["aud"] != TYPE or "jti" not in claims:  # of several audiences none is ours
            raise refused("The ticket is not valid here.")
        until, now = claims.get("until"), time.time()
        if until is not None and until <= now:
            raise refused("The sign-in that this ticket is for has expired.", CloseCode.TOKEN_EXPIRED)
        left = (found.expires_at or 0.0) + 2 * LEEWAY - now  # the clock of another node may be behind
        if not await self._claim(f"ticket:{claims['jti']}", secrets.token_urlsafe(6), max(left, 1.0)):
            raise refused("The ticket was used before.")
        kept = {"jti": claims["jti"], "iat": claims["iat"], **claims.get("claims", {})}
        resume = tuple((channel, Position(*since) if since else None) for channel, *since in claims.get("resume", ()))
        return Identity(found.user_id, until, kept, claims.get("device", ""), resume)
