"""X18-X22: a client that is gone without a word, one that is only quiet, and an application that fails."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from tests.integration.bad.app import QUICK
from tests.integration.bad.conftest import LATENCY, Target
from tests.serving import RawClient, until

PING, PONG = 9, 10
ROUNDS = 6
BLOCK = 0.5
WIDTH = min(QUICK.ping, QUICK.pong)
"""Of a bucket of the timing wheel: each look may be that much late."""


async def closes(target: Target, client: RawClient) -> list[int]:
    """What `on_close` was told of a connection."""
    found: list[int] = (await target.state())["closes"].get(client.id, [])
    return found


# --- X18, X19: pongs -------------------------------------------------------------------------------------------------


async def test_x18_a_client_that_is_gone_without_a_word_is_closed_with_4003_in_ping_and_pong(target: Target) -> None:
    counts = await target.counts()
    async with RawClient.join(target, "/quick") as client:
        before = time.monotonic()
        assert (await client.recv_frame()).opcode == PING
        assert (await client.recv_close()).code == 4003
        assert time.monotonic() - before < QUICK.ping + QUICK.pong + 3 * WIDTH
        await target.settled(counts)  # it does not answer the close either
        assert await closes(target, client) == [4003]
    assert await closes(target, client) == [4003]


async def test_x18_a_client_that_stops_reading_too_is_cut(target: Target) -> None:
    counts = await target.counts()
    async with RawClient.join(target, "/quick") as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # an asyncio transport can
        client.send_json("much", 50_000)
        await target.settled(counts)
        assert await closes(target, client) == [4002]


async def test_x19_a_client_that_sends_but_never_pongs_is_alive(target: Target) -> None:
    async with RawClient.join(target, "/quick") as client:
        for number in range(ROUNDS):
            assert (await client.recv_frame()).opcode == PING
            assert (await client.ask("echo", number))["payload"] == number
        assert await closes(target, client) == []
        await client.leave()


async def test_x19_half_a_message_is_a_sign_of_life(target: Target) -> None:
    async with RawClient.join(target, "/quick") as client:
        client.write(b"\x81\xfe")  # a text of 257 bytes, but for all that follows
        for _ in range(ROUNDS):
            assert (await client.recv_frame()).opcode == PING
            client.write(b"\x01")
        assert await closes(target, client) == []


async def test_x19_a_client_that_pongs_but_is_idle_stays(target: Target) -> None:
    async with RawClient.join(target, "/quick") as client:
        for _ in range(ROUNDS):
            received = await client.recv_frame()
            assert received.opcode == PING
            client.send_frame(PONG, received.payload)
        assert await closes(target, client) == []
        await client.leave()


# --- X22: handlers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", ["native", "asgi"])
@pytest.mark.parametrize("type", ["fail", "fail_async", "no_json"])
async def test_x22_a_handler_that_fails_is_one_error_with_a_reference_that_the_log_has(
    target: Target, type: str
) -> None:
    async with RawClient.join(target) as client:
        error = await client.ask(type, 1, id="7")
        assert (error["type"], error["id"], error["payload"]["code"]) == ("error", "7", "internal")
        assert "secret" not in str(error)
        reference = re.search(r"\b[0-9a-f]{8}\b", error["payload"]["message"])
        assert reference is not None
        assert f"reference {reference[0]}" in target.complained()[-1]
        assert (await client.ask("echo", 1))["payload"] == 1


@pytest.mark.parametrize("door", ["native", "asgi"])
async def test_x22_a_handler_that_hangs_is_stopped(target: Target) -> None:
    async with RawClient.join(target, "/quick") as client:
        client.send_json("hang", id="7")
        message = await next_message(client)
        assert (message["id"], message["payload"]["code"]) == ("7", "timeout")
        client.send_json("echo", 1)
        assert (await next_message(client))["payload"] == 1


@pytest.mark.parametrize("door", ["native", "asgi"])
async def test_x22_a_handler_that_hangs_ends_with_its_connection(target: Target) -> None:
    async with RawClient.join(target) as client:
        client.send_json("hang")
        client.send_json("ping")
        await client.recv_json("pong")


@pytest.mark.parametrize("door", ["native", "asgi"])
async def test_x22_a_handler_that_blocks_the_loop_is_named_and_shows_as_lag(target: Target) -> None:
    target.latency = BLOCK + LATENCY
    async with RawClient.join(target) as client:
        assert (await client.ask("block", BLOCK))["payload"] == BLOCK
        await until(lambda: any("block held the loop" in line for line in target.complained()))
        assert (await target.state())["hubs"]["/ws"]["loopLagMs"] > BLOCK * 1000 * 0.4
        assert (await client.ask("echo", 1))["payload"] == 1


async def next_message(client: RawClient) -> Any:
    """The next message; pings are answered on the way."""
    while (received := await client.recv_frame()).opcode == PING:
        client.send_frame(PONG, received.payload)
    return json.loads(received.payload)
