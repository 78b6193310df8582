"""What the docs promise of one node holds for two: whoever is connected elsewhere is reached."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from hubbub import Hub
from hubbub.core.bus import PART, Alive, Bye, Want, encode
from hubbub.core.identity import Identity
from hubbub.errors import ConnectionClosed, RequestError, RequestTimeout
from hubbub.node import cluster as cluster_module
from hubbub.node import presence as presence_module
from tests.cluster.conftest import Nodes
from tests.cluster.exchange import LinkedBroker
from tests.fakes import RecordingTransport, open_connection, say
from tests.serving import until

Pair = tuple[Hub, Hub]


def link(hub: Hub) -> LinkedBroker:
    """A node's link to the exchange."""
    assert isinstance(hub.node.broker, LinkedBroker)
    return hub.node.broker


async def arrive(hub: Hub, user_id: str) -> RecordingTransport:
    """A user on a node, whom the others can reach."""
    _, transport = open_connection(hub, user_id)
    await until(lambda: user_id in hub.node.cluster._users)
    return transport


# Messages


async def test_a_user_is_reached_wherever_it_is(anywhere: Pair) -> None:
    here, there = anywhere
    bo, other = await arrive(there, "bo"), await arrive(there, "al")

    receipt = await here.send_to_user("bo", "chat", {"n": 1})

    assert receipt.delivered
    assert await bo.heard("chat") == {"type": "chat", "payload": {"n": 1}}
    assert "chat" not in other.types


async def test_nobody_is_reached_who_is_nowhere(anywhere: Pair) -> None:
    receipt = await anywhere[0].send_to_user("nobody", "chat")
    assert not receipt.delivered


async def test_a_broadcast_reaches_all_but_one(anywhere: Pair) -> None:
    here, there = anywhere
    _, near = open_connection(here)
    left_out, out = open_connection(there)
    _, far = open_connection(there)

    await here.broadcast("news", {"n": 1}, exclude=left_out.id)

    assert await near.heard("news")
    assert await far.heard("news")
    assert "news" not in out.types


@pytest.mark.parametrize("broker", ["nats", "redis"])
async def test_hubs_of_one_app_with_other_paths_do_not_hear_each_other(
    broker: str, fresh: Callable[[str], str | None]
) -> None:
    url = fresh(broker)
    public, other, admin = Hub(broker_url=url), Hub("/ws", broker_url=url), Hub("/admin", broker_url=url)
    async with public.running(), other.running(), admin.running():
        await until(lambda: public.node.cluster.peers == [other.node.cluster.id])
        _, seen = open_connection(public, "bo")
        await admin.broadcast("inside")
        await other.broadcast("outside")
        await seen.heard("outside")
        assert "inside" not in seen.types
        assert admin.node.cluster.peers == []


async def test_a_connection_is_reached_by_its_id(anywhere: Pair) -> None:
    here, there = anywhere
    connection, transport = open_connection(there)

    receipt = await here.send_to_connection(connection.id, "hello", 1)

    assert receipt.connections == 1
    assert await transport.heard("hello")
    assert not (await here.send_to_connection("nowhere", "hello")).delivered
    assert not (await here.send_to_connection(there.node.cluster.id + "gone", "hello")).delivered


async def test_a_long_message_goes_in_parts(anywhere: Pair) -> None:
    here, there = anywhere
    bo = await arrive(there, "bo")

    await here.send_to_user("bo", "long", "x" * 2 * PART)

    message = await bo.heard("long")
    assert len(message["payload"]) == 2 * PART


@pytest.mark.parametrize("payload", [{"n": 1}, None], ids=["payload", "nothing"])
async def test_a_client_is_asked_from_another_node(anywhere: Pair, payload: Any) -> None:
    here, there = anywhere
    connection, transport = open_connection(there)

    asking = asyncio.create_task(here.request(connection.id, "confirm", payload))
    request = await transport.heard("request")
    assert request["payload"] == {"type": "confirm", "payload": payload}
    say(connection, "response", {"yes": True}, id=request["id"])

    assert await asking == {"yes": True}


async def test_who_does_not_answer_or_is_gone_is_told_apart(anywhere: Pair) -> None:
    here, there = anywhere
    connection, _ = open_connection(there)

    with pytest.raises(RequestTimeout):
        await here.request(connection.id, "confirm", timeout=0.01)
    with pytest.raises(ConnectionClosed):
        await here.request(there.node.cluster.id + "gone", "confirm")
    with pytest.raises(ConnectionClosed):
        await here.request("nowhere", "confirm")


# Users


async def test_users_are_counted_and_sent_away_everywhere(anywhere: Pair) -> None:
    here, there = anywhere
    for hub in (here, there, there):
        open_connection(hub, "bo")

    assert await here.user_connection_count("bo") == 3
    assert await there.is_user_connected("bo")
    assert not await here.is_user_connected("al")
    assert await here.disconnect_user("bo", 4503, "not welcome") == 3
    assert await here.user_connection_count("bo") == 0


