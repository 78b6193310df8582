"""A hub whose clients follow rooms, to be restarted under them."""

from __future__ import annotations

from starlette.applications import Starlette

from hubbub import Connection, Hub
from hubbub.limits import Limits, Rate, Rates

__all__ = ["HISTORY", "ROOM", "TTL", "app"]

ROOM, HISTORY, TTL = "room", 200, 300.0
MANY = Rate(1e6)

app = Starlette()
hub = Hub(
    rates=Rates(messages=MANY, bytes=Rate(1e10), subscribes=MANY, publishes=MANY, attempts=MANY),
    limits=Limits(connections_per_address=10**6),
)
hub.namespace(ROOM, history=HISTORY, history_ttl=TTL)
hub.attach(app)


@hub.on("sign_in")
def sign_in(conn: Connection, user_id: str) -> bool:
    """Be somebody, so that there is a ticket."""
    conn.identify(user_id)
    return True
