"""The server behind `hubbub serve`: uvicorn's, with our classes, our listener and our order of shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Iterable
from typing import Any

import uvicorn

from hubbub.core.forwarded import Proxies
from hubbub.node.hub import Hub
from hubbub.servers.forwarding import Forwarding
from hubbub.servers.front import FrontProtocol
from hubbub.servers.http import HttpProtocol
from hubbub.servers.uvicorn import WebSocketProtocol

__all__ = ["Server", "configure"]

logger = logging.getLogger("hubbub.server")

DRAIN = 30.0
FORCED_EXIT = 15.0
TLS_HANDSHAKE = 10.0
TELL_AGAIN = 60.0
FULL_COLLECTION = 100  # middle ones
NO_ROOM = "socket.accept() out of system resource"
SIGNALS = (signal.SIGINT, signal.SIGTERM)

LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"credentials": {"()": "hubbub.servers.redaction.HideCredentials"}},
    "formatters": {"line": {"()": "hubbub.servers.lines.LineFormatter", "fmt": LINE}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["credentials"]}},
    "loggers": {
        "hubbub": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "uvicorn": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        "uvicorn.access": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
    },
}


class Config(uvicorn.Config):
    """uvicorn's configuration, and whose word about clients' addresses counts."""

    forwarding: Forwarding


def configure(app: Any, *, proxies: Proxies | None = None, **options: Any) -> Config:
    """Make uvicorn's configuration with the native door and without what the hub does itself.

    Args:
        app: an ASGI app, or where it is: `module:attribute`.
        proxies: those that may say for whom they speak; none by default.
        options: uvicorn's own; they win over ours.
    """
    ours: dict[str, Any] = {
        "http": HttpProtocol,
        "ws": WebSocketProtocol,
        "ws_per_message_deflate": False,
        "access_log": False,
        "log_config": LOGGING,
        "server_header": False,
        "proxy_headers": False,
    }
    config = Config(app, **{**ours, **options})
    config.forwarding = Forwarding(proxies or Proxies())
    return config


class Server(uvicorn.Server):
    """Serves one app until it is told to stop: sockets first, then HTTP, then the lifespan.

    Args:
        config: see `configure`.
        started: called once the app takes connections.
        drain: seconds in which clients are sent to other nodes before a stop (SIGTERM); by default 30 where a broker
            is between several nodes, and none where there is nowhere to go.
    """

    def __init__(
        self, config: uvicorn.Config, started: Callable[[], None] | None = None, drain: float | None = None
    ) -> None:
        super().__init__(config)
        self._on_started = started
        self._drain = drain
        self._stopping = False
        self._draining = False
        self._told = -TELL_AGAIN
        self._stop: asyncio.Task[None]

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app, then listen; TLS gets less time to begin and to end than usual (60 and 30 s)."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._failed)  # the app may set another
        await super().startup(sockets=[])
        if not self.started:
            return  # the app did not; some versions of uvicorn leave by themselves
        tls: dict[str, Any] = {}
        if self.config.ssl is not None:
            # Some builds of Python leave it to the system's OpenSSL.
            self.config.ssl.minimum_version = max(self.config.ssl.minimum_version, ssl.TLSVersion.TLSv1_2)
            tls = {
                "ssl": self.config.ssl,
                "ssl_handshake_timeout": TLS_HANDSHAKE,
                "ssl_shutdown_timeout": TLS_HANDSHAKE,
            }
        for listener in sockets or []:
            # The standard loop accepts so many in a row, and with no descriptors left fails, and says so, as often.
            server = await loop.create_server(self._protocol, sock=listener, backlog=1, **tls)
            listener.listen(self.config.backlog)
            self.servers.append(server)
        # A full collection walks every connection while all wait: what the app imported is left out of it, and it comes
        # a tenth as often. Young garbage is looked for as ever.
        gc.collect()
        gc.freeze()
        young, middle, full = gc.get_threshold()
        gc.set_threshold(young, middle, max(full, FULL_COLLECTION))
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
        threading.Thread(target=self._force, args=(told,), daemon=True).start()

        def signalled(number: int, frame: Any) -> None:
            """Stop in order; at once when told a second time. It runs between any two instructions: it does little."""
            if self._stopping or not self.started:
                os._exit(128 + number)
            self._stopping = True
            self._draining = number == signal.SIGTERM
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
        if self._draining:
            await self._each(hub.drain(self._drain_of(hub)) for hub in Hub.all_running() if self._drain_of(hub))
        await self._each(hub.shutdown() for hub in Hub.all_running())
        self.should_exit = True

    async def _each(self, steps: Iterable[Coroutine[Any, Any, None]]) -> None:
        for error in filter(None, await asyncio.gather(*steps, return_exceptions=True)):
            logger.error("a hub failed to stop", exc_info=error)

    def _drain_of(self, hub: Hub) -> float:
        return (DRAIN if hub.node.broker.shared else 0.0) if self._drain is None else self._drain

    def _protocol(self) -> asyncio.Protocol:
        return FrontProtocol(self.config, self.server_state, self.lifespan.state)

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what failed in the loop; that it cannot accept, which it finds each second, once a minute in a line."""
        if context.get("message") != NO_ROOM:
            loop.default_exception_handler(context)
        elif loop.time() >= self._told + TELL_AGAIN:
            self._told = loop.time()
            logger.warning("new connections wait: %s (see `ulimit -n`)", context["exception"])

    def _begin_to_stop(self) -> None:
        self._stop = asyncio.get_running_loop().create_task(self.stop())

    def _force(self, told: threading.Lock) -> None:
        """Wait for the first signal, and for what it begins no longer than a drain and `FORCED_EXIT`."""
        told.acquire()
        drain = max(map(self._drain_of, Hub.all_running()), default=0.0) if self._draining else 0.0
        time.sleep(drain + FORCED_EXIT)
        logger.error("not stopped after %g s: exit now", drain + FORCED_EXIT)
        os._exit(1)
