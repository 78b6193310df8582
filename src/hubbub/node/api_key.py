"""The key of the HTTP API: compared, never shown."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hubbub.config import Settings

__all__ = ["ApiKey"]


class ApiKey:
    """What another server must bring; false where nobody set one, and then the API is off.

    Args:
        settings: which have the key, if there is one.
    """

    def __init__(self, settings: Settings) -> None:
        self._secret = settings.hubbub_api_key

    def __bool__(self) -> bool:
        return self._secret is not None

    def fits(self, given: bytes) -> bool:
        """Whether somebody has it; how long this takes says nothing of the key."""
        return self._secret is not None and hmac.compare_digest(given, self._secret.get_secret_value().encode())
