"""Who there is: names, passwords as argon2 hashes, and sessions that can be ended."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from tempfile import NamedTemporaryFile
from typing import Any, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from sqlalchemy import exists, insert, literal, not_, select, update
from sqlalchemy.exc import IntegrityError

from examples.chat.database import DATA, now, transaction, users

__all__ = ["NAME", "Account", "BadInput", "NameTaken", "by_session", "end_sessions"]
__all__ += ["existing", "names", "session_secret", "sign_in", "sign_up"]

# Small letters of one alphabet: nobody can look like somebody else.
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,31}")
SHORTEST_PASSWORD = 8
LONGEST_LIST = 1000

T = TypeVar("T")

hasher = PasswordHasher()
threads = ThreadPoolExecutor(4, "argon2")  # a hash takes 64 MB and half a core on purpose: not too many at once


class BadInput(Exception):
    """A name or password that cannot be one; the text is for the person."""


class NameTaken(Exception):
    """Somebody has this name."""


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who has signed up; `signed_out` counts how often they ended all their sessions."""

    name: str
    admin: bool
    signed_out: int

    @property
    def session(self) -> dict[str, Any]:
        """What the session cookie holds, signed and not secret."""
        return {"name": self.name, "signed_out": self.signed_out}


async def sign_up(name: str, password: str) -> Account:
    """Make an account; the first of all is the admin.

    Raises:
        BadInput: not a name, or too short a password.
        NameTaken: there is one of this name.
    """
    name = name.strip().lower()
    if NAME.fullmatch(name) is None:
        raise BadInput("A name has 2 to 32 letters a-z, digits, dots, dashes and underscores, a letter or digit first.")
    if len(password) < SHORTEST_PASSWORD:
        raise BadInput(f"A password has {SHORTEST_PASSWORD} characters or more.")
    hashed = await _in_thread(hasher.hash, password)
    first = not_(exists(select(users.c.name)))
    row = select(literal(name), literal(hashed), first, literal(0), literal(now()))
    try:
        async with transaction() as db:
            await db.execute(insert(users).from_select([*users.c.keys()], row))
    except IntegrityError:
        raise NameTaken(name) from None
    account = await _find(name)
    assert account is not None
    return account


async def sign_in(name: str, password: str) -> Account | None:
    """The account of this name and password; the same work and answer whether the name or the password is wrong."""
    name, hashed = name.strip().lower(), None
    if NAME.fullmatch(name) is not None:
        async with transaction() as db:
            hashed = await db.scalar(select(users.c.password).where(users.c.name == name))
    if hashed is None:
        await _in_thread(_matches, _hash_of_nobody(), password)
        return None
    return await _find(name) if await _in_thread(_matches, hashed, password) else None


async def by_session(session: Mapping[str, Any]) -> Account | None:
    """Whose session this is; None for nobody's, and for one that was ended."""
    account = await _find(str(session.get("name")))
    return account if account is not None and account.session == session else None


async def end_sessions(name: str) -> None:
    """Make every session of a user invalid, on every device."""
    async with transaction() as db:
        await db.execute(update(users).where(users.c.name == name).values(signed_out=users.c.signed_out + 1))


async def existing(some: Iterable[str]) -> set[str]:
    """Those of the names that somebody has."""
    possible = [name for name in some if NAME.fullmatch(name) is not None]
    async with transaction() as db:
        return set(await db.scalars(select(users.c.name).where(users.c.name.in_(possible))))


async def names() -> list[str]:
    """Everybody's names, sorted."""
    async with transaction() as db:
        return list(await db.scalars(select(users.c.name).order_by(users.c.name).limit(LONGEST_LIST)))


def session_secret() -> str:
    """What signs the session cookies: made once, and kept in the data directory."""
    DATA.mkdir(parents=True, exist_ok=True)
    file = DATA / "chat-session.key"
    if not file.exists():
        with NamedTemporaryFile("w", dir=DATA) as new, suppress(FileExistsError):  # readable by us alone
            new.write(secrets.token_hex(32))
            new.flush()
            os.link(new.name, file)  # whole or not at all, also when two processes start
    return file.read_text("ascii")


async def _find(name: str) -> Account | None:
    columns = (users.c.name, users.c.admin, users.c.signed_out)
    async with transaction() as db:
        row = (await db.execute(select(*columns).where(users.c.name == name))).first()
    return None if row is None else Account(*row)


def _matches(hashed: str, password: str) -> bool:
    try:
        return hasher.verify(hashed, password)
    except VerificationError:
        return False


@cache
def _hash_of_nobody() -> str:
    return hasher.hash(secrets.token_hex(16))


async def _in_thread(function: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, function, *arguments)
