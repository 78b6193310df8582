"""The app's own WebSocket routes through the native class: what ASGI promises them, they get."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from hubbub.servers import socket as socket_module
from tests.core.wire import MASK
from tests.servers.places import PLACES, PLAIN, Place, stop_shared
from tests.serving import RawClient, until

Endpoint = Callable[[WebSocket], Awaitable[None]]


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


def app_with(endpoint: Endpoint) -> Starlette:
    return Starlette(routes=[WebSocketRoute("/ws", endpoint)])


async def echo(socket: WebSocket) -> None:
    """Send back what comes, until the client leaves; the exception that says so goes out of the endpoint."""
    await socket.accept(subprotocol=next(iter(socket.scope["subprotocols"]), None), headers=[(b"x-app", b"echo")])
    while True:
        message = await socket.receive()
        socket._raise_on_disconnect(message)
        if message.get("text") is not None:
            await socket.send_text(message["text"])
        else:
            await socket.send_bytes(message["bytes"])


# --- Messages --------------------------------------------------------------------------------------------------------


async def test_text_and_binary_of_all_sizes(place: Place) -> None:
    async with place.sharing(app_with(echo)) as server, RawClient.connect(server, **place.client) as client:
        for size in (0, 1, 125, 126, 65535, 65536, 1_000_000):
            mask = MASK if size < 100_000 else bytes(4)  # a mask in plain Python takes its time
            client.send_frame(1, b"x" * size, mask=mask)
            assert await client.recv_text() == "x" * size
            client.send_frame(2, b"\xff" * size, mask=mask)
            assert (await client.recv_frame())[:2] == (2, b"\xff" * size)
        client.send_text("Grüße 🙂")
        assert await client.recv_text() == "Grüße 🙂"


async def test_the_handshake_has_what_the_app_wants(plain: Place) -> None:
    headers = [("Sec-WebSocket-Protocol", "chat, other")]
    async with plain.sharing(app_with(echo)) as server, RawClient.connect(server, headers=headers) as client:
        assert client.answer.header("sec-websocket-protocol") == "chat"
        assert client.answer.header("x-app") == "echo"


async def test_the_scope_is_complete(plain: Place) -> None:
    scopes: list[Any] = []

    async def endpoint(socket: WebSocket) -> None:
        scopes.append(dict(socket.scope))
        await socket.accept()

    app = Starlette(routes=[WebSocketRoute("/rooms/{name}", endpoint)])
    async with plain.serving(app, root_path="/live") as server:
        path = "/rooms/caf%C3%A9?since=3&x=%20"
        async with RawClient.connect(server, path, headers=[("X-Two", "1"), ("X-Two", "2")]) as client:
            await client.expect_close(1000)
    (scope,) = scopes
    wanted = {"type": "websocket", "scheme": "ws", "http_version": "1.1", "root_path": "/live", "subprotocols": []}
    assert {name: scope[name] for name in wanted} == wanted
    assert (scope["path"], scope["raw_path"]) == ("/live/rooms/café", b"/live/rooms/caf%C3%A9")
    assert scope["query_string"] == b"since=3&x=%20"
    assert scope["path_params"] == {"name": "café"}
    assert [value for name, value in scope["headers"] if name == b"x-two"] == [b"1", b"2"]
    assert scope["server"] == ("127.0.0.1", server.port)
    assert scope["client"][0] == "127.0.0.1"
    assert scope["asgi"]["version"] == "3.0"


async def test_fragments_are_joined(plain: Place) -> None:
    async with plain.sharing(app_with(echo)) as server, RawClient.connect(server) as client:
        for part in range(4000):
            client.send_frame(0 if part else 1, b"x" * 256, fin=part == 3999)
        assert await client.recv_text() == "x" * 256 * 4000


async def test_over_ws_max_size_closes(plain: Place) -> None:
    async with plain.serving(app_with(echo), ws_max_size=1000) as server, RawClient.connect(server) as client:
        client.send_text("x" * 1000)
        assert await client.recv_text() == "x" * 1000
        client.send_text("x" * 1001)
        await client.expect_close(1009)


async def test_what_comes_right_behind_the_101_is_there(plain: Place) -> None:
    async with plain.sharing(app_with(echo)) as server, RawClient.connect(server) as client:
        for number in range(200):
            client.send_text(str(number))
        assert [await client.recv_text() for _ in range(200)] == [str(number) for number in range(200)]


async def test_an_app_that_does_not_receive_stops_the_client(plain: Place) -> None:
    go = asyncio.Event()

    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        await go.wait()
        for number in range(400):
            assert await socket.receive_text() == f"{number} {'x' * 60_000}"

    async with plain.sharing(app_with(endpoint)) as server, RawClient.connect(server) as client:

        async def write() -> None:
            for number in range(400):
                client.send_frame(1, f"{number} {'x' * 60_000}".encode(), mask=bytes(4))
                await client.writer.drain()

        writing = asyncio.create_task(write())
        await until(lambda: client.writer.transport.get_write_buffer_size() > 65_536)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not writing.done()
        await server.call(go.set)
        await writing
        await client.expect_close(1000)


# --- Back-pressure ---------------------------------------------------------------------------------------------------


async def test_senders_wait_for_a_slow_client_and_keep_their_frames_whole(place: Place) -> None:
    """Several tasks of the app send at once: all of them wait, and no frame is written into another."""
    sent: list[int] = []

    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()

        async def send(name: int) -> None:
            for number in range(40):
                await socket.send_text(f"{name} {number} {'x' * 100_000}")
                sent.append(name)

        await asyncio.gather(*map(send, range(5)))

    async with place.sharing(app_with(endpoint)) as server, RawClient.connect(server, **place.client) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport can
        await until(lambda: sent)
        waiting = len(sent)
        await asyncio.sleep(0.05)
        assert len(sent) - waiting < 100
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        received = [(await client.recv_text()).split() for _ in range(200)]
        assert {(len(each), len(each[2])) for each in received} == {(3, 100_000)}
        for name in range(5):
            assert [int(number) for who, number, _ in received if who == str(name)] == [*range(40)]
        await client.expect_close(1000)


async def test_a_sender_that_waits_is_told_that_the_client_is_gone(place: Place) -> None:
    failures: list[str] = []

    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        try:
            while True:
                await socket.send_text("x" * 100_000)
        except Exception as error:
            failures.append(type(error).__name__)
            raise

    async with place.sharing(app_with(endpoint)) as server:
        async with RawClient.connect(server, **place.client) as client:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await until(lambda: failures)
    assert failures == ["WebSocketDisconnect"]


# --- The end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("goodbye", "code", "reason"),
    [(b"\x03\xe9gone", 1001, "gone"), (b"\x0f\xa1", 4001, ""), (b"", 1005, "")],
    ids=["1001 with a reason", "4001", "no code"],
)
async def test_the_app_hears_the_clients_goodbye(place: Place, goodbye: bytes, code: int, reason: str) -> None:
    heard: list[Any] = []

    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        heard.append(await socket.receive())

    async with place.sharing(app_with(endpoint)) as server, RawClient.connect(server, **place.client) as client:
        client.send_frame(8, goodbye)
        assert (await client.recv_close()).payload == goodbye
        assert await client.expect_end() == b""
        await until(lambda: heard)
    assert heard == [{"type": "websocket.disconnect", "code": code, "reason": reason}]


async def test_the_app_hears_of_a_cut(plain: Place) -> None:
    heard: list[Any] = []

    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        heard.append(await socket.receive())

    async with plain.sharing(app_with(endpoint)) as server:
        async with RawClient.connect(server) as client:
            client.cut()
        await until(lambda: heard)
    assert (heard[0]["type"], heard[0]["code"]) == ("websocket.disconnect", 1006)


async def test_the_app_says_goodbye(place: Place) -> None:
    heard: list[Any] = []

    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("last")
        await socket.close(4007, "enough")
        heard.append(await socket._receive())

    async with place.sharing(app_with(endpoint)) as server, RawClient.connect(server, **place.client) as client:
        assert await client.recv_text() == "last"
        await client.expect_close(4007, "enough")
        await until(lambda: heard)
    assert heard == [{"type": "websocket.disconnect", "code": 4007, "reason": "enough"}]


async def test_an_app_that_returns_has_said_goodbye(plain: Place) -> None:
    async with plain.sharing(app_with(WebSocket.accept)) as server, RawClient.connect(server) as client:
        await client.expect_close(1000)


@pytest.mark.parametrize("wrong", ["send after close", "close twice", "accept twice", "unknown"])
async def test_events_out_of_place_are_refused(plain: Place, wrong: str) -> None:
    failures: list[str] = []
    events: dict[str, list[dict[str, Any]]] = {
        "send after close": [{"type": "websocket.close"}, {"type": "websocket.send", "text": ""}],
        "close twice": [{"type": "websocket.close"}, {"type": "websocket.close"}],
        "accept twice": [{"type": "websocket.accept"}],
        "unknown": [{"type": "websocket.shout"}],
    }

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            for event in events[wrong]:
                await send(event)
        except RuntimeError as error:
            failures.append(str(error))

    async with plain.serving(app, lifespan="off") as server, RawClient.connect(server) as client:
        await client.expect_close(1000)
    assert len(failures) == 1
    assert "Unexpected ASGI message" in failures[0]


async def test_an_event_before_the_accept_is_refused(plain: Place, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.send", "text": "early"})

    async with plain.serving(app, lifespan="off") as server, RawClient.connect(server, status=500):
        pass
    assert "before the WebSocket was accepted" in caplog.text


# --- Refusals and failures -------------------------------------------------------------------------------------------


async def test_a_close_before_the_accept_is_a_403(place: Place) -> None:
    app = app_with(WebSocket.close)
    async with place.sharing(app) as server, RawClient.connect(server, status=403, **place.client) as client:
        assert client.answer.body == b""
        assert await client.expect_end() == b""


@pytest.mark.parametrize("streamed", [False, True], ids=["in one piece", "in pieces"])
async def test_the_app_may_refuse_with_a_response_of_its_own(place: Place, streamed: bool) -> None:
    async def endpoint(socket: WebSocket) -> None:
        if streamed:
            pieces = iter([b'{"no":', b'"way"}'])
            response = StreamingResponse(pieces, 402, {"x-why": "money"}, "application/json")
            await socket.send_denial_response(response)
        else:
            await socket.send_denial_response(JSONResponse({"no": "way"}, 402, {"x-why": "money"}))

    app = app_with(endpoint)
    async with place.sharing(app) as server, RawClient.connect(server, status=402, **place.client) as client:
        assert client.answer.body == b'{"no":"way"}'
        assert client.answer.header("content-type") == "application/json"
        assert client.answer.header("x-why") == "money"


async def test_an_unknown_path_is_the_apps_refusal(plain: Place) -> None:
    async with plain.sharing(app_with(echo)) as server, RawClient.connect(server, "/nowhere", status=403):
        pass


async def test_an_app_that_returns_without_an_answer_is_a_500(plain: Place, caplog: pytest.LogCaptureFixture) -> None:
    async def endpoint(socket: WebSocket) -> None:
        pass

    async with plain.sharing(app_with(endpoint)) as server, RawClient.connect(server, status=500):
        pass
    assert errors(caplog) == ["the app returned without accepting or closing a WebSocket"]


async def test_an_exception_before_the_accept_is_a_500(plain: Place, caplog: pytest.LogCaptureFixture) -> None:
    async def endpoint(socket: WebSocket) -> None:
        raise ValueError("a secret")

    async with plain.sharing(app_with(endpoint)) as server, RawClient.connect(server, status=500) as client:
        assert b"secret" not in client.answer.body
    assert "ValueError: a secret" in caplog.text
    assert errors(caplog) == ["the app failed on a WebSocket"]


async def test_an_exception_after_the_accept_is_a_1011(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        raise ValueError("a secret")

    async with place.sharing(app_with(endpoint)) as server, RawClient.connect(server, **place.client) as client:
        await client.expect_close(1011, "")
    assert errors(caplog) == ["the app failed on a WebSocket"]


@pytest.mark.parametrize("leave", ["goodbye", "cut", "protocol error"])
async def test_a_client_that_leaves_is_no_failure_of_the_app(
    plain: Place, leave: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Starlette's WebSocketDisconnect goes out of the endpoint; uvicorn's own classes log a traceback for it."""
    async with plain.sharing(app_with(echo)) as server:
        async with RawClient.connect(server) as client:
            client.send_text("hello")
            await client.recv_text()
            if leave == "goodbye":
                await client.leave()
            elif leave == "protocol error":
                client.send_frame(3)
                await client.expect_close(1002)
        await until(lambda: not server.server.server_state.tasks)
    assert errors(caplog) == []


