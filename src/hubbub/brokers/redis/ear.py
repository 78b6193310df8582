"""Hears what is published on one server.

Rules of this file:
1. Pub/sub loses what is said while nobody listens. Whoever cares is told as soon as all is heard again (`back`).
2. A connection over which nothing comes, not even the answer to a ping, is given up.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any

from hubbub.brokers.redis.line import FAILURES, PATIENCE
from hubbub.errors import StoreUnavailable

if TYPE_CHECKING:
    from redis.asyncio.connection import AbstractConnection

    from hubbub.brokers.redis.server import Server

__all__ = ["Ear", "Hear"]

logger = logging.getLogger("hubbub.broker")

Hear = Callable[[bytes], None]
PULSE, SILENCE = 2.0, 8.0
"""Seconds between two looks, and of silence after which a connection is given up."""
PAUSE, LONGEST_PAUSE = 0.05, 2.0
AT_ONCE = 256


class Ear:
    """A connection that hears.

    Args:
        server: whom.
        back: called when all is heard again after it was not.
        sharded: whether it is a server of a Cluster, which tells of its own channels only.

    Attributes:
        hears: what is to be called for what is said under a name.
        connected: whether all of it is heard now.
        began: set when it was so for the first time.
    """

    def __init__(self, server: Server, back: Callable[[], None], *, sharded: bool) -> None:
        self._server = server
        self._back = back
        self._sharded = sharded
        self._subscribe, self._unsubscribe = ("SSUBSCRIBE", "SUNSUBSCRIBE") if sharded else ("SUBSCRIBE", "UNSUBSCRIBE")
        self._message, self._began, self._ended = (
            (b"smessage", b"ssubscribe", b"sunsubscribe") if sharded else (b"message", b"subscribe", b"unsubscribe")
        )
        self.hears: dict[bytes, Hear] = {}
        self.connected = self._lost = False
        self._waiting: dict[bytes, asyncio.Future[None]] = {}
        self._missing: set[bytes] = set()
        self._left: Counter[bytes] = Counter()
        self._heard = 0.0
        self.began = asyncio.Event()
        self._connection: AbstractConnection | None = None
        self._task = asyncio.get_running_loop().create_task(self._run(), context=Context())

    async def listen(self, name: bytes, hear: Hear) -> None:
        """Hear what is said under a name from now on.

        Raises:
            StoreUnavailable: it cannot be heard now.
        """
        self.hears[name] = hear
        waiting = self._waiting.setdefault(name, asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(PATIENCE):
                if self._connection is not None:
                    with suppress(*FAILURES):
                        await self._connection.send_command(self._subscribe, name, check_health=False)
                await waiting
        except BaseException as error:
            self.hears.pop(name, None)
            self._waiting.pop(name, None)
            if isinstance(error, TimeoutError):
                raise StoreUnavailable(f"{self._server.place} is out of reach: nothing is heard of it.") from None
            raise

    async def forget(self, name: bytes) -> None:
        """Hear it no more."""
        known = self.hears.pop(name, None) is not None
        self._missing.discard(name)
        if known and self._connection is not None:
            self._note()
            self._left[name] += 1
            with suppress(*FAILURES):
                await self._connection.send_command(self._unsubscribe, name, check_health=False)

    def take_all(self, names: Iterable[bytes]) -> list[tuple[bytes, Hear, asyncio.Future[None] | None]]:
        """Take out what another ear has to hear now."""
        return [(name, self.hears.pop(name), self._waiting.pop(name, None)) for name in names]

    async def adopt(self, name: bytes, hear: Hear, waiting: asyncio.Future[None] | None) -> None:
        """Hear what another ear did; it is missed until then."""
        self.hears[name] = hear
        self._missing.add(name)
        self.connected = False
        if waiting is not None:
            self._waiting[name] = waiting
        if self._connection is not None:
            with suppress(*FAILURES):
                await self._connection.send_command(self._subscribe, name, check_health=False)

    async def aim(self, spot: tuple[str, int]) -> None:
        """Go on with the server that is there, if this is another one."""
        connection: Any = self._connection
        if connection is not None and (connection.host, connection.port) != spot:
            with suppress(*FAILURES):
                await connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Hear no more."""
        self._task.cancel()
        await asyncio.wait([self._task])
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(StoreUnavailable(f"{self._server.place} was left."))

    async def _run(self) -> None:
        pause = PAUSE
        while True:
            try:
                connection = await self._server.connect()
                pause = PAUSE
                await self._listen(connection)
            except FAILURES as error:
                logger.debug("%s is not heard: %s", self._server.place, error)
            except Exception:
                logger.exception("%s cannot be heard", self._server.place)
            if not self._lost and self.began.is_set():
                self._lost = True
                logger.warning("%s: the connection is lost", self._server.place)
            self.connected = False
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            await self._server.lost()

    async def _listen(self, connection: AbstractConnection) -> None:
        self._heard = monotonic()
        watch = asyncio.get_running_loop().create_task(self._watch(connection), context=Context())
        try:
            self._connection = connection
            self._missing = set(self.hears)
            self._left.clear()
            names = list(self.hears)
            step = 1 if self._sharded else AT_ONCE  # one slot a command
            packed: list[list[bytes | str]] = [
                [self._subscribe, *names[at : at + step]] for at in range(0, len(names), step)
            ]
            if packed:
                await connection.send_packed_command(connection.pack_commands(packed), check_health=False)
            self._note()
            while True:
                for _ in range(AT_ONCE):
                    self._take(await connection.read_response())
                    self._heard = monotonic()
                await asyncio.sleep(0)  # others want their turn, however much comes
        finally:
            self._connection = None
            watch.cancel()
            with suppress(*FAILURES):
                await connection.disconnect(nowait=True)

    def _take(self, said: Any) -> None:
        kind, name, data = said if isinstance(said, list) and len(said) == 3 else (None, b"", b"")
        if kind == self._message:
            hear = self.hears.get(name)
            if hear is not None:
                hear(data)
        elif kind == self._began:
            waiting = self._waiting.pop(name, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
            self._missing.discard(name)
            self._note()
        elif kind == self._ended:
            if self._left[name]:
                self._left -= Counter([name])
            elif name in self.hears:
                raise ConnectionError("a channel was moved to another server")

    def _note(self) -> None:
        """All is heard again."""
        if self.connected or self._missing:
            return
        self.connected = True
        if self._lost:
            self._lost = False
            logger.warning("%s: connected again", self._server.place)
        if self.began.is_set() or self.hears:
            self._back()
        self.began.set()

    async def _watch(self, connection: AbstractConnection) -> None:
        while True:
            await asyncio.sleep(PULSE)
            silent = monotonic() - self._heard
            if silent >= SILENCE:
                logger.debug("%s is silent: connecting anew", self._server.place)
                await connection.disconnect(nowait=True)
                return
            if silent >= PULSE:
                with suppress(*FAILURES):
                    await connection.send_command("PING", check_health=False)
