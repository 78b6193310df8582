"""What the ASGI door cannot do, each line of docs/topics/doors.md shown; and the native door beside it, which can."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from hubbub import Connection, Hub, Limits, Timeouts
from hubbub.limits import Rate, Rates
from hubbub.servers import http as http_module
from tests.core.wire import frame
from tests.serving import Door, RawClient, RunningServer, fetch, request, serving, until

REPOSITORY = Path(__file__).parents[2]
TEST = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
QUICK = Timeouts(ping=0.1, pong=0.1, close=0.2)


@pytest.fixture(params=["native", "asgi"])
def door(request: pytest.FixtureRequest) -> Any:
    return request.param


def hub_in_an_app(**options: Any) -> tuple[Hub, Starlette]:
    hub, app = Hub(**options), Starlette()
    hub.attach(app)
    return hub, app


# --- Pings -----------------------------------------------------------------------------------------------------------


async def test_pings_are_the_servers_own(door: Door) -> None:
    """The hub's heartbeat sends none; uvicorn's `ws_ping_interval` does, and is no help to `is_alive`."""
    hub, app = hub_in_an_app(timeouts=QUICK)
    async with serving(app, door, ws_ping_interval=None) as server, RawClient.join(server) as client:
        if door == "native":
            assert (await client.recv_frame()).opcode == 9
        else:
            await asyncio.sleep(0.5)
            assert (await client.ask("ping", ...))["type"] == "pong"
        assert hub.connection_count == 1


async def test_a_flood_of_pings_is_the_servers_business(door: Door) -> None:
    _, app = hub_in_an_app(rates=Rates(messages=Rate(10)))
    async with serving(app, door) as server, RawClient.join(server) as client:
        for _ in range(400):
            client.send_frame(9, b"")
        client.send_json("ping", ...)
        while (last := await client.recv_frame()).opcode == 10:
            pass
        assert last.opcode == (8 if door == "native" else 1), last
        assert door != "native" or last.code == 4005


async def test_who_answers_no_ping_is_closed_by_the_server_with_its_own_code(door: Door) -> None:
    hub, app = hub_in_an_app(timeouts=QUICK)
    options: dict[str, Any] = {"ws_ping_interval": 0.1, "ws_ping_timeout": 0.1}
    codes: list[int] = []

    @hub.on_close
    def closed(conn: Connection, code: int, reason: str) -> None:
        codes.append(code)

    async with serving(app, door, **options) as server, RawClient.join(server) as client:
        await client.expect_close(4003 if door == "native" else 1011)
        await until(lambda: codes)
    assert (codes == [4003]) == (door == "native")


# --- Limits ahead of the app -----------------------------------------------------------------------------------------


async def test_heads_have_the_servers_limits(door: Door) -> None:
    _, app = hub_in_an_app()
    headers = [(f"X-{number}", "y" * 1000) for number in range(100)]
    status = 431 if door == "native" else 101
    async with serving(app, door) as server, RawClient.connect(server, headers=headers, status=status):
        pass


async def test_heads_have_the_servers_deadline(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "HEAD_SECONDS", 0.1)
    _, app = hub_in_an_app()
    async with serving(app, door) as server, RawClient.open(server) as client:
        await asyncio.sleep(0.3)
        client.write(request(server, "/ws", KEY))
        assert (await client.recv_answer()).status == (408 if door == "native" else 101)


async def test_bytes_behind_the_head_are_the_servers_business(door: Door) -> None:
    """The native door refuses them; uvicorn loses them."""
    _, app = hub_in_an_app()
    async with serving(app, door) as server, RawClient.open(server) as client:
        client.write(request(server, "/ws", KEY) + frame(0x81, b'{"type":"ping"}'))
        answer = await client.recv_answer()
        if door == "native":
            assert answer.status == 400
        else:
            await client.recv_json("welcome")
            assert (await client.ask("echo", "the ping is lost"))["type"] == "echo_response"


async def test_the_servers_message_limit_comes_first(door: Door) -> None:
    """And without one, a message over the hub's limit is read whole before it is refused."""
    _, app = hub_in_an_app(limits=Limits(message_size=10_000))
    async with serving(app, door, ws_max_size=1000) as server, RawClient.join(server) as client:
        client.send_json("echo", "x" * 5000)
        if door == "native":
            assert len(await client.recv_json("echo_response")) == 5000
        else:
            await client.expect_close(1009)