async def test_a_mistake_after_the_client_left_is_logged(plain: Place, caplog: pytest.LogCaptureFixture) -> None:
    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        await socket.receive()
        raise KeyError("cleaning up went wrong")

    async with plain.sharing(app_with(endpoint)) as server:
        async with RawClient.connect(server) as client:
            await client.leave()
        await until(lambda: not server.server.server_state.tasks)
    assert errors(caplog) == ["the app failed on a WebSocket"]


# --- Clients that do not play along ----------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_module, "CLOSE_TIMEOUT", 0.1)


@pytest.mark.usefixtures("impatient")
async def test_a_goodbye_that_is_never_answered_ends_in_a_cut(place: Place) -> None:
    app = app_with(WebSocket.accept)
    async with place.sharing(app) as server, RawClient.connect(server, **place.client) as client:
        assert (await client.recv_close()).code == 1000
        assert await client.expect_end(1) == b""
        await until(lambda: not server.server.server_state.connections)


@pytest.mark.usefixtures("impatient")
async def test_a_broken_client_that_stays_is_cut(plain: Place) -> None:
    async with plain.sharing(app_with(echo)) as server, RawClient.connect(server) as client:
        client.send_frame(3)
        assert (await client.recv_close()).code == 1002
        await until(lambda: not server.server.server_state.connections)


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_says_goodbye_and_does_not_read_is_cut(plain: Place) -> None:
    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_bytes(bytes(20_000_000))
        await socket.receive()

    async with plain.sharing(app_with(endpoint)) as server, RawClient.connect(server) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await until(lambda: server.server.server_state.connections)
        client.send_close(1000)
        await until(lambda: not server.server.server_state.connections)


