"""The HTTP API reaches every node."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hubbub import Hub
from hubbub.servers.api.calls import CALLS
from tests.cluster.test_cluster import Pair, arrive
from tests.fakes import open_connection
from tests.serving import until


async def ask(hub: Hub, name: str, body: dict[str, Any]) -> Any:
    """Ask for something, as JSON both ways."""
    call = CALLS[name]
    return msgspec.json.decode(msgspec.json.encode(await call.run(hub, call.decoder.decode(msgspec.json.encode(body)))))


async def test_the_connections_of_a_user_are_found_on_every_node(pair: Pair) -> None:
    here, there = pair
    near, _ = open_connection(here, "ann")
    far, _ = open_connection(there, "ann")
    far.subscribe("room:1")
    open_connection(there, "bo")
    found = (await ask(here, "connections", {"userId": "ann"}))["connections"]
    assert [(each["id"], each["channels"]) for each in found] == [(near.id, []), (far.id, ["room:1"])]
    assert all(abs(each["lastActivity"] / 1000 - near.last_activity) < 60 for each in found)


async def test_calls_reach_who_is_elsewhere(pair: Pair) -> None:
    here, there = pair
    transport = await arrive(there, "ann")
    await ask(here, "notify", {"userId": "ann", "title": "T", "message": "M"})
    assert (await transport.heard("notification"))["payload"]["title"] == "T"
    await ask(here, "broadcast", {"type": "all"})
    await transport.heard("all")
    assert await ask(here, "disconnect", {"userId": "ann"}) == {"connections": 1}


@pytest.mark.parametrize("who", ["channel", "userId"])
async def test_rights_are_asked_about_everywhere(pair: Pair, who: str) -> None:
    here, there = pair
    allowed = True
    there.channel("room:{id}")(lambda access, id: allowed)
    transport = await arrive(there, "ann")
    await there.subscribe("ann", "room:1")
    allowed = False
    await ask(here, "recheck", {who: "room:1" if who == "channel" else "ann"})
    await transport.heard("unsubscribed")


async def test_presence_counts_all_and_shows_some(pair: Pair) -> None:
    here, there = pair
    for user in ("ann", "bo", "cy"):
        open_connection(there, user)
        await there.subscribe(user, "room:1")
    await until(lambda: len(here.node.presence.members("room:1")) == 3)
    found = await ask(here, "presence", {"channel": "room:1", "limit": 2})
    assert (found["count"], [each["userId"] for each in found["members"]]) == (3, ["ann", "bo"])
