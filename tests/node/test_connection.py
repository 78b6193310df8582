from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from hubbub import (
    CloseCode,
    Connection,
    ConnectionClosed,
    ConnectionState,
    Handshake,
    Hub,
    Limits,
    RequestError,
    RequestTimeout,
    UsageError,
)
from tests.fakes import SCOPE, ManualClock, RecordingTransport, make_hub, open_connection, read_messages, say, tick


class Answer(msgspec.Struct):
    user_name: str


@dataclass
class Point:
    x_axis: int


class Model(BaseModel):
    name: str


# --- Who it is -------------------------------------------------------------------------------------------------------


def test_a_new_connection_is_nobody(hub: Hub) -> None:
    connection = Connection(hub.node)
    assert (connection.user_id, connection.state, connection.is_open) == (None, ConnectionState.CONNECTING, False)
    assert len({Connection(hub.node).id for _ in range(100)}) == 100
    assert len(connection.id) >= 16
    assert repr(connection) == f"<Connection {connection.id} user=None CONNECTING>"


async def test_it_opens_with_a_welcome(hub: Hub) -> None:
    transport = RecordingTransport()
    connection = transport.receiver = Connection(hub.node)
    connection.accept(transport, Handshake(SCOPE))
    assert list(read_messages(transport.writes[0])) == [
        {
            "type": "welcome",
            "payload": {
                "protocol": 1,
                "connectionId": connection.id,
                "message": "Connected.",
                "pingInterval": 30_000,
                "maxMessage": 65_536,
            },
        }
    ]
    assert connection.is_open
    assert hub.local.connections() == [connection]


async def test_what_is_said_at_the_beginning_is_one_write(hub: Hub) -> None:
    @hub.on_connect
    def greet(conn: Connection) -> None:
        conn.send("hello")

    transport = RecordingTransport()
    connection = transport.receiver = Connection(hub.node)
    head = transport.form.encode(b'{"type":"head"}')
    connection.accept(transport, Handshake(SCOPE), head)
    (data,) = transport.writes
    assert [message["type"] for message in read_messages(data)] == ["head", "welcome", "hello"]


async def test_it_belongs_to_the_user_it_is_given(hub: Hub) -> None:
    connection, _ = open_connection(hub)
    for user in ("ann", "bob", None):
        connection.identify(user)
        assert connection.user_id == user
        assert hub.local.user_ids() == ([] if user is None else [user])
    connection.identify("ann")
    assert f"user='ann' {connection.state.name}" in repr(connection)


async def test_metadata_is_a_dict_of_its_own(hub: Hub) -> None:
    (first, _), (second, _) = open_connection(hub), open_connection(hub)
    first.metadata["tab"] = 1
    assert first.metadata == {"tab": 1}
    assert second.metadata == {}


