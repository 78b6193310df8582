"""The `hubbub connect` command as a person starts it, and the `hubbub` command around it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from websockets.asyncio.server import ServerConnection, serve

import hubbub.cli
from tests.cli.signing import token_of
from tests.cli.standin import port_of, stand_in
from tests.serving import DEADLINE, REPOSITORY, process, running, until

WINDOW = struct.pack("HHHH", 40, 100, 0, 0)
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A pseudo-terminal of 100 columns with a command in it."""

    def __init__(self) -> None:
        self.screen = ""
        self._master = -1
        self._process: asyncio.subprocess.Process

    @classmethod
    @asynccontextmanager
    async def running(cls, *command: str, **environment: str) -> AsyncIterator[Terminal]:
        """Run a command in a terminal of its own."""
        terminal = cls()
        terminal._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, WINDOW)
        terminal._process = await asyncio.create_subprocess_exec(
            *(sys.executable, *command),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm", **environment},
            cwd=REPOSITORY,
            start_new_session=True,
        )
        os.close(slave)
        loop = asyncio.get_running_loop()
        loop.add_reader(terminal._master, terminal._read)
        try:
            yield terminal
        finally:
            loop.remove_reader(terminal._master)
            os.close(terminal._master)
            if terminal._process.returncode is None:
                terminal._process.kill()
                await terminal._process.wait()

    def type(self, line: str) -> None:
        """Type a line and press Enter."""
        os.write(self._master, f"{line}\r".encode())

    async def sees(self, text: str) -> None:
        """Wait until `text` is on the screen."""
        await until(lambda: text in self.screen, 2 * DEADLINE, lambda: f"{text!r} is not in\n{self.screen}")

    async def ended(self) -> int:
        """Wait for the command; its exit code."""
        async with asyncio.timeout(2 * DEADLINE):
            return await self._process.wait()

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # how a pseudo-terminal says that the other side has gone
            asyncio.get_running_loop().remove_reader(self._master)
            return
        if b"\x1b[6n" in data:  # the editor asks where the cursor is
            os.write(self._master, b"\x1b[1;1R")
        self.screen = ESCAPES.sub("", self.screen + data.decode(errors="replace"))


async def test_a_person_at_a_terminal(tmp_path: Path) -> None:
    from examples.chat.app import app

    with running(app) as server:
        command = ("-m", "hubbub.cli", "connect", server.url, "--token", await token_of("ann"))
        async with Terminal.running(*command, XDG_STATE_HOME=str(tmp_path)) as terminal:
            await terminal.sees("connected, hubbub.v1")
            await terminal.sees('"userId": "ann"')
            terminal.type('chat {"recipientId": "ann", "message": "to myself"}')
            await terminal.sees("← chat_received")
            await terminal.sees('"delivered": true')
            terminal.type("/quit")
            assert await terminal.ended() == 0
    assert "to myself" in (tmp_path / "hubbub" / "history").read_text()


async def headers_of(*options: str) -> Any:
    """The headers of the handshake that `hubbub connect` sends."""
    seen: list[Any] = []

    async def note(socket: ServerConnection) -> None:
        assert socket.request is not None
        seen.append(socket.request.headers)

    async with serve(note, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{port_of(server)}"
        async with process("-m", "hubbub.cli", "connect", address, *options) as command:
            await command.end()
    return seen[0]


async def test_headers_and_subprotocols_are_sent() -> None:
    headers = await headers_of("-H", "Origin: https://a.example", "--header", "X-Two:2", "--subprotocol", "mine")
    assert headers["origin"] == "https://a.example"
    assert headers["x-two"] == "2"
    assert headers["sec-websocket-protocol"] == "mine"


@pytest.mark.parametrize(
    ("options", "words", "code"),
    [
        (["ftp://h"], "hubbub connect: cannot connect to ftp://h: ftp:// is not a WebSocket address", 1),
        (["ws://h", "-H", "no colon"], "'no colon' is not a header", 2),
        ([], "Missing argument 'URL'", 2),
    ],
    ids=["address", "header", "no address"],
)
def test_what_cannot_be_done_is_said(options: list[str], words: str, code: int) -> None:
    result = CliRunner().invoke(hubbub.cli.app(), ["connect", *options], env={"COLUMNS": "160"})
    assert words in result.output
    assert result.exit_code == code


async def test_a_refusal_is_one_line() -> None:
    async with stand_in(status=403) as url, process("-m", "hubbub.cli", "connect", url) as command:
        assert await command.end() == 1
        assert command.err.startswith(f"hubbub connect: cannot connect to {url}: not a WebSocket, HTTP 403")
        assert command.err.count("\n") == 1


def without(package: str) -> str:
    """A program that is `hubbub` where a package is missing: None in sys.modules makes its import fail."""
    return f"import sys; sys.modules[{package!r}] = None; from hubbub.cli import main; main()"


@pytest.mark.parametrize("missing", ["typer", "rich"])
async def test_a_missing_extra_is_one_line(missing: str) -> None:
    async with process("-c", without(missing), "--help") as command:
        assert await command.end() == 1
        assert command.err == f'hubbub: {missing} is not installed: pip install "hubbub[server]"\n'


async def test_a_missing_line_editor_is_one_line() -> None:
    async with Terminal.running("-c", without("prompt_toolkit"), "connect", "ws://h") as terminal:
        assert await terminal.ended() == 1
        await terminal.sees('hubbub: prompt_toolkit is not installed: pip install "hubbub[server]"')
        assert "Traceback" not in terminal.screen


def test_the_command_lists_what_it_can_do() -> None:
    result = CliRunner().invoke(hubbub.cli.app(), ["--help"])
    assert all(name in result.output for name in ("serve", "check", "connect"))
