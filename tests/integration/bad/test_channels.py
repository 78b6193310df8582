"""J9-J11, A12: names that are none, other people's channels, messages without end, and rights that are taken back."""

from __future__ import annotations

import json
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest

from hubbub.core.limits import Limits
from tests.core.wire import frame
from tests.integration.bad.app import QUICK
from tests.integration.bad.conftest import Target
from tests.integration.bad.test_auth import UNAUTHORIZED, bearer, token
from tests.serving import RawClient

SIZE = Limits().message_size
ZERO = bytes(4)
PING, PONG, TEXT = 9, 10, 1
UNFINISHED = 200
BOTH = pytest.mark.parametrize("door", ["native", "asgi"])

TYPES = ["subscribe", "unsubscribe", "publish", "history", "presence", "cancel"]
NO_NAMES = {
    "empty": "",
    "256 bytes": "x" * 256,
    "256 bytes of 128 letters": "é" * 128,
    "60 KB": "x" * 60_000,
    "NUL": "room:1\0",
    "line feed": "room:1\nSUB x",
    "delete": "room:\x7f",
    "C1 control": "room:\x85",
    "any": "*",
    "any room": "room:*",
    "all below": "room.>",
    "right to left override": "room:\u202e1",
    "right to left mark": "room:1\u200f",
    "zero width space": "room:\u200b1",
    "byte order mark": "\ufeffroom:1",
    "private use": "room:\ue000",
    "not NFC": "room:cafe\u0301",
    "not NFC, a symbol": "room:\u212b",
}
OTHER_NAMES = [
    *("room:", "room:.", "room:..", "room:1.", "room:.1", "room:1.1", "room:../1", "room:1/../1", "room:./1"),
    *("room.1", "room:1:", "room::1", "Room:1", "ROOM:1", "room:1 ", " room:1", "room:%31", "room:١", "room:１"),  # noqa: RUF001  # digits
    *("room:אחת", "room:\\1", "room:1#", "room:$1", "room:'1'", "$SYS.room", "_INBOX.room:1", "__class__"),
]


async def next_message(client: RawClient) -> Any:
    """The next message; pings are answered on the way."""
    while (received := await client.recv_frame()).opcode == PING:
        client.send_frame(PONG, received.payload)
    return json.loads(received.payload)


async def next_of(client: RawClient, type: str) -> Any:
    """The payload of the next message of a type, past the others."""
    while (message := await client.recv_json())["type"] != type:
        pass
    return message.get("payload")


async def nothing_came(client: RawClient) -> None:
    """Whatever the server had said would have come before this."""
    assert (await client.ask("echo", "nothing"))["payload"] == "nothing"


# --- J9: names -------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("name", NO_NAMES.values(), ids=NO_NAMES)
async def test_j9_what_is_no_channel_is_answered_with_bad_channel(target: Target, name: str) -> None:
    channels = (await target.state())["hubs"]["/channels"]["channels"]
    async with RawClient.join(target, "/channels") as client:
        for type in TYPES:
            error = await client.ask(type, {"channel": name, "data": 1}, id="7")
            assert (error["type"], error["id"]) == ("error", "7"), (type, error)
            assert (error["payload"]["code"], error["payload"]["field"]) == ("bad_channel", "channel"), type
            assert len(json.dumps(error)) < 300  # what they sent is not said back
        await nothing_came(client)
        assert (await target.state())["hubs"]["/channels"]["channels"] == channels
        await client.leave()


async def test_j9_half_a_letter_is_no_json(target: Target) -> None:
    async with RawClient.join(target, "/channels") as client:
        client.send_text('{"type":"subscribe","payload":{"channel":"room:\\ud800"}}')
        assert (await client.recv_json("error"))["code"] == "bad_json"
        await client.leave()


@BOTH
async def test_j9_a_name_that_looks_like_another_is_another_channel(target: Target) -> None:
    async with RawClient.join(target, "/channels") as client, RawClient.join(target, "/channels") as other:
        assert (await client.ask("subscribe", {"channel": "room:1"}))["type"] == "subscribed"
        for name in OTHER_NAMES:
            assert (await other.ask("subscribe", {"channel": name}))["payload"]["channel"] == name
            assert (await other.ask("publish", {"channel": name, "data": name}))["payload"]["data"] == name
            assert (await other.recv_json("published"))["channel"] == name
        await nothing_came(client)
        await client.leave()
        await other.leave()


