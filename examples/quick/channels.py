"""The server decides who gets what: a connection joins the channel of its room, and leaves it for another."""

from fastapi import FastAPI

from hubbub import Connection, Hub

app = FastAPI()
hub = Hub()
hub.attach(app)
hub.namespace("room")


@hub.on("enter")
async def enter(conn: Connection, payload: str) -> list[str]:
    for channel in conn.channels:
        conn.unsubscribe(channel)
    conn.subscribe(f"room:{payload}")
    await hub.publish(f"room:{payload}", "entered", {"connectionId": conn.id})
    return conn.channels
