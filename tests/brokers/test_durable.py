"""Durable channels as clients see them: a hub, its next life on the same database, and a database that fails."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from hubbub import Hub, Timeouts
from hubbub.errors import StorageFull, StoreError, StoreUnavailable
from tests.fakes import open_connection, say

Json = dict[str, Any]


@pytest.fixture
async def another(tmp_path: Path) -> AsyncIterator[Any]:
    """Makes running hubs that follow each other on one database."""
    async with AsyncExitStack() as stack:

        async def another() -> Hub:
            await stack.aclose()
            hub = Hub(timeouts=Timeouts(shutdown=0.05), archive_url=f"sqlite:///{tmp_path}/archive.db")
            hub.namespace("room", history=5, publish="anyone")
            hub.namespace("lobby", history=5, publish="anyone", durable=False)
            await stack.enter_async_context(hub.running())
            return hub

        yield another


async def subscribe(hub: Hub, channel: str, since: Json | None = None) -> tuple[Json, Any]:
    """Subscribe a new client; the answer, and its socket."""
    connection, transport = open_connection(hub)
    say(connection, "subscribe", {"channel": channel} | ({} if since is None else {"since": since}))
    return (await transport.heard("subscribed"))["payload"], transport


@pytest.mark.parametrize(("channel", "lives"), [("room:1", True), ("lobby", False)], ids=["durable", "not durable"])
async def test_a_client_comes_back_to_the_next_life(another: Any, channel: str, lives: bool) -> None:
    hub = await another()
    answer, _ = await subscribe(hub, channel)
    for number in range(3):
        await hub.publish(channel, "said", number)
    hub = await another()
    answer, transport = await subscribe(hub, channel, {"offset": answer["offset"], "epoch": answer["epoch"]})
    assert answer["recovered"] is lives
    await hub.publish(channel, "said", 3)
    last = await transport.heard("message", 4 if lives else 1)
    assert [each["data"] for each in transport.payloads("message")] == ([0, 1, 2, 3] if lives else [3])
    assert last["payload"]["offset"] > answer["offset"]


@pytest.mark.parametrize(
    ("error", "code"),
    [(StoreUnavailable("down"), "unavailable"), (StorageFull("full"), "storage_full")],
    ids=["unavailable", "full"],
)
async def test_a_client_is_told_what_the_database_says(another: Any, error: StoreError, code: str) -> None:
    hub = await another()

    async def fail(*_: Any) -> bool:
        raise error

    hub.node.databases["archive"].store.keep = fail
    answer, transport = await subscribe(hub, "room:1")
    _, other = await subscribe(hub, "lobby")
    say(transport.receiver, "publish", {"channel": "room:1", "data": 1})
    assert (await transport.heard("error"))["payload"]["code"] == code
    say(transport.receiver, "publish", {"channel": "lobby", "data": 1})
    await other.heard("message")
    assert transport.payloads("message") == []
    assert (await hub.history("room:1")).head.offset == answer["offset"]