@BOTH
@pytest.mark.parametrize("name", ["user:bob", "user:", "user:ada:bob", "user:Ada", "user:ada.", "user:.ada"])
@pytest.mark.parametrize("user", ["ada", None], ids=["signed in", "anonymous"])
async def test_j9_the_personal_channel_of_another_user(target: Target, name: str, user: str | None) -> None:
    async with RawClient.join(target, "/channels") as bob, RawClient.join(target, "/channels") as client:
        for each, who in ((bob, "bob"), (client, user)):
            if who is not None:
                each.send_json("sign_in", who)
                assert {(await each.recv_json())["type"] for _ in range(2)} == {"sign_in_response", "subscribed"}
        for type in TYPES:
            error = await client.ask(type, {"channel": name, "data": 1})
            if type == "unsubscribe":  # which is nobody's secret, and does nothing
                assert error["type"] == "unsubscribed"
            else:
                assert error["payload"]["code"] == "forbidden", type
        await nothing_came(bob)
        await bob.leave()
        await client.leave()


# --- J10: what only the server says ----------------------------------------------------------------------------------

LIES = dict.fromkeys(
    (
        "sender",
        "from",
        "offset",
        "epoch",
        "node",
        "userId",
        "user_id",
        "connectionId",
        "publisher",
        "cursor",
        "recovered",
    ),
    "eve",
)


@BOTH
async def test_j10_a_place_in_a_channel_is_the_servers_to_say(target: Target) -> None:
    async with RawClient.join(target, "/channels") as liar, RawClient.join(target, "/channels") as other:
        place = (await liar.ask("subscribe", {"channel": "room:j10"}))["payload"]
        await other.ask("subscribe", {"channel": "room:j10"})
        liar.send_text(
            json.dumps(
                {"type": "publish", "payload": {"channel": "room:j10", "data": 1, **LIES}, "timestamp": 1, **LIES}
            )
        )
        for client in (liar, other):
            message = await client.recv_json()
            assert abs(message.pop("timestamp") - time.time() * 1000) < 5000
            offset = message["payload"]["offset"]
            assert place["offset"] < offset < place["offset"] + 100
            assert message == {"type": "message", "payload": {"channel": "room:j10", "data": 1, "offset": offset}}
        published = await liar.recv_json("published")
        assert published == {"channel": "room:j10", "offset": offset, "epoch": place["epoch"]}
        history = (await other.ask("history", {"channel": "room:j10"}))["payload"]
        assert history["publications"][-1].keys() == {"offset", "timestamp", "data"}
        assert (history["offset"], history["epoch"]) == (offset, place["epoch"])
        await liar.leave()
        await other.leave()


@BOTH
async def test_j10_who_is_there_is_the_servers_to_say(target: Target) -> None:
    async with RawClient.join(target, "/channels") as liar:
        await liar.ask("sign_in", "ada")
        assert (await liar.recv_json("subscribed"))["channel"] == "user:ada"
        await liar.ask("subscribe", {"channel": "lounge:j10", **LIES}, **LIES)
        await liar.ask("presence", {"channel": "lounge:j10", "state": LIES, **LIES}, **LIES)
        presence = (await liar.ask("presence", {"channel": "lounge:j10"}))["payload"]
        while "members" not in presence or "state" not in presence["members"][0]:
            presence = (await liar.recv_json())["payload"]  # pushes of what changed may come between
        assert presence["members"] == [{"userId": "ada", "connections": 1, "state": LIES}]
        await liar.leave()


# --- J11: without end ------------------------------------------------------------------------------------------------


async def test_j11_a_message_that_is_never_finished_ends_with_its_silent_connection(target: Target) -> None:
    async with RawClient.join(target, "/quick") as client:
        client.write(frame(TEXT, b'{"type":"echo","payload":"'))
        assert (await client.recv_frame()).opcode == PING
        await client.expect_close(4003)


async def test_j11_parts_of_a_message_are_counted(target: Target) -> None:
    async with RawClient.join(target) as client:
        client.write(frame(TEXT, b'"') + frame(0, b"x") * Limits().parts)
        await client.expect_close(1009)


async def test_j11_many_messages_that_are_never_finished_hold_no_more_than_their_size(target: Target) -> None:
    target.forget_peak()
    before = target.memory()
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(RawClient.join(target)) for _ in range(UNFINISHED)]
        for client in clients:
            client.write(frame(TEXT, b"x" * (SIZE - 1), mask=ZERO))
            client.send_frame(PING)
        for client in clients:
            assert (await client.recv_frame()).opcode == PONG  # so it has read what came before
        assert target.memory("VmHWM") - before < 2 * UNFINISHED * SIZE // 1024