async def test_last_activity_is_when_something_came(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock.install(monkeypatch)
    connection, _ = open_connection(hub)
    clock.now += 60
    assert connection.last_activity == pytest.approx(time.time() - 60, abs=1)
    connection.touch()
    assert connection.last_activity == pytest.approx(time.time(), abs=1)


@pytest.mark.parametrize(
    "sign",
    [
        pytest.param(lambda conn: conn.receive_text(b'{"type":"ping"}'), id="text"),
        pytest.param(lambda conn: conn.receive_text(b"no json"), id="no JSON"),
        pytest.param(lambda conn: conn.touch(), id="bytes"),
    ],
)
async def test_any_sign_of_life_counts(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, sign: Callable[[Connection], None]
) -> None:
    clock = ManualClock.install(monkeypatch)
    connection, _ = open_connection(hub)
    assert connection.is_alive
    clock.now += 1
    connection.pinged = clock.now
    assert not connection.is_alive
    clock.now += 1
    sign(connection)
    assert connection.is_alive


# --- What it is sent -------------------------------------------------------------------------------------------------


async def test_a_message_is_queued_at_once(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    before = time.time() * 1000
    assert connection.send("greeting", {"to": "Änn"}, id="7")
    assert transport.messages == [{"type": "greeting", "payload": {"to": "Änn"}, "id": "7"}]
    sent = json.loads(transport.writes[-1][2:])["timestamp"]
    assert before - 1 <= sent <= time.time() * 1000


async def test_nothing_is_sent_once_it_closes(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    connection.close()
    assert not connection.send("late")
    await tick()
    assert connection.state.name == "CLOSED"
    assert not connection.send("later")
    assert transport.messages == []


async def test_after_the_hub_stopped_nothing_is_sent(hub: Hub) -> None:
    connection, _ = open_connection(hub)
    await hub.shutdown()
    assert not connection.send("late")


async def test_what_has_no_json_form_is_an_error_here_and_leaves_the_connection(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    with pytest.raises(TypeError, match="object has no JSON form"):
        connection.send("bad", object())
    assert connection.send("good")
    assert transport.types == ["good"]


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda conn: conn.send("a"), id="send"),
        pytest.param(lambda conn: conn.close(), id="close"),
        pytest.param(lambda conn: conn.subscribe("a"), id="subscribe"),
        pytest.param(lambda conn: conn.unsubscribe("a"), id="unsubscribe"),
        pytest.param(lambda conn: conn.identify("ann"), id="identify"),
    ],
)
async def test_another_thread_is_told_the_way_out(hub: Hub, act: Callable[[Connection], Any]) -> None:
    connection, transport = open_connection(hub)
    with pytest.raises(UsageError, match=r"hub\.sync"):
        await asyncio.to_thread(act, connection)
    assert connection.is_open
    assert (transport.messages, connection.user_id) == ([], None)


async def test_an_error_is_a_message(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    connection.send_error(RequestError("no", "Not now."))
    connection.send_error(RequestError("no", "Not that.", "a.b"), "7")
    assert transport.messages == [
        {"type": "error", "payload": {"code": "no", "message": "Not now."}},
        {"type": "error", "payload": {"code": "no", "message": "Not that.", "field": "a.b"}, "id": "7"},
    ]


# --- Its channels ----------------------------------------------------------------------------------------------------


async def test_it_gets_what_is_published_on_its_channels(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    assert connection.subscribe("news")
    assert not connection.subscribe("news")
    assert connection.channels == ["news"]
    await hub.publish("news", "hello", 1)
    await hub.publish("sport", "hello", 2)
    assert connection.unsubscribe("news")
    assert not connection.unsubscribe("news")
    await hub.publish("news", "hello", 3)
    await tick()
    assert transport.payloads("message") == [{"channel": "news", "event": "hello", "data": 1}]


async def test_it_has_so_many_channels_and_no_more() -> None:
    async with make_hub(limits=Limits(channels=2)).running() as hub:
        connection, _ = open_connection(hub)
        connection.subscribe("a")
        connection.subscribe("b")
        assert not connection.subscribe("a")
        with pytest.raises(RequestError, match="may have 2 channels") as caught:
            connection.subscribe("c")
        assert (caught.value.code, caught.value.field) == ("channel_limit", "channel")
        connection.unsubscribe("a")
        assert connection.subscribe("c")


async def test_a_bad_name_is_refused(hub: Hub) -> None:
    connection, _ = open_connection(hub)
    with pytest.raises(RequestError, match="bad_channel"):
        connection.subscribe("a*")
    assert connection.channels == []


async def test_it_leaves_its_channels_with_the_goodbye(hub: Hub) -> None:
    connection, _ = open_connection(hub)
    connection.subscribe("news")
    connection.close()
    assert connection.channels == []
    assert not connection.subscribe("news")
    assert not connection.unsubscribe("news")
    assert hub.local.subscribers("news") == []
    assert (await hub.publish("news", "x")).connections == 0


# --- Its end ---------------------------------------------------------------------------------------------------------


async def test_a_goodbye_comes_behind_what_was_sent(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    connection.subscribe("news")
    await hub.publish("news", "x")
    connection.send("last")
    connection.close(4500, "enough")
    connection.close(1000, "again")
    assert transport.types == ["message", "last"]
    assert transport.closes == [(4500, "enough")]
    assert connection.state.name == "CLOSING"
    await tick()
    assert connection.state.name == "CLOSED"


@pytest.mark.parametrize("code", [-1, 0, 42, 999, 1004, 2000, 5000, 70_000])
async def test_a_code_that_cannot_be_sent_is_refused(hub: Hub, code: int) -> None:
    connection, transport = open_connection(hub)
    with pytest.raises(UsageError, match=f"{code} cannot be sent"):
        connection.close(code)
    assert connection.is_open
    assert transport.closes == []


async def test_a_goodbye_waits_until_the_client_reads(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    transport.pause()
    connection.send("last")
    connection.close(1001, "bye")
    assert (transport.types, transport.closes) == ([], [])
    transport.take()
    assert (transport.types, transport.closes) == (["last"], [(1001, "bye")])


async def test_a_goodbye_waits_until_the_last_piece_is_taken(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    transport.pause()
    connection.send("last")
    connection.close()
    transport.take(room=1)  # the queue is written, and the socket is full again
    assert (transport.types, transport.closes) == (["last"], [])
    transport.take()
    assert transport.closes == [(1000, "")]


async def test_a_connection_that_never_opened_may_be_closed_and_lost(hub: Hub) -> None:
    closed = list[Connection]()
    hub.on_close(closed.append)
    connection = Connection(hub.node)
    assert not connection.send("early")
    assert not connection.subscribe("early")
    assert not connection.unsubscribe("early")
    connection.close()
    connection.lost(1006, "")
    assert connection.state.name == "CLOSED"
    assert closed == []


@pytest.mark.parametrize(
    ("acts", "told"),
    [
        ([lambda conn: conn.lost(1006, "")], (1006, "")),
        ([lambda conn: conn.close(4501, "ours"), lambda conn: conn.lost(1000, "echoed")], (4501, "ours")),
        ([lambda conn: conn.close_received(1001, "theirs"), lambda conn: conn.lost(1006, "")], (1001, "theirs")),
        (
            [
                lambda conn: conn.close_received(1001, "theirs"),
                lambda conn: conn.close(4501, "ours"),
                lambda conn: conn.lost(1006, ""),
            ],
            (1001, "theirs"),
        ),
        ([lambda conn: conn.lost(1006, ""), lambda conn: conn.lost(1000, "twice")], (1006, "")),
    ],
    ids=["cut", "our goodbye", "their goodbye", "theirs, then ours", "lost twice"],
)
async def test_the_first_reason_counts(
    hub: Hub, acts: list[Callable[[Connection], None]], told: tuple[int, str]
) -> None:
    reasons = list[tuple[int, str]]()

    @hub.on_close
    def keep(conn: Connection, code: int, reason: str) -> None:
        reasons.append((code, reason))

    connection, _ = open_connection(hub, transport=RecordingTransport(polite=False))
    for act in acts:
        act(connection)
    assert reasons == [told]
    assert hub.connection_count == 0


async def test_nothing_is_written_once_the_client_said_goodbye(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    connection.subscribe("news")
    transport.pause()
    connection.send("queued")
    await hub.publish("news", "noted")
    connection.close_received(1000, "")
    transport.take()
    await tick()
    assert transport.messages == []
    assert not connection.send("late")


# --- Asking the client -----------------------------------------------------------------------------------------------


async def ask(hub: Hub, answer: dict[str, Any], **options: Any) -> Any:
    """Ask a client that gives this answer."""
    connection, transport = open_connection(hub)
    asking = asyncio.create_task(connection.request("question", {"n": 1}, **options))
    question = await transport.heard("request")
    assert question["payload"] == {"type": "question", "payload": {"n": 1}}
    connection.receive_text(json.dumps({"type": "response", "id": question["id"]} | answer).encode())
    return await asking


@pytest.mark.parametrize(
    ("payload", "returns", "value"),
    [
        ({"any": [1]}, Any, {"any": [1]}),
        (5, int, 5),
        ({"userName": "ann"}, Answer, Answer("ann")),
        ([{"xAxis": 1}], list[Point], [Point(1)]),
        (None, str | None, None),
        ({"name": "ann"}, Model, Model(name="ann")),
    ],
    ids=["any", "int", "Struct", "dataclasses", "null", "pydantic"],
)
async def test_an_answer_is_given_back_as_wanted(hub: Hub, payload: Any, returns: Any, value: Any) -> None:
    assert await ask(hub, {"payload": payload}, returns=returns) == value


async def test_an_answer_may_be_nothing(hub: Hub) -> None:
    assert await ask(hub, {}) is None


@pytest.mark.parametrize(
    ("answer", "returns", "code", "field"),
    [
        ({"type": "error", "payload": {"code": "no"}}, Any, "refused", None),
        ({"payload": "x"}, int, "invalid_payload", None),
        ({"payload": {}}, Answer, "invalid_payload", "userName"),
        ({}, Answer, "invalid_payload", None),
        ({"payload": {}}, Model, "invalid_payload", "name"),
    ],
    ids=["an error", "another type", "a field missing", "nothing", "pydantic"],
)
async def test_another_answer_is_an_error(
    hub: Hub, answer: dict[str, Any], returns: Any, code: str, field: str | None
) -> None:
    with pytest.raises(RequestError) as caught:
        await ask(hub, answer, returns=returns)
    assert caught.value.code == code
    assert caught.value.field in (field, "payload")


async def test_answers_find_their_question(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    asking = [asyncio.create_task(connection.request("q", number)) for number in range(3)]
    await transport.heard("request", 3)
    for question in reversed(transport.messages):
        say(connection, "response", question["payload"]["payload"] * 10, question["id"])
    assert await asyncio.gather(*asking) == [0, 10, 20]


@pytest.mark.parametrize("timeout", [0, 0.001])
async def test_no_answer_in_time(hub: Hub, timeout: float) -> None:
    connection, transport = open_connection(hub)
    async with asyncio.timeout(1):
        with pytest.raises(RequestTimeout, match="did not answer 'question'"):
            await connection.request("question", timeout=timeout)
    say(connection, "response", "late", transport.messages[0]["id"])
    say(connection, "response", "unasked", "x")
    say(connection, "response", "no id")
    assert transport.types == ["request"]


async def test_a_connection_that_is_closed_cannot_be_asked(hub: Hub) -> None:
    connection, _ = open_connection(hub)
    connection.close()
    with pytest.raises(ConnectionClosed, match="clos"):
        await connection.request("question")


async def test_whoever_waits_learns_that_the_connection_went(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    asking = asyncio.create_task(connection.request("question"))
    await transport.heard("request")
    connection.lost(CloseCode.ABNORMAL, "")
    with pytest.raises(ConnectionClosed, match="closed"):
        await asking


async def test_a_question_that_has_no_json_form_leaves_nothing_behind(hub: Hub) -> None:
    connection, _ = open_connection(hub)
    with pytest.raises(TypeError):
        await connection.request("question", object())
    assert not connection.asking


async def test_what_all_connections_share_keeps_nothing_of_one(hub: Hub) -> None:
    connection, _ = open_connection(hub, "ann")
    with pytest.raises(AttributeError, match=r"use conn\.metadata\['user'\]"):
        connection.state.user = "ann"  # type: ignore[attr-defined]
