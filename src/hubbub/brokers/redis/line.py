"""Commands on their way to one server and back, many at a time over one connection.

Rules of this file:
1. Commands go out in the order in which they came, whatever fails between: what was not answered is sent again before
   anything behind it. Each may be sent again without harm, or says that it may not.
2. Only the line's own task uses its connection. Who waits for an answer may be cancelled at any time: the answer is
   read all the same, and nobody else gets it.
3. An answer that says "not here" or "not now" is none: the command was not carried out.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any

from redis.exceptions import (
    AskError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from hubbub.brokers.redis.scripts import STALE, Script
from hubbub.errors import StorageFull, StoreUnavailable

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

    from hubbub.brokers.redis.server import Server

__all__ = ["FAILURES", "PATIENCE", "Command", "Line"]

logger = logging.getLogger("hubbub.broker")

PATIENCE = 10.0
"""Seconds after which a command has failed."""
HURRY = 0.5
"""The same where others have failed before it: enough to find a server that is back."""
ANSWER = 5.0
PAUSE = 0.1
MOST, MOST_BYTES = 256, 1024 * 1024
MOST_WAITING, MOST_WAITING_BYTES = 16_384, 64 * 1024 * 1024
FAILURES = (RedisError, OSError, EOFError, TimeoutError)
ELSEWHERE = (AskError, ClusterDownError, MasterDownError, MovedError, ReadOnlyError, TryAgainError)
"""What a server says that is not, or not yet, the one to ask."""


class Command:
    """One command, and whoever waits for what becomes of it.

    Args:
        key: what decides which server it is for.
        words: the command, or the keys and arguments of a script.
        script: the script, if it is one.
        keys: how many of the words are keys.
        again: whether it may be sent again when nobody knows whether it was carried out.
    """

    __slots__ = ("again", "future", "key", "keys", "script", "size", "words")

    def __init__(
        self, key: str, words: Sequence[Any], script: Script | None = None, keys: int = 0, *, again: bool = True
    ) -> None:
        self.key = key
        self.words = words
        self.script = script
        self.keys = keys
        self.again = again
        self.size = sum(len(word) for word in words if isinstance(word, bytes))
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def spell(self, life: str, sure: str) -> tuple[Any, ...]:
        """What is sent, to a server with this life."""
        script, keys = self.script, self.keys
        if script is None:
            return tuple(self.words)
        dated = (life, sure) if script.dated else ()
        return ("EVALSHA", script.sha, keys, *self.words[:keys], *dated, *self.words[keys:])


class Line:
    """A connection to a server, and what waits to go over it.

    Args:
        server: which.
        most: commands that are sent at once.
    """

    def __init__(self, server: Server, most: int = MOST) -> None:
        self._server = server
        self._most = most
        self._waiting: deque[Command] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._connection: AbstractConnection | None = None
        self._sent = self._known = self._astray = False
        self._since = 0.0
        self._trouble: str | None = None
        self._task = asyncio.get_running_loop().create_task(self._run(), context=Context())

    @property
    def trouble(self) -> str | None:
        """What went wrong last, if nothing went well since."""
        return self._trouble

    @trouble.setter
    def trouble(self, what: str | None) -> None:
        if self._trouble is None:
            self._since = monotonic()
        self._trouble = what

    @property
    def patience(self) -> float:
        """Seconds after which a command that is put now has failed."""
        return PATIENCE if self._trouble is None else max(HURRY, PATIENCE - (monotonic() - self._since))

    @property
    def stuck(self) -> bool:
        """Whether something waits for a server that does not answer."""
        return self.trouble is not None and bool(self._waiting)

    def put(self, command: Command) -> None:
        """Let a command wait for its turn.

        Raises:
            StoreUnavailable: too many wait already.
        """
        if len(self._waiting) >= MOST_WAITING or self._bytes + command.size > MOST_WAITING_BYTES:
            raise StoreUnavailable(f"{self._server.place} is too slow: {len(self._waiting)} commands wait for it.")
        self._waiting.append(command)
        self._bytes += command.size
        self._wake.set()

    def adopt(self, commands: Sequence[Command]) -> None:
        """Let what waited for another server wait here."""
        self._waiting.extend(commands)
        self._bytes += sum(command.size for command in commands)
        self._wake.set()

    def take_all(self) -> list[Command]:
        """Take out all that waits: it is for another server."""
        waiting, self._bytes = list(self._waiting), 0
        self._waiting.clear()
        return waiting

    def aim(self, spot: tuple[str, int]) -> None:
        """Go on with the server that is there, if this is another one."""
        connection: Any = self._connection
        self._astray = connection is not None and (connection.host, connection.port) != spot

    async def close(self) -> None:
        """End; what waits has failed."""
        self._task.cancel()
        await asyncio.wait([self._task])
        for command in self.take_all():
            self._fail(command, StoreUnavailable(f"{self._server.place} was left."))
        await self._drop()

    async def _run(self) -> None:
        batch: list[Command] = []
        try:
            while True:
                batch = await self._take()
                self._sent = False
                try:
                    answers = await self._exchange(batch)
                except FAILURES as error:
                    self.trouble = f"{error}" or type(error).__name__
                    logger.debug("%s: %s", self._server.place, self.trouble)
                    self._put_back([each for each in batch if self._may_wait(each)])
                    await self._drop()
                    await asyncio.sleep(PAUSE)
                    await self._server.lost()
                except Exception as error:
                    logger.exception("%s cannot be asked", self._server.place)
                    for command in batch:
                        self._fail(command, StoreUnavailable(f"{self._server.place} cannot be asked: {error}"))
                    await self._drop()
                else:
                    await self._settle(batch, answers)
        finally:
            for command in batch:
                self._fail(command, StoreUnavailable(f"{self._server.place} was left."))

    async def _take(self) -> list[Command]:
        """The next few."""
        while not self._waiting:
            self._wake.clear()
            await self._wake.wait()
        batch: list[Command] = []
        size = 0
        while self._waiting and len(batch) < self._most and (not batch or size + self._waiting[0].size <= MOST_BYTES):
            command = self._waiting.popleft()
            self._bytes -= command.size
            if not command.future.done():  # somebody still waits for it
                batch.append(command)
                size += command.size
        return batch

    async def _exchange(self, batch: Sequence[Command]) -> list[Any]:
        if self._astray:
            await self._drop()
        if self._connection is None:
            self._connection = await self._server.connect()
        elif not self._known:
            await self._server.greet(self._connection)
        self._known = True
        connection, server = self._connection, self._server
        packed = connection.pack_commands([command.spell(server.life, server.sure) for command in batch])
        async with asyncio.timeout(ANSWER):
            self._sent = True
            await connection.send_packed_command(packed, check_health=False)
            return [await _answer(connection) for _ in batch]

    async def _settle(self, batch: Sequence[Command], answers: Sequence[Any]) -> None:
        """Hand out answers; send again what was not carried out."""
        again: list[Command] = []
        elsewhere = False
        for command, answer in zip(batch, answers, strict=True):
            if not isinstance(answer, ResponseError):
                self.trouble = None
                if not command.future.done():
                    command.future.set_result(answer)
            elif isinstance(answer, NoScriptError) or str(answer).startswith(STALE):
                again.append(command)
                self._known = False
            elif isinstance(answer, ELSEWHERE):
                self.trouble = str(answer)
                again.append(command)
                elsewhere = True
            else:
                self._fail(command, self._error(answer))
        self._put_back(again)
        if elsewhere:
            await self._drop()
            await asyncio.sleep(PAUSE)
            await self._server.lost()

    def _put_back(self, commands: Sequence[Command]) -> None:
        self._waiting.extendleft(reversed(commands))
        self._bytes += sum(command.size for command in commands)

    def _may_wait(self, command: Command) -> bool:
        if not self._sent or command.again:
            return True
        self._fail(command, StoreUnavailable(f"{self._server.place} did not answer: it may be done or not."))
        return False

    def _error(self, error: ResponseError) -> Exception:
        text = f"{self._server.place}: {error}"
        full = isinstance(error, OutOfMemoryError) or str(error).startswith("OOM") or "No space left" in str(error)
        return StorageFull(text) if full else StoreUnavailable(text)

    def _fail(self, command: Command, error: Exception) -> None:
        if not command.future.done():
            command.future.set_exception(error)

    async def _drop(self) -> None:
        connection, self._connection, self._known, self._astray = self._connection, None, False, False
        if connection is not None:
            with suppress(*FAILURES):
                await connection.disconnect(nowait=True)


async def _answer(connection: AbstractConnection) -> Any:
    """One answer; an error that is one command's only is an answer."""
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error
