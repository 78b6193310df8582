"""A node that goes sends its clients to the others, who go on where they were."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from hubbub import Connection, Handshake, Hub
from hubbub.core.credentials import LONGEST
from hubbub.core.identity import Identity
from hubbub.errors import RequestError
from hubbub.servers.asgi import Endpoint
from tests.cluster.conftest import Nodes
from tests.fakes import SCOPE, RecordingTransport, open_connection, say
from tests.serving import until

Pair = tuple[Hub, Hub]
SOON = 0.3


async def come_back(hub: Hub, ticket: str) -> RecordingTransport:
    """A client that comes to another node with a ticket."""
    transport = RecordingTransport()
    connection = transport.receiver = Connection(hub.node)
    connection.identity = await hub.node.gate.verify(ticket, ticket=True)
    connection.accept(transport, Handshake(SCOPE))
    return transport


async def told_to_go(hub: Hub, transport: RecordingTransport) -> dict[str, Any]:
    """What a client is told by a node that goes."""
    draining = asyncio.create_task(hub.drain(SOON))
    message = await transport.heard("reconnect")
    await draining
    assert transport.closes[0][0] == 1012
    payload: dict[str, Any] = message["payload"]
    return payload


async def test_a_client_goes_on_on_another_node_where_it_was(anywhere: Pair) -> None:
    here, there = anywhere
    connection, transport = open_connection(here)
    connection.identify(Identity("bo", None, {"jti": "t1", "iat": 1, "role": "admin"}))
    say(connection, "subscribe", {"channel": "room:1"})
    await transport.heard("subscribed")
    await here.publish("room:1", "said", 1)
    await transport.heard("message")

    payload = await told_to_go(here, transport)
    await there.publish("room:1", "said", 2)
    back = await come_back(there, payload["ticket"])

    assert payload["restores"]
    assert 0 <= payload["delay"] <= 1000
    assert (await back.heard("authenticated"))["payload"]["userId"] == "bo"
    assert (await back.heard("subscribed"))["payload"]["recovered"]
    assert (await back.heard("message"))["payload"]["data"] == 2
    assert there.local.connections("bo")[0].claims["role"] == "admin"


async def test_each_channel_is_asked_about_again(anywhere: Pair) -> None:
    here, there = anywhere

    @there.channel("room:{id}")
    def nobody(access: Any, id: str) -> bool:
        return False

    connection, transport = open_connection(here, "bo")
    await here.subscribe(connection, "room:1")
    payload = await told_to_go(here, transport)

    back = await come_back(there, payload["ticket"])

    assert (await back.heard("unsubscribed"))["payload"] == {"channel": "room:1", "code": "forbidden"}


async def test_a_ticket_is_for_one_node_and_one_time(anywhere: Pair) -> None:
    here, there = anywhere
    _, transport = open_connection(here, "bo")
    payload = await told_to_go(here, transport)
    await come_back(there, payload["ticket"])

    for hub in anywhere:
        with pytest.raises(RequestError) as caught:
            await hub.node.gate.verify(payload["ticket"], ticket=True)
        assert caught.value.code == "unauthorized"


async def test_a_ticket_is_no_way_around_a_revocation(anywhere: Pair) -> None:
    here, there = anywhere
    connection, transport = open_connection(here)
    connection.identify(Identity("bo", None, {"jti": "t1", "iat": 1}))
    payload = await told_to_go(here, transport)

    await there.revoke(jti="t1")

    with pytest.raises(RequestError) as caught:
        await come_back(there, payload["ticket"])
    assert caught.value.message == "The token was revoked."


async def test_too_many_channels_for_a_ticket_are_the_clients_own(anywhere: Pair) -> None:
    here, there = anywhere
    connection, transport = open_connection(here, "bo")
    for number in range(100):
        await here.subscribe(connection, f"room:{number:0200}")
    payload = await told_to_go(here, transport)

    back = await come_back(there, payload["ticket"])

    assert not payload["restores"]
    assert len(payload["ticket"]) <= LONGEST
    assert await back.heard("authenticated")


async def test_a_stranger_is_only_told_when_to_come_back(anywhere: Pair) -> None:
    here, _ = anywhere
    _, transport = open_connection(here)

    assert (await told_to_go(here, transport)).keys() == {"delay"}


async def test_nobody_new_is_taken_by_a_node_that_goes(anywhere: Pair) -> None:
    here, _ = anywhere
    _, first = open_connection(here)
    draining = asyncio.create_task(here.drain(SOON))
    await first.heard("reconnect")

    _, late = open_connection(here)

    assert late.closes[0][0] == 1012
    await draining


async def test_clients_are_told_a_few_at_a_time(anywhere: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    here, _ = anywhere
    clients = [open_connection(here)[1] for _ in range(40)]
    told: list[int] = []
    sleep = asyncio.sleep

    async def no_time(seconds: float) -> None:
        told.append(sum("reconnect" in client.types for client in clients))
        await sleep(0)

    monkeypatch.setattr("hubbub.node.drain.asyncio.sleep", no_time)
    await here.drain(10.0)

    steps = [after - before for before, after in zip([0, *told], told, strict=False)]
    assert told[-1] == 40
    assert max(steps) == 2


async def test_a_drain_ends_when_all_have_gone(anywhere: Pair) -> None:
    here, _ = anywhere
    connection, transport = open_connection(here)
    draining = asyncio.create_task(here.drain(3600.0))
    await transport.heard("reconnect")
    connection.close()

    async with asyncio.timeout(5.0):
        await draining


async def test_whoever_drains_a_node_that_is_drained_waits_for_it(pair: Pair) -> None:
    here, _ = pair
    _, transport = open_connection(here, "bo")
    first = asyncio.create_task(here.drain(SOON))
    await transport.heard("reconnect")
    await here.drain(10.0)

    assert transport.closes[0][0] == 1012
    assert transport.types.count("reconnect") == 1
    await first


async def test_a_node_that_stops_drains_nobody_any_more(nodes: Nodes) -> None:
    here = await nodes.start()
    crowd = [open_connection(here)[1] for _ in range(10)]
    draining = asyncio.create_task(here.drain(3600.0))
    await until(lambda: any("reconnect" in each.types for each in crowd))
    await here.shutdown()

    async with asyncio.timeout(5.0):
        await draining
    assert {each.closes[0][0] for each in crowd} == {1001}


async def test_claims_that_fit_into_no_ticket_keep_nobody_from_being_told(pair: Pair) -> None:
    here, _ = pair
    connection, transport = open_connection(here)
    connection.identify(Identity("bo", None, {"user": object()}))
    _, other = open_connection(here, "ann")
    draining = asyncio.create_task(here.drain(SOON))

    assert (await transport.heard("reconnect"))["payload"].keys() == {"delay"}
    assert "ticket" in (await other.heard("reconnect"))["payload"]
    await draining


async def test_who_comes_back_to_the_node_that_goes_keeps_the_ticket(pair: Pair) -> None:
    here, there = pair
    _, transport = open_connection(here, "bo")
    draining = asyncio.create_task(here.drain(SOON))
    ticket = (await transport.heard("reconnect"))["payload"]["ticket"]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.disconnect" if sent else "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {**SCOPE, "query_string": b"ticket=" + ticket.encode(), "subprotocols": []}
    await Endpoint(here)(scope, receive, send)

    assert sent[0]["type"] == "websocket.accept"
    assert await (await come_back(there, ticket)).heard("authenticated")
    await draining


async def test_a_ticket_is_as_good_where_the_app_has_a_way_of_its_own_to_sign_in(nodes: Nodes) -> None:
    def nobody(handshake: Handshake) -> None:
        return None

    here, there = await nodes.start(authenticator=nobody), await nodes.start(authenticator=nobody)
    connection, transport = open_connection(here, "bo")
    await here.subscribe(connection, "room:1")
    payload = await told_to_go(here, transport)

    async def admitted(query: bytes) -> Identity | None:
        return await there.node.gate.admit(Handshake({**SCOPE, "query_string": query}))

    identity = await admitted(b"ticket=" + payload["ticket"].encode())
    assert payload["restores"]
    assert identity is not None
    assert identity.user_id == "bo"
    assert [channel for channel, _ in identity.resume] == ["room:1"]
    assert await admitted(b"ticket=of-the-app") is None
    with pytest.raises(RequestError):
        await admitted(b"ticket=" + payload["ticket"].encode())
