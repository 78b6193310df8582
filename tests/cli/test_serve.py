"""`hubbub serve` as people run it: what it prints, what it reads, and what it says when it cannot."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hubbub.cli import app as command
from tests.servers.places import certificate, trust
from tests.serving import Process, RawClient, RunningServer, fetch, process

Refusal = Callable[..., str]

APP = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from hubbub import Hub

app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("VERSION 1"))])
hub = Hub()
hub.attach(app)
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APP)
    return tmp_path


@pytest.fixture
def refusal(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Refusal]:
    """Runs `hubbub serve` in this process, where it must refuse: what it says on standard error, and no more."""
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", [*sys.path])
    sys.modules.pop("main", None)

    def run(*arguments: str, app: str = "main:app", **environment: str) -> str:
        result = CliRunner(env=environment).invoke(command(), ["serve", app, *arguments])
        assert (result.exit_code, result.stdout) == (1, ""), result.output
        return result.stderr

    yield run
    sys.modules.pop("main", None)


def serve(
    here: Path, *arguments: str, app: str = "main:app", **environment: str
) -> AbstractAsyncContextManager[Process]:
    return process("-m", "hubbub.cli", "serve", app, *arguments, cwd=here, **environment)


@asynccontextmanager
async def served(here: Path, *arguments: str, **environment: str) -> AsyncIterator[tuple[Process, RunningServer]]:
    """Run it on a free port, and wait for the banner."""
    async with serve(here, *(arguments or ("--port", "0")), **environment) as running:
        await running.says("Stop with Ctrl+C")
        yield running, RunningServer(port_of(running))


def port_of(running: Process) -> int:
    found = re.search(r"HTTP +https?://[^:]+:(\d+)", running.out)
    assert found, running.said
    return int(found[1])


# --- Serving ---------------------------------------------------------------------------------------------------------


async def test_the_banner_says_where_everything_is(here: Path) -> None:
    async with served(here) as (running, server):
        address = f"127.0.0.1:{server.port}"
        assert running.out.splitlines() == [
            "hubbub serves main:app (development)",
            f"  HTTP       http://{address}",
            f"  WebSocket  ws://{address}/ws",
            f"  Test page  http://{address}/ws/client",
            "  Inbox      SQLite at .hubbub/inbox.db, made when something is to be kept",
            "  Archive    SQLite at .hubbub/archive.db, made when something is to be kept",
            "  Stop with Ctrl+C",
        ]
        async with RawClient.join(server) as client:
            assert (await client.ask("echo", 1))["payload"] == 1
        assert (await fetch(server, "/ws/client")).status == 200
        assert (await fetch(server, "/")).body == b"VERSION 1"
        running.child.terminate()
        assert await running.end() == 0
        assert running.err == ""


async def test_the_access_log_is_an_option(here: Path) -> None:
    async with served(here, "--port", "0", "--access-log") as (running, server):
        await fetch(server, "/?a=b")
        await running.says('"GET /?a=b HTTP/1.1" 200')


async def test_tls(here: Path) -> None:
    files = certificate()
    arguments = ("--ssl-certfile", files["ssl_certfile"], "--ssl-keyfile", files["ssl_keyfile"])
    async with served(here, "--port", "0", *arguments) as (running, server):
        assert f"wss://127.0.0.1:{server.port}/ws" in running.out
        async with RawClient.join(server, ssl=trust()) as client:
            assert (await client.ask("echo", 1))["payload"] == 1


async def test_reload_restarts_with_an_open_socket(here: Path) -> None:
    async with served(here, "--port", "0", "--reload", WS_SHUTDOWN_TIMEOUT="200") as (running, server):
        async with RawClient.join(server) as client:
            (here / "main.py").write_text(APP.replace("VERSION 1", "VERSION 2"))
            await client.expect_close(1001)
        async with RawClient.join(server) as client:
            assert (await client.ask("echo", 1))["payload"] == 1
        assert (await fetch(server, "/")).body == b"VERSION 2"
        assert running.out.count(f"ws://127.0.0.1:{server.port}/ws") == 2
        assert "Traceback" not in running.err


# --- Settings --------------------------------------------------------------------------------------------------------


async def test_settings_come_from_the_environment_and_an_env_file(here: Path) -> None:
    (here / ".env").write_text("WS_PATH=/live\nDEPLOY_ENV=staging\nWS_HEARTBEAT_INTERVAL=12000\nPORT=1\n")
    async with served(here, PORT="0", WS_HEARTBEAT_INTERVAL="7000") as (running, server):
        assert "hubbub serves main:app (staging)" in running.out
        async with RawClient.connect(server, "/live") as client:
            assert (await client.recv_json("welcome"))["pingInterval"] == 7000


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("WS_PATH", "ws", "a path that starts with `/`"),
        ("WS_HEARTBEAT_INTERVAL", "soon", "from 100 to 3600000"),
        ("WS_SHUTDOWN_TIMEOUT", "-1", "from 0 to 600000"),
        ("PORT", "70000", "from 0 to 65535"),
        ("DEPLOY_ENV", "prod", "`development`, `test`, `staging` or `production`"),
    ],
)
def test_a_bad_setting_is_named_with_what_is_allowed(refusal: Refusal, name: str, value: str, allowed: str) -> None:
    said = refusal(**{name: value})
    assert said.startswith(f"hubbub: {name}={value!r} is not allowed: ")
    assert allowed in said
    assert said.count("\n") == 1


# --- What can be wrong -----------------------------------------------------------------------------------------------


async def test_a_busy_port_is_said_and_can_be_gone_around(here: Path, refusal: Refusal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        said = refusal("--port", str(port))
        assert said == (
            f"hubbub: Cannot listen on 127.0.0.1:{port}: Address already in use. "
            "Try another --port, or --next-free-port.\n"
        )
        async with served(here, "--port", str(port), "--next-free-port") as (_, server):
            assert port < server.port <= port + 20
            async with RawClient.join(server):
                pass


def test_an_unknown_host_is_said(refusal: Refusal) -> None:
    assert "Cannot listen on nowhere.invalid:0: " in refusal("--host", "nowhere.invalid", "--port", "0")


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("mian:app", 'Could not import module "mian".'),
        ("mian.web:app", "Could not import module 'mian'."),
        ("main:ap", 'Attribute "ap" not found in module "main".'),
        ("main", 'Import string "main" must be in format "<module>:<attribute>".'),
    ],
    ids=["no module", "no package", "no attribute", "no colon"],
)
def test_a_wrong_name_is_one_line(refusal: Refusal, app: str, said: str) -> None:
    error = refusal("--port", "0", app=app)
    assert error.startswith(f"hubbub: {said} Give module:attribute, for example main:app")
    assert error.count("\n") == 1


def test_what_is_no_app_is_not_served(refusal: Refusal) -> None:
    assert refusal("--port", "0", app="main:hub") == (
        "hubbub: main:hub is no ASGI app, but a Hub. Give the app that it is attached to.\n"
    )


async def test_a_hub_that_nobody_attached_is_told(here: Path) -> None:
    (here / "main.py").write_text(APP.replace("hub.attach(app)", ""))
    async with serve(here, "--port", "0") as running:
        await running.says("the hub for /ws is attached to no app, and takes no clients: hub.attach(app)")


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import json\njson.loads('{')", "json.decoder.JSONDecodeError"),
        ("import nothing_like_this", "ModuleNotFoundError: No module named 'nothing_like_this'"),
        ("def (", "SyntaxError"),
        ("from hubbub import Hub\nHub(path='ws')", "hubbub.errors.ConfigError"),
    ],
    ids=["raises", "imports nothing", "no Python", "a wrong hub"],
)
def test_a_module_that_fails_shows_its_own_traceback(here: Path, refusal: Refusal, source: str, error: str) -> None:
    (here / "main.py").write_text(source)
    said = refusal("--port", "0")
    assert error in said
    assert str(here / "main.py") in said
    assert said.endswith("hubbub: Importing main failed, as shown above.\n")
    assert "typer" not in said
    assert "uvicorn" not in said


async def test_an_app_that_fails_to_start_shows_why(here: Path) -> None:
    (here / "main.py").write_text(
        APP
        + """
def lifespan(app):
    raise OSError("the database is away")

app.router.lifespan_context = lifespan
"""
    )
    async with serve(here, "--port", "0") as running:
        assert await running.end() != 0
    assert running.out == ""
    assert "OSError: the database is away" in running.err


@pytest.mark.parametrize("package", ["httptools", "typer"])
async def test_a_missing_extra_is_one_line(here: Path, package: str) -> None:
    program = f"import sys; sys.modules[{package!r}] = None; from hubbub.cli import main; main()"
    async with process("-c", program, "serve", "main:app", "--port", "0", cwd=here) as running:
        assert await running.end() == 1
    assert running.err.startswith(f"hubbub: {package} is not installed")
    assert 'pip install "hubbub[server]"' in running.err
    assert running.err.count("\n") == 1
