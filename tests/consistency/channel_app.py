"""An app whose only work is durable channels, with and without an archive; it is killed while they are published on."""

from __future__ import annotations

from starlette.applications import Starlette

from hubbub import Connection, Hub, Limits
from tests.fakes import PLENTY

hub = Hub(limits=Limits(send_queue=8 << 20), rates=PLENTY)
hub.namespace("room", history=100_000, history_ttl=3600, publish="anyone")
hub.namespace("log", history=250, history_ttl=3600, publish="anyone", archive=True)
app = Starlette()
hub.attach(app)


@hub.on("sign_in", reply="signed_in")
def sign_in(conn: Connection, user_id: str) -> bool:
    conn.identify(user_id)
    return True
