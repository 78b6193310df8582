"""An app whose clients are sent elsewhere and come back; it notes what that costs in lookups and database calls."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from starlette.applications import Starlette

from bench.peers.rolling_app import HISTORY, ROOM, TTL
from hubbub import Connection, Hub
from hubbub.limits import Limits, Rate
from tests.fakes import PLENTY

hub = Hub(
    rates=replace(PLENTY, attempts=Rate(float(os.environ.get("ATTEMPTS", 1e6)))),
    limits=Limits(connections=int(os.environ.get("CONNECTIONS", 20_000)), connections_per_address=20_000),
)
hub.namespace(ROOM, history=HISTORY, history_ttl=TTL, publish="anyone")
app = Starlette()
hub.attach(app)
costs = os.open(os.environ.get("COSTS", os.devnull), os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(cost: str) -> None:
    """Add a line that outlives this process."""
    os.write(costs, cost.encode() + b"\n")


def noting(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def noted(method: Any, *args: Any) -> Any:
        note(method.__name__)
        return await call(method, *args)

    return noted


for database in {id(each): each for each in hub.node.databases.values()}.values():
    database.call = noting(database.call)  # type: ignore[assignment, method-assign]


@hub.on("sign_in")
def sign_in(conn: Connection, user_id: str) -> bool:
    """Look a user up, as an app does whose client brings no ticket."""
    note("lookup")
    conn.identify(user_id)
    return True
