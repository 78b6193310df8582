"""The takeover, clause by clause: what the app's middleware sees, and what becomes of its call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from hubbub import Connection, Handshake, Hub, Limits, Timeouts
from hubbub.servers.native import NativeTransport
from tests.core.wire import frame
from tests.servers.places import PLACES, PLAIN, Place, Watcher, stop_shared
from tests.serving import RawClient, fetch, request, until

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
SESSIONS: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def shared() -> Iterator[None]:
    yield
    stop_shared()


@pytest.fixture(params=PLACES, ids=str)
def place(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=PLAIN, ids=str)
def plain(request: pytest.FixtureRequest) -> Any:
    return request.param


def hub_in_an_app(**options: Any) -> tuple[Hub, Starlette]:
    hub, app = Hub(**options), Starlette()
    hub.attach(app)
    return hub, app


# --- (a) headers and cookies -----------------------------------------------------------------------------------------


async def test_headers_of_middleware_reach_the_101(place: Place) -> None:
    _, app = hub_in_an_app()
    async with place.sharing(Watcher(app)) as server, RawClient.join(server, **place.client) as client:
        assert client.answer.header("set-cookie") == "seen=1; Path=/"
        assert (await client.ask("echo", 1))["payload"] == 1


async def test_headers_the_server_adds_reach_the_101(plain: Place) -> None:
    _, app = hub_in_an_app()
    async with plain.serving(app, headers=[("X-Node", "7")]) as server:
        await until(lambda: server.server.server_state.default_headers)
        async with RawClient.join(server) as client:
            assert client.answer.header("x-node") == "7"
            assert client.answer.header("date")


async def test_the_session_reaches_the_connect_hooks(plain: Place) -> None:
    hub, app = hub_in_an_app()

    async def login(request: Request) -> Response:
        request.session["user"] = "ada"
        return PlainTextResponse("welcome")

    app.add_route("/login", login)
    app.add_middleware(SessionMiddleware, secret_key="not a secret")

    @hub.on_connect
    async def connected(conn: Connection, handshake: Handshake) -> None:
        await asyncio.sleep(0.01)  # the ASGI call is over by now
        conn.identify(handshake.scope["session"].get("user"))
        conn.send(
            "hello", {"user": conn.user_id, "agent": handshake.header("user-agent"), "path": handshake.scope["path"]}
        )

    async with plain.sharing(app) as server:
        cookie = ((await fetch(server, "/login")).header("set-cookie") or "").partition(";")[0]
        async with RawClient.join(server, headers=[("Cookie", cookie), ("User-Agent", "test")]) as client:
            assert await client.recv_json("hello") == {"user": "ada", "agent": "test", "path": "/ws"}
        async with RawClient.join(server, headers=[("Cookie", "session=forged")]) as client:
            assert (await client.recv_json("hello"))["user"] is None


async def test_http_middleware_does_not_see_websockets(plain: Place) -> None:
    _, app = hub_in_an_app()
    seen: list[str] = []

    async def dispatch(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        seen.append(request.url.path)
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    async with plain.sharing(app) as server:
        await fetch(server, "/elsewhere")
        async with RawClient.join(server) as client:
            assert (await client.ask("echo", 1))["payload"] == 1
    assert seen == ["/elsewhere"]


async def test_a_middleware_that_refuses_is_obeyed(plain: Place, caplog: pytest.LogCaptureFixture) -> None:
    hub, inner = hub_in_an_app()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def tell(message: Any) -> None:
            await send({"type": "websocket.close"} if message["type"] == "websocket.accept" else message)

        await inner(scope, receive, tell if scope["type"] == "websocket" else send)

    async with plain.sharing(app) as server, RawClient.connect(server, status=403):
        assert hub.connection_count == 0
    assert errors(caplog) == []


# --- (b) and (e) what middleware sees --------------------------------------------------------------------------------


async def test_middleware_sees_the_handshake_and_no_messages(plain: Place) -> None:
    _, app = hub_in_an_app()
    async with plain.sharing(watcher := Watcher(app)) as server, RawClient.join(server) as client:
        await client.ask("echo", 1)
        assert watcher.seen == ["websocket.connect", "websocket.accept", "end"]


async def test_middleware_sees_messages_where_the_hub_stays_in_asgi(plain: Place) -> None:
    _, app = hub_in_an_app(native=False)
    async with plain.sharing(watcher := Watcher(app)) as server:
        async with RawClient.join(server) as client:
            await client.ask("echo", 1)
            await client.leave()
        await until(lambda: "end" in watcher.seen)
    sent, received = "websocket.send", "websocket.receive"
    assert watcher.seen == [
        "websocket.connect",
        "websocket.accept",
        sent,
        received,
        sent,
        "websocket.disconnect",
        "end",
    ]


# --- (c) bytes around the 101 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload", [b'{"type":"ping"}', b"\r\n\r\n"], ids=["a message", "what looks like the end of the head"]
)
async def test_bytes_after_the_head_are_refused(plain: Place, payload: bytes) -> None:
    hub, app = hub_in_an_app()
    async with plain.sharing(app) as server, RawClient.open(server) as client:
        client.write(request(server, "/ws", KEY) + frame(0x81, payload, mask=bytes(4)))
        assert (await client.recv_answer()).status == 400
        assert await client.expect_end() == b""
        assert hub.connection_count == 0


@pytest.mark.parametrize("at", [-1, -2, -3, -4, 1, 30])
async def test_the_head_may_come_in_pieces(plain: Place, at: int) -> None:
    _, app = hub_in_an_app()
    async with plain.sharing(app) as server, RawClient.open(server) as client:
        head = request(server, "/ws", KEY)
        client.write(head[:at])
        await asyncio.sleep(0.05)
        client.write(head[at:])
        assert (await client.recv_answer()).status == 101
        await client.recv_json("welcome")


async def test_bytes_that_come_before_the_takeover_reach_the_hub_in_order(place: Place) -> None:
    _, inner = hub_in_an_app()
    accepted, go = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def tell(message: Any) -> None:
            await send(message)
            accepted.set()
            await go.wait()

        await inner(scope, receive, tell if scope["type"] == "websocket" else send)

    async with place.sharing(app) as server, RawClient.open(server, **place.client) as client:
        client.write(request(server, "/ws", KEY))
        await until(accepted.is_set)
        for number in range(20):
            client.send_json("echo", number)
        await client.drain()
        await server.call(go.set)
        assert (await client.recv_answer()).status == 101
        await client.recv_json("welcome")
        assert [await client.recv_json("echo_response") for _ in range(20)] == [*range(20)]


async def test_who_leaves_before_the_takeover_never_was_there(plain: Place, caplog: pytest.LogCaptureFixture) -> None:
    hub, inner = hub_in_an_app()
    seen: list[str] = []
    hub.on_connect(lambda conn: seen.append("connected"))
    hub.on_close(lambda conn: seen.append("closed"))
    accepted, go = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def tell(message: Any) -> None:
            accepted.set()
            await go.wait()
            await send(message)

        await inner(scope, receive, tell if scope["type"] == "websocket" else send)

    async with plain.sharing(app) as server:
        for number in range(5):
            async with RawClient.open(server) as client:
                client.write(request(server, "/ws", KEY))
                await until(accepted.is_set)
            await server.call(go.set)
            await until(lambda: not server.server.server_state.tasks and not server.server.server_state.connections)
            await server.call(accepted.clear)
            await server.call(go.clear)
            assert seen in ([], ["connected", "closed"] * len(seen[::2])), number
        assert hub.connection_count == 0
    assert errors(caplog) == []


async def test_who_leaves_while_the_app_decides_is_seen_at_once(plain: Place) -> None:
    _, inner = hub_in_an_app()
    asked, go = asyncio.Event(), asyncio.Event()
    received: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "websocket":
            await inner(scope, receive, send)
            return
        received.append((await receive())["type"])
        asked.set()
        received.append((await receive())["type"])
        go.set()

    async with plain.sharing(app) as server:
        async with RawClient.open(server) as client:
            client.write(request(server, "/ws", KEY))
            await until(asked.is_set)
        await until(go.is_set)
        await until(lambda: not server.server.server_state.tasks and not server.server.server_state.connections)
    assert received == ["websocket.connect", "websocket.disconnect"]


# --- (d) the call ends, the socket lives -----------------------------------------------------------------------------


async def test_what_the_middleware_cleans_up_is_gone_while_the_socket_lives(place: Place) -> None:
    _, app = hub_in_an_app()
    async with place.sharing(watcher := Watcher(app)) as server, RawClient.join(server, **place.client) as client:
        await until(lambda: watcher.seen[-1] == "end")
        assert (await client.ask("echo", 1))["payload"] == 1


async def test_dependencies_of_the_app_do_not_guard_the_hub(plain: Place) -> None:
    """FastAPI runs them for its own routes; for the hub it is `on_connect` that looks at who comes."""
    hub, app = Hub(), FastAPI(dependencies=[Depends(open_session)])
    hub.attach(app)

    @app.websocket("/own")
    async def own(socket: WebSocket, session: Annotated[str, Depends(open_session)]) -> None:
        await socket.accept()
        await socket.send_text(session)
        await socket.receive_text()

    async with plain.sharing(app) as server:
        async with RawClient.join(server) as client:
            await client.ask("echo", 1)
        assert SESSIONS == []
        async with RawClient.connect(server, "/own") as client:
            assert await client.recv_text() == "session"
            assert SESSIONS == ["opened"]
            client.send_text("done")
            await client.expect_close(1000)
        await until(lambda: SESSIONS == ["opened", "closed"])
    SESSIONS.clear()


async def open_session() -> AsyncIterator[str]:
    SESSIONS.append("opened")
    yield "session"
    SESSIONS.append("closed")


async def test_no_task_idles_for_a_connection(place: Place) -> None:
    hub, app = hub_in_an_app()

    @hub.on_connect
    async def connected(conn: Connection) -> None:
        await asyncio.sleep(0)

    async with place.sharing(app) as server:
        before = await server.call(tasks_here)
        async with RawClient.join(server, **place.client) as one, RawClient.join(server, **place.client) as two:
            for client in (one, two):
                await client.ask("echo", 1)
            assert hub.connection_count == 2
            assert await server.call(tasks_here) == before
            await until(lambda: not server.server.server_state.tasks)


def tasks_here() -> int:
    return len(asyncio.all_tasks())


# --- (f) errors after the takeover -----------------------------------------------------------------------------------


async def test_an_exception_after_the_takeover_closes_with_1011(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    _, inner = hub_in_an_app()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)
        if scope["type"] == "websocket":
            raise ValueError("a middleware broke")

    async with place.sharing(app) as server, RawClient.join(server, **place.client) as client:
        await client.expect_close(1011)
    assert errors(caplog) == ["the app failed on a WebSocket"]


async def test_an_exception_between_accept_and_takeover_is_a_500(
    plain: Place, caplog: pytest.LogCaptureFixture
) -> None:
    hub, inner = hub_in_an_app()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def tell(message: Any) -> None:
            await send(message)
            raise ValueError("a middleware broke")

        await inner(scope, receive, tell if scope["type"] == "websocket" else send)

    async with plain.sharing(app) as server, RawClient.connect(server, status=500):
        assert hub.connection_count == 0
    assert errors(caplog) == ["the app failed on a WebSocket"]


# --- (g) uvicorn's books ---------------------------------------------------------------------------------------------


async def test_the_server_knows_the_socket_until_it_is_lost(place: Place) -> None:
    _, app = hub_in_an_app()
    async with place.sharing(app) as server:
        state = server.server.server_state
        async with RawClient.join(server, **place.client) as client:
            (native,) = state.connections
            assert isinstance(native, NativeTransport)
            await until(lambda: not state.tasks)
            await client.leave()
        await until(lambda: not state.connections)


async def test_shutdown_may_come_twice(place: Place) -> None:
    _, app = hub_in_an_app()
    async with place.sharing(app) as server, RawClient.join(server, **place.client) as client:
        (native,) = server.server.server_state.connections
        for _ in range(2):
            await server.call(native.shutdown)
        received = await client.recv_frame()
        assert (received.opcode, received.code) == (8, 1001)
        client.send_frame(8, received.payload)
        assert await client.expect_end() == b""
        await server.call(native.shutdown)


async def test_shutdown_while_the_app_still_decides_refuses(plain: Place, caplog: pytest.LogCaptureFixture) -> None:
    hub, inner = hub_in_an_app()
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await go.wait()
        await inner(scope, receive, send)

    async with plain.sharing(app) as server, RawClient.open(server) as client:
        client.write(request(server, "/ws", KEY))
        await until(lambda: server.server.server_state.tasks)
        (protocol,) = server.server.server_state.connections
        for _ in range(2):
            await server.call(protocol.shutdown)
        assert (await client.recv_answer()).status == 503
        await server.call(go.set)
        await until(lambda: not server.server.server_state.tasks)
        assert hub.connection_count == 0
    assert errors(caplog) == []


# --- (h) paused states -----------------------------------------------------------------------------------------------


async def test_a_socket_that_is_full_is_taken_over_as_such(place: Place) -> None:
    """The client has not read an earlier answer yet: the 101 must wait behind it, and all that follows too."""
    hub, app = hub_in_an_app(limits=Limits(send_queue=10_000_000))
    app.add_route("/big", lambda request: PlainTextResponse("x" * 8_000_000))
    async with place.sharing(app) as server, RawClient.open(server, **place.client) as client:
        before = server.server.server_state.total_requests
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport can
        client.write(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: server.server.server_state.total_requests > before)
        client.write(request(server, "/ws", KEY))
        await until(lambda: hub.connection_count == 1)
        for number in range(3):
            await server.run(hub.broadcast("news", number))
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len((await client.recv_answer()).body) == 8_000_000
        assert (await client.recv_answer()).status == 101
        await client.recv_json("welcome")
        assert [await client.recv_json("news") for _ in range(3)] == [0, 1, 2]
        assert (await client.ask("echo", 1))["payload"] == 1


async def test_a_socket_that_is_too_full_is_closed_behind_its_101(plain: Place) -> None:
    _, app = hub_in_an_app()
    app.add_route("/big", lambda request: PlainTextResponse("x" * 16_000_000))
    async with plain.sharing(app) as server, RawClient.open(server) as client:
        before = server.server.server_state.total_requests
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport can
        client.write(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: server.server.server_state.total_requests > before)
        client.write(request(server, "/ws", KEY))
        await until(lambda: server.server.server_state.connections and not server.server.server_state.tasks)
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len((await client.recv_answer()).body) == 16_000_000
        assert (await client.recv_answer()).status == 101
        await client.expect_close(4002)


async def test_a_client_that_reads_late_gets_everything_in_order(place: Place) -> None:
    hub, app = hub_in_an_app(timeouts=Timeouts(ping=60))
    text = "x" * 60_000
    async with place.sharing(app) as server, RawClient.join(server, **place.client) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        total = 0
        while not await server.call(lambda: only(hub).outbox.queue) and total < 500:
            await server.run(hub.broadcast("news", f"{total} {text}"))
            total += 1
        for number in range(5):
            await server.run(hub.broadcast("news", f"{total + number} {text}"))
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        received = [await client.recv_json("news") for _ in range(total + 5)]
        assert [int(each.split()[0]) for each in received] == [*range(total + 5)]
        assert (await client.ask("echo", 1))["payload"] == 1


# --- Pipelining ------------------------------------------------------------------------------------------------------


async def test_an_upgrade_behind_an_answered_request_is_taken(plain: Place) -> None:
    _, app = hub_in_an_app()
    async with plain.sharing(app) as server, RawClient.open(server) as client:
        client.write(b"GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await client.recv_answer()).status == 404
        client.write(request(server, "/ws", KEY))
        assert (await client.recv_answer()).status == 101
        await client.recv_json("welcome")


async def test_an_upgrade_behind_an_unanswered_request_ends_the_connection(plain: Place) -> None:
    hub, app = hub_in_an_app()
    go = asyncio.Event()

    async def slow(request: Request) -> Response:
        await go.wait()
        return PlainTextResponse("late")

    app.add_route("/slow", slow)
    async with plain.sharing(app) as server, RawClient.open(server) as client:
        client.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: server.server.server_state.tasks)
        client.write(request(server, "/ws", KEY))
        assert b"101" not in await client.expect_end()
        await server.call(go.set)
        assert hub.connection_count == 0


def only(hub: Hub) -> Connection:
    (connection,) = hub.local.connections()
    return connection


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
