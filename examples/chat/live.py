"""The hub: who a connection is, and what its messages do."""

from __future__ import annotations

import re
import secrets
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from examples.chat import accounts, conversations
from examples.chat.conversations import Message
from hubbub import Connection, Handshake, Hub, Identity, RequestError

__all__ = ["PEOPLE", "hub"]

PEOPLE = "people"  # the channel that says who comes and goes, and what rooms there are
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


async def who(handshake: Handshake) -> Identity | None:
    """Sign a WebSocket in by the session that the app's own middleware read from the cookie."""
    if not _from_our_pages(handshake):
        return None
    account = await accounts.by_session(handshake.scope["session"])
    return None if account is None else Identity(account.name, claims={"admin": account.admin})


# Clients connect at WS_PATH, or /ws; the test page is at /ws/client. Programs without a cookie may sign in as well, by
# the built-in `authenticate {token}`: `hubbub token --user ann` makes one.
hub = Hub(authenticator=who)
hub.namespace("people")
hub.namespace("room")
hub.namespace("pair")


# The first thing the page sends, whenever it is connected. It gets everything from here on before it learns how far
# each conversation is, so nothing can fall in between.
@hub.on("enter", auth=True, reply="entered")
async def enter(conn: Connection) -> dict[str, Any]:
    assert conn.user_id is not None
    conn.subscribe(PEOPLE)
    for room in await conversations.rooms():
        conn.subscribe(room)
    await hub.publish(PEOPLE, "online", conn.user_id)
    people, standings = await accounts.names(), await conversations.standings(conn.user_id)
    return {"people": people, "online": sorted(hub.local.user_ids()), "conversations": standings}


@hub.on_close
async def left(conn: Connection, code: int, reason: str) -> None:
    if conn.user_id is not None and not await hub.is_user_connected(conn.user_id):
        await hub.publish(PEOPLE, "offline", conn.user_id)


# A room is a channel. The built-in `subscribe` and `publish` would let anybody listen, and write in another's name:
# these take their place.
@hub.on("subscribe", auth=True, reply="subscribed")
async def subscribe(conn: Connection) -> None:
    raise RequestError("forbidden", "Send `enter`: it subscribes you to every room.")


@hub.on("publish", auth=True, reply="published")
async def publish(conn: Connection, payload: Publish) -> dict[str, Any]:
    if payload.channel not in conn.channels:
        raise RequestError("forbidden", "You are not in a room of this name.", "channel")
    message = await _post(conn, payload.channel, payload.data, payload.key)
    # Also for a key that was known: we may have been stopped before we came here. Pages know it by its number.
    await hub.publish(payload.channel, "said", message.wire)
    await _notify_the_mentioned(payload.channel, message)
    return {"channel": payload.channel, **message.wire}


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


@hub.on("typing", auth=True)
async def typing(conn: Connection, payload: Place) -> None:
    kind, _, name = payload.conversation.partition(":")
    if kind == "user":
        await hub.send_to_user(name, "typing", {"from": conn.user_id, "conversation": f"user:{conn.user_id}"})
    elif payload.conversation in conn.channels:
        await hub.publish(payload.conversation, "typing", conn.user_id)


# How far somebody has read is the same on all their tabs and devices.
@hub.on("read", auth=True)
async def read(conn: Connection, payload: Mark) -> None:
    user = str(conn.user_id)
    if await conversations.mark_read(user, conversations.key_of(user, payload.conversation), payload.number):
        await hub.send_to_user(user, "read", {"conversation": payload.conversation, "number": payload.number})


async def _post(conn: Connection, conversation: str, text: str, key: str | None) -> Message:
    message = await conversations.post(conversation, str(conn.user_id), text, key or secrets.token_hex(8))
    if message is None:
        raise RequestError("no_such_room", "There is no such room.", "channel")
    return message


async def _notify_the_mentioned(channel: str, message: Message) -> None:
    mentioned = list(dict.fromkeys(MENTION.findall(message.text)))[:MOST_MENTIONS]
    for name in await accounts.existing(mentioned) - {message.sender} if mentioned else ():
        title = f"{message.sender} mentioned you in {channel.removeprefix('room:')}"
        await hub.notify(name, title, message.text[:200], durable=True, key=f"{channel}/{message.number}")


def _from_our_pages(handshake: Handshake) -> bool:
    """A browser sends our cookie along for any page that asks; one of another origin shall not use it."""
    origin = handshake.header("origin")
    return origin is None or urlsplit(origin).netloc == handshake.header("host")
