"""H14, L4, L5, L9 and the floods of F14: too much, too often, too many; through both doors."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from hubbub.core.limits import Limits
from hubbub.node.throttle import ANSWERS
from tests.core.wire import frame
from tests.integration.bad.app import FEW, KNOCKS, THREE
from tests.integration.bad.conftest import Target
from tests.serving import DEADLINE, RawClient

BOTH = pytest.mark.parametrize("door", ["native", "asgi"])
PING = 0x89
ZERO = bytes(4)
assert FEW.messages is not None
BURST = int(FEW.messages.most)


async def sign_in(client: RawClient, user: str) -> None:
    assert (await client.ask("sign_in", user))["payload"] == user


async def flood(client: RawClient, data: bytes, times: int) -> None:
    """Send without a pause until the server has enough of it."""
    with contextlib.suppress(ConnectionError):
        for _ in range(times):
            client.write(data)
            await client.writer.drain()


def text(type: str, payload: Any, id: str = "1") -> bytes:
    return frame(0x81, json.dumps({"type": type, "payload": payload, "id": id}).encode(), mask=ZERO)


async def said(client: RawClient) -> tuple[list[dict[str, Any]], int]:
    """All messages until the server's goodbye, and its code."""
    messages: list[dict[str, Any]] = []
    async with asyncio.timeout(2 * DEADLINE):
        while (received := await client.recv_frame()).opcode != 8:
            if received.opcode == 1:
                messages.append(json.loads(received.payload))
    return messages, received.code


def limited(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for each in messages if each["type"] == "error" and each["payload"]["code"] == "rate_limited"]


# --- L4 --------------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("type", ["publish", "echo"])
async def test_l4_a_flood_is_answered_with_rate_limited_and_ends_with_4005(
    target: Target, door: str, type: str
) -> None:
    payload = {"channel": "news", "data": 1} if type == "publish" else 1
    limit = int(FEW.publishes.most) if type == "publish" and FEW.publishes is not None else BURST
    async with RawClient.join(target, "/rated") as client:
        await sign_in(client, f"{type} by {door}")
        assert (await client.ask("subscribe", {"channel": "news"}))["type"] == "subscribed"
        await flood(client, text(type, payload) * 100, 100)
        messages, code = await said(client)
    assert code == 4005
    errors = limited(messages)
    assert 0 < len(errors) <= 2 * ANSWERS.most
    assert {error["id"] for error in errors} == {"1"}
    assert all(0 < error["payload"]["retryAfter"] < 10_000 for error in errors)
    assert len([each for each in messages if each["type"] in ("published", "echo_response")]) <= 1.5 * limit


@BOTH
async def test_l4_the_limit_holds_across_reconnects(target: Target, door: str) -> None:
    """As far as a user goes; time goes on meanwhile, so it is a little more than a burst."""
    answered = 0
    for _ in range(5):
        async with RawClient.join(target, "/rated") as client:
            client.send_json("sign_in", f"back again by {door}")
            await flood(client, text("echo", 1) * (4 * BURST), 1)
            messages, code = await said(client)
            assert code == 4005
            answered += len([each for each in messages if each["type"] == "echo_response"])
    # The first few of each connection are nobody's yet: the address pays for them.
    assert answered <= 2 * BURST


@BOTH
async def test_l4_who_listens_to_retry_after_goes_on(target: Target, door: str) -> None:
    async with RawClient.join(target, "/rated") as client:
        await sign_in(client, f"patient by {door}")
        for _ in range(11):
            client.send_json("subscribe", {"channel": "news"}, id="x")
        answers = [await client.recv_json() for _ in range(11)]
        (error,) = limited(answers)
        assert error["payload"]["retryAfter"] <= 200
        with pytest.raises(TimeoutError):  # there is nothing to hear meanwhile
            async with asyncio.timeout(error["payload"]["retryAfter"] / 1000):
                await client.recv_frame()
        assert (await client.ask("subscribe", {"channel": "news"}))["type"] == "subscribed"
        assert (await client.ask("echo", 1))["payload"] == 1


