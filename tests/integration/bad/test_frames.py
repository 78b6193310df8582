"""F1-F17: bytes that are no proper frames, against the hub and an ordinary route on the same transport."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from hubbub.core.limits import FrameLimits
from tests.core.wire import frame, header
from tests.integration.bad.app import QUICK
from tests.integration.bad.conftest import Target
from tests.serving import DEADLINE, RawClient

SIZE = FrameLimits().message_size
PARTS = FrameLimits().parts
ZERO = bytes(4)
"""A mask that changes nothing, so that much is built at once."""

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(FIN | CLOSE, code.to_bytes(2, "big") + reason)


def echo_of(size: int) -> bytes:
    """An `echo` message of exactly this many bytes."""
    around = len(json.dumps({"type": "echo", "payload": ""}))
    return json.dumps({"type": "echo", "payload": "x" * (size - around)}).encode()


BROKEN = {
    "F1 unmasked text": b"\x81\x05hello",
    "F1 unmasked ping": b"\x89\x00",
    "F1 unmasked close": b"\x88\x02\x03\xe8",
    "F2 RSV1": frame(FIN | RSV1 | TEXT, b"hello"),
    "F2 RSV2": frame(FIN | RSV2 | TEXT, b"hello"),
    "F2 RSV3": frame(FIN | RSV3 | BINARY, b"hello"),
    "F2 all": frame(FIN | RSV1 | RSV2 | RSV3 | TEXT, b"hello"),
    "F2 RSV1 on a ping": frame(FIN | RSV1 | PING),
    "F2 RSV2 on a close": frame(FIN | RSV2 | CLOSE, b"\x03\xe8"),
    "F2 RSV3 on a part": frame(TEXT, b"hel") + frame(RSV3, b"lo"),
    **{f"F3 opcode {opcode}": frame(FIN | opcode, b"x") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "F3 opcode 3 without FIN": frame(3, b"x"),
    "F4 ping in parts": frame(PING, b"x") + frame(FIN, b"y"),
    "F4 pong in parts": frame(PONG, b"x"),
    "F4 close in parts": frame(CLOSE, b"\x03\xe8"),
    "F4 ping of 126 bytes": frame(FIN | PING, bytes(126)),
    "F4 pong of 126 bytes": frame(FIN | PONG, bytes(126)),
    "F4 close of 126 bytes": close(1000, b"x" * 124),
    "F4 ping of 1 MiB, the header": header(FIN | PING, 1 << 20),
    "F5 last part of no message": frame(FIN, b"x"),
    "F5 first part of no message": frame(0, b"x"),
    "F5 part after a whole message": frame(FIN | TEXT, b"x") + frame(FIN, b"x"),
    "F5 text inside a text": frame(TEXT, b"x") + frame(FIN | TEXT, b"y"),
    "F5 start inside a text": frame(TEXT, b"x") + frame(BINARY, b"y"),
    "F7 length 2^63": header(FIN | TEXT, 1 << 63),
    "F7 length 2^64-1": header(FIN | TEXT, (1 << 64) - 1),
    "F7 length of 5 in 16 bits": frame(FIN | TEXT, b"hello", form=16),
    "F7 length of 5 in 64 bits": frame(FIN | TEXT, b"hello", form=64),
    "F7 length of 300 in 64 bits": frame(FIN | TEXT, b"x" * 300, form=64),
    "F16 close of 1 byte": frame(FIN | CLOSE, b"\x03"),
    **{
        f"F16 close code {code}": close(code)
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2000, 2999, 5000, 65535)
    },
}

NOT_UTF8 = {
    "whole": frame(FIN | TEXT, b"caf\xe9"),
    "cut character": frame(FIN | TEXT, "café".encode()[:-1]),
    "surrogate": frame(FIN | TEXT, b"\xed\xa0\x80"),
    "overlong slash": frame(FIN | TEXT, b"\xc0\xaf"),
    "overlong NUL": frame(FIN | TEXT, b"\xc0\x80"),
    "over U+10FFFF": frame(FIN | TEXT, b"\xf4\x90\x80\x80"),
    "five bytes": frame(FIN | TEXT, b"\xf8\x88\x80\x80\x80"),
    "long": frame(FIN | TEXT, b"x" * 3000 + b"\xff"),
    "in the first part": frame(TEXT, b"caf\xff"),
    "in a middle part": frame(TEXT, b"caf") + frame(0, b"\xe9\xe9"),
    "split over parts": frame(TEXT, b"\xf0\x9f") + frame(0, b"\x99\xff"),
    "cut at the last part": frame(TEXT, b"caf") + frame(FIN, b"\xc3"),
    "in a close reason": close(1000, b"caf\xe9"),
}

EVERYWHERE = pytest.mark.parametrize(
    ("door", "path"), [("native", "/ws"), ("native", "/route"), ("asyncio", "/ws")], ids=["hub", "route", "asyncio"]
)
BOTH = pytest.mark.parametrize("path", ["/ws", "/route"], ids=["hub", "route"])


async def connect(client: RawClient, target: Target, path: str) -> None:
    """Shake hands, and take the welcome where there is one."""
    await client.handshake(target, path)
    if path != "/route":
        await client.recv_json("welcome")


@EVERYWHERE
@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
async def test_a_broken_frame_closes_with_1002(target: Target, path: str, data: bytes) -> None:
    async with RawClient.open(target) as client:
        await connect(client, target, path)
        client.write(data)
        await client.expect_close(1002)


@pytest.mark.parametrize("data", [b"\x81\x05hello", b"\x83\x00", frame(FIN | RSV2 | TEXT)])
async def test_a_broken_frame_is_seen_at_its_first_bytes(target: Target, data: bytes) -> None:
    async with RawClient.join(target) as client:
        client.write(data[:2])
        await client.expect_close(1002)


@EVERYWHERE
@pytest.mark.parametrize("data", NOT_UTF8.values(), ids=NOT_UTF8)
async def test_f6_text_that_is_not_utf8_closes_with_1007_at_the_part_that_is_wrong(
    target: Target, path: str, data: bytes
) -> None:
    async with RawClient.open(target) as client:
        await connect(client, target, path)
        client.write(data)
        await client.expect_close(1007)


@pytest.mark.parametrize("door", ["native", "asgi"])
async def test_f9_a_message_of_the_limit_is_delivered_and_one_byte_more_closes_with_1009(target: Target) -> None:
    async with RawClient.join(target) as client:
        client.send_frame(TEXT, echo_of(SIZE), mask=ZERO)
        assert len(await client.recv_json("echo_response")) == len(json.loads(echo_of(SIZE))["payload"])
        client.send_frame(TEXT, echo_of(SIZE + 1), mask=ZERO)
        await client.expect_close(1009)


@BOTH
async def test_f10_a_length_over_the_limit_is_refused_at_the_header(target: Target, path: str) -> None:
    target.forget_peak()
    before = target.memory()
    async with RawClient.open(target) as client:
        await connect(client, target, path)
        client.write(header(FIN | TEXT, 1 << 40) + ZERO + b"x" * 100)
        await client.expect_close(1009)
    assert target.memory("VmHWM") - before < 1024


async def test_f11_parts_that_add_up_over_the_limit_close_with_1009_when_they_do(target: Target) -> None:
    async with RawClient.join(target) as client:
        client.write(frame(TEXT, b"x" * 4096, mask=ZERO) + frame(0, b"x" * 4096, mask=ZERO) * (SIZE // 4096 - 1))
        client.send_frame(PING, b"still here")
        assert (await client.recv_frame()).payload == b"still here"
        client.write(frame(0, b"x"))
        await client.expect_close(1009)


@BOTH
@pytest.mark.parametrize("part", [b"", b"x"], ids=["empty", "one byte"])
async def test_f13_a_flood_of_tiny_parts_closes_with_1009_and_costs_nothing(
    target: Target, path: str, part: bytes
) -> None:
    before = target.seconds()
    async with RawClient.open(target) as client:
        await connect(client, target, path)
        client.write(frame(TEXT, part) + frame(0, part) * 199_999)
        await client.expect_close(1009)
    assert target.seconds() - before < 1


async def test_f13_as_many_parts_as_the_limit_are_a_message(target: Target) -> None:
    async with RawClient.join(target) as client:
        text = b'{"type":"ping"}'
        client.write(frame(TEXT, text) + frame(0) * (PARTS - 2) + frame(FIN))
        await client.recv_json("pong")


async def flood(client: RawClient, data: bytes, times: int) -> None:
    """Send the same again and again, as fast as the server reads, and read nothing; the end may come before."""
    try:
        for _ in range(times):
            client.write(data)
            await client.writer.drain()
    except ConnectionError:
        pass


@pytest.mark.parametrize("door", ["native", "asyncio"])
async def test_f14_pings_whose_pongs_are_not_read_are_held_back_and_end_with_4002(target: Target) -> None:
    target.forget_peak()
    before = target.memory()
    async with RawClient.join(target, "/quick") as client:
        client.writer.transport.set_write_buffer_limits(0)
        data = frame(FIN | PING, b"x" * 125, mask=ZERO) * 400
        async with asyncio.timeout(DEADLINE):
            await flood(client, data, 1000)
        state = await target.state()
        assert state["closes"][client.id] == [4002]
    assert target.memory("VmHWM") - before < 4096


@pytest.mark.parametrize("door", ["native", "asyncio"])
async def test_f14_pongs_nobody_asked_for_are_dropped(target: Target) -> None:
    target.forget_peak()
    before = target.memory()
    async with RawClient.join(target) as client:
        async with asyncio.timeout(DEADLINE):
            await flood(client, frame(FIN | PONG, b"x", mask=ZERO) * 4000, 100)
        assert (await client.ask("echo", 1))["payload"] == 1
    assert target.memory("VmHWM") - before < 4096


@pytest.mark.parametrize("door", ["native", "asgi"])
async def test_f15_a_binary_message_closes_with_1003(target: Target) -> None:
    async with RawClient.join(target) as client:
        client.send_frame(BINARY, b"{}")
        await client.expect_close(1003)


@BOTH
@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1010, 1011, 1014, 3000, 3999, 4000, 4999])
async def test_f16_a_close_code_that_may_travel_is_answered_with_itself(target: Target, path: str, code: int) -> None:
    async with RawClient.open(target) as client:
        await connect(client, target, path)
        client.send_close(code, "so long")
        assert (await client.recv_close()).code == code
        assert await client.expect_end() == b""


async def test_f16_an_empty_close_is_answered_with_an_empty_one(target: Target) -> None:
    async with RawClient.join(target) as client:
        client.send_frame(CLOSE)
        assert (await client.recv_frame()).payload == b""
        assert await client.expect_end() == b""


@BOTH
async def test_f16_whatever_follows_a_close_is_ignored(target: Target, path: str) -> None:
    async with RawClient.open(target) as client:
        await connect(client, target, path)
        client.write(close(3001) + close(3002) + frame(FIN | TEXT, b'{"type":"ping"}') + b"\xff" * 50)
        assert (await client.recv_frame()).code == 3001
        assert await client.expect_end() == b""


async def test_f16_answers_to_what_came_before_a_close_come_before_it(target: Target) -> None:
    async with RawClient.join(target) as client:
        client.write(frame(FIN | TEXT, b'{"type":"ping"}') * 2 + close(1000))
        assert [(await client.recv_frame()).opcode for _ in range(3)] == [TEXT, TEXT, CLOSE]
        assert await client.expect_end() == b""


@pytest.mark.parametrize("door", ["native", "asyncio"])
@pytest.mark.parametrize(
    ("data", "code"), [(close(1000), 1000), (frame(FIN | PING) + b"\x83\x00", 1002)], ids=["goodbye", "broken frame"]
)
async def test_f16_nothing_follows_a_close_where_messages_wait(target: Target, data: bytes, code: int) -> None:
    async with RawClient.join(target) as client:
        client.send_json("much", 50_000)
        client.write(data)
        assert (await client.recv_close()).code == code
        assert await client.expect_end() == b""


async def test_f17_the_server_ends_tcp_after_a_close_even_if_the_client_does_not(target: Target) -> None:
    counts = await target.counts()
    async with RawClient.join(target) as client:
        client.send_close()
        await client.recv_close()
        assert await client.expect_end() == b""
        await target.settled(counts)


@pytest.mark.parametrize(
    ("data", "code"),
    [(frame(FIN | TEXT, b"no json") * 5, 4500), (b"\x83\x00", 1002)],
    ids=["said by the hub", "said by the transport"],
)
async def test_f17_a_close_that_is_never_answered_ends_within_the_close_timeout(
    target: Target, data: bytes, code: int
) -> None:
    counts = await target.counts()
    async with RawClient.join(target, "/quick") as client:
        client.write(data)
        assert (await client.recv_close()).code == code
        before = time.monotonic()
        await target.settled(counts)
        assert time.monotonic() - before < QUICK.close + 2 * QUICK.ping + 0.5
