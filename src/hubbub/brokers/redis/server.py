"""One server: how to connect to it, and which life of it this is."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection
from redis.exceptions import ConnectionError, ResponseError

from hubbub.brokers.redis.address import Address
from hubbub.brokers.redis.ear import Ear
from hubbub.brokers.redis.keys import Keys
from hubbub.brokers.redis.line import FAILURES, Line
from hubbub.brokers.redis.scripts import LEARN, SCRIPTS

__all__ = ["Server", "Spot", "connect"]

CONNECT = 3.0
"""Seconds to connect, and to be greeted."""
OLDEST = 7
FEW = 32
"""Long answers that are asked for at once."""
Spot = tuple[str, int]
"""Host and port."""


async def connect(address: Address, spot: Spot, *, login: bool = True) -> AbstractConnection:
    """A connection to a server, nothing said yet but who we are."""
    kwargs: dict[str, Any] = {
        "host": spot[0],
        "port": spot[1],
        "db": address.database if login else 0,
        "username": address.user if login else None,
        "password": address.password if login else None,
        "protocol": 2,
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT,
        "socket_keepalive": True,
    }
    if address.tls:
        connection: AbstractConnection = SSLConnection(ssl_ca_certs=address.ca, **kwargs)
    else:
        connection = Connection(**kwargs)
    try:
        async with asyncio.timeout(CONNECT):
            await connection.connect()  # type: ignore[no-untyped-call]  # the library does not type it
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


class Server:
    """A server that has channels: two lines to it, and an ear.

    Args:
        address: how to be let in, and what the app is called.
        find: where it is now.
        lost: called when it is out of reach, or no longer the one to ask.
        cluster: whether it is one of a Cluster.
        back: called when its ear hears again, after it did not.

    Attributes:
        life: its replication id: another one after every start, and as soon as it takes another server's place.
        sure: what its data is called, if that outlives every crash; else nothing.
        line: for what is quick.
        reading: for what is long.
        ear: hears what is published there.
    """

    def __init__(
        self,
        address: Address,
        find: Callable[[], Awaitable[Spot]],
        lost: Callable[[], Awaitable[None]],
        *,
        cluster: bool,
        back: Callable[[], None],
    ) -> None:
        self._address = address
        self._find = find
        self._keys = Keys(address.name, address.database)
        self._cluster = cluster
        self.place = address.place
        self.lost = lost
        self.life = self.sure = ""
        self.line, self.reading = Line(self), Line(self, FEW)
        self.ear = Ear(self, back, sharded=cluster)

    @property
    def healthy(self) -> bool:
        """Whether it answers, as far as is known."""
        return self.ear.connected and not self.line.stuck

    async def close(self) -> None:
        """Let go of it."""
        await self.ear.close()
        await self.line.close()
        await self.reading.close()

    async def aim(self) -> None:
        """Go on with the server that Sentinels name: the one before may live, and not know that it is no more it."""
        with suppress(*FAILURES):
            spot = await self._find()
            self.line.aim(spot)
            self.reading.aim(spot)
            await self.ear.aim(spot)

    async def connect(self) -> AbstractConnection:
        """A connection that knows the scripts, to a server that takes writes."""
        connection = await connect(self._address, await self._find())
        try:
            await self.greet(connection)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def greet(self, connection: AbstractConnection) -> None:
        """Tell a server the scripts, and learn which life of it this is."""
        async with asyncio.timeout(CONNECT):
            for script in SCRIPTS:
                await _ask(connection, "SCRIPT", "LOAD", script.text)
            info = parse_info(await _ask(connection, "INFO"))
            if int(info["redis_version"].partition(".")[0]) < OLDEST:
                raise ConnectionError(f"it is version {info['redis_version']}: Redis {OLDEST} or Valkey is needed")
            if info.get("role") != "master":
                raise ConnectionError("it is a replica, and takes no writes")
            life = info["master_replid"]
            alone = not info.get("master_replid2", "").strip("0")
            safe = alone and info.get("aof_enabled") == "1" and await _syncs(connection)
            name = await self._name(connection, life, safe)
        self.life, self.sure = life, name if safe else ""

    async def _name(self, connection: AbstractConnection, life: str, safe: bool) -> str:
        """What the data of this server is called, which is new where some of it may be lost."""
        if self._cluster:
            info = parse_info(await _ask(connection, "CLUSTER", "INFO"))
            return f"{(await _ask(connection, 'CLUSTER', 'MYID')).decode()}/{info.get('cluster_my_epoch')}"
        name: bytes = await _ask(
            connection, "EVALSHA", LEARN.sha, 1, self._keys.life, life, int(safe), secrets.token_hex(8)
        )
        return name.decode()


def parse_info(text: bytes) -> dict[str, str]:
    """What `INFO` says."""
    pairs = (line.split(":", 1) for line in text.decode("utf-8", "replace").splitlines() if ":" in line)
    return {name: value.strip() for name, value in pairs}


async def ask_once(address: Address, spot: Spot, *words: Any, login: bool = True) -> Any:
    """Ask a server one thing."""
    connection = await connect(address, spot, login=login)
    try:
        async with asyncio.timeout(CONNECT):
            return await _ask(connection, *words)
    finally:
        with suppress(*FAILURES):
            await connection.disconnect(nowait=True)


async def _ask(connection: AbstractConnection, *words: Any) -> Any:
    await connection.send_command(*words, check_health=False)
    return await connection.read_response()


async def _syncs(connection: AbstractConnection) -> bool:
    """Whether what is answered is on the disk; one that does not say so may lose it."""
    try:
        found = await _ask(connection, "CONFIG", "GET", "appendfsync")
    except ResponseError:
        return False
    return bool(found[1:2] == [b"always"])
