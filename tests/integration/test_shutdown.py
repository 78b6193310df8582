"""How `hubbub serve` stops: sockets first, then HTTP, then the app; never later than the forced exit."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.serving import Process, RawClient, RunningServer, free_port, process

APP = """
import asyncio
import os
import time
from contextlib import asynccontextmanager
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from hubbub import Hub
from hubbub.servers import server

server.FORCED_EXIT = float(os.environ.get("FORCED_EXIT", server.FORCED_EXIT))
gone = asyncio.Event()

def say(text):
    print(text, flush=True)

@asynccontextmanager
async def lifespan(app):
    yield
    say("app down")

async def slow(request):
    say("request")
    await gone.wait()
    await asyncio.sleep(0.3)
    say("answer")
    return PlainTextResponse("slow")

async def endless(request):
    say("request")
    await asyncio.Event().wait()

async def own(socket):
    await socket.accept()
    say(f"own socket closed {(await socket.receive())['code']}")

routes = [Route("/slow", slow), Route("/endless", endless), WebSocketRoute("/own", own)]
app = Starlette(routes=routes, lifespan=lifespan)
hub = Hub()
hub.attach(app)

@hub.on("work")
async def work(conn):
    say("working")
    await asyncio.sleep(0.2)
    say("worked")

@hub.on("hang")
async def hang(conn):
    say("hanging")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        say("stopped")
        raise

@hub.on("block")
def block(conn):
    say("blocking")
    time.sleep(30)

@hub.on_close
async def closed(conn, code, reason):
    await asyncio.sleep(0.05)
    say(f"closed {code}")
    gone.set()
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APP)
    return tmp_path


@asynccontextmanager
async def served(here: Path, **environment: str) -> AsyncIterator[tuple[Process, RunningServer]]:
    command = ("-m", "hubbub.cli", "serve", "main:app", "--port", "0")
    async with process(*command, cwd=here, **environment) as running:
        said = await running.says("Stop with Ctrl+C")
        yield running, RunningServer(int(re.findall(r"http://[^:]+:(\d+)", said)[0]))


def after_the_banner(running: Process) -> list[str]:
    return running.out.partition("Stop with Ctrl+C\n")[2].splitlines()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_sockets_first_then_http_then_the_app(here: Path, number: signal.Signals) -> None:
    async with served(here) as (running, server), RawClient.open(server) as browser:
        async with RawClient.join(server) as client, RawClient.connect(server, "/own") as own:
            browser.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            await running.says("request")
            running.child.send_signal(number)
            received = await client.recv_frame()
            assert (received.opcode, received.code, received.reason) == (8, 1001, "the server stops")
            with pytest.raises(ConnectionRefusedError):
                async with RawClient.open(server):
                    pass
            client.send_frame(8, received.payload)
            await own.expect_close(1001)
            assert (await browser.recv_answer()).body == b"slow"
        assert await running.end() == 0
    assert after_the_banner(running) == ["request", "closed 1001", "own socket closed 1001", "answer", "app down"]
    assert running.err == ""


async def test_handlers_may_finish(here: Path) -> None:
    async with served(here) as (running, server), RawClient.join(server) as client:
        client.send_json("work")
        await running.says("working")
        running.child.terminate()
        await running.says("worked")
        await client.expect_close(1001)
        assert await running.end() == 0
    assert after_the_banner(running) == ["working", "worked", "closed 1001", "app down"]


async def test_who_does_not_answer_is_cut_and_what_hangs_is_stopped(here: Path) -> None:
    async with served(here, WS_SHUTDOWN_TIMEOUT="200") as (running, server), RawClient.join(server) as client:
        client.send_json("hang")
        await running.says("hanging")
        started = time.monotonic()
        running.child.terminate()
        assert (await client.recv_close()).code == 1001
        await client.expect_end()
        assert 0.15 < time.monotonic() - started < 3
        assert await running.end() == 0
    assert after_the_banner(running) == ["hanging", "stopped", "closed 1001", "app down"]
    assert running.err == ""


async def test_a_request_without_end_is_left(here: Path) -> None:
    async with served(here, FORCED_EXIT="0.5") as (running, server), RawClient.open(server) as browser:
        browser.write(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        await running.says("request")
        running.child.terminate()
        assert await running.end() == 1
    assert "not stopped after 0.5 s: exit now" in running.err


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
async def test_a_loop_that_hangs_is_left(here: Path, again: bool) -> None:
    forced = {} if again else {"FORCED_EXIT": "0.5"}
    async with served(here, **forced) as (running, server), RawClient.join(server) as client:
        client.send_json("block")
        await running.says("blocking")
        running.child.terminate()
        if again:
            await asyncio.sleep(0.1)
            running.child.terminate()
        assert await running.end() == (128 + signal.SIGTERM if again else 1)
    assert ("not stopped after 0.5 s: exit now" in running.err) is not again


async def test_a_second_signal_exits_at_once(here: Path) -> None:
    async with served(here) as (running, server), RawClient.join(server) as client:
        started = time.monotonic()
        running.child.terminate()
        await client.recv_close()
        running.child.send_signal(signal.SIGINT)
        assert await running.end() == 128 + signal.SIGINT
        assert time.monotonic() - started < 3
    assert "app down" not in running.out


async def test_a_signal_before_the_start_exits_at_once(here: Path) -> None:
    slow = APP.replace("    yield\n", "    say('starting')\n    await asyncio.sleep(30)\n    yield\n")
    (here / "main.py").write_text(slow)
    async with process("-m", "hubbub.cli", "serve", "main:app", "--port", "0", cwd=here) as running:
        await running.says("starting")
        running.child.terminate()
        assert await running.end() == 128 + signal.SIGTERM


async def test_plain_uvicorn_closes_the_sockets_by_itself(here: Path) -> None:
    """With 1012 and before the hub hears of it; then it raises the signal again."""
    port = free_port()
    async with process("-m", "uvicorn", "main:app", "--port", str(port), cwd=here) as running:
        await running.says("Uvicorn running on")
        server = RunningServer(port)
        async with RawClient.join(server) as client:
            running.child.terminate()
            await client.expect_close(1012, "")
        assert await running.end() == -signal.SIGTERM
    assert running.out.splitlines() == ["closed 1012", "app down"]