@BOTH
@pytest.mark.parametrize("end", ["time", "connection"])
async def test_j11_a_stream_that_never_ends_ends_with_its_handler(target: Target, end: str) -> None:
    channel = f"j11:{end}"
    path = "/quick" if end == "time" else "/channels"
    async with RawClient.join(target, path) as client, RawClient.join(target, path) as producer:
        client.send_json("subscribe", {"channel": channel})
        assert (await next_message(client))["type"] == "subscribed"
        producer.send_json("produce", channel)
        before = time.monotonic()
        while (message := await next_message(client))["payload"]["event"] != "end":
            if end == "connection" and message["payload"]["event"] == "append":
                producer.cut()
        assert message["payload"]["reason"] == "cancelled"
        assert time.monotonic() - before < QUICK.handler + 1
        if end == "time":
            assert (await next_message(producer))["payload"]["code"] == "timeout"


# --- A12: rights that are taken back ---------------------------------------------------------------------------------


@BOTH
async def test_a12_what_a_user_may_no_longer_have_comes_by_no_way(target: Target, door: str) -> None:
    channel = "doc:12"
    async with (
        RawClient.join(target, "/channels", headers=bearer(token(sub="a12"))) as out,
        RawClient.join(target, "/channels", headers=bearer(token(sub="a12-stays"))) as stays,
    ):
        for client in (out, stays):
            await client.recv_json("authenticated")
            await client.recv_json("subscribed")  # to the channel of its own
            place = (await client.ask("subscribe", {"channel": channel}))["payload"]
        stays.send_json("publish", {"channel": channel, "data": "before"})
        await next_of(stays, "published")
        assert (await next_of(out, "message"))["data"] == "before"

        stays.send_json("bar", ["a12", 12])
        assert await next_of(out, "unsubscribed") == {"channel": channel, "code": "forbidden"}
        await next_of(stays, "bar_response")
        stays.send_json("publish", {"channel": channel, "data": "after"})
        stays.send_json("presence", {"channel": channel, "state": "changed"})
        stays.send_json("say", [channel, "from the server"])
        while not ((told := await stays.recv_json())["type"].startswith("presence_") and "changed" in str(told)):
            pass
        since = {"offset": place["offset"], "epoch": place["epoch"]}
        for type, payload in (
            ("subscribe", {}),
            ("subscribe", {"since": since}),
            ("history", {}),
            ("history", {"since": since}),
            ("history", {"archive": True}),
            ("presence", {}),
            ("presence", {"count": True}),
            ("presence", {"state": 1}),
            ("publish", {"data": 1}),
            ("cancel", {}),
        ):
            error = await out.ask(type, {"channel": channel, **payload}, id="7")
            assert (error["payload"]["code"], error["id"]) == ("forbidden", "7"), (type, payload)
        await nothing_came(out)
        await out.leave()
        await stays.leave()


@BOTH
async def test_a12_a_user_who_is_sent_away_while_it_comes_back_gets_nothing_of_the_past(target: Target) -> None:
    async with RawClient.join(target, "/channels", headers=bearer(token(sub="a12-late"))) as out:
        await out.recv_json("authenticated")
        await out.recv_json("subscribed")
        for number in range(50):
            await out.ask("say", ["doc:13", number])
        out.send_json("bar", ["a12-late", 13])
        out.send_json("subscribe", {"channel": "doc:13", "since": {"offset": 0, "epoch": "any"}})
        seen = [(await out.recv_json()) for _ in range(2)]
        assert {message["type"] for message in seen} == {"bar_response", "error"}
        await out.ask("say", ["doc:13", "live"])
        await nothing_came(out)
        await out.leave()


@BOTH
async def test_a12_the_inbox_of_a_user_who_is_out(target: Target, door: str) -> None:
    name = f"a12-inbox-{door}"
    text = token(sub=name, iat=int(time.time()))
    async with (
        RawClient.join(target, "/channels", headers=bearer(text)) as out,
        RawClient.join(target, "/channels", headers=bearer(token(sub="admin"))) as admin,
    ):
        for client in (out, admin):
            await client.recv_json("authenticated")
            await client.recv_json("subscribed")
        assert (await admin.ask("keep", [name, "before"]))["payload"] is True
        while (kept := await out.recv_json())["type"] != "kept":
            assert kept["type"] == "inbox"  # its place was looked for behind the writing
        assert kept["cursor"] > 0
        admin.send_json("revoke", {"user_id": name})
        out.send_json("inbox")
        assert (await out.recv_close()).code == UNAUTHORIZED
        await next_of(admin, "revoke_response")
        assert (await admin.ask("keep", [name, "after"]))["payload"] is True
        await admin.leave()
    async with RawClient.connect(target, "/channels", headers=bearer(text)) as client:
        assert (await client.recv_frame()).code == UNAUTHORIZED  # no welcome, and no inbox
    async with RawClient.join(target, "/channels") as client:
        assert (await client.ask("authenticate", {"token": text}))["payload"]["code"] == "unauthorized"
        await client.expect_close(UNAUTHORIZED)
