"""What we stand on in uvicorn and no documentation of its promises. A version that fails here is not for us yet."""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
import re
import signal
import sys
from typing import Any

import pytest
import uvicorn
from uvicorn.importer import import_from_string
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from uvicorn.supervisors import ChangeReload

from hubbub import Hub
from hubbub.servers.http import HttpProtocol
from hubbub.servers.server import Server, configure
from hubbub.servers.uvicorn import WebSocketProtocol
from tests.integration.frameworks import FRAMEWORKS
from tests.serving import RawClient, RunningServer, fetch, request, serving, until

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HTTP = ["httptools", "h11"]


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An app that does nothing."""


# --- Names and signatures --------------------------------------------------------------------------------------------


def test_the_version_is_one_we_declare() -> None:
    (line,) = [each for each in importlib.metadata.requires("hubbub") or [] if each.startswith("uvicorn")]
    least, most = (tuple(map(int, part.split("."))) for part in re.findall(r"[\d.]+", line.partition(";")[0])[:2])
    low, high = sorted((least, most))
    assert low <= tuple(map(int, uvicorn.__version__.split(".")[:2])) < high, line


def test_configuration() -> None:
    config = configure(nothing, ssl_certfile=None, ssl_keyfile=None, reload=False, log_config=None)
    config.load()
    assert (config.http_protocol_class, config.ws_protocol_class) == (HttpProtocol, WebSocketProtocol)
    assert callable(config.loaded_app)
    assert config.ssl is None
    numbers = (config.ws_max_size, config.backlog, config.ws_ping_interval, config.ws_ping_timeout)
    assert all(isinstance(each, int | float) for each in numbers)
    texts = (config.root_path, config.asgi_version)
    assert all(isinstance(each, str) for each in texts)
    assert config.ws_per_message_deflate is False


def test_the_ws_class_is_made_as_uvicorn_makes_its_own() -> None:
    assert (
        parameters(WebSocketProtocol)
        == parameters(WebSocketsSansIOProtocol)
        == ["config", "server_state", "app_state", "_loop"]
    )


@pytest.mark.parametrize(
    ("name", "takes"),
    [
        ("connection_made", ["self", "transport"]),
        ("data_received", ["self", "data"]),
        ("connection_lost", ["self", "exc"]),
        ("on_message_begin", ["self"]),
        ("on_headers_complete", ["self"]),
        ("on_body", ["self", "body"]),
        ("on_message_complete", ["self"]),
        ("handle_websocket_upgrade", ["self"]),
        ("send_400_response", ["self", "msg"]),
        ("shutdown", ["self"]),
    ],
)
def test_what_the_http_class_overrides_is_there(name: str, takes: list[str]) -> None:
    assert parameters(getattr(HttpToolsProtocol, name)) == takes


async def test_what_the_http_class_reads_is_there() -> None:
    protocol: Any = HttpToolsProtocol(uvicorn.Config(nothing), ServerState(), {})
    protocol.on_message_begin()
    assert (protocol.cycle, protocol.url, protocol.headers) == (None, b"", [])
    assert {"parser", "scope", "connections", "server_state", "app_state", "server", "client", "loop"} <= vars(
        protocol
    ).keys()
    assert parameters(HttpToolsProtocol) == ["config", "server_state", "app_state", "_loop"]
    assert "self.response_complete = " in inspect.getsource(RequestResponseCycle)


def test_what_the_server_class_overrides_and_reads_is_there() -> None:
    server = uvicorn.Server(uvicorn.Config(nothing))
    assert parameters(uvicorn.Server.startup) == ["self", "sockets"]
    assert parameters(uvicorn.Server.serve) == parameters(uvicorn.Server.run) == ["self", "sockets"]
    assert parameters(uvicorn.Server.capture_signals) == ["self"]
    assert (server.started, server.should_exit) == (False, False)
    assert (server.server_state.connections, server.server_state.tasks) == (set(), set())
    assert server.server_state.default_headers == []
    assert LifespanOn(uvicorn.Config(nothing)).state == {}


def test_parts_of_uvicorn_that_we_call() -> None:
    assert parameters(ChangeReload) == ["config", "target", "sockets"]
    assert parameters(import_from_string) == ["import_str"]
    for function in (get_local_addr, get_remote_addr, is_ssl):
        assert parameters(function) == ["transport"]


# --- Behaviour -------------------------------------------------------------------------------------------------------


class Recorder(asyncio.Protocol):
    """A `ws=` class that writes down what uvicorn does with it."""

    calls: list[Any]

    def __init__(self, **given: Any) -> None:
        self.calls.append(sorted(given))
        self.state = given["server_state"]

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.calls.append(("made", transport.get_protocol() is self, len(self.state.connections)))
        self.state.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self.calls.append(("data", self.transport.get_protocol() is self, data))
        if data == b"bye":
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append(("lost", exc))
        self.state.connections.discard(self)

    def shutdown(self) -> None:
        self.calls.append("shutdown")
        self.transport.close()


@pytest.fixture
def calls() -> list[Any]:
    Recorder.calls = []
    return Recorder.calls


@pytest.mark.parametrize("http", HTTP)
async def test_the_order_of_an_upgrade(http: str, calls: list[Any]) -> None:
    async with serving(nothing, "asgi", ws=Recorder, http=http, lifespan="off") as server:
        async with RawClient.open(server) as client:
            client.write(request(server, "/ws?a=b", KEY, [("X-Two", "1"), ("X-Two", "2")]))
            await until(lambda: len(calls) == 3)
            client.write(b"bye")
            assert await client.expect_end() == b""
        await until(lambda: not server.server.server_state.connections)
    made, head, bye, lost = calls[1:]
    assert calls[0] == ["app_state", "config", "server_state"]
    assert made == ("made", False, 0), "uvicorn gives its place in `connections` up before it makes the ws class"
    assert head[:2] == ("data", False), "the head comes before `set_protocol`"
    assert head[2].startswith(b"GET /ws?a=b HTTP/1.1\r\n")
    assert head[2].endswith(b"\r\n\r\n")
    assert re.findall(rb"(?im)^x-two: (\d)\r$", head[2]) == [b"1", b"2"]
    assert bye == ("data", True, b"bye")
    assert lost == ("lost", None)


async def test_the_server_calls_shutdown_and_waits_for_the_connection(calls: list[Any]) -> None:
    async with serving(nothing, "asgi", ws=Recorder, lifespan="off") as server:
        opened = RawClient.open(server)
        client = await opened.__aenter__()
        client.write(request(server, "/ws", KEY))
        await until(lambda: len(calls) == 3)
    assert calls[3:] == ["shutdown", ("lost", None)]
    await opened.__aexit__(None, None, None)


async def test_the_upgrade_is_handed_on_while_the_parser_says_where_the_head_ended() -> None:
    seen: list[Any] = []

    class Watching(HttpToolsProtocol):
        def handle_websocket_upgrade(self) -> None:
            seen.append(sys.exception())
            self.transport.close()

    options: dict[str, Any] = {"http": Watching, "ws": Recorder, "lifespan": "off"}
    async with serving(nothing, "asgi", **options) as server, RawClient.open(server) as client:
        head = request(server, "/ws", KEY)
        client.write(head + b"and more")
        assert await client.expect_end() == b""
    (upgrade,) = seen
    assert upgrade.args == (len(head),)


async def test_signals_are_caught_inside_the_running_loop() -> None:
    server = Server(configure(nothing, lifespan="off", log_config=None))
    seen: list[bool] = []
    before = signal.getsignal(signal.SIGTERM)

    async def startup(sockets: Any = None) -> None:
        seen.append(asyncio.get_running_loop().is_running() and signal.getsignal(signal.SIGTERM) is not before)
        server.should_exit = True

    server.startup = startup  # type: ignore[method-assign]
    await server.serve(sockets=[])
    assert seen == [True]
    assert signal.getsignal(signal.SIGTERM) is before


# --- The native door under uvicorn's own server and HTTP classes -----------------------------------------------------


@pytest.mark.parametrize("http", HTTP)
async def test_the_ws_class_alone_takes_sockets_over(http: str) -> None:
    """`uvicorn --ws hubbub.servers.uvicorn:WebSocketProtocol`: the native door, without our limits for HTTP."""
    hub = Hub()
    async with serving(FRAMEWORKS["starlette"](hub, []), "asgi", ws=WebSocketProtocol, http=http) as server:
        await until(lambda: server.server.server_state.default_headers)
        async with RawClient.join(server) as client:
            assert (await client.ask("echo", 1))["payload"] == 1
            await until(lambda: not server.server.server_state.tasks)
            assert (await fetch(server, "/hello")).body == b"hello"
            await refused(server)
            await client.leave()


async def refused(server: RunningServer) -> None:
    """A refusal before `set_protocol` is answered as well, and leaves nothing."""
    async with RawClient.connect(server, headers=[("Sec-WebSocket-Version", "8")], status=426) as client:
        assert client.answer.header("sec-websocket-version") == "13"
        client.write(b"more")
        assert await client.expect_end() == b""
    await until(lambda: len(server.server.server_state.connections) == 1)
