"""The hooks: a connection opens, says something unhandled, sends bytes, fails, ends."""

from fastapi import FastAPI

from hubbub import Connection, Hub, Message

app = FastAPI()
hub = Hub()
hub.attach(app)


@hub.on_connect
def hello(conn: Connection) -> None:
    conn.metadata["messages"] = 0


@hub.on_message
def anything(conn: Connection, message: Message) -> None:
    conn.metadata["messages"] += 1
    if message.type == "fail":
        raise ValueError("on purpose")
    conn.send("noted", {"type": message.type, "messages": conn.metadata["messages"]}, id=message.id)


@hub.on_binary
def upload(conn: Connection, data: bytes) -> None:
    conn.send("uploaded", {"bytes": len(data)})
