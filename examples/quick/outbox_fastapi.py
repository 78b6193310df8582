"""An order and the news of it: both, or neither. FastAPI, SQLAlchemy, and the outbox in the app's own database."""

import os

from fastapi import FastAPI, HTTPException
from sqlalchemy import Column, Integer, MetaData, String, Table
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from hubbub import Hub, outbox

FILE = os.environ.get("SHOP_FILE", "shop.db")
engine = create_async_engine(f"sqlite+aiosqlite:///{FILE}")
orders = Table("orders", MetaData(), Column("id", Integer, primary_key=True), Column("item", String(50)))
app = FastAPI()
hub = Hub(outbox_url=f"sqlite:///{FILE}")  # makes the outbox's tables, and relays what is committed
hub.attach(app)
hub.namespace("orders")


@app.post("/orders/{item}")
async def order(item: str, user_id: str) -> None:
    async with AsyncSession(engine) as session, session.begin():
        await (await session.connection()).run_sync(orders.metadata.create_all)
        await session.execute(orders.insert().values(item=item))
        await outbox.publish_async(session, "orders", "placed", {"item": item})
        await outbox.send_to_user_async(session, user_id, "thanks", {"item": item})
        if item == "moon":
            raise HTTPException(409, "It is not for sale: there is no order, and nobody hears of one.")
