"""Tokens for tests, good and bad, and the keys that sign them."""

from __future__ import annotations

import base64
import json
import time
from datetime import timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

__all__ = ["KEYS", "SECRET", "claims", "encoded", "part", "pem", "published", "token", "unsigned"]

SECRET = "a secret of tests, which is known to all of them and long enough for HS512"
KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def claims(**more: Any) -> dict[str, Any]:
    """What a good token says; a claim given as `...` is left out, and a span of time counts from now."""
    now = int(time.time())
    usual = {"sub": "ada", "iat": now, "exp": now + 3600, "jti": "token-1"}
    said = {name: value for name, value in (usual | more).items() if value is not ...}
    return {name: now + int(v.total_seconds()) if isinstance(v, timedelta) else v for name, v in said.items()}


def token(algorithm: str = "HS256", key: Any = None, head: dict[str, Any] | None = None, **more: Any) -> str:
    """Sign a token as an issuer does."""
    key = key or KEYS.get(algorithm, SECRET)
    return jwt.encode(claims(**more), key, algorithm, headers=head)


def unsigned(head: dict[str, Any], signature: str = "", **more: Any) -> str:
    """A token with any head and any signature."""
    return f"{part(head)}.{part(claims(**more))}.{signature}"


def part(value: Any) -> str:
    """One part of a token."""
    return encoded(json.dumps(value).encode())


def encoded(data: bytes) -> str:
    """Bytes as a token has them."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def pem(algorithm: str) -> str:
    """The public key, as `Auth.public_key` takes it."""
    public = KEYS[algorithm].public_key()
    return str(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def published(algorithm: str, kid: str, **more: Any) -> dict[str, Any]:
    """The public key, as an issuer publishes it."""
    kinds = jwt.algorithms.get_default_algorithms()
    return {**kinds[algorithm].to_jwk(KEYS[algorithm].public_key(), as_dict=True), "kid": kid, **more}
