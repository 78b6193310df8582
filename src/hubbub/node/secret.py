"""The secret that signs tokens and tickets: given, from the environment, or made once for development."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from hubbub.errors import ConfigError

if TYPE_CHECKING:
    from hubbub.config import Settings

__all__ = ["SHORTEST", "Secret"]

SHORTEST = 32
"""Bytes of a secret for HS256 (RFC 7518 section 3.2); the longer algorithms need more."""
FILE = "secret"
HOW = "a random text of 32 bytes or more, the same on every node, as `openssl rand -hex 32` makes it"


class Secret:
    """Where the secret comes from.

    Args:
        given: the app's own, which goes before the environment's.
        settings: the environment's.
        shortest: the bytes it must have.

    Raises:
        ConfigError: it is too short to be one.
    """

    def __init__(self, given: str | None, settings: Settings, shortest: int = SHORTEST) -> None:
        environment = None if settings.hubbub_secret is None else settings.hubbub_secret.get_secret_value()
        self._shortest = shortest
        self._path: Path | None = None
        self._secret: bytes | None = None
        if given is not None:
            self._secret = self._check(given, "Auth.secret")
        elif environment is not None:
            self._secret = self._check(environment, "HUBBUB_SECRET")
        elif settings.deploy_env != "production":
            self._path = settings.hubbub_data_dir / FILE

    @property
    def file(self) -> Path | None:
        """Where it is kept for development; None where somebody gave one, or none may be made."""
        return self._path

    def find(self) -> bytes | None:
        """The secret, if there is one by now; `hubbub token` may have made it a moment ago.

        Raises:
            ConfigError: its file cannot be used.
        """
        if self._secret is None and self._path is not None:
            self._secret = self._read(self._path)
        return self._secret

    def need(self) -> bytes:
        """The secret, made and kept in a file if nobody gave one and this is not production.

        Raises:
            ConfigError: there is none, and none may be made.
        """
        secret = self.find()
        if secret is None:
            if self._path is None:
                raise ConfigError(f"There is nothing to sign with: set HUBBUB_SECRET to {HOW}.")
            secret = self._secret = self._make(self._path)
        return secret

    def _make(self, path: Path) -> bytes:
        """Write the file in one step: of two processes that do this at once, both have the first one's."""
        draft = path.with_name(f"{FILE}.{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(secrets.token_hex(self._shortest))
            try:
                os.link(draft, path)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        except OSError as error:
            raise ConfigError(f"A secret cannot be kept in {path}: {error.strerror}. Set HUBBUB_SECRET.") from None
        secret = self._read(path)
        assert secret is not None
        return secret

    def _read(self, path: Path) -> bytes | None:
        try:
            text = path.read_text("utf-8").strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"The secret in {path} cannot be read: {error}. Set HUBBUB_SECRET.") from None
        return self._check(text, str(path))

    def _check(self, secret: str, place: str) -> bytes:
        data = secret.encode()
        if len(data) < self._shortest:
            raise ConfigError(f"{place} has {len(data)} bytes, {self._shortest} are needed: give {HOW}.")
        return data
