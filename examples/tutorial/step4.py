from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from msgspec import Struct

from hubbub import Connection, Hub, RequestError

app = FastAPI()
hub = Hub()
hub.attach(app)


@app.get("/")
def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("chat.html"))


class Join(Struct):
    name: str


class Say(Struct):
    text: str


@hub.on("join")
async def join(conn: Connection, payload: Join) -> None:
    conn.identify(payload.name)
    await hub.broadcast("system_message", {"message": f"{payload.name} is here."})


@hub.on("say", auth=True)
async def say(conn: Connection, payload: Say) -> None:
    if payload.text.startswith("@"):
        await whisper(conn, payload.text[1:])
    else:
        await hub.broadcast("said", {"from": conn.user_id, "text": payload.text})


async def whisper(conn: Connection, line: str) -> None:
    name, _, text = line.partition(" ")
    receipt = await hub.send_to_user(name, "said", {"from": f"{conn.user_id}, only to you", "text": text})
    if not receipt.delivered:
        raise RequestError("not_here", "Nobody of that name is here.", "text")


@hub.on_close
async def left(conn: Connection) -> None:
    if conn.user_id and not await hub.is_user_connected(conn.user_id):
        await hub.broadcast("system_message", {"message": f"{conn.user_id} has left."})


@app.post("/announce")
async def announce(message: str) -> dict[str, int]:
    receipt = await hub.broadcast("system_message", {"message": message})
    return {"connections": receipt.connections}
