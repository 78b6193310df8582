"""Names of channels and topics as one token of a NATS subject, whatever text they are.

Rules of this file:
1. A token has ASCII letters, digits, `-`, `_` and `=`: no name reaches a wildcard, another token or the protocol.
2. No two names have one token. Letters, digits, `-` and `_` stand for themselves, any other byte is `=` and its number,
   so that operators can read most of them; a name that is too long is `=h` and its hash.
"""

from __future__ import annotations

from hashlib import sha256
from re import compile as pattern

__all__ = ["token"]

LONGEST = 255
"""Bytes of UTF-8; a token is three times as long at most."""
OTHER = pattern(rb"[^A-Za-z0-9_-]")


def token(name: str) -> str:
    """The token of a name."""
    data = name.encode("utf-8", "surrogatepass")
    if len(data) > LONGEST:
        return f"=h{sha256(data).hexdigest()}"
    return OTHER.sub(lambda found: b"=%02x" % found[0][0], data).decode("ascii") or "="
