"""What a real app has around its WebSocket: some routes and one middleware that touches the accept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["ServedBy", "add_routes"]


class ServedBy:
    """A plain ASGI middleware: one header on every response and on every 101."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_header(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                message["headers"] = [*message.get("headers", ()), (b"x-served-by", b"bench")]
            await send(message)

        await self.app(scope, receive, send_with_header)


def add_routes(app: FastAPI) -> None:
    """Give `app` three HTTP routes."""

    @app.get("/health")
    def health() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/users/{user_id}")
    def user(user_id: str) -> dict[str, str]:
        return {"id": user_id}

    @app.post("/orders/{order_id}/ship")
    def ship(order_id: str) -> dict[str, str]:
        return {"shipped": order_id}
