"""The hub: who a connection is, and what its messages do."""

from __future__ import annotations

import re
import secrets
from hashlib import sha256
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from examples.chat import accounts, conversations, rooms
from examples.chat.conversations import Message
from hubbub import Connection, Handshake, Hub, Identity, RequestError
from hubbub.channels import Access, Lease, Position
from hubbub.errors import StoreError

__all__ = ["PEOPLE", "admit", "dismiss", "hub"]

PEOPLE = "people"  # the channel that says who comes and goes
WEEK = 7 * 24 * 60 * 60
MENTION = re.compile(r"(?<![\w@])@([a-z0-9][a-z0-9._-]*[a-z0-9])")
MOST_MENTIONS = 10

# Not blank, and without the one character that PostgreSQL does not keep.
Text = Annotated[str, msgspec.Meta(max_length=4000, pattern=r"\A(?=\s*\S)[^\x00]*\Z")]
Key = Annotated[str, msgspec.Meta(pattern=r"\A[!-~]{1,64}\Z")]
Number = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


# What a client may send. A payload that does not fit is answered with an error that names the field;
# the handlers below only see good ones. `recipient_id` is `recipientId` on the wire.
class Publish(msgspec.Struct):
    channel: str
    data: Text
    key: Key | None = None


class Chat(msgspec.Struct):
    recipient_id: str
    message: Text
    key: Key | None = None


class Place(msgspec.Struct):
    conversation: str


class Mark(msgspec.Struct):
    conversation: str
    number: Number


class Seen(msgspec.Struct):
    channel: str
    offset: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    epoch: Annotated[str, msgspec.Meta(max_length=64)]


async def who(handshake: Handshake) -> Identity | None:
    """Sign a WebSocket in by the session that the app's own middleware read from the cookie."""
    if not _from_our_pages(handshake):
        return None
    account = await accounts.by_session(handshake.scope["session"])
    return None if account is None else Identity(account.name, claims={"admin": account.admin})


# Clients connect at WS_PATH, or /ws; the test page is at /ws/client. Programs without a cookie may sign in as well, by
# the built-in `authenticate {token}`: `hubbub token --user ann` makes one.
hub = Hub(authenticator=who)
# What is said in rooms is the hub's to keep: the last 300 messages at hand for those who come back, all in the archive.
hub.namespace("room", history=300, history_ttl=WEEK, archive=True, presence=True)
hub.namespace(PEOPLE, publish="server")


# The one door to a room: to subscribe, to read its history, to see who is here.
@hub.channel("room:{name}")
async def may(access: Access, name: str) -> bool | Lease:
    try:
        return Lease(recheck=60) if await rooms.has(name, access.user_id) else False
    except StoreError:
        raise RequestError("unavailable", "Nobody knows now who is in the room.", "channel") from None


@hub.channel(PEOPLE)
def signed_in(access: Access) -> bool:
    return access.user_id is not None


# The first thing the page sends, whenever it is connected. It gets everything from here on before it learns how far
# each conversation is, so nothing can fall in between. Then it subscribes to its rooms, from where it was.
@hub.on("enter", auth=True, reply="entered")
async def enter(conn: Connection) -> dict[str, Any]:
    assert conn.user_id is not None
    conn.subscribe(PEOPLE)
    await hub.publish(PEOPLE, "online", conn.user_id)
    if not await rooms.has(rooms.LOBBY, conn.user_id):
        await rooms.add(rooms.LOBBY, conn.user_id, await _end_of(rooms.LOBBY))
    people, standings = await accounts.names(), await conversations.standings(conn.user_id)
    known = {"people": people, "online": sorted(hub.local.user_ids())}
    return {**known, "conversations": standings, "rooms": await rooms.seen(conn.user_id)}


@hub.on_close
async def left(conn: Connection, code: int, reason: str) -> None:
    if conn.user_id is not None and not await hub.is_user_connected(conn.user_id):
        await hub.publish(PEOPLE, "offline", conn.user_id)


