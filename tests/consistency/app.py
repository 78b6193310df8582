"""An app whose only work is durable messages; it is killed while they are sent."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.applications import Starlette

from hubbub import Connection, Hub, Limits
from tests.fakes import PLENTY

hub = Hub(limits=Limits(inbox=100_000, send_queue=8 << 20), rates=PLENTY)
app = Starlette()
hub.attach(app)


class Post(msgspec.Struct):
    """A message for a user: who wrote it, and which of the writer's messages to that user it is."""

    to: str
    writer: int
    number: int


@hub.on("sign_in", reply="signed_in")
def sign_in(conn: Connection, user_id: str) -> bool:
    conn.identify(user_id)
    return True


@hub.on("post", reply="posted")
async def post(conn: Connection, payload: Post) -> dict[str, Any]:
    receipt = await hub.send_to_user(
        payload.to, "mail", [payload.writer, payload.number], durable=True, key=f"{payload.writer}-{payload.number}"
    )
    return {"cursor": receipt.cursor}