# --- L5 --------------------------------------------------------------------------------------------------------------


@BOTH
async def test_l5_slow_requests_are_few_at_a_time_and_the_rest_is_not_read(target: Target) -> None:
    before = target.memory()
    async with RawClient.join(target, "/quick") as client:
        data = text("hang", "x" * 1000) * 100
        client.writer.transport.set_write_buffer_limits(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await flood(client, data, 1000)
        assert target.memory() - before < 8 * 1024
        assert (await target.state())["tasks"] < 50
        assert Limits().in_flight < 50


# --- F14 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", ["native", "asyncio"])
@pytest.mark.parametrize("opcode", [PING, PING + 1], ids=["pings", "pongs"])
async def test_f14_a_flood_of_control_frames_ends_with_4005(target: Target, opcode: int) -> None:
    async with RawClient.join(target, "/rated") as client:
        await flood(client, frame(opcode, b"", mask=ZERO) * 400, 1000)
        messages, code = await said(client)
    assert (messages, code) == ([], 4005)


# --- H14 -------------------------------------------------------------------------------------------------------------


@BOTH
async def test_h14_who_asks_too_often_gets_429_and_when_to_come_back(target: Target) -> None:
    target.complaints = 3
    async with AsyncExitStack() as stack:
        kept = [await stack.enter_async_context(RawClient.join(target, "/knocked")) for _ in range(int(KNOCKS.most))]
        for _ in range(2):
            async with RawClient.connect(target, "/knocked", status=429) as client:
                assert client.answer.header("retry-after") in ("1", "2")
        for client in kept:
            assert (await client.ask("echo", 1))["payload"] == 1
    async with RawClient.join(target, "/ws"):
        pass


@BOTH
async def test_h14_a_full_server_answers_503_until_somebody_leaves(target: Target) -> None:
    target.complaints = 2
    async with AsyncExitStack() as stack:
        kept = [await stack.enter_async_context(RawClient.join(target, "/full")) for _ in range(3)]
        async with RawClient.connect(target, "/full", status=503) as client:
            assert client.answer.header("retry-after") is not None
        for client in kept:
            assert (await client.ask("echo", 1))["payload"] == 1
        await kept[0].leave()
        counts = await target.counts()
        await target.settled({**counts, "connections at /full": 2, "tasks": counts["tasks"]})
        async with RawClient.join(target, "/full") as client:
            assert (await client.ask("echo", 1))["payload"] == 1


# --- L9 --------------------------------------------------------------------------------------------------------------


@BOTH
async def test_l9_one_address_has_so_many_connections(target: Target) -> None:
    target.complaints = 2
    async with AsyncExitStack() as stack:
        for _ in range(THREE.connections_per_address):
            await stack.enter_async_context(RawClient.join(target, "/few"))
        async with RawClient.connect(target, "/few", status=429) as client:
            assert client.answer.header("retry-after") is not None


@BOTH
async def test_l9_a_users_fourth_connection_is_closed_with_4504(target: Target) -> None:
    async with AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(RawClient.join(target, "/few")) for _ in range(4)]
        for client in crowd[:3]:
            await sign_in(client, "ann")
        crowd[3].send_json("sign_in", "ann")
        await crowd[3].expect_close(4504)
        for client in crowd[:3]:
            assert (await client.ask("echo", 1))["payload"] == 1


@BOTH
async def test_l9_or_the_oldest_is_closed_with_4506(target: Target) -> None:
    async with AsyncExitStack() as stack:
        crowd = [await stack.enter_async_context(RawClient.join(target, "/newest")) for _ in range(4)]
        for client in crowd:
            await sign_in(client, "ann")
        await crowd[0].expect_close(4506)
        for client in crowd[1:]:
            assert (await client.ask("echo", 1))["payload"] == 1