# `subscribe`, `history` and `presence` are the built-in ones. The built-in `publish` would take what the client says of
# itself: this one sets the sender. With the same key it is published once in two minutes.
@hub.on("publish", auth=True, reply="published")
async def publish(conn: Connection, payload: Publish) -> dict[str, Any]:
    kind, _, room = payload.channel.partition(":")
    if kind != "room" or not await rooms.has(room, conn.user_id):
        raise RequestError("forbidden", "You are not in a room of this name.", "channel")
    key = payload.key or secrets.token_hex(8)
    said = {"from": conn.user_id, "message": payload.data, "key": key}
    ours = sha256(f"{conn.user_id} {key}".encode()).hexdigest()
    receipt = await hub.publish(payload.channel, "said", said, key=ours)
    await _notify_the_mentioned(room, str(conn.user_id), payload.data, ours)
    return {"channel": payload.channel, "offset": receipt.offset, "epoch": receipt.epoch}


async def admit(room: str, user: str) -> bool:
    """Let a user into a room, on all their connections; False if that cannot be."""
    if not await rooms.add(room, user, await _end_of(room)):
        return False
    await hub.subscribe(user, rooms.channel_of(room))
    return True


async def dismiss(room: str, user: str) -> None:
    """Put a user out of a room, at once."""
    await rooms.remove(room, user)
    await hub.recheck(user_id=user)


# From one user to another, who gets it now or at the next sign-in: `durable` keeps it in the recipient's inbox until
# one of their pages has acked it. Their own tables keep it for ever, for the history.
@hub.on("chat", auth=True, reply="chat_received")
async def chat(conn: Connection, payload: Chat) -> dict[str, Any]:
    sender, recipient = str(conn.user_id), payload.recipient_id
    known = await accounts.existing([recipient]) or await hub.is_user_connected(recipient)
    pair = await conversations.open_pair(sender, recipient) if known else None
    if pair is None:
        raise RequestError("no_such_user", "There is nobody of this name.", "recipientId")
    message = await _post(conn, pair, payload.message, payload.key)
    push = {**message.wire, "to": recipient}
    # With the same key it is stored once, so a client that asks again does no harm.
    receipt = await hub.send_to_user(recipient, "chat", push, durable=True, key=f"{pair}/{message.number}")
    if sender != recipient:
        await hub.send_to_user(sender, "chat", push)  # for the sender's other tabs
    answer = {"message": message.text, "delivered": receipt.delivered, "stored": receipt.stored, **push}
    return answer if receipt.delivered else {**answer, "reason": f"{recipient} is not connected and gets it later"}


# To one user; in a room it is part of one's presence.
@hub.on("typing", auth=True)
async def typing(conn: Connection, payload: Place) -> None:
    kind, _, name = payload.conversation.partition(":")
    if kind == "user":
        await hub.send_to_user(name, "typing", {"from": conn.user_id, "conversation": f"user:{conn.user_id}"})


# How far somebody has read is the same on all their tabs and devices.
@hub.on("read", auth=True)
async def read(conn: Connection, payload: Mark) -> None:
    user = str(conn.user_id)
    if await conversations.mark_read(user, conversations.key_of(user, payload.conversation), payload.number):
        await hub.send_to_user(user, "read", {"conversation": payload.conversation, "number": payload.number})


@hub.on("seen", auth=True)
async def seen(conn: Connection, payload: Seen) -> None:
    user, room = str(conn.user_id), payload.channel.removeprefix("room:")
    if not await rooms.has(room, user):
        return
    place, end = Position(payload.offset, payload.epoch), await _end_of(room)
    if place.epoch == end.epoch and place.offset <= end.offset and await rooms.mark_read(user, room, place):
        await hub.send_to_user(user, "seen", payload)


async def _post(conn: Connection, conversation: str, text: str, key: str | None) -> Message:
    message = await conversations.post(conversation, str(conn.user_id), text, key or secrets.token_hex(8))
    if message is None:
        raise RequestError("no_such_user", "There is nobody of this name.", "recipientId")
    return message


async def _notify_the_mentioned(room: str, sender: str, text: str, key: str) -> None:
    mentioned = set(list(dict.fromkeys(MENTION.findall(text)))[:MOST_MENTIONS]) - {sender}
    for name in mentioned & set(await rooms.members_of(room)) if mentioned else ():
        await hub.notify(name, f"{sender} mentioned you in {room}", text[:200], durable=True, key=f"{room}/{key}")


async def _end_of(room: str) -> Position:
    return (await hub.history(rooms.channel_of(room), limit=1)).head


def _from_our_pages(handshake: Handshake) -> bool:
    """A browser sends our cookie along for any page that asks; one of another origin shall not use it."""
    origin = handshake.header("origin")
    return origin is None or urlsplit(origin).netloc == handshake.header("host")
