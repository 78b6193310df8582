"""JSON Web Tokens (RFC 7519, RFC 8725): who may sign them, what they must say, and how they are checked.

Rules of this file:
1. A key is bound to its kind: secrets check HMAC, public keys check the one algorithm they are for. What a token's head
   says chooses among what is allowed, and adds nothing to it.
2. Whatever text comes, it costs a bounded amount of work and gives an identity or a `RequestError`.
3. Remembering that a token was good never outlives the token, and says nothing about revocations.
"""

from __future__ import annotations

import time
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import jwt

from hubbub.core.credentials import LONGEST
from hubbub.core.identity import Identity, check_user_id
from hubbub.errors import CloseCode, ConfigError, RequestError
from hubbub.node.keys import KEEP, PublishedKeys

if TYPE_CHECKING:
    from hubbub.config import Auth
    from hubbub.node.secret import Secret

__all__ = ["KEY_SIZES", "Tokens", "is_time", "refused", "sign", "verify"]

KEY_SIZES = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Algorithms with a secret, and the bytes it must have (RFC 7518 section 3.2)."""
ASYMMETRIC = ("RS256", "ES256", "EdDSA")
REMEMBERED = 4096
LAST = 253_402_300_799.0  # the end of the year 9999
NO_KEY = "This server cannot check tokens: set HUBBUB_SECRET, or give Hub(auth=Auth(...)) a public_key or jwks_url."


class Tokens:
    """Checks the tokens of clients.

    Args:
        auth: what is accepted.
        secret: checks HMAC.

    Raises:
        ConfigError: the settings contradict each other, or name what is not allowed.
    """

    def __init__(self, auth: Auth, secret: Secret) -> None:
        self._auth = auth
        self._secret = secret
        self._algorithms = _check_algorithms(auth)
        self._public = None if auth.public_key is None else _load(auth.public_key, self._algorithms)
        self._published = None if auth.jwks_url is None else PublishedKeys(auth.jwks_url)
        self._good: dict[bytes, tuple[Identity, float]] = {}

    async def verify(self, token: str) -> Identity:
        """Check a token; whose it is.

        Raises:
            RequestError: `unauthorized`, with the code to close with; `unavailable` while keys are out of reach.
        """
        if not 0 < len(token) <= LONGEST:
            raise refused("The token is empty or too long.")
        if self._public is None and self._published is None and self._secret.find() is None:
            raise refused(NO_KEY)
        digest = sha256(token.encode("utf-8", "surrogatepass")).digest()
        known = self._good.get(digest)
        now = time.time()
        if known is not None and now < known[1]:
            return known[0]
        key, algorithm = await self._key(token)
        identity = verify(token, key, algorithm, self._auth.audience, self._auth.issuer, self._auth.leeway)
        self._remember(digest, identity, now)
        return identity

    async def _key(self, token: str) -> tuple[Any, str]:
        """The key that may have signed a token, and the one algorithm it is for."""
        head = _head(token)
        algorithm, kid = head.get("alg"), head.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise refused("The token is signed with an algorithm that is not accepted here.")
        if "crit" in head or not isinstance(kid, str | None):
            raise refused("The token is signed in a way that is not accepted here.")
        if algorithm in KEY_SIZES:
            secret = self._secret.find()
            if secret is None:
                raise refused(NO_KEY)
            return secret, algorithm
        if self._public is not None and self._public[1] == algorithm:
            return self._public
        key = None if self._published is None else await self._published.find(kid, algorithm)
        if key is None:
            raise refused("The token is signed with a key that is not known here.")
        return key, algorithm

    def _remember(self, digest: bytes, identity: Identity, now: float) -> None:
        if len(self._good) >= REMEMBERED:
            del self._good[next(iter(self._good))]
        until = identity.expires_at or now
        # A key that its issuer takes back is forgotten with the set it was in.
        self._good[digest] = identity, until if self._published is None else min(until, now + KEEP)


def verify(
    token: str, key: Any, algorithm: str, audience: str | None, issuer: str | None = None, leeway: float = 0.0
) -> Identity:
    """Check a token's signature and claims with one key and one algorithm.

    Raises:
        RequestError: `unauthorized`, with the code to close with.
    """
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=audience,
            issuer=issuer,
            leeway=leeway,
            options={"require": ["exp", "sub"]},
        )
        return Identity(check_user_id(claims["sub"]), min(float(claims["exp"]), LAST), claims)
    except jwt.ExpiredSignatureError:
        raise refused("The token has expired.", CloseCode.TOKEN_EXPIRED) from None
    except Exception:  # rule 2: a parser meets what an attacker wrote
        raise refused("The token is not valid here.") from None


def sign(claims: dict[str, Any], secret: bytes, type: str = "JWT") -> str:
    """Make a token with HS256.

    Args:
        claims: what it says.
        secret: of 32 bytes or more.
        type: what its head says it is.
    """
    return jwt.encode(claims, secret, algorithm="HS256", headers={"typ": type})


def is_time(end: object) -> bool:
    """Whether this is a time in seconds since 1970, or None for never; milliseconds are not."""
    return end is None or (isinstance(end, int | float) and 0 <= end <= LAST)


def refused(why: str, close: CloseCode = CloseCode.UNAUTHORIZED) -> RequestError:
    """The answer to a credential that is not accepted."""
    return RequestError("unauthorized", why, close=close)


def _head(token: str) -> dict[str, Any]:
    try:
        return jwt.get_unverified_header(token)
    except Exception:  # rule 2
        raise refused("This is not a token.") from None


def _check_algorithms(auth: Auth) -> frozenset[str]:
    """The allowed algorithms, if there can be a key for each of them and one for each key."""
    known = (*KEY_SIZES, *ASYMMETRIC)
    given = frozenset(auth.algorithms)
    if not given or given - {*known}:
        raise ConfigError(f"Auth.algorithms={auth.algorithms!r} is not allowed: a tuple of some of {', '.join(known)}.")
    published = auth.public_key is not None or auth.jwks_url is not None
    asymmetric = any(name in ASYMMETRIC for name in given)
    if asymmetric and not published:
        raise ConfigError(f"Auth.algorithms={auth.algorithms!r} needs Auth.public_key or Auth.jwks_url.")
    if published and not asymmetric:
        names = ", ".join(ASYMMETRIC)
        raise ConfigError(f"Auth.algorithms={auth.algorithms!r} makes no use of the public key: name one of {names}.")
    if asymmetric and not jwt.algorithms.has_crypto:
        raise ConfigError(f'Auth.algorithms={auth.algorithms!r} needs cryptography: pip install "hubbub[jwt]"')
    if auth.secret is not None and "-----BEGIN" in auth.secret:
        raise ConfigError("Auth.secret is a key in PEM: a public one belongs into Auth.public_key.")
    return given


def _load(pem: str, allowed: frozenset[str]) -> tuple[Any, str]:
    """Read a public key; the key, and the algorithm it is for."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem.encode())
    except ValueError as error:
        raise ConfigError(f"Auth.public_key is no public key in PEM: {error}") from None
    match key:
        case rsa.RSAPublicKey() if key.key_size >= 2048:
            algorithm = "RS256"
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            algorithm = "ES256"
        case ed25519.Ed25519PublicKey():
            algorithm = "EdDSA"
        case _:
            raise ConfigError("Auth.public_key is not RSA of 2048 bits or more, P-256 or Ed25519.")
    if algorithm not in allowed:
        raise ConfigError(f"Auth.public_key is for {algorithm}, which Auth.algorithms does not name.")
    return key, algorithm