async def test_a_silent_client_is_pinged_and_one_that_answers_stays(place: Place) -> None:
    app, options = app_with(echo), {"ws_ping_interval": 0.05, "ws_ping_timeout": 0.5}
    async with place.serving(app, **options) as server, RawClient.connect(server, **place.client) as client:
        for _ in range(4):
            assert (await client.recv_frame())[:2] == (9, b"")
            client.send_frame(10)
        client.send_text("still here")
        while (received := await client.recv_frame()).opcode != 1:
            client.send_frame(10)
        assert received.payload == b"still here"


async def test_a_client_that_answers_no_ping_is_closed(plain: Place) -> None:
    app, options = app_with(echo), {"ws_ping_interval": 0.05, "ws_ping_timeout": 0.05}
    async with plain.serving(app, **options) as server, RawClient.connect(server) as client:
        await client.expect_close(1011, "keepalive ping timeout")


async def test_no_pong_is_expected_of_a_client_that_is_not_read(plain: Place) -> None:
    go = asyncio.Event()

    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        await go.wait()
        for _ in range(100):
            await socket.receive_text()
        await socket.send_text("all of it")

    app, options = app_with(endpoint), {"ws_ping_interval": 0.05, "ws_ping_timeout": 0.05}
    async with plain.serving(app, **options) as server, RawClient.connect(server) as client:
        for _ in range(100):
            client.send_text("x")
        for _ in range(5):
            assert (await client.recv_frame()).opcode == 9
        await server.call(go.set)
        while (received := await client.recv_frame()).opcode != 1:
            assert received.opcode == 9
        assert received.payload == b"all of it"


async def test_the_server_stops(plain: Place) -> None:
    heard: list[int] = []

    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        heard.append((await socket.receive())["code"])
        try:
            await socket._send({"type": "websocket.send", "text": "too late"})
        except OSError:
            heard.append(0)

    async with plain.serving(app_with(endpoint)) as server:
        visit = RawClient.connect(server)
        client = await visit.__aenter__()
        goodbye = asyncio.create_task(client.expect_close(1001))
    await goodbye
    await visit.__aexit__(None, None, None)
    assert heard == [1001, 0]


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
