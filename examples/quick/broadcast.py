"""Tell everybody: a text to all other clients, and a word when one leaves."""

from fastapi import FastAPI

from hubbub import Connection, Hub

app = FastAPI()
hub = Hub()
hub.attach(app)


@hub.on("say")
async def say(conn: Connection, payload: str) -> int:
    receipt = await hub.broadcast("said", {"from": conn.id, "text": payload}, exclude=conn)
    return receipt.connections


@hub.on_close
async def left(conn: Connection) -> None:
    await hub.broadcast("system_message", {"message": f"{conn.id} left"})
