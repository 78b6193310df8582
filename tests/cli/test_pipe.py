"""`hubbub connect` in a pipe: lines in, lines out, an exit code that can be trusted."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from hubbub.cli.dial import dial
from hubbub.cli.pipe import pipe
from tests.cli.standin import reply, stand_in
from tests.serving import DEADLINE, REPOSITORY

Message = dict[str, Any]
Run = Callable[..., Awaitable[tuple[list[str], str, int]]]


async def close(socket: ServerConnection, message: Message) -> None:
    await socket.close(message["payload"], "so there")


async def silence(socket: ServerConnection, message: Message) -> None:
    """Not a word."""


async def late(socket: ServerConnection, message: Message) -> None:
    await asyncio.sleep(0.2)
    await reply(socket, "late_response", None, message)


async def binary(socket: ServerConnection, message: Message) -> None:
    await socket.send(b"\x00\xff")
    await reply(socket, "done", None, message)


async def steer(socket: ServerConnection, message: Message) -> None:
    await socket.send('\x1b[2J{"type":\n"x"}')
    await reply(socket, "done", None, message)


async def signed_in(socket: ServerConnection, message: Message) -> None:
    await reply(socket, "authenticated", {"userId": message["payload"]["token"]}, message)


HANDLERS: dict[str, Any] = {
    "close": close,
    "silence": silence,
    "late": late,
    "binary": binary,
    "steer": steer,
    "authenticate": signed_in,
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Send lines from a file to a stand-in server; what is printed, the words on stderr, the exit code."""

    async def send(lines: str, *, token: str | None = None, wait: float = 5.0) -> tuple[list[str], str, int]:
        file = tmp_path / "lines"
        file.write_text(lines, "utf-8")
        async with stand_in(welcome="", **HANDLERS) as url:
            with file.open() as stdin, monkeypatch.context() as patch:
                patch.setattr(sys, "stdin", stdin)
                code = await pipe(partial(dial, url), token=token, wait=wait)
        printed = capsys.readouterr()
        return printed.out.splitlines(), printed.err, code

    return send


@asynccontextmanager
async def connect() -> AsyncIterator[asyncio.subprocess.Process]:
    """The command itself against a stand-in server, its three streams in our hands."""
    async with stand_in(welcome="", **HANDLERS) as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hubbub.cli", "connect", url),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=REPOSITORY,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_every_line_is_sent_and_every_answer_printed(run: Run) -> None:
    lines, words, code = await run('ping\n\n  \necho {"a": "é"}\n{"type":"echo","payload":1,"id":"mine"}\nlate')
    answers = [json.loads(line) for line in lines]
    assert [(answer["type"], answer["payload"], answer["id"]) for answer in answers] == [
        ("pong", None, "1"),
        ("echo_response", {"a": "é"}, "4"),
        ("echo_response", 1, "mine"),
        ("late_response", None, "6"),
    ]
    assert (words, code) == ("", 0)


async def test_many_lines(run: Run) -> None:
    lines, _, code = await run("".join(f'echo [{number}, "{"x" * 500}"]\n' for number in range(3000)))
    assert [json.loads(line)["payload"][0] for line in lines] == list(range(3000))
    assert code == 0


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("echo oops\nping", "line 1: the payload is not JSON"),
        ("silence\nping", "no answer to 1\n"),
        ("close 4001\n", "closed 4001: the token expired: bring a new one (so there)"),
        ("close 1000\nping", "closed 1000: the work is done (so there)\nhubbub connect: no answer to 1"),
    ],
    ids=["no JSON", "no answer", "closed", "closed before the answer"],
)
async def test_what_went_wrong_is_said_and_told_by_the_exit_code(run: Run, lines: str, words: str) -> None:
    _, err, code = await run(lines, wait=0.5)
    assert words in err
    assert code == 1


@pytest.mark.parametrize("type", ["ack", "response"])
async def test_nobody_waits_for_what_is_never_answered(run: Run, type: str) -> None:
    lines, words, code = await run(f'{type} {{}}\necho "last"', wait=60)
    assert json.loads(lines[-1])["payload"] == "last"
    assert (words, code) == ("", 0)


async def test_raw_text_and_commands(run: Run) -> None:
    lines, words, code = await run('/raw {"type": "ping", "id": "raw"}\n/ping\n/help\n/quit\nping', wait=0.5)
    assert [json.loads(line)["id"] for line in lines] == ["raw"]
    assert "send a ping frame" in words
    assert code == 0


@pytest.mark.parametrize(("line", "shown"), [("binary", "binary 00ff"), ("steer", '\\u001b[2J{"type": "x"}')])
async def test_what_cannot_be_printed_as_it_is(run: Run, line: str, shown: str) -> None:
    lines, _, _ = await run(line)
    assert lines[0] == shown


async def test_the_token_signs_in_first(run: Run) -> None:
    lines, _, code = await run("ping", token="ann")
    answers = [json.loads(line) for line in lines]
    assert [answer["type"] for answer in answers] == ["authenticated", "pong"]
    assert answers[0]["payload"] == {"userId": "ann"}
    assert code == 0


async def test_no_lines_at_all(run: Run) -> None:
    assert await run("") == ([], "", 0)


async def test_a_lost_connection_ends_it_while_the_input_is_open() -> None:
    async with connect() as process, asyncio.timeout(2 * DEADLINE):
        assert process.stdin is not None
        process.stdin.write(b"close 1001\n")
        assert await process.wait() == 1


async def test_a_reader_that_left_ends_it() -> None:
    async with connect() as process, asyncio.timeout(2 * DEADLINE):
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(b"ping\n")
        await process.stdout.readline()
        process.stdout._transport.close()  # type: ignore[attr-defined]  # what `| head -1` does
        process.stdin.write(b"ping\n" * 2)
        assert await process.wait() == 1
        assert b"Traceback" not in await process.stderr.read()
