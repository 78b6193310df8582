"""J1-J7: messages that are no JSON, no messages, or not what their type asks for; through both doors."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from hubbub.core.limits import Limits
from tests.core.wire import frame
from tests.integration.bad.app import BIG
from tests.integration.bad.conftest import Target
from tests.serving import RawClient

SIZE = Limits().message_size
DEPTH = Limits().depth
BAD = Limits().bad_messages
ZERO = bytes(4)

pytestmark = pytest.mark.parametrize("door", ["native", "asgi"])


def nested(levels: int) -> bytes:
    """An `echo` message of this depth; the object around counts."""
    return b'{"type":"echo","payload":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def digits(count: int) -> bytes:
    return b"1" + b"0" * (count - 1)


def bracket_between_quotes(size: int) -> bytes:
    """Brackets enough to be counted, and a string that looks at every quote as if it ended there."""
    start = b"[" * (DEPTH + 1) + b'"'
    return start + b'\\"' * ((size - len(start)) // 2)


NO_JSON = {
    "empty": b"",
    "space": b" \t\r\n",
    "BOM": b'\xef\xbb\xbf{"type":"ping"}',
    "two objects": b"{}{}",
    "trailing comma": b'{"type":"ping",}',
    "NaN": b'{"type":"echo","payload":NaN}',
    "Infinity": b'{"type":"echo","payload":-Infinity}',
    "word": b"ping",
    "single quotes": b"{'type':'ping'}",
    "not closed": b'{"type":"ping"',
    "control character": b'{"type":"pi\nng"}',
    "NUL": b'{"type":"ping"}\x00',
    "lone surrogate": b'{"type":"echo","payload":"\\ud800"}',
    "comment": b'{"type":"ping"/**/}',
    "hexadecimal": b'{"type":"echo","payload":0x10}',
}
NO_OBJECT = {
    "list": b"[]",
    "list of messages": b'[{"type":"ping"}]',
    "string": b'"ping"',
    "number": b"1",
    "true": b"true",
    "null": b"null",
    "id is a number": b'{"type":"ping","id":1}',
    "id is a list": b'{"type":"ping","id":[]}',
}
DEEP = {
    "one level too many": nested(DEPTH + 1),
    "closed": nested(SIZE // 2 - 20),
    "open": b"[" * SIZE,
    "objects": b'{"a":' * (SIZE // 5),
    "objects in lists": b'[{"a":' * (SIZE // 6),
    "brackets between quotes": bracket_between_quotes(SIZE),
    "payload nobody asked for": b'{"x":' + b"[" * (SIZE - 5),
}
NO_TYPE = {
    "missing": b"{}",
    "number": b'{"type":1}',
    "list": b'{"type":["ping"]}',
    "null": b'{"type":null}',
    "object": b'{"type":{"$gt":""}}',
    "empty": b'{"type":""}',
    "10 KB": b'{"type":"' + b"x" * 10_000 + b'"}',
    "an attribute": b'{"type":"__class__"}',
    "a method": b'{"type":"close"}',
    "with a NUL": b'{"type":"ping\\u0000"}',
    "in capitals": b'{"type":"PING"}',
}


async def ask(client: RawClient, data: bytes) -> Any:
    client.send_frame(1, data, mask=ZERO)
    return await client.recv_json()


async def still_fine(client: RawClient) -> None:
    assert (await client.ask("echo", "still here"))["payload"] == "still here"


@pytest.mark.parametrize("data", NO_JSON.values(), ids=NO_JSON)
async def test_j1_what_is_no_json_is_answered_with_bad_json_and_five_of_it_close_with_4500(
    target: Target, data: bytes
) -> None:
    async with RawClient.join(target) as client:
        for count in range(BAD):
            error = await ask(client, data)
            assert (error["type"], error["payload"]["code"]) == ("error", "bad_json")
            if count < BAD - 1:
                await still_fine(client)
        await client.expect_close(4500)


@pytest.mark.parametrize("data", NO_OBJECT.values(), ids=NO_OBJECT)
async def test_j2_what_is_no_message_is_answered_with_bad_envelope(target: Target, data: bytes) -> None:
    async with RawClient.join(target) as client:
        for _ in range(2 * BAD):
            assert (await ask(client, data))["payload"]["code"] == "bad_envelope"
        await still_fine(client)


@pytest.mark.parametrize("data", DEEP.values(), ids=DEEP)
async def test_j3_what_is_nested_too_deep_is_answered_with_bad_json_at_once(target: Target, data: bytes) -> None:
    async with RawClient.join(target) as client:
        before = target.seconds()
        for _ in range(BAD - 1):
            assert (await ask(client, data))["payload"]["code"] == "bad_json"
        assert target.seconds() - before < (BAD - 1) * 0.01 + 0.03  # the clock ticks 100 times a second
        await still_fine(client)


async def test_j3_as_deep_as_the_limit_is_fine(target: Target) -> None:
    async with RawClient.join(target) as client:
        assert (await ask(client, nested(DEPTH)))["type"] == "echo_response"
        flat = b'{"type":"echo","payload":[' + b"[]," * 10_000 + b'"[[{{"]}'
        assert (await ask(client, flat))["type"] == "echo_response"


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b'{"type":"echo","' + b"k" * 1_000_000 + b'":1}', "echo_response"),
        (b'{"type":"echo",' + b",".join(b'"k%d":1' % number for number in range(100_000)) + b"}", "echo_response"),
        (b'{"type":"echo","payload":{' + b",".join(b'"k%d":[]' % n for n in range(50_000)) + b"}}", "echo_response"),
        (b'{"type":"unknown","type":"echo"}', "echo_response"),  # the last one wins
        (b'{"type":"echo","a\\u0000b":1}', "echo_response"),
        (b'{"type":"echo","payload":' + digits(5000) + b"}", "echo_response"),  # nobody reads it as a number
        (b'{"type":' + digits(5000) + b"}", "bad_json"),
        (b'{"type":"place","payload":{"x":' + digits(5000) + b',"y":1}}', "invalid_payload"),
        (b'{"type":"order","payload":{"itemList":[{"name":"x","count":' + digits(5000) + b"}]}}", "invalid_payload"),
        (b'{"type":"nobody","payload":' + digits(5000) + b"}", "unknown_type"),
    ],
    ids=[
        *("key of 1 MB", "100k keys", "50k lists", "two types", "NUL in a key"),
        *("huge int", "huge type", "huge float field", "huge int field", "huge int for nobody"),
    ],
)
async def test_j4_keys_and_numbers_without_measure(target: Target, data: bytes, answer: str) -> None:
    async with RawClient.join(target, "/big") as client:
        assert len(data) < BIG.message_size
        before = target.seconds()
        client.send_frame(1, data, mask=ZERO)
        assert f'"{answer}"' in (await client.recv_text())[:100]
        assert target.seconds() - before < 0.02 + 0.03
        await still_fine(client)


@pytest.mark.parametrize("data", NO_TYPE.values(), ids=NO_TYPE)
async def test_j5_a_type_nobody_knows_is_answered_with_unknown_type(target: Target, data: bytes) -> None:
    async with RawClient.join(target) as client:
        for _ in range(2 * BAD):
            error = await ask(client, data)
            assert (error["payload"]["code"], error["payload"]["field"]) == ("unknown_type", "type")
            assert len(json.dumps(error)) < 300  # what they sent is not said back
        await still_fine(client)


@pytest.mark.parametrize("type", ["subscribe", "unsubscribe", "publish", "order", "place"])
async def test_j6_a_payload_of_the_wrong_kind(target: Target, type: str) -> None:
    async with RawClient.join(target) as client:
        payloads: list[Any] = [None, ..., 1, "x", [], True]
        for payload in payloads:
            error = await client.ask(type, payload, id="7")
            assert (error["type"], error["id"], error["payload"]["code"]) == ("error", "7", "invalid_payload"), payload
        await still_fine(client)


@pytest.mark.parametrize(
    ("type", "payload", "field"),
    [
        ("subscribe", {}, "channel"),
        ("subscribe", {"channel": None}, "channel"),
        ("subscribe", {"channel": 1}, "channel"),
        ("subscribe", {"channel": ["a"]}, "channel"),
        ("subscribe", {"channel": {"$gt": ""}}, "channel"),
        ("unsubscribe", {"channel": True}, "channel"),
        ("publish", {"data": 1}, "channel"),
        ("publish", {"channel": 1.5, "data": 1}, "channel"),
        ("publish", {"channel": "a", "event": 1}, "event"),
        ("publish", {"channel": "a", "event": []}, "event"),
        ("order", {}, "itemList"),
        ("order", {"itemList": {}}, "itemList"),
        ("order", {"itemList": [1]}, "itemList[0]"),
        ("order", {"itemList": [{"name": "a", "count": 1}, {"name": "b"}]}, "itemList[1].count"),
        ("order", {"itemList": [{"name": 1, "count": 1}]}, "itemList[0].name"),
        ("order", {"itemList": [{"name": "a", "count": "1"}]}, "itemList[0].count"),
        ("order", {"itemList": [], "urgent": 1}, "urgent"),
        ("place", {"x": 1}, "y"),
        ("place", {"x": "1", "y": 1}, "x"),
        ("place", {"x": 1, "y": None}, "y"),
    ],
    ids=str,
)
async def test_j6_a_wrong_field_is_named(target: Target, type: str, payload: Any, field: str) -> None:
    async with RawClient.join(target) as client:
        error = await client.ask(type, payload, id="7")
        assert (error["type"], error["id"]) == ("error", "7")
        assert (error["payload"]["code"], error["payload"]["field"]) == ("invalid_payload", field)
        await still_fine(client)


@pytest.mark.parametrize(
    "timestamp",
    ["0", "-1", '"2024-01-01"', "253402300800000", "1e400", "null", "[]", digits(400).decode()],
    ids=["zero", "negative", "string", "year 10000", "1e400", "null", "list", "huge"],
)
async def test_j7_the_senders_timestamp_is_not_believed(target: Target, timestamp: str) -> None:
    async with RawClient.join(target) as client, RawClient.join(target) as other:
        await other.ask("subscribe", {"channel": "news"})
        await client.ask("subscribe", {"channel": "news"})
        data = f'{{"type":"publish","payload":{{"channel":"news","data":1}},"timestamp":{timestamp}}}'
        client.write(frame(0x81, data.encode()))
        for receiver in (client, other):
            message = await receiver.recv_json()
            assert abs(message["timestamp"] - time.time() * 1000) < 5000


# --- J10: what only the server says ----------------------------------------------------------------------------------

LIES = {"sender": "eve", "from": "eve", "offset": 999, "epoch": "mine", "node": "n1", "userId": "eve", "user_id": "eve"}


async def test_j10_what_a_client_says_of_itself_does_not_count(target: Target) -> None:
    async with RawClient.join(target) as liar, RawClient.join(target) as other:
        for client in (liar, other):
            await client.ask("subscribe", {"channel": "j10"})
        liar.send_text(json.dumps({"type": "publish", "payload": {"channel": "j10", "data": 1, **LIES}, **LIES}))
        message = await other.recv_json()
        assert message.pop("timestamp") > 0
        assert message == {"type": "message", "payload": {"channel": "j10", "data": 1}}
        assert await liar.recv_json("message") == {"channel": "j10", "data": 1}
        assert await liar.recv_json("published") == {"channel": "j10"}
        await liar.leave()
        await other.leave()
