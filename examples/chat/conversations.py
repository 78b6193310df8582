"""What two people say to each other: numbered messages, and how far each of them has read.

Numbers grow by one within a conversation, and they become visible in their order: a page that has 7 asks for what comes
after 7, and has missed nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Update, and_, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from examples.chat.accounts import NAME
from examples.chat.database import conversations, insert_new, messages, now, reads, transaction

__all__ = ["Message", "history", "key_of", "mark_read", "open_pair", "post", "standings"]

columns = messages.c


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    number: int
    sender: str
    text: str
    sent_at: int
    key: str

    @property
    def wire(self) -> dict[str, Any]:
        """What clients get, over HTTP as in `chat`."""
        named = {"number": self.number, "from": self.sender, "message": self.text}
        return {**named, "timestamp": self.sent_at, "key": self.key}


def key_of(user: str, conversation: str) -> str:
    """The name of a conversation in the database: clients never give it, they call a pair by the other, `user:bob`."""
    kind, _, name = conversation.partition(":")
    if kind != "user" or NAME.fullmatch(name) is None:
        return "nowhere"
    return f"pair:{'+'.join(sorted((user, name)))}"


async def open_pair(user: str, other: str) -> str | None:
    """The conversation of two people, made where there is none; None if one of the names cannot be one."""
    if NAME.fullmatch(user) is None or NAME.fullmatch(other) is None:
        return None
    name, (first, second) = key_of(user, f"user:{other}"), sorted((user, other))
    async with transaction() as db:
        await db.execute(insert_new(conversations).values(name=name, first=first, second=second, last=0))
    return name


async def post(conversation: str, sender: str, text: str, key: str) -> Message | None:
    """Add a message, or find the one that was added with this key; None if there is no such conversation."""
    mine = and_(columns.conversation == conversation, columns.sender == sender, columns.key == key)
    async with transaction() as db:
        # The first statement locks the conversation's row, so that numbers are seen in their order.
        number = await db.scalar(_count(conversation, 1).returning(conversations.c.last))
        if number is None:
            return None
        if (known := (await _select(db, mine, limit=1))) != []:
            await db.execute(_count(conversation, -1))
            return known[0]
        message = Message(number, sender, text, now(), key)
        values = {"number": number, "sender": sender, "text": text, "sent_at": message.sent_at, "key": key}
        await db.execute(insert(messages).values(conversation=conversation, **values))
        # Who has read all the others said has now read this too; who wrote it offline may have missed some.
        await _move_mark(db, sender, conversation, number, least=number - 1)
    return message


async def history(conversation: str, limit: int, before: int | None = None, after: int | None = None) -> list[Message]:
    """Messages in their order: the last ones, the last before a number, or the first after one."""
    found: ColumnElement[bool] = columns.conversation == conversation
    if before is not None:
        found = and_(found, columns.number < before)
    async with transaction() as db:
        if after is not None:
            return await _select(db, and_(found, columns.number > after), limit)
        return (await _select(db, found, limit, newest=True))[::-1]


async def standings(user: str) -> dict[str, dict[str, int]]:
    """Every conversation of a user, by the name the client gives it: its last number, and how far they have read."""
    first, second = conversations.c.first, conversations.c.second
    on = and_(reads.c.conversation == conversations.c.name, reads.c.name == user)
    rows = select(first, second, conversations.c.last, func.coalesce(reads.c.number, 0))
    async with transaction() as db:
        theirs = rows.where(or_(first == user, second == user))
        found = await db.execute(theirs.select_from(conversations.outerjoin(reads, on)))
        return {_seen_by(user, *pair): {"last": last, "read": read} for *pair, last, read in found}


async def mark_read(user: str, conversation: str, number: int) -> bool:
    """Note that a user has seen a conversation up to a number; False if they had, or there is no such message."""
    async with transaction() as db:
        last = await db.scalar(select(conversations.c.last).where(conversations.c.name == conversation))
    if last is None or number > last:
        return False
    async with transaction() as db:
        return await _move_mark(db, user, conversation, number)


def _seen_by(user: str, first: str, second: str) -> str:
    return f"user:{second if first == user else first}"


def _count(conversation: str, step: int) -> Update:
    return update(conversations).where(conversations.c.name == conversation).values(last=conversations.c.last + step)


async def _move_mark(db: AsyncConnection, user: str, conversation: str, number: int, least: int = 0) -> bool:
    await db.execute(insert_new(reads).values(name=user, conversation=conversation, number=0))
    mine = and_(reads.c.name == user, reads.c.conversation == conversation)
    behind = reads.c.number.between(least, number - 1)
    return (await db.execute(update(reads).where(mine, behind).values(number=number))).rowcount > 0


async def _select(db: AsyncConnection, found: ColumnElement[bool], limit: int, newest: bool = False) -> list[Message]:
    wanted = select(columns.number, columns.sender, columns.text, columns.sent_at, columns.key)
    order = columns.number.desc() if newest else columns.number
    return [Message(*row) for row in await db.execute(wanted.where(found).order_by(order).limit(limit))]
