"""`hubbub serve --workers`: several processes are one hub, and none of them is needed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.follower import Follower
from tests.serving import Process, RawClient, RunningServer, fetch, process, until

pytestmark = pytest.mark.timeout(180)
SLOW = 40.0
"""Seconds for what several processes do: they may have one core."""

APP = """
import os
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from hubbub import Hub, StoreError
from hubbub.limits import Limits, Rate, Rates

MANY = Rate(1e6)

async def publish(request):
    n = int(request.path_params["n"])
    try:
        await hub.publish("room:1", "said", n, key=str(n))
    except StoreError as error:
        return PlainTextResponse(str(error), 503)
    return PlainTextResponse("published")

app = Starlette(routes=[Route("/publish/{n}", publish)])
rates = Rates(messages=MANY, bytes=Rate(1e10), subscribes=MANY, publishes=MANY, attempts=MANY)
hub = Hub(rates=rates, limits=Limits(connections_per_address=10_000))
hub.namespace("room", history=10_000, history_ttl=600.0, presence=True)
hub.attach(app)

@hub.on("where")
def where(conn):
    return os.getpid()

@hub.on("sign_in")
def sign_in(conn, user: str):
    conn.identify(user)
    return True

@hub.on("note")
async def note(conn, user: str):
    await hub.send_to_user(user, "noted", os.getpid(), durable=True)
    return True

@hub.on("whisper")
async def whisper(conn, user: str):
    await hub.send_to_user(user, "whispered", os.getpid())
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APP)
    return tmp_path


class Crew:
    """A running `hubbub serve --workers`."""

    def __init__(self, running: Process) -> None:
        self.running = running
        found = re.search(r"HTTP +http://[^:]+:(\d+)", running.out)
        assert found, running.said
        self.server = RunningServer(int(found[1]))
        self.url = f"ws://127.0.0.1:{self.server.port}/ws"

    @property
    def pids(self) -> list[int]:
        """The processes under it, NATS among them."""
        return children(self.running.pid)

    @property
    def workers(self) -> list[int]:
        """The processes that serve."""
        return [pid for pid in self.pids if pid != self.nats]

    @property
    def nats(self) -> int:
        """The NATS server's process, 0 if there is none."""
        return next((pid for pid in self.pids if "nats-server" in command_line(pid)), 0)

    @asynccontextmanager
    async def one_each(self) -> AsyncIterator[dict[int, RawClient]]:
        """A client on each worker, by its process."""
        found: dict[int, RawClient] = {}
        async with AsyncExitStack() as stack:
            while len(found) < len(self.workers):
                client = await stack.enter_async_context(RawClient.join(self.server))
                pid = (await client.ask("where"))["payload"]
                found.setdefault(pid, client)
            yield found

    async def publish(self, numbers: range, *, pause: float = 0.0) -> None:
        """Publish each number until it is acknowledged, over whichever worker answers."""
        for number in numbers:
            while not await self._published(number):  # noqa: ASYNC110  # nothing says when NATS is back
                await asyncio.sleep(0.05)
            await asyncio.sleep(pause)

    async def _published(self, number: int) -> bool:
        try:
            return (await fetch(self.server, f"/publish/{number}")).status == 200
        except (OSError, EOFError, TimeoutError):
            return False


