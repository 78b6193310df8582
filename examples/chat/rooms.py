"""Rooms: whose they are, who is in them, and how far each has read. What is said in them the hub keeps."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, delete, exists, func, or_, select, update

from examples.chat.accounts import NAME
from examples.chat.database import insert_new, members, rooms, transaction
from hubbub.channels import Position

__all__ = ["LOBBY", "MOST_ROOMS", "add", "channel_of", "create", "has", "mark_read", "members_of", "owner", "remove"]
__all__ += ["seen"]

LOBBY = "lobby"  # everybody is in it
MOST_ROOMS = 100  # of one user: each is a channel, and one connection may have 128


def channel_of(name: str) -> str:
    """The channel of a room."""
    return f"room:{name}"


async def create(name: str, owner: str | None) -> bool:
    """Make a room with nobody in it; False where there is one of this name."""
    async with transaction() as db:
        return (await db.execute(insert_new(rooms).values(name=name, owner=owner))).rowcount > 0


async def owner(name: str) -> str | None:
    """Who made a room; the lobby nobody did."""
    async with transaction() as db:
        return await db.scalar(select(rooms.c.owner).where(rooms.c.name == name))


async def add(room: str, user: str, read: Position) -> bool:
    """Let a user in, who has read everything up to a place; False where they are in too many, or the room is none."""
    count = select(func.count()).where(members.c.name == user)
    known = select(exists().where(rooms.c.name == room))
    async with transaction() as db:
        if (await db.scalar(count) or 0) >= MOST_ROOMS or not await db.scalar(known):
            return False
        row = {"room": room, "name": user, "read_offset": read.offset, "read_epoch": read.epoch}
        await db.execute(insert_new(members).values(**row))
    return True


async def remove(room: str, user: str) -> None:
    """Put a user out."""
    async with transaction() as db:
        await db.execute(delete(members).where(members.c.room == room, members.c.name == user))


async def has(room: str, user: str | None) -> bool:
    """Whether a user is in a room."""
    if user is None or NAME.fullmatch(room) is None:
        return False
    async with transaction() as db:
        return bool(await db.scalar(select(exists().where(members.c.room == room, members.c.name == user))))


async def members_of(room: str) -> list[str]:
    """Who is in a room, sorted."""
    async with transaction() as db:
        return list(await db.scalars(select(members.c.name).where(members.c.room == room).order_by(members.c.name)))


async def seen(user: str) -> dict[str, dict[str, Any]]:
    """The channels of a user's rooms, and how far they have read in each."""
    columns = (members.c.room, members.c.read_offset, members.c.read_epoch)
    async with transaction() as db:
        found = await db.execute(select(*columns).where(members.c.name == user))
        return {channel_of(room): {"offset": offset, "epoch": epoch} for room, offset, epoch in found}


async def mark_read(user: str, room: str, read: Position) -> bool:
    """Note that a user has seen a room up to a place; False if they had, or are not in it."""
    mine = and_(members.c.room == room, members.c.name == user)
    ahead = or_(members.c.read_epoch != read.epoch, members.c.read_offset < read.offset)
    moved = update(members).where(mine, ahead).values(read_offset=read.offset, read_epoch=read.epoch)
    async with transaction() as db:
        return (await db.execute(moved)).rowcount > 0
