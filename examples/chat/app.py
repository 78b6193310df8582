"""A small chat: who is online, a room, messages from one user to another. Read it from top to bottom.

Run it with `hubbub serve examples.chat.app:app` and open http://127.0.0.1:5000 in two tabs.
"""

from __future__ import annotations

import html
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from fastapi import Body, FastAPI
from fastapi.responses import FileResponse, HTMLResponse

from hubbub import Connection, Hub, RequestError

HERE = Path(__file__).parent
LONGEST_NAME = 32

app = FastAPI(title="Hubbub chat")
hub = Hub()  # clients connect at WS_PATH, or /ws; the test page is at /ws/client
hub.attach(app)


# What a client may send. A payload that does not fit is answered with an error that names the field;
# the handlers below only see good ones. `recipient_id` is `recipientId` on the wire.
class Authenticate(msgspec.Struct):
    token: str


class Chat(msgspec.Struct):
    recipient_id: str
    message: str


class Publish(msgspec.Struct):
    channel: str
    data: Any = None


# Every client gets a `welcome` when it connects, and `ping`, `echo`, `subscribe` and `unsubscribe` are built in.
# The first thing of our own is to learn who somebody is.
@hub.on("authenticate", reply="authenticated")
async def authenticate(conn: Connection, payload: Authenticate) -> dict[str, Any]:
    name = payload.token.strip()
    # In this demo the token is the name: anybody can be anybody. A real app checks a signed token here.
    if not (name.isprintable() and 1 <= len(name) <= LONGEST_NAME):
        raise RequestError("invalid_payload", f"A name has 1 to {LONGEST_NAME} printable characters.", "token")
    conn.identify(name)  # the same name in several tabs is one user with several connections
    await tell_who_is_online()
    if await hub.user_connection_count(name) == 1:
        await hub.notify(name, f"Hello {name}", "Open a second tab to talk to somebody.", "success")
    return {"userId": name, "connectionId": conn.id, "expiresAt": None}


@hub.on_close
async def left(conn: Connection, code: int, reason: str) -> None:
    if conn.user_id is not None:
        await tell_who_is_online()


async def tell_who_is_online() -> None:
    await hub.broadcast("online", {"users": sorted(hub.local.user_ids())})


# From one user to another, wherever and however often the other is connected. `auth=True` turns away connections
# without a user. What a handler returns is the reply.
@hub.on("chat", auth=True, reply="chat_received")
async def chat(conn: Connection, payload: Chat) -> dict[str, Any]:
    message = {"from": conn.user_id, "message": payload.message, "timestamp": int(time.time() * 1000)}
    receipt = await hub.send_to_user(payload.recipient_id, "chat", message)
    answer = {"message": payload.message, "delivered": receipt.delivered, "stored": receipt.stored}
    return answer if receipt.delivered else {**answer, "reason": f"{payload.recipient_id} is not connected"}


# The room is a channel. The built-in `publish` passes data on as it came, so anybody could write in another's name:
# this handler takes its place and says who it was.
@hub.on("publish", auth=True, reply="published")
async def publish(conn: Connection, payload: Publish) -> dict[str, Any]:
    if payload.channel not in conn.channels:
        raise RequestError("forbidden", "Subscribe to a channel before you publish on it.", "channel")
    await hub.publish(payload.channel, "said", {"from": conn.user_id, "message": payload.data})
    return {"channel": payload.channel}


# The hub works from any route, task or thread: here an ordinary HTTP request reaches everybody.
#   curl http://127.0.0.1:5000/announce -H 'content-type: application/json' -d '{"message": "Lunch is ready"}'
@app.post("/announce")
async def announce(message: Annotated[str, Body(embed=True, min_length=1, max_length=500)]) -> dict[str, int]:
    receipt = await hub.broadcast("system_message", {"message": message, "timestamp": int(time.time() * 1000)})
    return {"connections": receipt.connections}


# The page itself.
PAGE = (HERE / "index.html").read_text("utf-8").replace("{ws_path}", html.escape(hub.path))


@app.get("/", include_in_schema=False)
async def page() -> HTMLResponse:
    return HTMLResponse(PAGE)


@app.get("/chat.{kind}", include_in_schema=False)
async def asset(kind: Literal["css", "js"]) -> FileResponse:
    return FileResponse(HERE / f"chat.{kind}")
