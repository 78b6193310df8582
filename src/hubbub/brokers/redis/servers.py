"""All servers of one Redis, and which of them has what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from random import shuffle
from time import monotonic
from typing import Any

from redis.crc import key_slot
from redis.exceptions import AuthenticationError, ConnectionError, ResponseError

from hubbub.brokers.redis.address import Address
from hubbub.brokers.redis.ear import Hear
from hubbub.brokers.redis.line import FAILURES, PATIENCE, Command
from hubbub.brokers.redis.scripts import Script
from hubbub.brokers.redis.server import Server, Spot, ask_once, parse_info
from hubbub.errors import StoreError, StoreUnavailable

__all__ = ["Servers"]

SLOTS = 16384
RARELY = 0.5
"""Seconds between two looks at a Cluster, at least."""


class Servers:
    """One server, or those of a Cluster.

    Args:
        address: where it is.
        back: called when what is published is heard again, after it was not.

    Attributes:
        place: what it is called in messages.
    """

    def __init__(self, address: Address, back: Callable[[], None]) -> None:
        self._address = address
        self._back = back
        self.place = address.place
        self._by_spot: dict[Spot, Server] = {}
        self._slots: list[Server] = []
        self._turn = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()
        self._looked = 0.0

    @property
    def cluster(self) -> bool:
        """Whether there are several, each with channels of its own."""
        return self._address.kind == "cluster"

    @property
    def tell(self) -> str:
        """The command that publishes."""
        return "SPUBLISH" if self.cluster else "PUBLISH"

    @property
    def healthy(self) -> bool:
        """Whether all answer, as far as is known."""
        return bool(self._by_spot) and all(server.healthy for server in self._by_spot.values())

    async def open(self) -> None:
        """Connect.

        Raises:
            StoreError: it cannot be reached.
        """
        self._turn = asyncio.Lock()  # one for this loop
        try:
            async with asyncio.timeout(PATIENCE):
                if self._address.kind == "single":
                    info = parse_info(await ask_once(self._address, self._address.servers[0], "INFO"))
                    if info.get("cluster_enabled") == "1":
                        self._become_cluster()
                if self.cluster:
                    self._look(await self._read_slots())
                else:
                    server = Server(self._address, self._find, _nothing, cluster=False, back=self._back)
                    self._by_spot[self._address.servers[0]] = server
                    self._slots = [server]
                for server in self._by_spot.values():
                    connection = await server.connect()
                    await connection.disconnect(nowait=True)
                    await server.ear.began.wait()
        except FAILURES as error:
            await self.close()
            reason = str(error).rstrip(".") or "it does not answer"
            raise StoreUnavailable(f"{self.place} cannot be used: {reason}.") from None
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let go of all."""
        servers, self._by_spot, self._slots = list(self._by_spot.values()), {}, []
        for server in servers:
            await server.close()
        if self._leaving:
            await asyncio.wait(self._leaving)

    async def aim(self) -> None:
        """Make sure that it is the right server which is asked."""
        if self._address.kind == "sentinel":
            for server in list(self._by_spot.values()):
                await server.aim()

    async def call(
        self, key: str, *words: Any, script: Script | None = None, keys: int = 0, again: bool = True, long: bool = False
    ) -> Any:
        """Let the server that has a key do something.

        Args:
            key: the key, or any of the same slot.
            words: see `Command`, as the next three.
            script: the script, if it is one.
            keys: how many of the words are keys.
            again: whether it may be sent again when nobody knows whether it was carried out.
            long: whether the answer may be long: others do not wait for it.

        Raises:
            StoreUnavailable: it is out of reach, and may have done it or not.
            StorageFull: it has no room.
        """
        command = Command(key, words, script, keys, again=again)
        server = self._of(key)
        line = server.reading if long else server.line
        line.put(command)
        try:
            async with asyncio.timeout(line.patience):
                return await command.future
        except TimeoutError:
            reason = self._of(key).line.trouble or "it does not answer"
            raise StoreUnavailable(f"{self.place} is out of reach ({reason}): it may be done or not.") from None

    async def listen(self, name: str, hear: Hear) -> None:
        """Hear what is published under a name from now on; see `Ear.listen`."""
        await self._of(name).ear.listen(name.encode(), hear)

    async def forget(self, name: str) -> None:
        """Hear it no more."""
        for server in list(self._by_spot.values()):
            await server.ear.forget(name.encode())

    def hears(self, name: str) -> bool:
        """Whether what is published under a name is heard here, or about to be."""
        return name.encode() in self._of(name).ear.hears

    # Where they are

    def _of(self, key: str) -> Server:
        if not self._slots:
            raise StoreUnavailable(f"{self.place} was left.")
        return self._slots[key_slot(key.encode()) if self.cluster else 0]

    async def _find(self) -> Spot:
        """Where the one server is."""
        if self._address.kind == "single":
            return self._address.servers[0]
        trouble = "no Sentinel answers"
        for spot in self._address.servers:
            try:
                found = await self._ask_sentinel(spot)
            except FAILURES as error:
                trouble = str(error)
                continue
            if found:
                return found[0].decode(), int(found[1])
            trouble = f"Sentinels know of no {self._address.master}"
        raise ConnectionError(trouble)

    async def _ask_sentinel(self, spot: Spot) -> Any:
        words = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.master)
        address = replace(self._address, database=0)
        try:
            return await ask_once(address, spot, *words)
        except (AuthenticationError, ResponseError):  # it may have no password where the server has one
            return await ask_once(address, spot, *words, login=False)

    def _become_cluster(self) -> None:
        if self._address.database:
            raise StoreError(f"{self.place} is a Cluster, which has no numbered databases: leave the number out.")
        self._address = replace(self._address, kind="cluster")
        self.place = self._address.place

    async def _read_slots(self) -> list[Any]:
        trouble: Exception = ConnectionError("no server is known")
        spots = list({*self._by_spot, *self._address.servers})
        shuffle(spots)  # the first may be the one that is out of reach
        for spot in spots:
            try:
                slots: list[Any] = await ask_once(self._address, spot, "CLUSTER", "SLOTS")
            except FAILURES as error:
                trouble = error
                continue
            if sum(end - start + 1 for start, end, *_ in slots) == SLOTS:
                return [(start, end, (primary[0].decode() or spot[0], primary[1])) for start, end, primary, *_ in slots]
            trouble = ClusterIncomplete("some slots have no server")
        raise trouble

    def _look(self, found: list[tuple[int, int, Spot]]) -> list[Server]:
        """Take in who has what; those that have nothing any more."""
        known, self._by_spot = self._by_spot, {}
        slots: list[Server | None] = [None] * SLOTS
        for start, end, spot in found:
            server = self._by_spot.get(spot) or known.get(spot) or self._make(spot)
            self._by_spot[spot] = server
            slots[start : end + 1] = [server] * (end + 1 - start)
        self._slots = [server for server in slots if server is not None]
        return [server for spot, server in known.items() if spot not in self._by_spot]

    def _make(self, spot: Spot) -> Server:
        async def find() -> Spot:
            return spot

        return Server(self._address, find, self._refresh, cluster=True, back=self._back)

    async def _refresh(self) -> None:
        """Look at the Cluster anew, and let everything wait where it has to."""
        async with self._turn:
            if not self._by_spot or monotonic() - self._looked < RARELY:
                return
            self._looked = monotonic()
            with suppress(*FAILURES):
                found = await self._read_slots()
                before = list(self._by_spot.values())
                gone = self._look(found)
                for server in before:
                    self._move(server)
                await self._move_ears(before)
                for server in gone:
                    task = asyncio.get_running_loop().create_task(server.close())  # it may be the one that asks
                    self._leaving.add(task)
                    task.add_done_callback(self._leaving.discard)

    def _move(self, server: Server) -> None:
        for command in server.line.take_all():
            self._of(command.key).line.adopt([command])
        for command in server.reading.take_all():
            self._of(command.key).reading.adopt([command])

    async def _move_ears(self, before: list[Server]) -> None:
        for server in before:
            strange = [name for name in server.ear.hears if self._slots[key_slot(name)] is not server]
            for name, hear, waiting in server.ear.take_all(strange):
                await self._slots[key_slot(name)].ear.adopt(name, hear, waiting)


class ClusterIncomplete(ConnectionError):
    """A Cluster that does not have all slots."""


async def _nothing() -> None:
    """There is only one server."""
