"""A hub for the test page: anybody may sign in under any name, and chat."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI

from hubbub import Connection, Hub

app = FastAPI()
hub = Hub(chat=True)
hub.attach(app)
hub.namespace("*")


class Name(msgspec.Struct):
    """The payload of `authenticate`: the token is the name."""

    token: str


@hub.on("authenticate", reply="authenticated")
def authenticate(conn: Connection, payload: Name) -> dict[str, Any]:
    """Believe it."""
    conn.identify(payload.token)
    return {"userId": conn.user_id, "connectionId": conn.id, "expiresAt": None}
