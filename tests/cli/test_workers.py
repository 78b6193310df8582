"""`hubbub serve --workers` before it serves: what it refuses, the port, and the NATS server it brings."""

from __future__ import annotations

import logging
import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

import pytest

from hubbub.cli import nats as own
from hubbub.cli.port import Port, listen
from hubbub.errors import ConfigError
from tests.serving import Process, process, until

APP = "from starlette.applications import Starlette\nfrom hubbub import Hub\napp = Starlette()\nHub({}).attach(app)\n"
WITHOUT_NATS = "import sys; sys.modules['nats'] = None; from hubbub.cli import main; main()"
IMPATIENT = "from hubbub.cli import workers; workers.LONG = 0.2; from hubbub.cli import main; main()"
SLOW = 30.0
FULL = "[ERR] JetStream failed to store a msg on stream '$G > room': write 1.blk: no space left on device\n"
OWN = """
import asyncio, pathlib, sys
from hubbub.cli.nats import OwnNats

async def main():
    nats = OwnNats(pathlib.Path("nats"), bound=sys.argv[1] == "kernel")
    await nats.start()
    print(nats.place, nats._process.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APP.format(""))
    return tmp_path


async def refusal(
    here: Path, *arguments: str, program: tuple[str, ...] = ("-m", "hubbub.cli"), **environment: str
) -> str:
    """What it says when it must refuse, in one line."""
    command = (*program, "serve", "main:app", "--port", "0", "--workers", "3", *arguments)
    async with process(*command, cwd=here, **environment) as running:
        assert await running.end(SLOW) == 1, running.said
    assert (running.out, running.err.count("\n")) == ("", 1), running.said
    return running.err


async def test_the_memory_broker_is_for_one_process(here: Path) -> None:
    said = await refusal(here, HUBBUB_BROKER_URL="memory://")
    assert said.startswith("hubbub: HUBBUB_BROKER_URL=memory:// is for one process, and --workers is 3: leave it out")
    assert not (here / ".hubbub").exists()


async def test_so_it_is_in_the_code(here: Path) -> None:
    (here / "main.py").write_text(APP.format("broker_url='memory://'"))
    said = await refusal(here)
    assert said.startswith("hubbub: The hub at /ws has broker_url='memory://', which is for one process")


async def test_reload_is_for_one_process(here: Path) -> None:
    assert await refusal(here, "--reload") == "hubbub: --reload is for one process: leave out --workers.\n"


async def test_what_is_missing_can_be_installed(here: Path) -> None:
    said = await refusal(here, program=("-c", WITHOUT_NATS))
    assert said == (
        'hubbub: nats-py is not installed, and --workers needs it: pip install "hubbub[workers]", '
        "or set HUBBUB_BROKER_URL to a NATS or Redis that you run.\n"
    )


async def test_a_busy_port_is_one_line(here: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        said = await refusal(here, "--port", str(port))
    assert said == (
        f"hubbub: Cannot listen on 127.0.0.1:{port}: Address already in use. Try another --port, or --next-free-port.\n"
    )


async def test_a_broker_out_of_reach_is_one_line(here: Path) -> None:
    said = await refusal(here, HUBBUB_BROKER_URL="nats://127.0.0.1:1")
    assert "NATS at 127.0.0.1:1 cannot be reached" in said


async def test_what_is_wrong_with_the_app_is_said_once(here: Path) -> None:
    (here / "main.py").write_text("app = None.app")
    command = ("-m", "hubbub.cli", "serve", "main:app", "--port", "0", "--workers", "3")
    async with process(*command, cwd=here) as running:
        assert await running.end(SLOW) == 1
    assert running.err.count("AttributeError") == 1
    assert running.err.endswith("hubbub: Importing main failed, as shown above.\n")


async def test_an_app_that_takes_long_to_start_is_told_of(here: Path) -> None:
    waits = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.02)\n"
    (here / "main.py").write_text(waits + APP.format(""))
    command = ("-c", IMPATIENT, "serve", "main:app", "--port", "0", "--workers", "2")
    async with process(*command, cwd=here) as running:
        await running.says("still starts, for 0 s by now: the app holds it up", SLOW)
        (here / "go").touch()
        await running.says("Stop with Ctrl+C", SLOW)
        running.child.terminate()
        assert await running.end(SLOW) == 0


# --- The port --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balanced", [True, False], ids=["own listeners", "one listener"])
def test_processes_share_a_port(balanced: bool) -> None:
    port = Port("127.0.0.1", listen("127.0.0.1", 0, False), balanced=balanced)
    one, two = port.listener(), port.listener()
    assert one.getsockname() == two.getsockname() == port.address
    assert (one is two) is not balanced
    port.release(two)
    one.listen()
    with socket.create_connection(port.address):
        one.accept()[0].close()
    one.close()
    port.close()


def test_a_port_can_be_lost_in_a_moment() -> None:
    listener = listen("127.0.0.1", 0, False)
    address = listener.getsockname()
    listener.close()
    with socket.create_server(address), pytest.raises(ConfigError, match="Address already in use"):
        Port("127.0.0.1", _Closed(address), balanced=True)


class _Closed(socket.socket):
    """A listener that another took the port of."""

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__()
        self._address = address

    def getsockname(self) -> tuple[str, int]:
        return self._address


# --- NATS ------------------------------------------------------------------------------------------------------------


async def own_nats(running: Process) -> int:
    """Wait until it runs; its process."""
    await running.says("kept in nats", SLOW)
    return int(running.out.split()[-1])


@pytest.mark.parametrize("bound", ["kernel", "shell"])
async def test_our_nats_dies_with_us(tmp_path: Path, bound: str) -> None:
    async with process("-c", OWN, bound, cwd=tmp_path) as running:
        pid = await own_nats(running)
        running.child.kill()
        await running.end()
        await until(lambda: not _lives(pid), SLOW)


async def test_two_never_write_to_one_directory(tmp_path: Path) -> None:
    async with process("-c", OWN, "kernel", cwd=tmp_path) as first:
        pid = await own_nats(first)
        async with process("-c", OWN, "kernel", cwd=tmp_path) as second:
            assert await second.end(SLOW) == 1
            assert "Another `hubbub serve --workers` keeps its NATS in nats: set HUBBUB_DATA_DIR" in second.err
        assert _lives(pid)


async def test_a_directory_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "nats").touch()
    async with process("-c", OWN, "kernel", cwd=tmp_path) as running:
        assert await running.end(SLOW) == 1
    assert "A NATS server cannot be run in nats: File exists." in running.err


async def test_one_that_does_not_start_is_said(tmp_path: Path) -> None:
    broken = OWN.replace("async def", "import hubbub.cli.nats as own\nown.CONFIGURATION = 'nonsense {{'\nasync def", 1)
    async with process("-c", broken, "kernel", cwd=tmp_path) as running:
        assert await running.end(SLOW) == 1
    assert "The NATS server did not start; nats/server.log may say why." in running.err


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


async def test_a_server_whose_disk_was_full_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """JetStream says it in its log, and stores nothing more on that stream until it is started again."""
    monkeypatch.setattr(own, "LOOK_FOR_ROOM", 0.05)
    disk = Usage(1 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)
    nats = own.OwnNats(tmp_path)
    await nats.start()
    try:
        first = running(nats)
        with caplog.at_level(logging.WARNING, "hubbub.workers"):
            disk.free = 0
            await until(lambda: len(caplog.records) == 1)
            with (tmp_path / "server.log").open("a") as log:
                log.write(FULL)
            assert running(nats) == first
            disk.free = 1 << 30
            await until(lambda: running(nats) not in (0, first), SLOW)
            await until(lambda: len(caplog.records) == 3)
        assert [record.message.partition(f" for {tmp_path}")[0] for record in caplog.records] == [
            "no room left",
            "there is room again",
            "the NATS server ended with 0: started again in 0.2 s",
        ]
    finally:
        await nats.stop()


@dataclass
class Usage:
    """How a disk is."""

    free: int


def running(nats: own.OwnNats) -> int:
    """The server's process, 0 while there is none."""
    process = nats._process
    return 0 if process is None or process.returncode is not None else process.pid