async def test_a_revocation_counts_everywhere(anywhere: Pair) -> None:
    here, there = anywhere
    connection, transport = open_connection(there)
    connection.identify(Identity("bo", None, {"jti": "t1", "iat": 1}))

    assert await here.revoke(jti="t1") == 1
    assert transport.closes == [(4501, "the token was revoked")]
    assert there.node.gate.revocations.concern(Identity("bo", None, {"jti": "t1", "iat": 1}))


async def test_a_revocation_that_was_missed_counts_once_the_broker_is_back(pair: Pair) -> None:
    here, there = pair
    connection, transport = open_connection(there)
    connection.identify(Identity("bo", None, {"jti": "t1", "iat": 1}))
    link(there).cut = True

    await here.revoke(jti="t1")
    assert transport.closes == []
    link(there).heal()

    await until(lambda: transport.closes == [(4501, "the token was revoked")])


async def test_subscriptions_are_made_and_ended_from_anywhere(anywhere: Pair) -> None:
    here, there = anywhere
    connection, transport = open_connection(there, "bo")

    assert await here.subscribe("bo", "room:1") == 1
    await here.publish("room:1", "said", {"n": 1})
    assert (await transport.heard("message"))["payload"]["data"] == {"n": 1}
    assert await here.unsubscribe("bo", "room:1") == 1
    assert connection.channels == []


async def test_what_is_wrong_with_a_subscription_elsewhere_is_said(anywhere: Pair) -> None:
    here, there = anywhere
    for hub in anywhere:
        hub.namespace("small", max_subscribers=1)
    bo, al = await arrive(there, "bo"), await arrive(here, "al")

    assert await here.subscribe("bo", "small:1") == 1
    assert await here.subscribe("al", "small:1") == 1
    await arrive(there, "cy")
    for hub in anywhere:
        with pytest.raises(RequestError, match="channel_full"):
            await hub.subscribe("cy", "small:1")

    await arrive(here, "dy")
    dy = await arrive(there, "dy")
    await there.unsubscribe("bo", "small:1")
    with pytest.raises(RequestError, match="channel_full"):  # here; there it has room
        await here.subscribe("dy", "small:1")
    await dy.heard("subscribed")
    assert "subscribed" in bo.types
    assert "subscribed" in al.types


async def test_changed_rights_are_asked_about_everywhere(anywhere: Pair) -> None:
    here, there = anywhere
    allowed = True

    @there.channel("room:{id}")
    def may(access: Any, id: str) -> bool:
        return allowed

    connection, transport = open_connection(there, "bo")
    say(connection, "subscribe", {"channel": "room:1"})
    await transport.heard("subscribed")
    allowed = False

    await here.recheck(channel="room:1")

    assert (await transport.heard("unsubscribed"))["payload"]["code"] == "forbidden"


# The inbox


async def test_a_durable_message_reaches_a_user_elsewhere_once(anywhere: Pair) -> None:
    here, there = anywhere
    bo = await arrive(there, "bo")

    receipts = [await here.send_to_user("bo", "chat", n, durable=True) for n in range(3)]

    assert all(receipt.delivered and receipt.stored for receipt in receipts)
    await bo.heard("chat", 3)
    assert bo.payloads("chat") == [0, 1, 2]


async def test_two_nodes_send_and_both_sides_see_one_order(anywhere: Pair) -> None:
    here, there = anywhere
    near, far = await arrive(here, "bo"), await arrive(there, "bo")

    await asyncio.gather(*(anywhere[n % 2].send_to_user("bo", "chat", n, durable=True) for n in range(20)))

    await near.heard("chat", 20)
    await far.heard("chat", 20)
    assert near.payloads("chat") == far.payloads("chat")


async def test_an_ack_on_one_node_is_told_on_the_other(anywhere: Pair) -> None:
    here, there = anywhere
    near, far = open_connection(here, "bo"), await arrive(there, "bo")
    await here.send_to_user("bo", "chat", 1, durable=True)
    await far.heard("chat")
    await near[1].heard("chat")

    say(near[0], "ack", {"cursor": 1})

    assert (await far.heard("acked"))["payload"] == {"cursor": 1}


async def test_what_was_stored_while_the_broker_was_away_comes_once_it_is_back(pair: Pair) -> None:
    here, there = pair
    bo = await arrive(there, "bo")
    link(there).cut = True

    receipt = await here.send_to_user("bo", "chat", 1, durable=True)
    assert receipt.stored
    assert not receipt.delivered
    link(there).heal()

    assert await bo.heard("chat")


# Presence


