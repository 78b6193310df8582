"""`hubbub connect` at a terminal: the real line editor, on a terminal made of strings."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.data_structures import Size
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output.vt100 import Vt100_Output
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection

from hubbub.cli.dial import DialError, dial
from hubbub.cli.prompt import BACKOFF_MOST, Prompt, backoff, history
from tests.cli.standin import reply, stand_in
from tests.serving import DEADLINE, until

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")
WELCOME = json.dumps({"type": "welcome", "payload": {"connectionId": "c1"}})

Message = dict[str, Any]
Open = Callable[[], Awaitable[ClientConnection]]


class Person:
    """Somebody at the terminal: types, and sees what is printed."""

    def __init__(self, keyboard: PipeInput, screen: io.StringIO) -> None:
        self._keyboard = keyboard
        self._screen = screen
        self.left: asyncio.Task[int]

    def type(self, line: str) -> None:
        """Type a line and press Enter."""
        self._keyboard.send_text(f"{line}\r")

    @property
    def screen(self) -> str:
        """Everything printed so far, without the colours."""
        return ESCAPES.sub("", self._screen.getvalue()).replace("\r", "")

    async def sees(self, text: str) -> None:
        """Wait until `text` is on the screen."""
        await until(lambda: text in self.screen, 2 * DEADLINE, otherwise=lambda: f"{text!r} is not in\n{self.screen}")

    async def leaves(self) -> int:
        """Wait for the end; the exit code."""
        async with asyncio.timeout(2 * DEADLINE):
            return await self.left


@asynccontextmanager
async def sitting(open: Open, *, token: str | None = None) -> AsyncIterator[Person]:
    """Somebody in front of a terminal of 100 columns, connected."""
    screen = io.StringIO()
    output = Vt100_Output(screen, lambda: Size(rows=40, columns=100), term="xterm", enable_cpr=False)
    with create_pipe_input() as keyboard, create_app_session(input=keyboard, output=output):
        person = Person(keyboard, screen)
        prompt = Prompt(open, token=token, history=InMemoryHistory(), delay=lambda attempt: 0.01)
        person.left = asyncio.create_task(prompt.run())
        try:
            yield person
        finally:
            person.left.cancel()
            await asyncio.gather(person.left, return_exceptions=True)


@asynccontextmanager
async def talking(**handlers: Any) -> AsyncIterator[Person]:
    """Somebody connected to a stand-in server."""
    async with stand_in(**{"welcome": WELCOME, **handlers}) as url, sitting(partial(dial, url)) as person:
        await person.sees("c1")
        yield person


async def close(socket: ServerConnection, message: Message) -> None:
    await socket.close(message["payload"], "so there")


def say(text: str | bytes) -> Any:
    async def handler(socket: ServerConnection, message: Message) -> None:
        await socket.send(text)

    return handler


async def test_a_conversation() -> None:
    async with talking() as person:
        assert re.search(r'\d\d:\d\d:\d\d\.\d{3} ← welcome {"connectionId": "c1"}', person.screen)
        person.type('echo {"a": [1, "é"]}')
        await person.sees('← echo_response {"a": [1, "é"]}')
        person.type("nobody")
        await person.sees('← error {"code": "unknown_type", "message": "nobody handles it"}')
        person.type("/quit")
        assert await person.leaves() == 0


async def test_a_long_message_is_spread_over_lines() -> None:
    async with talking() as person:
        person.type(f'echo {{"long": "{"x" * 100}"}}')
        await person.sees('← echo_response\n{\n  "long": "xxx')


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("/help", "send TEXT as it is"),
        ("/ping", "· pong after "),
        ('/raw {"type": "ping", "id": "raw"}', '← pong {"id": "raw"}'),
        ("/halp", "· unknown command /halp"),
        ("echo two words", "· the payload is not JSON"),
        ("binary", "← 2 bytes: 00 ff"),
        ("text", "← just text \\u001b[2J"),
    ],
)
async def test_a_line_and_what_it_shows(line: str, shown: str) -> None:
    async with talking(binary=say(b"\x00\xff"), text=say("just text \x1b[2J")) as person:
        person.type(line)
        await person.sees(shown)


async def test_a_lost_connection_comes_back() -> None:
    async with talking(close=close) as person:
        person.type("close 1001")
        await person.sees("· closed 1001: the server stops, or the page was left (so there)")
        await person.sees("· trying again in 0.0 s")
        await until(lambda: person.screen.count("← welcome") == 2)
        person.type("ping")
        await person.sees("← pong")


@pytest.mark.parametrize(("code", "end"), [(4501, 1), (4999, 1), (1000, 0)])
async def test_some_codes_say_not_to_come_back(code: int, end: int) -> None:
    async with talking(close=close) as person:
        person.type(f"close {code}")
        assert await person.leaves() == end
        assert f"closed {code}" in person.screen
        assert "trying again" not in person.screen


async def test_attempts_go_on_until_one_cannot_help() -> None:
    async with stand_in(welcome=WELCOME, close=close) as url:
        answers: list[Open | DialError] = [
            partial(dial, url),
            DialError(url, "busy", "wait", retry=True),
            DialError(url, "forbidden", "ask", retry=False),
        ]

        async def open() -> ClientConnection:
            match answers.pop(0):
                case DialError() as error:
                    raise error
                case reach:
                    return await reach()

        async with sitting(open) as person:
            await person.sees("c1")
            person.type("close 1012")
            assert await person.leaves() == 1
            assert person.screen.count("trying again") == 2
            assert person.screen.index("busy") < person.screen.index("forbidden")


async def test_nothing_is_sent_while_there_is_no_connection() -> None:
    waiting = asyncio.Event()
    async with stand_in(welcome=WELCOME, close=close) as url:
        first = [True]

        async def open() -> ClientConnection:
            if not first.pop():
                await waiting.wait()
            return await dial(url)

        async with sitting(open) as person:
            await person.sees("c1")
            first.append(False)
            person.type("close 1012")
            await person.sees("trying again")
            person.type("ping")
            await person.sees("· not sent: not connected")
            waiting.set()
            await until(lambda: person.screen.count("← welcome") == 2)


async def test_every_connection_signs_in() -> None:
    async def signed_in(socket: ServerConnection, message: Message) -> None:
        await reply(socket, "authenticated", {"userId": message["payload"]["token"]}, message)

    async with (
        stand_in(welcome=WELCOME, close=close, authenticate=signed_in) as url,
        sitting(partial(dial, url), token="ann") as person,
    ):
        await person.sees('"userId": "ann"')
        person.type("close 1012")
        await until(lambda: person.screen.count('"userId": "ann"') == 2)


@pytest.mark.parametrize("keys", ["\x04", "\x03"], ids=["Ctrl-D", "Ctrl-C"])
async def test_leaving_by_the_keyboard(keys: str) -> None:
    async with talking() as person:
        person._keyboard.send_text(keys)
        assert await person.leaves() == 0


async def test_a_first_connection_that_fails_is_not_tried_again() -> None:
    async with stand_in(status=404) as url, sitting(partial(dial, url)) as person:
        with pytest.raises(DialError, match="HTTP 404"):
            await person.leaves()


def test_the_backoff_doubles_up_to_its_limit() -> None:
    assert all(0.25 <= backoff(0) <= 0.5 for _ in range(50))
    assert all(2.0 <= backoff(3) <= 4.0 for _ in range(50))
    assert all(BACKOFF_MOST / 2 <= backoff(10_000) <= BACKOFF_MOST for _ in range(50))


def test_the_history_is_for_its_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    kept = history()
    assert isinstance(kept, FileHistory)
    kept.store_string("ping")
    file = tmp_path / "state" / "hubbub" / "history"
    assert "ping" in file.read_text()
    assert [path.stat().st_mode & 0o777 for path in (file, file.parent)] == [0o600, 0o700]


def test_without_a_place_to_write_the_history_lasts_as_long_as_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").write_text("a file, where a directory should be")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert isinstance(history(), InMemoryHistory)
