"""The built-in chat between two users: `Hub(chat=True)`."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

if TYPE_CHECKING:
    from hubbub.node.connection import Connection
    from hubbub.node.hub import Hub

__all__ = ["Chat", "install"]


class Chat(msgspec.Struct, rename="camel"):
    """The payload of `chat`.

    Args:
        recipient_id: the user it is for.
        message: the text.
        key: the client's name for it: sent twice with one key, it is one message.
    """

    recipient_id: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    message: Annotated[str, msgspec.Meta(min_length=1)]
    key: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[ -~]+$")] | None = None


def install(hub: Hub) -> None:
    """Handle `chat`: store it for its recipient, send it, and say what became of it."""

    @hub.on("chat", auth=True, reply="chat_received")
    async def chat(connection: Connection, payload: Chat) -> dict[str, Any]:
        message = {"from": connection.user_id, "message": payload.message, "timestamp": time.time_ns() // 1_000_000}
        key = None if payload.key is None else _own_key(connection, payload.key)
        receipt = await hub.send_to_user(payload.recipient_id, "chat", message, durable=True, key=key)
        answer = {"message": payload.message, "delivered": receipt.delivered, "stored": receipt.stored}
        return answer if receipt.delivered else {**answer, "reason": "not connected: it waits in the inbox"}


def _own_key(connection: Connection, key: str) -> str:
    """Two senders' keys shall not meet in the recipient's inbox."""
    return hashlib.sha256(f"{connection.user_id}\n{key}".encode()).hexdigest()
