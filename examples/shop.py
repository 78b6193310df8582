"""A shop: chat between users, and a route that tells whoever follows an order."""

import msgspec
from fastapi import FastAPI

from hubbub import Connection, Handshake, Hub

app = FastAPI()
hub = Hub(path="/ws")
hub.attach(app)
hub.namespace("order", publish="server")
SESSIONS = {"session=c0ffee": "ada", "session=decade": "brian"}  # yours, by cookie


class Chat(msgspec.Struct):
    recipient_id: str  # recipientId on the wire
    message: str


@hub.on_connect
def sign_in(conn: Connection, handshake: Handshake) -> None:
    conn.identify(SESSIONS.get(handshake.header("cookie") or ""))


@hub.on("chat", reply="chat_received", auth=True)
async def chat(conn: Connection, payload: Chat) -> dict[str, bool]:
    text = {"from": conn.user_id, "message": payload.message}
    receipt = await hub.send_to_user(payload.recipient_id, "chat", text)
    return {"delivered": receipt.delivered}


@app.post("/orders/{order_id}/ship")
async def ship(order_id: str) -> None:
    await hub.publish(f"order:{order_id}", "shipped", {"orderId": order_id})