async def test_presence_is_of_all_nodes(anywhere: Pair) -> None:
    here, there = anywhere
    watcher, seen = open_connection(here, "al")
    say(watcher, "subscribe", {"channel": "room:1"})
    await seen.heard("subscribed")
    connection, transport = open_connection(there, "bo")
    say(connection, "subscribe", {"channel": "room:1"})
    await transport.heard("subscribed")

    joined = await seen.heard("presence_join")
    assert "bo" in [member["userId"] for member in joined["payload"]["members"]] or await seen.heard("presence_join", 2)
    await until(lambda: here.node.presence.count("room:1") == 2)
    members = await here.presence("room:1")
    assert [(member.user_id, len(member.connection_ids)) for member in members] == [("al", 1), ("bo", 1)]
    connection.close()
    left = await seen.heard("presence_leave")
    assert [member["userId"] for member in left["payload"]["members"]] == ["bo"]


async def test_a_node_that_comes_later_is_told_who_is_there(every: Nodes) -> None:
    here = await every.start()
    await here.subscribe(open_connection(here, "al")[0], "room:1")
    there = await every.start()

    await until(lambda: there.node.presence.count("room:1") == 1)


async def test_a_node_that_stops_takes_its_members_away(anywhere: Pair) -> None:
    here, there = anywhere
    await there.subscribe(open_connection(there, "bo")[0], "room:1")
    await until(lambda: here.node.presence.count("room:1") == 1)

    await there.shutdown()

    await until(lambda: here.node.presence.count("room:1") == 0)
    assert here.node.cluster.peers == []


async def test_a_node_that_dies_leaves_no_ghosts_and_one_that_wakes_is_back(pair: Pair) -> None:
    here, there = pair
    await there.subscribe(open_connection(there, "bo")[0], "room:1")
    await until(lambda: here.node.presence.count("room:1") == 1)
    link(there).cut = True

    for seconds in range(1, round(presence_module.TTL) + 2):
        here.node.cluster.beat(monotonic() + seconds)

    assert here.node.presence.count("room:1") == 0
    assert here.node.cluster.peers == []
    link(there).heal()
    await until(lambda: here.node.presence.count("room:1") == 1)
    assert here.node.cluster.peers == [there.node.cluster.id]


async def test_a_node_that_stood_still_believes_the_others_and_asks_them(pair: Pair) -> None:
    here, there = pair
    await there.subscribe(open_connection(there, "bo")[0], "room:1")
    await until(lambda: here.node.presence.count("room:1") == 1)
    link(here).cut = True
    await there.subscribe(open_connection(there, "cy")[0], "room:1")
    link(here).cut = False

    here.node.cluster.beat(monotonic() + 60.0)

    assert here.node.presence.count("room:1") == 1
    await until(lambda: here.node.presence.count("room:1") == 2)


async def test_a_delta_that_was_lost_is_made_good(pair: Pair) -> None:
    here, there = pair
    link(here).cut = True
    await there.subscribe(open_connection(there, "bo")[0], "room:1")
    said = link(there).said
    await until(lambda: link(there).said > said)
    link(here).cut = False

    await there.subscribe(open_connection(there, "cy")[0], "room:1")

    await until(lambda: here.node.presence.count("room:1") == 2)


async def test_idle_presence_costs_a_sign_of_life_and_no_more(pair: Pair) -> None:
    here, there = pair
    for n in range(50):
        await there.subscribe(open_connection(there, f"user {n}")[0], "room:1")
    await until(lambda: here.node.presence.count("room:1") == 50)
    there.node.cluster.beat(now := monotonic() + cluster_module.PULSE)
    await until(lambda: not there.node.cluster._saying)
    said = link(there).said

    for n in range(1, 41):
        there.node.cluster.beat(now + n * 0.25)
    await until(lambda: not there.node.cluster._saying)

    assert link(there).said - said == 10 / cluster_module.PULSE


# What is wrong


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91\xa7Unknown", b"\x92\xa5Count\xa2bo", b'{"json":1}'])
async def test_what_no_node_says_is_dropped(pair: Pair, data: bytes) -> None:
    here, there = pair
    bo = await arrive(here, "bo")

    await link(there).tell("nodes", data)

    assert (await there.send_to_user("bo", "chat")).delivered
    assert await bo.heard("chat")


async def test_without_the_broker_who_is_here_is_still_reached(pair: Pair) -> None:
    here, _ = pair
    bo = await arrive(here, "bo")
    link(here).cut = True

    assert (await here.send_to_user("bo", "chat")).connections == 1
    assert (await here.broadcast("news")).delivered
    assert await bo.heard("news")
    assert await here.user_connection_count("bo") == 1


async def test_a_node_that_left_and_came_back_at_once_is_asked_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Any] = []
    cluster = pair[0].node.cluster
    monkeypatch.setattr(cluster, "say", lambda topic, each: said.append(each))

    for each in (Alive("newcomer", 0, 0), Bye("newcomer"), Alive("newcomer", 0, 0)):
        for data in encode(each, "newcomer"):
            cluster.hear(data)

    assert said == [Want(cluster.id), Want(cluster.id)]
