"""Sync processes publish through NATS to clients of `hubbub serve`: threads, forks, a pool, no word on stderr."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hubbub import Hub, Publisher
from hubbub.testing import connect
from services.nats import Nats
from tests.serving import Process, RawClient, RunningServer, fetch, process

APP = """
from hubbub import Hub
from starlette.applications import Starlette

app = Starlette()
hub = Hub(authenticator=lambda handshake: handshake.header("x-user"))
hub.attach(app)
hub.namespace("jobs", history=100, presence=True)
"""
SCRIPT = """
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor

from app import hub
from hubbub import Publisher

publisher = Publisher(hub)

def publish(name):
    return publisher.publish("jobs", "done", name, key=name).offset

if __name__ == "__main__":
    publish("parent")
    if not (child := os.fork()):
        publish("child")
        os._exit(0 if publisher.user_connection_count("ann") == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    publish("parent after the fork")
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(publish, ["pool 1", "pool 2", "pool 3"])
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(publish, [f"thread {n}" for n in range(8)]))
    if not (child := os.fork()):
        if not (grandchild := os.fork()):
            publish("grandchild")
            os._exit(0)
        os._exit(os.waitpid(grandchild, 0)[1])
    assert os.waitpid(child, 0)[1] == 0
    assert [each.user_id for each in publisher.presence("jobs")] == ["ann"]
    publisher.send_to_user("ann", "hello", durable=True)
    assert publisher.disconnect_user("ann", 4500) == 1
    print("all done")
"""
EXPECTED = {
    "parent",
    "child",
    "parent after the fork",
    *(f"pool {n}" for n in range(1, 4)),
    *(f"thread {n}" for n in range(8)),
    "grandchild",
}


@pytest.fixture(scope="module")
def nats() -> Iterator[Nats]:
    with Nats() as server:
        yield server


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "script.py").write_text(SCRIPT)
    return tmp_path


@asynccontextmanager
async def begin(hub: Hub) -> AsyncIterator[None]:
    """Run it as Litestar and the door do."""
    hub.start()
    await hub.node.open()
    yield
    await hub.shutdown()


async def port_of(running: Process) -> RunningServer:
    """The server, once it runs."""
    address = (await running.says("Stop with Ctrl+C", 30)).partition("HTTP")[2].split()[0]
    return RunningServer(int(address.rpartition(":")[2]))


async def test_a_script_its_forks_and_its_threads_reach_a_client(nats: Nats, here: Path) -> None:
    environment = {"HUBBUB_BROKER_URL": f"{nats.url}?name=forks", "HUBBUB_DATA_DIR": str(here)}
    command = ("-m", "hubbub.cli", "serve", "app:app", "--port", "0")
    async with process(*command, cwd=here, **environment) as running:
        server = await port_of(running)
        async with RawClient.join(server, headers=[("X-User", "ann")]) as client:
            await client.recv_json("authenticated")
            await client.ask("subscribe", {"channel": "jobs"})
            async with process("-X", "dev", "-W", "error", "script.py", cwd=here, **environment) as script:
                assert await script.end(50) == 0, script.said
            assert (script.out, script.err) == ("all done\n", "")
            published, offsets = list[str](), list[int]()
            while (received := await client.recv_frame()).opcode == 1:
                message = json.loads(received.payload)
                if message["type"] == "message":
                    published.append(message["payload"]["data"])
                    offsets.append(message["payload"]["offset"])
            assert received.code == 4500
        async with RawClient.join(server, headers=[("X-User", "ann")]) as client:
            while (await client.recv_json())["type"] != "hello":
                pass
    assert len(published) == len(EXPECTED)
    assert set(published) == EXPECTED
    assert offsets == sorted(offsets)


async def test_a_script_that_just_ends_closes_its_databases_without_a_word(nats: Nats, here: Path) -> None:
    (here / "once.py").write_text(
        "from app import hub\nfrom hubbub import Publisher\nPublisher(hub).publish('jobs', 'done')\n"
    )
    environment = {"HUBBUB_BROKER_URL": f"{nats.url}?name=once", "HUBBUB_INBOX_URL": f"sqlite:///{here}/inbox.db"}
    async with process("once.py", cwd=here, **environment) as script:
        assert await script.end(20) == 0, script.said
    assert script.err == ""


async def test_the_http_api_of_one_node_reaches_clients_of_another(nats: Nats, here: Path) -> None:
    key = "0123456789abcdef0123456789abcdef"
    environment = {"HUBBUB_BROKER_URL": f"{nats.url}?name=api", "HUBBUB_DATA_DIR": str(here), "HUBBUB_API_KEY": key}
    command = ("-m", "hubbub.cli", "serve", "app:app", "--port", "0")
    async with process(*command, cwd=here, **environment) as one, process(*command, cwd=here, **environment) as two:
        first, second = await port_of(one), await port_of(two)
        async with RawClient.join(second, headers=[("X-User", "ann")]) as client:
            await client.recv_json("authenticated")
            await client.ask("subscribe", {"channel": "jobs"})
            async with asyncio.timeout(20):
                while (await ask(first, key, "stats", {}))["nodes"] < 2:
                    pass  # until the first has heard of the second
            found = await ask(first, key, "connections", {"userId": "ann"})
            assert [each["channels"] for each in found["connections"]] == [["jobs"]]
            sent = await ask(first, key, "publish", {"channel": "jobs", "event": "x", "data": 1})
            while (message := await client.recv_json())["type"] != "message":
                pass
            assert (message["payload"]["data"], message["payload"]["offset"]) == (1, sent["offset"])
            assert await ask(first, key, "disconnect", {"userId": "ann"}) == {"connections": 1}
            await client.recv_close()


async def ask(server: RunningServer, key: str, name: str, body: object) -> dict[str, Any]:
    """Ask a node's API."""
    headers = [("X-API-Key", key), ("Content-Type", "application/json")]
    answer = await fetch(server, f"/ws/api/{name}", "POST", headers, json.dumps(body).encode())
    assert answer.status == 200, answer
    found: dict[str, Any] = json.loads(answer.body)
    return found


@pytest.mark.parametrize("start", [Hub.running, begin], ids=["running", "start"])
async def test_an_app_takes_the_place_of_a_publisher(nats: Nats, tmp_path: Path, start: Any) -> None:
    hub = Hub(broker_url=f"{nats.url}?name=turns", inbox_url=f"sqlite:///{tmp_path}/inbox.db")
    hub.namespace("jobs")
    publisher = Publisher(hub)
    await asyncio.to_thread(publisher.publish, "jobs", "starting")  # as an app's own startup may
    async with start(hub), connect(hub, "ann") as client:
        await client.request("subscribe", {"channel": "jobs"})
        await asyncio.to_thread(publisher.publish, "jobs", "started")
        await client.expect("message", event="started")
    await asyncio.to_thread(publisher.publish, "jobs", "stopped")
    await asyncio.to_thread(publisher.close)
