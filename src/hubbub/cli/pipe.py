"""`hubbub connect` in a pipe: every line of stdin is sent, every message is one line of stdout.

1. A message without an `id` gets its line number as one, so that we know what is still unanswered.
2. At the end of the input we stay until every request is answered, or nothing came for `wait` seconds.
3. The exit code is 0 only if every line could be sent and every request was answered.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from hubbub.cli.dial import describe_close
from hubbub.cli.line import COMMANDS, Command, LineError, decode, encode, parse_line, printable
from hubbub.errors import CloseCode

__all__ = ["pipe"]

READ_SIZE = 1 << 16
READ_AHEAD = 1000
SILENT_TYPES = {"ack", "response"}


async def pipe(open: Callable[[], Awaitable[ClientConnection]], *, token: str | None, wait: float) -> int:
    """Send stdin, print what comes back, and return the exit code.

    Args:
        open: gives a new connection.
        token: sent first, to sign in.
        wait: how long to stay for answers after the last line, in seconds.

    Raises:
        DialError: the connection could not be opened.
    """
    socket = await open()
    session = _Pipe(socket)
    printing = asyncio.create_task(session.print_messages())
    sending = asyncio.create_task(session.send_lines(token, wait))
    done, ended = await asyncio.wait({printing, sending}, return_when=asyncio.FIRST_COMPLETED)
    for task in ended:
        task.cancel()
    await socket.close()
    for task in done:
        task.result()
    return session.exit_code()


class _Pipe:
    """One connection, the requests still unanswered, and whether anything went wrong."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._unanswered: set[str] = set()
        self._blind = False
        self._failed = False
        self._arrived = asyncio.Event()

    async def print_messages(self) -> None:
        """Print what arrives until the connection ends, and then why it did."""
        with suppress(ConnectionClosed):
            async for text in self._socket:
                print(printable(text) if isinstance(text, str) else f"binary {text.hex()}", flush=True)
                self._unanswered.discard(str((decode(text) or {}).get("id")))
                self._arrived.set()
        code = self._socket.close_code or CloseCode.ABNORMAL
        self._failed |= code != CloseCode.NORMAL
        _complain(f"closed {describe_close(code, self._socket.close_reason or '')}")

    async def send_lines(self, token: str | None, wait: float) -> None:
        """Sign in, send every line of stdin, and stay for the answers."""
        with suppress(ConnectionClosed):
            if token is not None:
                await self._send({"type": "authenticate", "payload": {"token": token}, "id": "token"})
            async for number, line in _stdin():
                try:
                    if not await self._obey(number, line):
                        break
                except LineError as error:
                    self._failed = True
                    _complain(f"line {number}: {error}")
            await self._settle(wait)

    def exit_code(self) -> int:
        """Say what was not answered, and return the exit code."""
        if self._unanswered:
            _complain(f"no answer to {', '.join(sorted(self._unanswered))}")
        return 1 if self._failed or self._unanswered else 0

    async def _obey(self, number: int, line: str) -> bool:
        """Do what the line says; False when it says to leave."""
        match parse_line(line):
            case Command("/quit"):
                return False
            case Command("/help"):
                print("\n".join(f"{name:10} {meaning}" for name, meaning in COMMANDS.items()), file=sys.stderr)
            case Command("/ping"):
                await self._socket.ping()
            case Command("/raw", text):
                self._blind = True
                await self._socket.send(text)
            case dict() as message:
                await self._send({"id": str(number), "timestamp": int(time.time() * 1e3)} | message)
        return True

    async def _send(self, message: dict[str, Any]) -> None:
        if message.get("type") not in SILENT_TYPES:
            self._unanswered.add(str(message["id"]))
        await self._socket.send(encode(message))

    async def _settle(self, wait: float) -> None:
        while self._unanswered or self._blind:
            self._arrived.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._arrived.wait()
            except TimeoutError:
                return


def _complain(what: str) -> None:
    print(f"hubbub connect: {printable(what)}", file=sys.stderr)


async def _stdin() -> AsyncIterator[tuple[int, str]]:
    """Yield every line of stdin that is not empty, with its number.

    A daemon thread reads: a file cannot be polled, and a blocked read must not keep us from leaving.
    """
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[bytes | None] = asyncio.Queue()
    room = threading.Semaphore(READ_AHEAD)

    def put(line: bytes | None) -> None:
        room.acquire()
        with suppress(RuntimeError):  # the loop has ended before the input
            loop.call_soon_threadsafe(lines.put_nowait, line)

    threading.Thread(target=_read, args=(os.dup(sys.stdin.fileno()), put), daemon=True).start()
    number = 0
    while (line := await lines.get()) is not None:
        room.release()
        number += 1
        if text := line.decode(errors="replace").strip():
            yield number, text


def _read(descriptor: int, put: Callable[[bytes | None], None]) -> None:
    rest = b""
    with open(descriptor, "rb", buffering=0) as stdin:
        while chunk := stdin.read(READ_SIZE):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                put(line)
    put(rest)
    put(None)
