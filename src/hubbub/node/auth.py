"""Who is let in: the app's authenticator, or tokens and tickets, at the handshake and in `authenticate` messages."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from hubbub.config import Auth
from hubbub.core.credentials import Credential, find_credential
from hubbub.core.identity import Identity, check_user_id
from hubbub.errors import CloseCode, RequestError, StoreError
from hubbub.node.connection import Connection
from hubbub.node.revocations import Revocations
from hubbub.node.routing import Route, takes
from hubbub.node.secret import SHORTEST, Secret
from hubbub.node.tickets import Claim, Tickets
from hubbub.node.tokens import KEY_SIZES, Tokens, is_time, refused

if TYPE_CHECKING:
    from hubbub.config import Settings
    from hubbub.contracts import Handshake
    from hubbub.node.database import Database

__all__ = ["AUTHENTICATE", "Authenticate", "Authenticator", "Gate", "describe"]

logger = logging.getLogger("hubbub.auth")

LONGEST_DEVICE = 64

Answer = Identity | str | None
Authenticator = Callable[["Handshake"], Answer | Awaitable[Answer]]
"""An app's own way to sign in: a handshake in; an identity, a user's id, or None for nobody out."""


class Authenticate(msgspec.Struct):
    """The payload of `authenticate`: a token or a ticket, and what the client calls itself."""

    token: str
    device: Annotated[str, msgspec.Meta(max_length=LONGEST_DEVICE, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""

    def __repr__(self) -> str:
        return f"Authenticate(token=[hidden], device={self.device!r})"


class Gate:
    """Checks what clients bring to prove who they are.

    Args:
        auth: which tokens are accepted, and where.
        settings: the environment's, for the secret.
        database: where revocations are kept.
        authenticator: the app's own way, in place of tokens at the handshake.
        required: whether nobody may do anything before signing in.
        patience: seconds for the authenticator.
        claim: lets each ticket be used once, see `Broker.claim`.

    Raises:
        ConfigError: the settings are weak or contradict each other.
    """

    def __init__(
        self,
        auth: Auth,
        settings: Settings,
        database: Database,
        *,
        authenticator: Authenticator | None,
        required: bool,
        patience: float,
        claim: Claim,
    ) -> None:
        if authenticator is not None:
            takes(authenticator, "(handshake)", 1, 1)
        secret = Secret(auth.secret, settings, max([SHORTEST, *(KEY_SIZES.get(each, 0) for each in auth.algorithms)]))
        self.required = required
        self.cookie = auth.cookie
        self.tokens = Tokens(auth, secret)
        self.tickets = Tickets(secret, claim)
        self.revocations = Revocations(database)
        self.secret = secret
        self._auth = auth
        self._authenticator = authenticator
        self._patience = patience
        self._warned = False

    @property
    def needs_secret(self) -> bool:
        """Whether nobody can sign in without a secret: no other key is given, and no way of the app's own."""
        return self._authenticator is None and self._auth.public_key is None and self._auth.jwks_url is None

    async def admit(self, handshake: Handshake) -> Identity | None:
        """Find out who opens a connection; None for nobody.

        Raises:
            RequestError: a credential that is not accepted; `close` is the code to close with.
        """
        scope, auth = handshake.scope, self._auth
        if self._authenticator is not None:
            # A ticket of a node that goes was given to somebody whom it had let in.
            given = find_credential((), (), scope.get("query_string", b""), auth.cookie, False)
            if given is None or not self.tickets.is_ticket(given.text):
                return await self._ask(self._authenticator, handshake)
            return await self._check(given)
        offered = scope.get("subprotocols") or ()
        credential = find_credential(scope["headers"], offered, scope.get("query_string", b""), auth.cookie, auth.query)
        if credential is None:
            return None
        if credential.source == "query":
            self._warn()
        return await self._check(credential)

    async def verify(self, text: str, *, ticket: bool = False) -> Identity:
        """Check a token, or a ticket, which is used up by it; whose it is.

        Args:
            text: what the client brought.
            ticket: whether nothing but a ticket counts.

        Raises:
            RequestError: `unauthorized`, or `unavailable`; `close` is the code to close with.
        """
        if not self.revocations.loaded:
            await self._load()
        if ticket or self.tickets.is_ticket(text):
            identity = await self._redeem(text)
        else:
            identity = await self.tokens.verify(text)
        if self.revocations.concern(identity, issued_at=0.0):
            raise refused("The token was revoked.")
        return identity

    async def _redeem(self, ticket: str) -> Identity:
        try:
            return await self.tickets.redeem(ticket)
        except StoreError:
            why = "Nobody knows whether the ticket was used before."
            raise RequestError("unavailable", why, close=CloseCode.TRY_AGAIN_LATER) from None

    async def _check(self, credential: Credential) -> Identity:
        try:
            return await self.verify(credential.text, ticket=credential.source == "ticket")
        except RequestError as error:
            logger.info("a credential in the %s is not accepted: %s", credential.source, error.message)
            raise

    async def _load(self) -> None:
        try:
            await self.revocations.ready()
        except StoreError:
            # Rather nobody than somebody who was locked out.
            why = "Nobody can sign in while the database is out of reach."
            raise RequestError("unavailable", why, close=CloseCode.TRY_AGAIN_LATER) from None

    async def _ask(self, authenticator: Authenticator, handshake: Handshake) -> Identity | None:
        try:
            identity = await self._call(authenticator, handshake)
        except RequestError as error:
            close = CloseCode.FORBIDDEN if error.code == "forbidden" else CloseCode.UNAUTHORIZED
            raise RequestError(error.code, error.message, close=error.close or close) from None
        except Exception as error:
            logger.error("the authenticator failed", exc_info=error)
            why = "The server failed to find out who this is."
            raise RequestError("internal", why, close=CloseCode.INTERNAL_ERROR) from None
        if identity is not None and ("jti" in identity.claims or "iat" in identity.claims):
            if not self.revocations.loaded:
                await self._load()
            if self.revocations.concern(identity):
                raise refused("The token was revoked.")
        return identity

    async def _call(self, authenticator: Authenticator, handshake: Handshake) -> Identity | None:
        found = authenticator(handshake)
        if inspect.isawaitable(found):
            async with asyncio.timeout(self._patience):
                found = await found
        identity = Identity(found) if isinstance(found, str) else found
        if not isinstance(identity, Identity | None):
            raise TypeError(f"an authenticator returns an Identity, a user's id or None, not {type(identity).__name__}")
        if identity is not None:
            try:
                check_user_id(identity.user_id)
            except RequestError as error:
                raise ValueError(f"the authenticator returned no user's id: {error.message}") from None
            if not is_time(identity.expires_at):
                raise ValueError(f"Identity.expires_at={identity.expires_at!r} is not in seconds since 1970")
        return identity

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("a client sent its token in the URL, where proxies log it: use `hub.tickets` or a message")


def describe(connection: Connection) -> dict[str, Any]:
    """The payload of `authenticated`."""
    identity = connection.identity
    end = None if identity is None else identity.expires_at
    return {
        "userId": connection.user_id,
        "connectionId": connection.id,
        "expiresAt": None if end is None else int(end * 1000),
    }


async def _authenticate(connection: Connection, payload: Authenticate) -> dict[str, Any]:
    identity = await connection.node.gate.verify(payload.token)
    before = connection.identity
    if before is not None and before.user_id != identity.user_id:
        why = "This connection is another user's: open a new one."
        raise RequestError("forbidden", why, close=CloseCode.BAD_REQUEST)
    device = (identity.device or payload.device) if before is None else before.device
    connection.identify(Identity(identity.user_id, identity.expires_at, identity.claims, device))
    return describe(connection)


AUTHENTICATE = Route.build("authenticate", _authenticate, reply="authenticated", auth=False, thread=False)
