"""The server behind `hubbub serve`: uvicorn's, with our classes, our listener and our order of shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import uvicorn

from hubbub.node.hub import Hub
from hubbub.servers.front import FrontProtocol
from hubbub.servers.http import HttpProtocol
from hubbub.servers.uvicorn import WebSocketProtocol

__all__ = ["Server", "configure"]

logger = logging.getLogger("hubbub.server")

FORCED_EXIT = 15.0
TLS_HANDSHAKE = 10.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"credentials": {"()": "hubbub.servers.redaction.HideCredentials"}},
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["credentials"]}},
    "loggers": {
        "hubbub": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "uvicorn": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "uvicorn.access": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
    },
}


def configure(app: Any, **options: Any) -> uvicorn.Config:
    """Make uvicorn's configuration with the native door and without what the hub does itself.

    Args:
        app: an ASGI app, or where it is: `module:attribute`.
        options: uvicorn's own; they win over ours.
    """
    ours: dict[str, Any] = {
        "http": HttpProtocol,
        "ws": WebSocketProtocol,
        "ws_per_message_deflate": False,
        "access_log": False,
        "log_config": LOGGING,
        "server_header": False,
    }
    return uvicorn.Config(app, **{**ours, **options})


class Server(uvicorn.Server):
    """Serves one app until it is told to stop: sockets first, then HTTP, then the lifespan.

    Args:
        config: see `configure`.
        started: called once the app takes connections.
    """

    def __init__(self, config: uvicorn.Config, started: Callable[[], None] | None = None) -> None:
        super().__init__(config)
        self._on_started = started
        self._stopping = False
        self._stop: asyncio.Task[None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app, then listen with a short TLS handshake (uvicorn leaves it at 60 s)."""
        await super().startup(sockets=[])
        if not self.started:
            return  # the app did not; some versions of uvicorn leave by themselves
        loop = asyncio.get_running_loop()
        tls: dict[str, Any] = {}
        if self.config.ssl is not None:
            tls = {"ssl": self.config.ssl, "ssl_handshake_timeout": TLS_HANDSHAKE}
        for listener in sockets or []:
            server = await loop.create_server(self._protocol, sock=listener, backlog=self.config.backlog, **tls)
            self.servers.append(server)
        # What the app imported stays: the collector need not walk it again, which costs a pause each time.
        gc.collect()
        gc.freeze()
        if self._on_started is not None:
            self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Own the signals: uvicorn would close every socket by itself and raise the signal again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # Not the loop's own handlers: it may be the loop that hangs.
        loop, told = asyncio.get_running_loop(), threading.Lock()
        told.acquire()
        threading.Thread(target=_force, args=(told,), daemon=True).start()

        def signalled(number: int, frame: Any) -> None:
            """Stop in order; at once when told a second time. It runs between any two instructions: it does little."""
            if self._stopping or not self.started:
                os._exit(128 + number)
            self._stopping = True
            told.release()
            loop.call_soon_threadsafe(self._begin_to_stop)

        before = {number: signal.signal(number, signalled) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def stop(self) -> None:
        """Take no new connections, let the hubs say goodbye, then let uvicorn end HTTP and the lifespan."""
        for server in self.servers:
            server.close()
        ends = await asyncio.gather(*(hub.shutdown() for hub in Hub.all_running()), return_exceptions=True)
        for error in filter(None, ends):
            logger.error("a hub failed to stop", exc_info=error)
        self.should_exit = True

    def _protocol(self) -> asyncio.Protocol:
        return FrontProtocol(self.config, self.server_state, self.lifespan.state)

    def _begin_to_stop(self) -> None:
        self._stop = asyncio.get_running_loop().create_task(self.stop())


def _force(told: threading.Lock) -> None:
    """Wait for the first signal, and for what it begins no longer than `FORCED_EXIT`."""
    told.acquire()
    time.sleep(FORCED_EXIT)
    logger.error("not stopped after %g s: exit now", FORCED_EXIT)
    os._exit(1)
