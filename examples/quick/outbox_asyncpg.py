"""A price and the news of it: both, or neither. asyncpg, and the outbox in the app's own PostgreSQL."""

import os

import asyncpg
from fastapi import FastAPI, HTTPException

from hubbub import Hub, outbox

URL = os.environ.get("SHOP_URL", "postgresql://localhost/shop")
app = FastAPI()
hub = Hub(outbox_url=URL)  # makes the outbox's tables, and relays what is committed
hub.attach(app)
hub.namespace("prices")


@app.post("/prices/{item}")
async def change(item: str, price: int) -> None:
    db = await asyncpg.connect(URL)  # in a real app, from a pool
    try:
        async with db.transaction():
            await outbox.publish_async(db, "prices", "changed", {"item": item, "price": price})
            if price < 1:  # or a statement that fails
                raise HTTPException(422, "Nothing is free: the price is as it was, and nobody hears of it.")
    finally:
        await db.close()
