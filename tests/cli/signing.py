"""Tokens for the reference app, which keeps the directory of its data from its first import on."""

from __future__ import annotations

import examples.chat.app  # noqa: F401  # made here, so that it and we have one directory
from examples.chat.database import DATA
from tests.serving import process

__all__ = ["token_of"]


async def token_of(user: str) -> str:
    """What `hubbub token` prints for this user."""
    command = ("-m", "hubbub.cli", "token", "--user", user)
    async with process(*command, HUBBUB_DATA_DIR=str(DATA)) as made:
        assert await made.end() == 0
        return made.out.strip()
