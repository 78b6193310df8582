"""What meets every new connection under `hubbub serve`: upgrades go one way, all other requests the other.

An HTTP parser for each WebSocket would be built to be thrown away at once: it was a third of what an upgrade cost us.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from hubbub.servers import http
from hubbub.servers.refusal import refuse
from hubbub.servers.uvicorn import WebSocketProtocol

__all__ = ["FrontProtocol"]

# One read that is one whole GET with an upgrade to websocket; whatever else comes is for the HTTP protocol to judge.
UPGRADE = re.compile(rb"GET [^\r]*+\r\n(?:[^\r]++\r\n)*?upgrade:[\t ]*websocket[\t ]*\r\n", re.IGNORECASE)


class FrontProtocol(asyncio.Protocol):
    """Waits for the first bytes and hands the socket on.

    Args:
        config: uvicorn's.
        server_state: uvicorn's.
        app_state: what the lifespan left for `scope["state"]`.
    """

    __slots__ = ("_app_state", "_config", "_deadline", "_refused", "_state", "_transport")

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any]) -> None:
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._transport: asyncio.Transport
        self._deadline: asyncio.TimerHandle
        self._refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's class is a stranger to asyncio's
        self._deadline = asyncio.get_running_loop().call_later(http.HEAD_SECONDS, self._silent)
        self._state.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Decide who takes the socket."""
        if self._refused:
            return
        self._leave()
        protocol: WebSocketProtocol | http.HttpProtocol
        if self._is_upgrade(data):
            protocol = WebSocketProtocol(self._config, self._state, self._app_state)
        else:
            protocol = http.HttpProtocol(self._config, self._state, self._app_state)
            protocol.due = self._deadline.when()
        protocol.connection_made(self._transport)
        self._transport.set_protocol(protocol)
        protocol.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left without a word."""
        self._leave()

    def shutdown(self) -> None:
        """The server stops (uvicorn's call)."""
        self._transport.close()

    def _is_upgrade(self, data: bytes) -> bool:
        small = len(data) <= http.HEADER_LINE and data.count(b"\n") <= http.HEADER_COUNT
        whole = data.find(b"\r\n\r\n") == len(data) - 4
        return small and whole and b" HTTP/1.1\r\n" in data and UPGRADE.match(data) is not None

    def _leave(self) -> None:
        self._deadline.cancel()
        self._state.connections.discard(self)

    def _silent(self) -> None:
        self._refused = True
        refuse(self._transport, 408)
