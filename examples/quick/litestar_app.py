"""A hub in a Litestar app."""

from litestar import Litestar, get

from hubbub import Hub

hub = Hub()


@get("/count")
async def count() -> dict[str, int]:
    return {"connections": hub.connection_count}


app = Litestar([count])
hub.attach(app)
