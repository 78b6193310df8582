"""Three kinds of handlers: plain, coroutine, and a blocking one in a thread."""

import asyncio
import time

from fastapi import FastAPI

from hubbub import Connection, Hub

app = FastAPI()
hub = Hub()
hub.attach(app)


@hub.on("quick")  # runs at once, in the event loop
def quick(conn: Connection) -> int:
    return hub.connection_count


@hub.on("patient")  # may await, and send as it goes
async def patient(conn: Connection, payload: float) -> None:
    conn.send("progress", "started")
    await asyncio.sleep(payload)
    conn.send("progress", "done")


@hub.on("blocking", thread=True)  # may block, may not use conn.send
def blocking(conn: Connection, payload: float) -> str:
    time.sleep(payload)
    return "slept"