@asynccontextmanager
async def serving(here: Path, *arguments: str, workers: int = 2, **environment: str) -> AsyncIterator[Crew]:
    command = ("-m", "hubbub.cli", "serve", "main:app", "--port", "0", "--workers", str(workers), *arguments)
    async with process(*command, cwd=here, **environment) as running:
        await running.says("Stop with Ctrl+C", SLOW)
        crew = Crew(running)
        try:
            yield crew
        finally:
            left = crew.pids
            if running.child.returncode is None:
                running.child.kill()
                await running.child.wait()
            for pid in filter(alive, left):
                os.kill(pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    try:
        tasks = [Path(f"/proc/{pid}/task/{task}/children") for task in os.listdir(f"/proc/{pid}/task")]
        return [int(child) for task in tasks for child in task.read_text().split()]
    except OSError:
        return []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


async def heard(client: RawClient, type: str) -> Any:
    """The payload of the next message of a type, past others."""
    while (message := await client.recv_json())["type"] != type:
        pass
    return message.get("payload")


# --- One hub ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [2, 4])
async def test_workers_are_one_hub(here: Path, workers: int) -> None:
    async with serving(here, workers=workers) as crew:
        assert f"  Workers    {workers}; `kill -HUP {crew.running.pid}` replaces them one by one\n" in crew.running.out
        assert re.search(r"  Broker     NATS at [\d.:]+, started with this, kept in .hubbub/nats\n", crew.running.out)
        async with crew.one_each() as clients:
            for pid, client in clients.items():
                client.send_json("sign_in", f"user{pid}")
                client.send_json("subscribe", {"channel": "room:1"})
                await heard(client, "subscribed")
            await crew.publish(range(3))
            for client in clients.values():
                assert [(await heard(client, "message"))["data"] for _ in range(3)] == [0, 1, 2]
            (one, first), (other, _), *_ = clients.items()
            first.send_json("whisper", f"user{other}")
            assert await heard(clients[other], "whispered") == one
            first.send_json("note", f"user{other}")
            assert await heard(clients[other], "noted") == one
            await until_there(first, {f"user{pid}" for pid in clients})
        crew.running.child.terminate()
        assert await crew.running.end(SLOW) == 0
    assert crew.running.err == ""


async def until_there(client: RawClient, users: set[str]) -> None:
    async with asyncio.timeout(SLOW):
        while True:
            client.send_json("presence", {"channel": "room:1"}, id="who")
            while (message := await client.recv_json()).get("id") != "who":
                pass
            if {member["userId"] for member in message["payload"]["members"]} == users:
                return


async def test_connections_are_spread(here: Path) -> None:
    async with serving(here) as crew, AsyncExitStack() as stack:
        nodes: Counter[str] = Counter()
        for _ in range(20):
            joining = (stack.enter_async_context(RawClient.join(crew.server)) for _ in range(100))
            nodes.update([client.id[:8] for client in await asyncio.gather(*joining)])
        assert sum(nodes.values()) == 2000
        assert 800 <= min(nodes.values()) <= max(nodes.values()) <= 1200


async def test_four_workers_share_a_fresh_data_directory(here: Path) -> None:
    """Nothing is there; all of them make the inbox and the archive at once."""
    (here / "main.py").write_text(APP.replace("presence=True", "presence=True, archive=True"))
    async with serving(here, workers=4) as crew, crew.one_each() as clients:
        assert not (here / ".hubbub" / "inbox.db").exists()
        for client in clients.values():
            client.send_json("note", "bo")
        for client in clients.values():
            assert await heard(client, "note_response") is True
        for client in clients.values():
            client.send_json("sign_in", "bo")
            assert {await heard(client, "noted") for _ in clients} == set(clients)
        await crew.publish(range(5))
        assert crew.running.err == ""


# --- Deaths ----------------------------------------------------------------------------------------------------------


async def test_a_killed_worker_is_replaced_and_its_clients_miss_nothing(here: Path) -> None:
    async with serving(here) as crew, AsyncExitStack() as stack:
        names = [f"user{number}" for number in range(12)]
        followers = [Follower(crew.url, name, "room:1") for name in names]
        for follower in followers:
            await stack.enter_async_context(follower.following())
        victim = followers[0].pid
        publishing = asyncio.create_task(crew.publish(range(60), pause=0.02))
        os.kill(victim, signal.SIGKILL)
        await publishing
        await until(lambda: all(len(follower.seen) == 60 for follower in followers), SLOW)
        assert all(follower.seen == list(range(60)) for follower in followers)
        assert {tuple(follower.recovered) for follower in followers} == {(), (True,)}
        assert f"({victim}) died: SIGKILL" in crew.running.err
        await until(lambda: len(crew.workers) == 2, SLOW)
        async with crew.one_each() as clients:
            assert victim not in clients


async def test_nothing_outlives_a_killed_parent(here: Path) -> None:
    async with serving(here) as crew, RawClient.join(crew.server) as client:
        pids = crew.pids
        assert len(pids) == 3
        crew.running.child.kill()
        await client.expect_close(1001)
        await until(lambda: not any(map(alive, pids)), 10.0, lambda: str(list(map(command_line, pids))))


async def test_a_drain_goes_on_without_the_parent(here: Path) -> None:
    async with serving(here, "--drain-time", "2") as crew, RawClient.join(crew.server) as client:
        pids = crew.pids
        client.send_json("sign_in", "bo")
        await heard(client, "sign_in_response")
        crew.running.child.terminate()
        await heard(client, "reconnect")
        crew.running.child.kill()
        await client.expect_close(1012)
        await until(lambda: not any(map(alive, pids)), 20.0, lambda: str(list(map(command_line, pids))))


async def test_nats_is_started_again_and_nothing_acknowledged_is_lost(here: Path) -> None:
    async with serving(here) as crew, Follower(crew.url, "bo", "room:1").following() as follower:
        credential = (here / ".hubbub" / "nats" / "server.conf").read_text().partition("password: ")[2].split('"')[1]
        publishing = asyncio.create_task(crew.publish(range(60), pause=0.05))
        for _ in range(2):
            await kill_nats(crew, follower)
        await publishing
        await until(lambda: len(follower.seen) >= 60, SLOW)
        assert follower.seen == list(range(60))
        assert all(follower.recovered)
        assert (here / ".hubbub" / "nats" / "server.conf").stat().st_mode & 0o777 == 0o600
        said = [
            crew.running.said,
            *map(command_line, crew.pids),
            (here / ".hubbub" / "nats" / "server.log").read_text(),
        ]
        assert not any(credential in text for text in said)
    assert crew.running.err.count("the NATS server ended with -9: started again in") == 2


async def kill_nats(crew: Crew, follower: Follower) -> None:
    """Kill it, and wait until messages flow again."""
    before, nats = len(follower.seen), crew.nats
    os.kill(nats, signal.SIGKILL)
    await until(lambda: crew.nats not in (0, nats), SLOW)
    await until(lambda: len(follower.seen) > before + 5, SLOW)


async def test_who_cannot_live_ends_all(here: Path) -> None:
    (here / "main.py").write_text(APP + "\nif os.path.exists('broken'):\n    os._exit(3)\n")
    async with serving(here) as crew:
        pids = crew.pids
        (here / "broken").touch()
        os.kill(crew.workers[0], signal.SIGKILL)
        assert await crew.running.end(2 * SLOW) == 1
        assert "died 5 times in a row: all stop" in crew.running.err
        assert not any(map(alive, pids))


# --- The end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to_all", [False, True], ids=["to the parent", "to all workers too"])
async def test_sigterm_drains(here: Path, to_all: bool) -> None:
    async with serving(here, "--drain-time", "2") as crew, RawClient.join(crew.server) as client:
        client.send_json("sign_in", "bo")
        await heard(client, "sign_in_response")
        started = time.monotonic()
        for pid in crew.workers if to_all else ():
            os.kill(pid, signal.SIGTERM)  # as systemd does by default
        crew.running.child.terminate()
        told = await heard(client, "reconnect")
        assert told["ticket"]
        await client.expect_close(1012)
        assert await crew.running.end(SLOW) == 0
        assert time.monotonic() - started < 2 + 15
    assert crew.running.err == ""


async def test_with_nowhere_to_go_nobody_is_sent_away(here: Path) -> None:
    async with serving(here) as crew, RawClient.join(crew.server) as client:
        crew.running.child.terminate()
        await client.expect_close(1001)
        assert await crew.running.end(SLOW) == 0


async def test_a_second_signal_ends_it_at_once(here: Path) -> None:
    async with serving(here, "--drain-time", "30") as crew, RawClient.join(crew.server) as client:
        pids = crew.pids
        crew.running.child.terminate()
        await heard(client, "reconnect")
        crew.running.child.send_signal(signal.SIGINT)
        assert await crew.running.end() == 128 + signal.SIGINT
        await until(lambda: not any(map(alive, pids)), SLOW)


async def test_a_rolling_restart_that_cannot_be_leaves_all_as_it_was(here: Path) -> None:
    async with serving(here, "--drain-time", "1") as crew, RawClient.join(crew.server) as client:
        before = set(crew.workers)
        (here / "main.py").write_text("1 / 0")
        crew.running.child.send_signal(signal.SIGHUP)
        await crew.running.says("could not be replaced: the old ones go on", SLOW)
        assert "ZeroDivisionError" in crew.running.err
        assert set(crew.workers) == before
        assert (await client.ask("where"))["payload"] in before
