from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from hubbub import Hub, Limits, Timeouts
from tests.fakes import RecordingTransport, make_hub, open_connection, say, tick

# --- The types every hub understands ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ('{"type":"ping"}', [{"type": "pong"}]),
        ('{"type":"ping","id":"7"}', [{"type": "pong", "id": "7"}]),
        ('{"type":"ping","payload":{"ignored":1}}', [{"type": "pong"}]),
        (
            '{"type":"echo","payload":{"a": [1.0, "\\u00fc"]}}',
            [{"type": "echo_response", "payload": {"a": [1.0, "ü"]}}],
        ),
        ('{"type":"echo","id":"7"}', [{"type": "echo_response", "payload": None, "id": "7"}]),
        ('{"type":"echo","payload":null}', [{"type": "echo_response", "payload": None}]),
        ('{"type":"subscribe","payload":{"channel":"b"}}', [{"type": "subscribed", "payload": {"channel": "b"}}]),
        ('{"type":"subscribe","payload":{"channel":"a"}}', [{"type": "subscribed", "payload": {"channel": "a"}}]),
        ('{"type":"unsubscribe","payload":{"channel":"a"}}', [{"type": "unsubscribed", "payload": {"channel": "a"}}]),
        ('{"type":"unsubscribe","payload":{"channel":"b"}}', [{"type": "unsubscribed", "payload": {"channel": "b"}}]),
        ('{"type":"response","id":"7","payload":1}', []),
        ('{"type":"response"}', []),
        ('{"type":"error","payload":{"code":"x"}}', []),
        (
            '{"type":"publish","payload":{"channel":"a","event":"x","data":{"snake_case":1}},"id":"7"}',
            [
                {"type": "message", "payload": {"channel": "a", "event": "x", "data": {"snake_case": 1}}},
                {"type": "published", "payload": {"channel": "a"}, "id": "7"},
            ],
        ),
        (
            '{"type":"publish","payload":{"channel":"a"}}',
            [
                {"type": "message", "payload": {"channel": "a", "data": None}},
                {"type": "published", "payload": {"channel": "a"}},
            ],
        ),
    ],
)
async def test_a_built_in_type(hub: Hub, text: str, answers: list[Any]) -> None:
    connection, transport = open_connection(hub)
    connection.subscribe("a")
    connection.receive_text(text.encode())
    await tick(3)
    assert transport.messages == answers


async def test_an_echo_is_not_rewritten(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    transport.forget()
    connection.receive_text(b'{"type":"echo","payload":{ "a" : 1.50, "b":12345678901234567890123 }}')
    assert b'{ "a" : 1.50, "b":12345678901234567890123 }' in transport.writes[0]


@pytest.mark.parametrize(
    ("type", "payload", "code", "field"),
    [
        ("subscribe", {"channel": "a*"}, "bad_channel", "channel"),
        ("subscribe", {"channel": ""}, "bad_channel", "channel"),
        ("subscribe", {"channel": 5}, "invalid_payload", "channel"),
        ("subscribe", {}, "invalid_payload", "channel"),
        ("subscribe", ..., "invalid_payload", "payload"),
        ("subscribe", {"channel": "third"}, "channel_limit", "channel"),
        ("publish", {"channel": "other", "data": 1}, "forbidden", "channel"),
        ("publish", {"channel": "a*", "data": 1}, "bad_channel", "channel"),
        ("publish", {"data": 1}, "invalid_payload", "channel"),
        ("publish", {"channel": "one", "event": 5}, "invalid_payload", "event"),
    ],
)
async def test_a_built_in_type_says_what_is_wrong(type: str, payload: Any, code: str, field: str) -> None:
    async with make_hub(limits=Limits(channels=2)).running() as hub:
        connection, transport = open_connection(hub)
        connection.subscribe("one")
        connection.subscribe("two")
        say(connection, type, payload, id="7")
        await tick(3)
        (error,) = transport.messages
        assert (error["type"], error["id"]) == ("error", "7")
        assert (error["payload"]["code"], error["payload"]["field"]) == (code, field)
        assert connection.channels == ["one", "two"]


async def test_who_publishes_hears_it_as_the_others_do(hub: Hub) -> None:
    clients = [open_connection(hub) for _ in range(3)]
    for connection, _ in clients:
        say(connection, "subscribe", {"channel": "room"})
    await tick(3)
    for number, (connection, _) in enumerate(clients):
        say(connection, "publish", {"channel": "room", "event": "said", "data": number})
    await tick(4)
    for _, transport in clients:
        assert [payload["data"] for payload in transport.payloads("message")] == [0, 1, 2]


# --- The life of its connections -------------------------------------------------------------------------------------


async def test_the_welcome_tells_the_limits() -> None:
    hub = make_hub(limits=Limits(message_size=1000), timeouts=Timeouts(ping=2.5))
    async with hub.running():
        _, transport = open_connection(hub)
        welcome = json.loads(transport.writes[0][4 if transport.writes[0][1] == 126 else 2 :])
        assert (welcome["payload"]["maxMessage"], welcome["payload"]["pingInterval"]) == (1000, 2500)


async def test_nothing_is_left_of_a_connection(hub: Hub) -> None:
    connection, _ = open_connection(hub, "ann")
    connection.subscribe("news")
    connection.lost(1006, "")
    node = hub.node
    assert len(node.registry) == len(node.channels) == len(node.delivery.everyone.members) == 0
    assert node.registry.users() == []
    assert not node._open


async def test_a_connection_that_comes_while_the_hub_stops_is_turned_away() -> None:
    hub = make_hub()
    hub.start()
    _, first = open_connection(hub, transport=RecordingTransport(polite=False))
    stopping = asyncio.create_task(hub.shutdown())
    await tick()
    late, transport = open_connection(hub)
    assert transport.closes == [(1001, "the server stops")]
    assert transport.messages == []
    assert hub.connection_count == 0
    first.receiver.lost(1001, "")
    await stopping
    assert late.state.name == "CLOSED"


async def test_how_late_the_loop_is_shows(hub: Hub) -> None:
    assert hub.node.lag == 0
    hub.node.lag = 0.5
    assert (await hub.stats())["loopLagMs"] == 500.0


async def test_a_second_start_keeps_the_first(hub: Hub) -> None:
    connection, _ = open_connection(hub)
    loop = hub.node.loop
    hub.start()
    assert hub.node.loop is loop
    assert connection.is_open


async def test_a_stopped_hub_leaves_no_timer() -> None:
    async with make_hub(timeouts=Timeouts(ping=0.001, pong=0.001)).running():
        pass
    await asyncio.sleep(0.005)  # a timer that was left would fail now, and the loop tell of it