# --- Stuck peers -----------------------------------------------------------------------------------------------------


async def test_a_stuck_peer_is_forgotten_and_its_socket_stays(door: Door) -> None:
    """Its ASGI call is cancelled; that the server still waits for it to read, nobody can change."""
    hub, app = hub_in_an_app(limits=Limits(send_queue=100_000), timeouts=QUICK)
    codes: list[int] = []

    @hub.on_close
    def closed(conn: Connection, code: int, reason: str) -> None:
        codes.append(code)

    async with serving(app, door, ws_ping_interval=None) as server:
        async with RawClient.join(server) as client:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport can
            while not codes:
                await server.run(hub.broadcast("news", "x" * 50_000))
                await asyncio.sleep(0.001)
            assert codes == [4002]
            assert hub.connection_count == 0
            state = server.server.server_state
            if door == "native":
                await until(lambda: not state.connections)
            else:
                await until(lambda: not state.tasks)
                assert len(state.connections) == 1
        await until(lambda: not state.connections)


async def test_a_slow_client_waits_in_two_queues(door: Door) -> None:
    """What the server has taken no longer counts towards `send_queue`."""
    hub, app = hub_in_an_app(limits=Limits(send_queue=50_000))
    async with serving(app, door, ws_ping_interval=None) as server, RawClient.join(server) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        connection = hub.local.connections()[0]
        while not connection.outbox.queue and connection.is_open:
            await server.run(hub.broadcast("news", "x" * 10_000))
            await asyncio.sleep(0.001)
        assert await server.call(lambda: connection.outbox.transport.buffered) <= 10_100


# --- Tasks and compression -------------------------------------------------------------------------------------------


async def test_each_connection_has_a_task(door: Door) -> None:
    _, app = hub_in_an_app()
    async with serving(app, door) as server, RawClient.join(server) as client:
        await client.ask("echo", 1)
        await until(lambda: len(server.server.server_state.tasks) == (0 if door == "native" else 1))


async def test_compression_is_the_servers_own(door: Door) -> None:
    """`Hub(deflate=...)` is for the native door; uvicorn compresses by its own option, on unless it is switched off."""
    _, app = hub_in_an_app()
    headers = [("Sec-WebSocket-Extensions", "permessage-deflate")]
    async with serving(app, door) as server, RawClient.connect(server, headers=headers) as client:
        agreed = client.answer.header("sec-websocket-extensions")
        assert (agreed is None) == (door == "native")


# --- And what it can -------------------------------------------------------------------------------------------------


async def test_the_server_is_asked_to_close_behind_what_waits() -> None:
    hub, app = hub_in_an_app()
    async with serving(app, "asgi") as server, RawClient.join(server) as client:
        await client.ask("echo", 1)

        async def farewell() -> None:
            for number in range(50):
                await hub.broadcast("news", number)
            hub.local.connections()[0].close(4006, "enough")

        await server.run(farewell())
        assert [await client.recv_json("news") for _ in range(50)] == [*range(50)]
        await client.expect_close(4006, "enough")


async def test_a_client_that_is_gone_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    hub, app = hub_in_an_app()
    async with serving(app, "asgi") as server:
        for _ in range(20):
            async with RawClient.join(server):
                pass
            await server.run(hub.broadcast("news", "x" * 1000))
        await until(lambda: hub.connection_count == 0)
        await healthy(server)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def healthy(server: RunningServer) -> None:
    async with RawClient.join(server) as client:
        assert (await client.ask("ping", ...))["type"] == "pong"
    assert (await fetch(server, "/ws")).status == 426


def test_each_line_of_the_page_names_a_test_that_exists() -> None:
    page = (REPOSITORY / "docs" / "topics" / "doors.md").read_text("utf-8")
    named = set(re.findall(r"`(test_[a-z]\w+)`", page))
    files = (REPOSITORY / "tests").rglob("test_*.py")
    written = {name for file in files for name in TEST.findall(file.read_text("utf-8"))}
    assert len(named) > 25
    assert named <= written
