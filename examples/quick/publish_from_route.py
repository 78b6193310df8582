"""Publish from where the app already is: an `async def` route, a `def` route and a background thread."""

import threading

from fastapi import FastAPI

from hubbub import Hub

app = FastAPI()
hub = Hub()
hub.attach(app)
hub.namespace("prices")
hub.namespace("reports")


@app.post("/prices/{symbol}")
async def set_price(symbol: str, price: float) -> int:
    receipt = await hub.publish("prices", "changed", {"symbol": symbol, "price": price})
    return receipt.connections


@app.post("/alarm")
def alarm() -> None:  # FastAPI runs a `def` route in a thread
    hub.sync.broadcast("system_message", {"message": "The market closes."})


@app.post("/report")
async def report() -> None:
    threading.Thread(target=hub.sync.publish, args=("reports", "ready")).start()
