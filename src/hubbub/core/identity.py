"""Who somebody is, and what may be the name of a user."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hubbub.core.recovery import Position
from hubbub.errors import RequestError

__all__ = ["Identity", "Place", "check_user_id"]

Place = tuple[str, Position | None]
"""A channel, and from where on to go on in it, where it has a history."""

LONGEST = 255


@dataclass(frozen=True, slots=True)
class Identity:
    """A user who has proved to be one, as an authenticator or a token says.

    Args:
        user_id: which user.
        expires_at: when the proof ends, seconds since 1970; None for never.
        claims: what else is known, for your handlers: `conn.claims`.
        device: the client's name for itself, where each device has a place in the inbox of its own.
        resume: subscriptions that another node has promised to restore.
    """

    user_id: str
    expires_at: float | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)
    device: str = ""
    resume: tuple[Place, ...] = ()


def check_user_id(user_id: Any) -> str:
    """Give back a user's id that is fit to use.

    Raises:
        RequestError: `invalid_payload`: empty, over 255 bytes of UTF-8, or with control characters.
    """
    if not isinstance(user_id, str) or not 0 < len(user_id.encode("utf-8", "surrogatepass")) <= LONGEST:
        raise RequestError("invalid_payload", f"A user's id is a text of 1 to {LONGEST} bytes.")
    if not user_id.isprintable() and any(unicodedata.category(letter) in ("Cc", "Cs") for letter in user_id):
        raise RequestError("invalid_payload", "A user's id has no control characters.")
    return user_id
