"""A server on a database that outlives it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.serving import Process, free_port, process

__all__ = ["Site"]


class Site:
    """The server, killed and started again.

    Args:
        url: its databases.
        data: its data directory.
        app: what it serves.
        more: what else is in its environment.
    """

    def __init__(self, url: str, data: Path, app: str = "tests.consistency.app:app", **more: str) -> None:
        self.port = free_port()
        self._environment: dict[str, Any] = {
            "HUBBUB_INBOX_URL": url,
            "HUBBUB_ARCHIVE_URL": url,
            "HUBBUB_DATA_DIR": str(data),
            **more,
        }
        self._app = app
        self._stack: Any = None
        self.process: Process

    async def start(self) -> None:
        """Serve, and wait until it does."""
        command = ("-m", "hubbub.cli", "serve", self._app, "--port", str(self.port))
        self._stack = process(*command, **self._environment)
        self.process = await self._stack.__aenter__()
        await self.process.says("Stop with")

    async def kill(self) -> None:
        """Take it from the machine in the middle of whatever it does."""
        os.kill(self.process.pid, signal.SIGKILL)
        await self.process.end()
        await self._stack.__aexit__(None, None, None)

    @asynccontextmanager
    async def client(self, user: str | None = None) -> AsyncIterator[ClientConnection]:
        """A connection, signed in if a user is named."""
        async with connect(f"ws://127.0.0.1:{self.port}/ws", proxy=None, ping_interval=None) as client:
            if user is not None:
                await client.send(json.dumps({"type": "sign_in", "payload": user}))
            yield client
