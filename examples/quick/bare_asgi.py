"""A hub around any ASGI callable, without a framework."""

from typing import Any

from hubbub import Hub

hub = Hub()


async def hello(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"  # as an app does that knows no lifespan
    body = f"{hub.connection_count} connected\n".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


app = hub.wrap(hello)
