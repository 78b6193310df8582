"""Messages that wait for their user, and a word by other means where nobody reads them."""

from fastapi import FastAPI

from hubbub import Hub, Message

app = FastAPI()
hub = Hub()
hub.attach(app)
MAIL: list[str] = []  # your mailer


@app.post("/orders/{order_id}/ship")
async def ship(order_id: str, user_id: str) -> dict[str, object]:
    receipt = await hub.send_to_user(
        user_id, "shipped", {"orderId": order_id}, durable=True, key=f"shipped:{order_id}", ttl=7 * 86400.0
    )
    return {"delivered": receipt.delivered, "stored": receipt.stored, "cursor": receipt.cursor}


@hub.on_undelivered(after=0.2)  # seconds; 30 by default
async def mail(user_id: str, message: Message) -> None:
    MAIL.append(f"to {user_id}: {message.type} {message.payload['orderId']}")


@app.get("/mail")
def sent() -> list[str]:
    return MAIL
