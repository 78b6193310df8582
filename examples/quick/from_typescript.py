"""What `createWebSocketServer(httpServer, {path, heartbeatInterval, onConnection, ...})` was, in Python."""

from fastapi import FastAPI

from hubbub import Connection, Hub

app = FastAPI()
hub = Hub(path="/ws", heartbeat_interval=30.0)
hub.attach(app)


@hub.on_connect
def hello(conn: Connection) -> None:
    conn.send("hello", {"connectionId": conn.id})


@hub.on("order", reply="ordered")
async def order(conn: Connection, payload: dict[str, int]) -> dict[str, int]:
    return {"items": sum(payload.values())}


@hub.on_close
def closed(conn: Connection, code: int, reason: str) -> None:
    print(conn.id, code, reason)


@hub.on_error
def failed(conn: Connection, error: Exception) -> None:
    print(conn.id, error)
