"""`hubbub connect` at a terminal: a line editor below, the messages above, one connection that comes back."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.patch_stdout import patch_stdout
from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.text import Text
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from hubbub.cli.dial import DialError, describe_close, may_reconnect
from hubbub.cli.line import COMMANDS, Command, LineError, decode, describe, encode, parse_line, printable
from hubbub.errors import CloseCode

__all__ = ["Prompt", "backoff", "history"]

BACKOFF_FIRST = 0.5
BACKOFF_MOST = 30.0
STEADY = 5.0
"""A connection that lived this long, in seconds, starts the backoff anew."""
TYPES = ["ping", "echo", "authenticate", "subscribe", "unsubscribe", "publish", "chat"]
WORDS = [*(line.split()[0] for line in COMMANDS), *TYPES]


def backoff(attempt: int) -> float:
    """How long to wait before the next attempt (from 0), in seconds: doubling, with jitter, up to 30."""
    return random.uniform(0.5, 1.0) * min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** min(attempt, 10))


def history() -> History:
    """The lines typed so far, kept in the XDG state directory where that can be written, for this user's eyes only."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "hubbub"
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        (state / "history").touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(state / "history"))


class Prompt:
    """A person's session with one server.

    Args:
        open: gives a new connection.
        token: signs in on every connection.
        history: the lines to offer with the arrow keys.
        delay: how long to wait before reconnect attempt n (from 0), in seconds.
    """

    def __init__(
        self,
        open: Callable[[], Awaitable[ClientConnection]],
        *,
        token: str | None,
        history: History,
        delay: Callable[[int], float] = backoff,
    ) -> None:
        self._open = open
        self._token = token
        self._delay = delay
        self._socket: ClientConnection | None = None
        self._highlight = JSONHighlighter()
        self._console = Console(force_terminal=True, highlight=False)
        self._editor: PromptSession[str] = PromptSession(
            self._mark,
            history=history,
            auto_suggest=AutoSuggestFromHistory(),
            completer=WordCompleter(WORDS, sentence=True),
            complete_while_typing=False,
        )

    async def run(self) -> int:
        """Stay until the person leaves, or the server says not to come back; return the exit code.

        Raises:
            DialError: the first connection could not be opened.
        """
        socket = await self._open()
        with patch_stdout(raw=True):
            connected = asyncio.create_task(self._stay_connected(socket))
            typed = asyncio.create_task(self._read_lines())
            try:
                done, _ = await asyncio.wait({connected, typed}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (connected, typed):
                    task.cancel()
                await asyncio.gather(connected, typed, return_exceptions=True)
                if self._socket is not None:
                    await self._socket.close()
        return max(task.result() for task in done)

    async def _stay_connected(self, first: ClientConnection) -> int:
        socket, attempt = first, 0
        while True:
            since = time.monotonic()
            code = await self._receive(socket)
            if not may_reconnect(code):
                return 0 if code == CloseCode.NORMAL else 1
            attempt = 0 if time.monotonic() - since > STEADY else attempt
            try:
                socket, attempt = await self._reconnect(attempt)
            except DialError as error:
                self._say(str(error), "red")
                return 1

    async def _receive(self, socket: ClientConnection) -> int:
        """Show what arrives until the connection ends; return the close code."""
        self._socket = socket
        self._say("connected" + (f", {socket.subprotocol}" if socket.subprotocol else ""), "green")
        with suppress(ConnectionClosed):
            if self._token is not None:
                await socket.send(encode({"type": "authenticate", "payload": {"token": self._token}}))
            async for message in socket:
                self._show(message)
        self._socket = None
        code = socket.close_code or CloseCode.ABNORMAL
        self._say(f"closed {describe_close(code, socket.close_reason or '')}", "yellow")
        return code

    async def _reconnect(self, attempt: int) -> tuple[ClientConnection, int]:
        for number in itertools.count(attempt):
            pause = self._delay(number)
            self._say(f"trying again in {pause:.1f} s", "dim")
            await asyncio.sleep(pause)
            try:
                return await self._open(), number + 1
            except DialError as error:
                if not error.retry:
                    raise
                self._say(str(error), "red")
        raise AssertionError("count() does not end")

    async def _read_lines(self) -> int:
        while True:
            try:
                line = await self._editor.prompt_async()
            except (EOFError, KeyboardInterrupt):
                return 0
            try:
                if line.strip() and not await self._obey(parse_line(line)):
                    return 0
            except LineError as error:
                self._say(str(error), "red")
            except ConnectionClosed:
                self._say("not sent: the connection has just closed", "red")

    async def _obey(self, order: Command | dict[str, object]) -> bool:
        """Do what the line says; False when it says to leave."""
        match order:
            case Command("/quit"):
                return False
            case Command("/help"):
                self._help()
            case _ if self._socket is None:
                self._say("not sent: not connected", "red")
            case Command("/ping"):
                latency = await (await self._socket.ping())
                self._say(f"pong after {1e3 * latency:.1f} ms", "green")
            case Command("/raw", text):
                await self._socket.send(text)
            case dict():
                await self._socket.send(encode({"timestamp": int(time.time() * 1e3)} | order))
        return True

    def _help(self) -> None:
        self._console.print('  type {"json": "payload"}   send a message, like: echo {"a": 1}', markup=False)
        self._console.print('  {"type": "echo", ...}      send a whole message', markup=False)
        for name, meaning in COMMANDS.items():
            self._console.print(f"  {name:26} {meaning}", markup=False)

    def _show(self, frame: str | bytes) -> None:
        message = decode(frame) if isinstance(frame, str) else None
        if message is None:
            text = printable(frame) if isinstance(frame, str) else f"{len(frame)} bytes: {frame[:64].hex(' ')}"
            self._console.print(Text.assemble(_clock(), ("← ", "cyan"), text), soft_wrap=True)
            return
        kind, body = describe(message)
        head = Text.assemble(
            _clock(), ("← ", "cyan"), (printable(kind), "bold red" if kind == "error" else "bold cyan")
        )
        self._console.print(self._with_body(head, body), soft_wrap=True)

    def _with_body(self, head: Text, body: object) -> Text:
        if body is None:
            return head
        line = self._highlight(printable(_pretty(body, None)))
        if head.cell_len + line.cell_len < self._editor.output.get_size().columns:
            return head.append(" ").append(line)
        lines = _pretty(body, 2).split("\n")
        return Text("\n").join([head, *(self._highlight(printable(line)) for line in lines)])

    def _say(self, what: str, style: str) -> None:
        self._console.print(Text.assemble(_clock(), (f"· {printable(what)}", style)), soft_wrap=True)

    def _mark(self) -> str:
        return "> " if self._socket is not None else "(offline) > "


def _pretty(body: object, indent: int | None) -> str:
    return json.dumps(body, ensure_ascii=False, indent=indent)


def _clock() -> tuple[str, str]:
    now = time.time()
    return f"{time.strftime('%H:%M:%S', time.localtime(now))}.{int(now % 1 * 1e3):03} ", "dim"
