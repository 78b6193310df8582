"""A NATS server of our own, for the workers of one machine: only they can reach it, and it ends when we do.

Rules of this file:
1. Its credential is random, and in one file that nobody else may read: not on a command line, and in no log.
2. Its data is locked for as long as we or it live: no second server writes there.
3. The kernel (or where it cannot, a shell that waits) ends it with us, however we end.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import importlib.util
import json
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hubbub.errors import ConfigError

__all__ = ["OwnNats", "find_server"]

logger = logging.getLogger("hubbub.workers")

START = 15.0
"""Seconds for it to start: it reads through its data first."""
LOCK = 3.0
"""Seconds for one before us to be gone."""
STOP = 5.0
LOOK = 0.05
PAUSES = (0.1, 5.0)
"""Seconds before it is started again: the first, twice as many each time it dies soon, and the most."""
SOON = 10.0
PORTS = 5
LOOK_FOR_ROOM = 5.0
ROOM = 4 << 20
"""Bytes that have to be free on the disk."""
NO_ROOM = re.compile(rb"failed to store a msg .*no space left on device")
PR_SET_PDEATHSIG = 1
LEASH = 'exec 3<&0; (read gone <&3 || kill -9 $$) & exec "$@" 3<&-'
INSTALL = 'pip install "hubbub[workers]", or set HUBBUB_BROKER_URL to a NATS or Redis that you run'
CONFIGURATION = """\
server_name: {name}
listen: 127.0.0.1:{port}
jetstream {{ store_dir: {home}, sync_interval: always }}
authorization {{ user: hubbub, password: {password} }}
log_file: {log}
logfile_size_limit: 1MB
logfile_max_num: 2
"""


class OwnNats:
    """The server.

    Args:
        home: directory of its configuration, log and data.
        bound: whether the system can end it with us; else a shell does.
    """

    def __init__(self, home: Path, *, bound: bool = sys.platform == "linux") -> None:
        self._home = home.absolute()
        self._shown = home
        self._bound = bound
        self._name = f"hubbub-{secrets.token_hex(8)}"
        self._password = secrets.token_urlsafe(32)
        self._port = 0
        self._lock = -1
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        """Where it is, with the credential."""
        return f"nats://hubbub:{self._password}@127.0.0.1:{self._port}"

    @property
    def place(self) -> str:
        """For people."""
        return f"NATS at 127.0.0.1:{self._port}, started with this, kept in {self._shown}"

    async def start(self) -> None:
        """Run it, until `stop`; one that dies is started again.

        Raises:
            ConfigError: it cannot be run; the message is one line.
        """
        binary = find_server()
        try:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = await self._take_lock()
            for _ in range(PORTS):
                self._port = _free_port()
                self._write_configuration()
                await self._run(binary)
                if await self._ready():
                    self._tasks = [asyncio.create_task(self._stay(binary)), asyncio.create_task(self._mind_the_disk())]
                    return
                await self._end()
        except OSError as error:
            raise ConfigError(f"A NATS server cannot be run in {self._shown}: {error.strerror}.") from None
        raise ConfigError(f"The NATS server did not start; {self._shown / 'server.log'} may say why.")

    async def stop(self) -> None:
        """End it in order, at last at once."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._end()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    # Inside

    async def _stay(self, binary: str) -> None:
        pause, started = PAUSES[0], time.monotonic()
        while True:
            assert self._process is not None
            code = await self._process.wait()
            pause = PAUSES[0] if time.monotonic() - started > SOON else min(2 * pause, PAUSES[1])
            logger.warning("the NATS server ended with %d: started again in %.1f s", code, pause)
            await asyncio.sleep(pause)
            started = time.monotonic()
            with contextlib.suppress(OSError):  # too little of something: later
                await self._run(binary)

    async def _mind_the_disk(self) -> None:
        """End it where its disk was full and is no more: a stream that once could not write never tries again."""
        full = failed = False
        read = self._log_size()
        while True:
            await asyncio.sleep(LOOK_FOR_ROOM)
            read, said = self._log_since(read)
            failed = failed or NO_ROOM.search(said) is not None
            room = self._has_room()
            if not room and not full:
                logger.error("no room left for %s: the NATS server stores nothing until there is", self._shown)
            full = not room
            if failed and room:
                logger.warning("there is room again for %s: the NATS server has to begin anew", self._shown)
                await self._end()
                failed = False

    def _has_room(self) -> bool:
        try:
            return shutil.disk_usage(self._home).free >= ROOM
        except OSError:
            return True  # who knows

    def _log_size(self) -> int:
        try:
            return (self._home / "server.log").stat().st_size
        except OSError:
            return 0

    def _log_since(self, read: int) -> tuple[int, bytes]:
        """Up to where its log goes now, and what it says behind a place; a new file is read from its beginning."""
        with contextlib.suppress(OSError), open(self._home / "server.log", "rb") as log:
            log.seek(read if read <= self._log_size() else 0)
            said = log.read()
            return log.tell(), said
        return 0, b""

    async def _run(self, binary: str) -> None:
        """Start it, in a group of its own: Ctrl+C is not for it."""
        command = [binary, "-c", str(self._home / "server.conf")]
        self._process = await asyncio.create_subprocess_exec(
            *(command if self._bound else ["/bin/sh", "-c", LEASH, "sh", *command]),
            stdin=asyncio.subprocess.DEVNULL if self._bound else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(self._lock,),
            process_group=0,
            preexec_fn=_binding() if self._bound else None,
        )

    async def _ready(self) -> bool:
        """Whether it is this server that answers on the port, in time."""
        assert self._process is not None
        until = time.monotonic() + START
        while time.monotonic() < until and self._process.returncode is None:
            with contextlib.suppress(OSError, ValueError, KeyError, TimeoutError):
                async with asyncio.timeout(LOOK * 20):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                    line = await reader.readline()
                writer.close()
                if json.loads(line.removeprefix(b"INFO "))["server_name"] == self._name:
                    return True
            await asyncio.sleep(LOOK)
        return False

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(STOP):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _take_lock(self) -> int:
        """Lock the data; the server inherits the lock, so that it holds for as long as one of us lives."""
        lock, until = os.open(self._home / "lock", os.O_RDWR | os.O_CREAT, 0o600), time.monotonic() + LOCK
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if time.monotonic() > until:
                    os.close(lock)
                    raise ConfigError(
                        f"Another `hubbub serve --workers` keeps its NATS in {self._shown}: "
                        "set HUBBUB_DATA_DIR to another directory, or HUBBUB_BROKER_URL."
                    ) from None
            await asyncio.sleep(LOOK)

    def _write_configuration(self) -> None:
        path = self._home / "server.conf"
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(
                CONFIGURATION.format(
                    name=self._name,
                    port=self._port,
                    home=json.dumps(str(self._home)),
                    password=json.dumps(self._password),
                    log=json.dumps(str(self._home / "server.log")),
                )
            )


def find_server() -> str:
    """Where the program is, and that the library that talks to it is there.

    Raises:
        ConfigError: one of them is not installed.
    """
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    missing = "nats-py" if importlib.util.find_spec("nats") is None else "nats-server"
    if found is None or missing == "nats-py":
        raise ConfigError(f"{missing} is not installed, and --workers needs it: {INSTALL}.")
    return found


def _binding() -> Callable[[], None]:
    """What the child does before it becomes the server: it asks to be killed when its parent dies."""
    libc, parent = ctypes.CDLL(None), os.getpid()

    def bind() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # it died before

    return bind


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
