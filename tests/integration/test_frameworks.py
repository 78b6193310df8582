"""A hub inside the apps people have: its routes first, its life inside theirs, publishing from every kind of route."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

from hubbub import Connection, Handshake, UsageError
from tests.fakes import make_hub
from tests.integration.frameworks import FRAMEWORKS, Diary, bare_app
from tests.serving import Door, RawClient, RunningServer, fetch, running, serving

DOORS: list[Door] = ["native", "asgi"]
OF_ITS_OWN = [name for name in FRAMEWORKS if name != "django"]


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> Any:
    return request.param


# --- Any framework ---------------------------------------------------------------------------------------------------


async def test_the_hub_and_the_app_share_a_port(framework: str, door: Door) -> None:
    hub = make_hub()
    async with serving(FRAMEWORKS[framework](hub, []), door) as server, RawClient.join(server) as client:
        assert (await client.ask("echo", framework))["payload"] == framework
        assert (await fetch(server, "/hello")).body.strip(b'"') == b"hello"
        assert (await fetch(server, "/ws")).status == 426
        assert (await fetch(server, "/ws/client")).status == 200
        await client.ask("subscribe", {"channel": "news"})
        for event in ("async", "sync"):
            assert (await fetch(server, f"/{event}", "POST")).body == b"1"
            assert await client.recv_json("message") == {"channel": "news", "event": event, "data": None}


@pytest.mark.parametrize("framework", OF_ITS_OWN)
async def test_the_hub_lives_inside_the_apps_life(framework: str, door: Door) -> None:
    diary, hub = Diary(), make_hub()

    @hub.on_connect
    def connected(conn: Connection) -> None:
        diary.append("connected")

    @hub.on_close
    async def closed(conn: Connection) -> None:
        diary.append("closed")

    async with serving(FRAMEWORKS[framework](hub, diary), door) as server:
        assert hub.node.running
        goodbye = await stay(server, door)
    await goodbye
    assert diary == ["app up, hub rests", "connected", "closed", "app down, hub rests"]
    assert not hub.node.running


async def test_without_a_lifespan_of_the_app_the_hub_still_ends_in_order(door: Door) -> None:
    diary, hub = Diary(), make_hub()
    hub.on_close(lambda conn: diary.append("closed"))
    async with serving(FRAMEWORKS["django"](hub, diary), door) as server:
        assert hub.node.running
        goodbye = await stay(server, door)
    await goodbye
    assert diary == ["closed"]
    assert not hub.node.running


async def test_an_app_that_returns_from_its_lifespan_has_none(door: Door) -> None:
    hub = make_hub()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await bare_app(scope, receive, send, hub)

    async with serving(hub.wrap(app), door) as server:
        assert hub.node.running
        assert (await fetch(server, "/hello")).body == b"hello"
    assert not hub.node.running


async def test_an_app_that_fails_to_start_stays_the_apps_failure(caplog: pytest.LogCaptureFixture) -> None:
    hub = make_hub()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise ValueError("no database")

    with pytest.raises((SystemExit, AssertionError)), running(hub.wrap(app), "asgi", lifespan="on"):
        pass
    assert "no database" in caplog.text
    assert not hub.node.running


async def test_where_the_server_has_no_lifespan_the_hub_starts_with_its_first_client(framework: str) -> None:
    hub = make_hub()
    async with serving(FRAMEWORKS[framework](hub, []), lifespan="off") as server:
        assert not hub.node.running
        async with RawClient.join(server) as client:
            assert (await client.ask("echo", 1))["payload"] == 1
    assert not hub.node.running


async def test_an_app_can_be_served_again(framework: str) -> None:
    hub = make_hub()
    app = FRAMEWORKS[framework](hub, [])
    for _ in range(2):
        async with serving(app) as server, RawClient.join(server) as client:
            assert (await client.ask("echo", 1))["payload"] == 1
            goodbye = await stay(server, "native")
            client.cut()
        await goodbye


async def test_behind_a_proxy_that_strips_a_prefix(framework: str) -> None:
    app = FRAMEWORKS[framework](make_hub(), [])
    async with serving(app, root_path="/live") as server, RawClient.join(server) as client:
        assert (await client.ask("echo", 1))["payload"] == 1
        assert (await fetch(server, "/ws/client")).status == 200
        assert (await fetch(server, "/hello")).status == 200


# --- Starlette and FastAPI -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", ["fastapi", "starlette"])
async def test_what_the_apps_lifespan_gives_reaches_the_connection(framework: str, door: Door) -> None:
    hub = make_hub()

    @hub.on_connect
    async def connected(conn: Connection, handshake: Handshake) -> None:
        conn.send("state", handshake.scope["state"])

    async with serving(FRAMEWORKS[framework](hub, []), door) as server, RawClient.join(server) as client:
        assert await client.recv_json("state") == {"database": "open"}


async def test_a_mount_on_everything_came_first(door: Door) -> None:
    hub = make_hub()
    app = Starlette(routes=[Mount("/", PlainTextResponse("the mount"))])
    hub.attach(app)
    async with serving(app, door) as server, RawClient.join(server) as client:
        assert (await client.ask("echo", 1))["payload"] == 1
        assert (await fetch(server, "/elsewhere")).body == b"the mount"
        assert (await fetch(server, "/ws/client")).status == 200


async def test_inside_a_mounted_app(door: Door) -> None:
    hub, inner, outer = make_hub(), FastAPI(), FastAPI()
    hub.attach(inner)
    outer.mount("/live", inner)
    async with serving(outer, door) as server:
        async with RawClient.join(server, "/live/ws") as client:
            assert (await client.ask("echo", 1))["payload"] == 1
        assert (await fetch(server, "/live/ws")).status == 426
        assert (await fetch(server, "/live/ws/client")).status == 200
        await server.run(hub.shutdown())


async def test_two_hubs_in_one_app(door: Door) -> None:
    app, public, staff = FastAPI(), make_hub("/ws"), make_hub("/staff")
    public.attach(app)
    staff.attach(app)
    async with serving(app, door) as server, RawClient.join(server) as one, RawClient.join(server, "/staff") as two:
        await server.run(staff.broadcast("to staff"))
        await server.run(public.broadcast("to the public"))
        assert (await one.recv_json())["type"] == "to the public"
        assert (await two.recv_json())["type"] == "to staff"


async def test_the_hub_is_in_no_schema() -> None:
    app = FastAPI()
    make_hub().attach(app)
    assert app.openapi()["paths"] == {}


# --- Mistakes and tests ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", [bare_app, object(), make_hub().wrap(bare_app)], ids=["function", "object", "wrapped"])
def test_attaching_to_an_unknown_app_names_the_way_out(app: Any) -> None:
    with pytest.raises(UsageError, match=r"FastAPI, Starlette and Litestar, not .*: write `app = hub\.wrap"):
        make_hub().attach(app)


async def test_attaching_to_a_running_app_is_too_late() -> None:
    app = Starlette()
    async with serving(app, "asgi"):
        with pytest.raises(UsageError, match="This app has started"):
            make_hub().attach(app)


async def test_a_hub_runs_without_a_server() -> None:
    hub = make_hub()
    async with hub.running() as same:
        assert same is hub
        assert (await hub.publish("room", "said", 1)).connections == 0
        async with hub.running():
            assert hub.node.running
        assert hub.node.running
    with pytest.raises(UsageError, match=r"async with hub\.running\(\)"):
        await hub.publish("room", "said", 1)


async def test_sync_says_what_to_do_in_the_loop() -> None:
    hub = make_hub()
    with pytest.raises(UsageError, match="has not started"):
        hub.sync.publish("room", "said")
    async with hub.running():
        with pytest.raises(UsageError, match="write `await hub"):
            hub.sync.publish("room", "said")


async def test_nothing_is_logged_for_ordinary_visits(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(FRAMEWORKS["starlette"](make_hub(), []), door) as server:
        async with RawClient.join(server) as client:
            await client.leave()
        async with RawClient.join(server) as client:
            client.cut()
        async with RawClient.open(server) as client:
            client.cut()
        goodbye = await stay(server, door)
    await goodbye
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def stay(server: RunningServer, door: Door) -> asyncio.Task[None]:
    """Connect, and be there until the server stops; what is returned is done then."""
    here = asyncio.Event()

    async def visit() -> None:
        async with RawClient.join(server) as client:
            here.set()
            await client.expect_close(1001 if door == "native" else 1012)

    task = asyncio.create_task(visit())
    await asyncio.wait([task, asyncio.create_task(here.wait())], return_when="FIRST_COMPLETED")
    return task
