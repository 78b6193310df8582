"""What every door does: the same messages, the same order, the same errors, under five servers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest

from tests.contract.app import AUTH, LIMITS, make
from tests.serving import RawClient, RunningServer, fetch, granian, running

DOORS: dict[str, Any] = {
    "native-uvloop": lambda: running(make(), "native", "uvloop"),
    "native-asyncio": lambda: running(make(), "native", "asyncio"),
    "uvicorn": lambda: running(make(), "asgi", "uvloop"),
    "hypercorn": lambda: running(make(), "hypercorn", "asyncio"),
    "granian": lambda: granian("tests.contract.app:app"),
}
TEXTS = ["", "plain", "Grüße, 世界", '🙂 \u2028 \\ " \n', "a" * 3000]


@pytest.fixture(scope="module", params=DOORS)
def server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    with DOORS[request.param]() as found:
        yield found


# --- The beginning ---------------------------------------------------------------------------------------------------


async def test_the_welcome_comes_first(server: RunningServer) -> None:
    async with RawClient.connect(server) as client:
        welcome = await client.recv_json()
    assert welcome["type"] == "welcome"
    assert abs(welcome["timestamp"] - time.time() * 1000) < 5000
    assert len(welcome["payload"].pop("connectionId")) >= 16
    assert welcome["payload"] == {
        "protocol": 1,
        "message": "Connected.",
        "pingInterval": 30_000,
        "maxMessage": LIMITS.message_size,
    }


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("hubbub.v1", "hubbub.v1"),
        ("chat, hubbub.v1", "hubbub.v1"),
        ("chat", None),
        ("", None),
    ],
    ids=["ours", "ours among others", "another", "none"],
)
async def test_our_subprotocol_is_answered_when_offered(server: RunningServer, offer: str, answer: str | None) -> None:
    async with RawClient.connect(server, headers=[("Sec-WebSocket-Protocol", offer)]) as client:
        assert client.answer.header("sec-websocket-protocol") == answer


async def test_connect_hooks_run_in_order_and_messages_wait_for_them(server: RunningServer) -> None:
    async with RawClient.join(server, "/hooks", headers=[("User-Agent", "a test")]) as client:
        client.send_json("early", 1)
        assert await client.recv_json("first") == {"agent": "a test"}
        assert await client.recv_json("second") == {"client": "127.0.0.1", "path": "/hooks"}
        assert await client.recv_json("third") == {"open": True, "state": 1, "id": client.id}
        assert await client.recv_json("you said") == {"type": "early", "payload": 1, "id": None}


async def test_http_gets_a_hint_and_the_test_page(server: RunningServer) -> None:
    hint = await fetch(server, "/ws")
    assert (hint.status, hint.header("upgrade")) == (426, "websocket")
    page = await fetch(server, "/ws/client")
    assert (page.status, page.header("content-type")) == (200, "text/html; charset=utf-8")
    assert b"<html" in page.body
    assert (await fetch(server, "/ws/client.js")).status == 200
    assert (await fetch(server, "/ws/other")).status == 404


# --- Signing in ------------------------------------------------------------------------------------------------------


def token(**claims: Any) -> str:
    return jwt.encode({"sub": "ada", "exp": int(time.time()) + 60, **claims}, str(AUTH.secret), "HS256")


async def test_a_token_of_the_handshake_signs_in_right_behind_the_welcome(server: RunningServer) -> None:
    text = token()
    for header in (("Authorization", f"Bearer {text}"), ("Sec-WebSocket-Protocol", f"hubbub.v1, bearer.{text}")):
        async with RawClient.join(server, headers=[header]) as client:
            answer = await client.recv_json("authenticated")
            assert (answer["userId"], answer["connectionId"]) == ("ada", client.id)
            assert (await client.ask("members", ...))["payload"] == "ada"
            assert text not in repr(client.answer)


@pytest.mark.parametrize(("claims", "code"), [({"exp": 1}, 4001), ({"aud": "them"}, 4501)], ids=["expired", "bad"])
async def test_a_bad_token_of_the_handshake_is_a_close_and_no_welcome(
    server: RunningServer, claims: dict[str, Any], code: int
) -> None:
    async with RawClient.connect(server, headers=[("Authorization", f"Bearer {token(**claims)}")]) as client:
        frame = await client.recv_frame()
        assert (frame.opcode, frame.code) == (8, code)
        assert frame.reason


async def test_a_token_in_a_message_signs_in_or_ends_it(server: RunningServer) -> None:
    async with RawClient.join(server) as client:
        assert (await client.ask("members", ...))["payload"]["code"] == "unauthorized"
        assert (await client.ask("authenticate", {"token": token()}))["payload"]["userId"] == "ada"
        assert (await client.ask("members", ...))["payload"] == "ada"
        assert (await client.ask("authenticate", {"token": "junk"}, id="7"))["id"] == "7"
        await client.expect_close(4501)


# --- Requests and replies --------------------------------------------------------------------------------------------


async def test_ping_gets_pong(server: RunningServer) -> None:
    async with RawClient.join(server) as client:
        assert (await client.ask("ping", ..., id="7"))["id"] == "7"
        pong = await client.ask("ping", ...)
        assert (pong["type"], "id" in pong, "payload" in pong) == ("pong", False, False)


@pytest.mark.parametrize(
    "payload",
    [None, True, 0, -1.5, 2**62, "text", [], {}, {"a": [1, {"b": None}]}, *TEXTS],
    ids=lambda payload: json.dumps(payload)[:20],
)
async def test_echo_gives_back_any_json(server: RunningServer, payload: Any) -> None:
    async with RawClient.join(server) as client:
        answer = await client.ask("echo", payload, id="e")
        assert (answer["type"], answer["payload"], answer["id"]) == ("echo_response", payload, "e")


@pytest.mark.parametrize("kind", ["plain", "coroutine", "threaded"])
async def test_handlers_get_their_type(server: RunningServer, kind: str) -> None:
    async with RawClient.join(server) as client:
        answer = await client.ask(kind, {"itemName": "tea", "unknown": 1}, id="1")
        assert (answer["type"], answer["id"]) == ("made", "1")
        assert answer["payload"] == {"by": kind, "order": {"itemName": "tea", "count": 1}}


async def test_replies_come_in_the_order_of_the_requests(server: RunningServer) -> None:
    async with RawClient.join(server) as client:
        kinds = ["plain", "coroutine", "threaded", "plain", "coroutine"] * 8
        for number, kind in enumerate(kinds):
            client.send_json(kind, {"itemName": "x", "count": number})
        answers = [await client.recv_json("made") for _ in kinds]
        assert [(each["by"], each["order"]["count"]) for each in answers] == [*zip(kinds, range(40), strict=True)]


async def test_fragments_are_one_message(server: RunningServer) -> None:
    async with RawClient.join(server) as client:
        client.send_frame(1, b'{"type":"ec', fin=False)
        client.send_frame(9, b"ping")
        client.send_frame(0, b'ho","payload":"gr\xc3', fin=False)
        client.send_frame(0, b'\xbc\xc3\x9fe"}')
        frames = [await client.recv_frame() for _ in range(2)]
        assert (10, b"ping") in [(each.opcode, each.payload) for each in frames]
        assert [json.loads(each.payload)["payload"] for each in frames if each.opcode == 1] == ["grüße"]


async def test_the_server_asks_and_the_client_answers(server: RunningServer) -> None:
    async with RawClient.join(server) as client:
        question = await client.ask("ask", {"of": 1}, id="mine")
        assert (question["type"], question["payload"]) == ("request", {"type": "question", "payload": {"of": 1}})
        client.send_json("response", {"itemName": "tea", "count": 3}, id=question["id"])
        answer = await client.recv_json()
        assert (answer["type"], answer["id"]) == ("asked", "mine")
        assert answer["payload"] == {"itemName": "tea", "count": 3}


@pytest.mark.parametrize(
    ("reply", "code"),
    [(("error", {"code": "no"}), "refused"), (("response", {"count": 3}), "invalid_payload")],
    ids=["an error", "another type"],
)
async def test_an_answer_can_be_wrong(server: RunningServer, reply: tuple[str, Any], code: str) -> None:
    async with RawClient.join(server) as client:
        question = await client.ask("ask", 1)
        client.send_json(*reply, id=question["id"])
        assert (await client.recv_json("error"))["code"] == code


async def test_an_answer_can_be_missing(server: RunningServer) -> None:
    async with RawClient.join(server) as client:
        await client.ask("ask", 1)
        assert await client.recv_json("asked") == "no answer"


# --- Errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "field", "id"),
    [
        ('{"type":"nobody","id":"1"}', "unknown_type", "type", "1"),
        ('{"payload":1}', "unknown_type", "type", None),
        ('{"type":7}', "unknown_type", "type", None),
        ("[1]", "bad_envelope", None, None),
        ('{"type":"ping","id":1}', "bad_envelope", "id", None),
        ("not json", "bad_json", None, None),
        ("[" * 40 + "]" * 40, "bad_json", None, None),
        ('{"type":"plain","payload":{"itemName":"x","count":"many"},"id":"2"}', "invalid_payload", "count", "2"),
        ('{"type":"coroutine","payload":{}}', "invalid_payload", "itemName", None),
        ('{"type":"threaded"}', "invalid_payload", "payload", None),
        ('{"type":"members"}', "unauthorized", None, None),
        ('{"type":"refuse","id":"3"}', "teapot", "drink", "3"),
        ('{"type":"subscribe","payload":{"channel":""}}', "bad_channel", "channel", None),
        ('{"type":"publish","payload":{"channel":"foreign"}}', "forbidden", "channel", None),
    ],
)
async def test_mistakes_are_answered_and_the_connection_stays(
    server: RunningServer, text: str, code: str, field: str | None, id: str | None
) -> None:
    async with RawClient.join(server) as client:
        client.send_text(text)
        error = await client.recv_json()
        assert (error["type"], error.get("id")) == ("error", id)
        assert (error["payload"]["code"], error["payload"].get("field")) == (code, field)
        assert (await client.ask("ping", ...))["type"] == "pong"


async def test_five_texts_that_are_not_json_are_too_many(server: RunningServer) -> None:
    async with RawClient.join(server) as client:
        for _ in range(5):
            client.send_text("{")
        codes = [(await client.recv_json("error"))["code"] for _ in range(5)]
        assert codes == ["bad_json"] * 5
        await client.expect_close(4500, "too many messages that are not JSON")


@pytest.mark.parametrize("type", ["break", "break later"])
async def test_a_handler_that_raises_is_an_internal_error_with_a_reference(server: RunningServer, type: str) -> None:
    async with RawClient.join(server) as client:
        error = await client.ask(type, ..., id="b")
        assert (error["type"], error["id"], error["payload"]["code"]) == ("error", "b", "internal")
        assert "secret" not in json.dumps(error)
        reference = error["payload"]["message"].rstrip(".").split()[-1]
        (line,) = (await client.ask("log", reference))["payload"]
        assert "ValueError: a secret of the server" in line


async def test_a_handler_that_hangs_is_stopped(server: RunningServer) -> None:
    async with RawClient.join(server) as client:
        error = await client.ask("hang", ..., id="h")
        assert (error["type"], error["id"], error["payload"]["code"]) == ("error", "h", "timeout")
        assert (await client.ask("ping", ...))["type"] == "pong"


async def test_error_hooks_hear_of_it(server: RunningServer) -> None:
    async with RawClient.join(server, "/hooks") as client:
        for type in ("first", "second", "third"):
            await client.recv_json(type)
        client.send_json("break")
        assert await client.recv_json("oops") == "KeyError"
        assert (await client.recv_json("error"))["code"] == "internal"


# --- Users, channels, broadcasts -------------------------------------------------------------------------------------


async def test_channels(server: RunningServer) -> None:
    async with RawClient.join(server) as alice, RawClient.join(server) as bob:
        for client in (alice, bob):
            answer = await client.ask("subscribe", {"channel": "room"}, id="s")
            assert (answer["type"], answer["payload"], answer["id"]) == ("subscribed", {"channel": "room"}, "s")
        alice.send_json("publish", {"channel": "room", "event": "said", "data": {"n": 1}}, id="p")
        expected = {"channel": "room", "event": "said", "data": {"n": 1}}
        assert await bob.recv_json("message") == expected
        received = {each["type"]: each for each in [await alice.recv_json(), await alice.recv_json()]}
        assert received["message"]["payload"] == expected
        assert (received["published"]["payload"], received["published"]["id"]) == ({"channel": "room"}, "p")

        answer = await bob.ask("unsubscribe", {"channel": "room"})
        assert (answer["type"], answer["payload"]) == ("unsubscribed", {"channel": "room"})
        await alice.ask("from a thread", "room")
        assert (await bob.ask("ping", ...))["type"] == "pong"


async def test_a_thread_publishes(server: RunningServer) -> None:
    async with RawClient.join(server) as client:
        await client.ask("subscribe", {"channel": "threads"})
        client.send_json("from a thread", "threads")
        assert await client.recv_json("message") == {"channel": "threads", "event": "sync", "data": None}
        assert await client.recv_json("receipt") == {"connections": 1}


async def test_channels_have_a_limit(server: RunningServer) -> None:
    async with RawClient.join(server) as client:
        for number in range(LIMITS.channels):
            assert (await client.ask("subscribe", {"channel": f"c{number}"}))["type"] == "subscribed"
        assert (await client.ask("subscribe", {"channel": "c9"}))["payload"]["code"] == "channel_limit"


async def test_a_publication_follows_what_was_sent_before_it(server: RunningServer) -> None:
    async with RawClient.join(server) as client:
        client.send_json("subscribe", {"channel": "order"})
        for number in range(50):
            client.send_json("publish", {"channel": "order", "data": number})
            client.send_json("echo", number)
        assert await client.recv_json("subscribed") == {"channel": "order"}
        received = [await client.recv_json() for _ in range(150)]
        kinds = [each["type"] for each in received]
        assert kinds == ["message", "published", "echo_response"] * 50
        assert [each["payload"] for each in received[2::3]] == [*range(50)]
        assert [each["payload"]["data"] for each in received[::3]] == [*range(50)]


async def test_a_broadcast_leaves_one_out(server: RunningServer) -> None:
    async with RawClient.join(server) as alice, RawClient.join(server) as bob, RawClient.join(server) as carol:
        receipt = await alice.ask("to others", "hear ye")
        assert receipt["payload"] == {"connections": 2}
        assert await bob.recv_json("news") == "hear ye"
        assert await carol.recv_json("news") == "hear ye"
        assert (await alice.ask("ping", ...))["type"] == "pong"


async def test_a_user_is_reached_on_every_connection(server: RunningServer) -> None:
    async with RawClient.join(server) as alice, RawClient.join(server) as phone, RawClient.join(server) as laptop:
        assert (await alice.ask("to user", "bob"))["payload"] == {"delivered": False, "connections": 0}
        for client in (phone, laptop):
            await client.ask("sign in", "bob")
        assert (await alice.ask("to user", "bob"))["payload"] == {"delivered": True, "connections": 2}
        for client in (phone, laptop):
            assert await client.recv_json("note") == {"to": "bob"}
        assert (await phone.ask("members", ...))["payload"] == "bob"

        await alice.ask("subscribe", {"channel": "closes"})
        await phone.leave()
        assert (await alice.recv_json("message"))["data"]["id"] == phone.id
        assert (await alice.ask("to user", "bob"))["payload"] == {"delivered": True, "connections": 1}
        await laptop.recv_json("note")
        await alice.ask("unsubscribe", {"channel": "closes"})
        assert (await alice.ask("sign out everywhere", "bob"))["payload"] == 1
        await laptop.expect_close(4501, "signed out")


async def test_one_connection_is_reached_by_its_id(server: RunningServer) -> None:
    async with RawClient.join(server) as alice, RawClient.join(server) as bob:
        assert (await alice.ask("to connection", bob.id))["payload"] == {"delivered": True}
        assert await bob.recv_json("note") == "directly"
        assert (await alice.ask("to connection", "nobody"))["payload"] == {"delivered": False}


async def test_metadata_lives_with_the_connection(server: RunningServer) -> None:
    async with RawClient.join(server) as alice, RawClient.join(server) as bob:
        assert [(await alice.ask("count", ...))["payload"] for _ in range(3)] == [1, 2, 3]
        assert (await bob.ask("count", ...))["payload"] == 1


# --- Limits and binary -----------------------------------------------------------------------------------------------


def echo_of(size: int) -> str:
    """An `echo` of exactly this many bytes."""
    text = '{"type":"echo","payload":""}'
    return text.replace('""', '"' + "x" * (size - len(text)) + '"')


async def test_a_message_at_the_limit_is_taken(server: RunningServer) -> None:
    async with RawClient.join(server) as client:
        client.send_text(echo_of(LIMITS.message_size))
        assert len(await client.recv_json("echo_response")) > 4000


async def test_a_message_over_the_limit_closes(server: RunningServer) -> None:
    async with RawClient.join(server) as client:
        client.send_text(echo_of(LIMITS.message_size + 1))
        await client.expect_close(1009, f"message over {LIMITS.message_size} bytes")


async def test_binary_closes_where_nobody_wants_it(server: RunningServer) -> None:
    async with RawClient.join(server) as client:
        client.send_frame(2, b"\x00\x01")
        await client.expect_close(1003, "text messages only")


async def test_binary_reaches_its_hook_in_order(server: RunningServer) -> None:
    async with RawClient.join(server, "/hooks") as client:
        for type in ("first", "second", "third"):
            await client.recv_json(type)
        client.send_json("one")
        client.send_frame(2, b"\x00\xff")
        client.send_json("two", id="2")
        assert await client.recv_json("you said") == {"type": "one", "payload": None, "id": None}
        assert await client.recv_json("bytes") == [0, 255]
        assert await client.recv_json("you said") == {"type": "two", "payload": None, "id": "2"}


async def test_a_flood_is_held_back_and_nothing_is_lost(server: RunningServer) -> None:
    async with RawClient.join(server) as client:
        for number in range(300):
            client.send_json("coroutine", {"itemName": "x" * 500, "count": number})
        counts = [(await client.recv_json("made"))["order"]["count"] for _ in range(300)]
        assert counts == [*range(300)]


# --- The end ---------------------------------------------------------------------------------------------------------


async def test_the_server_closes_behind_what_it_sent(server: RunningServer) -> None:
    async with RawClient.join(server) as client:
        client.send_json("close me", {"code": 4001, "reason": "schöne Grüße"})
        await client.recv_json("before")
        received = await client.recv_frame()
        assert (received.opcode, received.code, received.reason) == (8, 4001, "schöne Grüße")
        client.send_frame(8, received.payload)
        assert await client.expect_end() == b""


async def test_messages_after_our_goodbye_are_not_handled(server: RunningServer) -> None:
    async with RawClient.join(server) as watcher, RawClient.join(server) as client:
        await watcher.ask("subscribe", {"channel": "closes"})
        client.send_json("close me", {"code": 4001, "reason": ""})
        client.send_json("to others", "too late")
        await client.expect_close(4001)
        assert (await watcher.recv_json())["type"] == "message"


@pytest.mark.parametrize(
    ("goodbye", "code", "reason"),
    [(b"\x03\xe8", 1000, ""), (b"\x03\xe9gone", 1001, "gone"), (b"\x0f\xa1", 4001, ""), (b"", 1005, "")],
    ids=["1000", "1001 with a reason", "4001", "no code"],
)
async def test_close_hooks_hear_the_clients_code(
    server: RunningServer, request: pytest.FixtureRequest, goodbye: bytes, code: int, reason: str
) -> None:
    if "hypercorn" in request.node.name:
        code, reason = 1006, ""  # it tells the app of every end that the client began as of an accident
    elif "granian" in request.node.name:
        reason = ""  # it keeps the reason to itself
    async with RawClient.join(server) as watcher, RawClient.join(server) as client:
        await watcher.ask("subscribe", {"channel": "closes"})
        client.send_frame(8, goodbye)
        assert (await client.recv_close()).payload[:2] == goodbye[:2]
        assert await client.expect_end() == b""
        client.cut()
        closed = (await watcher.recv_json("message"))["data"]
        assert closed == {"id": client.id, "code": code, "reason": reason, "state": 3}


async def test_close_hooks_hear_our_code(server: RunningServer) -> None:
    async with RawClient.join(server) as watcher, RawClient.join(server) as client:
        await watcher.ask("subscribe", {"channel": "closes"})
        client.send_json("close me", {"code": 4006, "reason": "enough"})
        await client.expect_close(4006)
        closed = (await watcher.recv_json("message"))["data"]
        assert (closed["id"], closed["code"], closed["reason"]) == (client.id, 4006, "enough")


async def test_close_hooks_hear_of_a_cut(server: RunningServer) -> None:
    async with RawClient.join(server) as watcher, RawClient.join(server) as client:
        await watcher.ask("subscribe", {"channel": "closes"})
        client.cut()
        closed = (await watcher.recv_json("message"))["data"]
        assert closed["id"] == client.id
        assert closed["code"] in (1005, 1006)


async def test_what_hangs_is_stopped_when_its_client_leaves(server: RunningServer) -> None:
    async with RawClient.join(server) as watcher, RawClient.join(server) as client:
        await watcher.ask("subscribe", {"channel": "closes"})
        client.send_json("hang")
        await client.drain()
        client.cut()
        assert (await watcher.recv_json("message"))["data"]["id"] == client.id


async def test_many_clients_come_and_go(server: RunningServer) -> None:
    async def visit(number: int) -> Any:
        async with RawClient.join(server) as client:
            answer = await client.ask("echo", number)
            await client.leave()
            return answer["payload"]

    assert await asyncio.gather(*map(visit, range(50))) == [*range(50)]
