from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from msgspec import Struct

from hubbub import Connection, Hub

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
    await hub.broadcast("said", {"from": conn.user_id, "text": payload.text})
