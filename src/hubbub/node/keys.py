"""The keys that an issuer publishes (RFC 7517), fetched when they are needed and kept when it is out of reach."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from time import monotonic
from typing import Any
from urllib.request import Request, urlopen

import jwt

from hubbub.errors import CloseCode, ConfigError, RequestError

__all__ = ["PublishedKeys"]

logger = logging.getLogger("hubbub.auth")

KEEP = 300.0
COOL_DOWN = 30.0
TIMEOUT = 5.0
MOST_BYTES = 1024 * 1024
ASYMMETRIC = {"RSA", "EC", "OKP"}


class PublishedKeys:
    """The keys behind one URL.

    They are fetched with the first token, again after `KEEP` seconds, and for a key id that is unknown, but never more
    than once in `COOL_DOWN` seconds; whoever comes meanwhile waits for the same fetch. When it fails, the keys stay.

    Args:
        url: where the issuer publishes them.

    Raises:
        ConfigError: not a URL of HTTP.
    """

    def __init__(self, url: str) -> None:
        if not url.startswith(("https://", "http://")):
            raise ConfigError(
                f"Auth.jwks_url={url!r} is not allowed: give a URL like https://issuer.example/jwks.json."
            )
        self._url = url
        self._keys: list[jwt.PyJWK] = []
        self._fetched = self._tried = -KEEP
        self._reached = False
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, algorithm: str) -> Any | None:
        """The key with this id for this algorithm; without an id the only key for it. None if there is none.

        Raises:
            RequestError: `unavailable`: no keys were ever fetched, and they cannot be now.
        """
        now = monotonic()
        key = self._known(kid, algorithm)
        if (key is None or now - self._fetched >= KEEP) and (self._pending or now - self._tried >= COOL_DOWN):
            await self._fetch_once()
            key = self._known(kid, algorithm)
        if not self._reached:
            why = "The keys that tokens are checked with cannot be fetched now."
            raise RequestError("unavailable", why, close=CloseCode.TRY_AGAIN_LATER)
        return key

    def _known(self, kid: str | None, algorithm: str) -> Any | None:
        fit = [key for key in self._keys if key.algorithm_name == algorithm]
        if kid is None:
            return fit[0].key if len(fit) == 1 else None
        return next((key.key for key in fit if key.key_id == kid), None)

    @property
    def _pending(self) -> bool:
        task = self._fetching
        return task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop()

    async def _fetch_once(self) -> None:
        if not self._pending:
            self._tried = monotonic()
            self._fetching = asyncio.create_task(self._fetch())
        assert self._fetching is not None
        await asyncio.shield(self._fetching)  # one who leaves does not end it for the others

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                keys = await asyncio.to_thread(_download, self._url)
        except Exception as error:
            kept = "those fetched before stay" if self._reached else "no token can be checked"
            why = str(error) or type(error).__name__
            logger.warning("the keys at %s cannot be fetched, %s: %s", self._url, kept, why)
            return
        self._keys, self._fetched, self._reached = keys, monotonic(), True


def _download(url: str) -> list[jwt.PyJWK]:
    """Fetch the keys; in a thread, for it blocks."""
    with urlopen(Request(url, headers={"Accept": "application/json"}), timeout=TIMEOUT) as answer:
        body = answer.read(MOST_BYTES + 1)
    if len(body) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    return [key for data in json.loads(body)["keys"] if (key := _key(data)) is not None]


def _key(data: Mapping[str, Any]) -> jwt.PyJWK | None:
    """One key of a set, None if it is of no use here: for another purpose, secret, weak or of an unknown kind."""
    if not isinstance(data, dict) or data.get("kty") not in ASYMMETRIC or data.get("use", "sig") != "sig":
        return None
    try:
        key = jwt.PyJWK(data)
    except (jwt.PyJWTError, ValueError, TypeError, NotImplementedError):
        return None
    return None if data["kty"] == "RSA" and key.key.key_size < 2048 else key
