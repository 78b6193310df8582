"""uvicorn's `http=` class for `hubbub serve`: a deadline, a size and a count for every request's head."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hubbub.core.handshake import Request, build_refusal
from hubbub.servers.uvicorn import WebSocketProtocol

__all__ = ["HttpProtocol"]

HEAD_SECONDS = 10.0
HEAD_BYTES = 64 * 1024
HEADER_LINE = 8 * 1024
HEADER_COUNT = 128


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which by itself waits for ever and reads without end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock with the connection."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._head_bytes = 0
        self._in_head = True
        self._refused = False
        self._trailing = False
        self._deadline: asyncio.TimerHandle | None = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and refuse a head that is too large."""
        if self._refused:
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._deadline is None:
                self._deadline = self.loop.call_later(HEAD_SECONDS, self._head_is_late)
        self._trailing = not data.endswith(b"\r\n\r\n")
        super().data_received(data)
        if self._in_head and self._head_bytes > HEAD_BYTES:
            self._refuse(431)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A new head begins."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """The head is complete: the app sees it, unless it broke a limit."""
        self._in_head = False
        self._head_bytes = 0
        self._stop_clock()
        if len(self.url) > HEADER_LINE:
            self._refuse(414)
        elif len(self.headers) > HEADER_COUNT or any(len(k) + len(v) > HEADER_LINE for k, v in self.headers):
            self._refuse(431)
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Nothing of a refused request is read."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Nothing of a refused request is read."""
        if not self._refused:
            super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Hand the parsed head to our `ws=` class; uvicorn would lose its HTTP version and the bytes behind it."""
        if self._refused:
            return
        if self._trailing:
            self._refuse(400)
            return
        self.connections.discard(self)
        version = b"HTTP/" + self.parser.get_http_version().encode()
        request = Request(self.scope["method"], self.url, self.headers, version)
        protocol = WebSocketProtocol(self.config, self.server_state, self.app_state)
        protocol.connection_made(self.transport)
        self.transport.set_protocol(protocol)
        protocol.upgrade(request, self.server, self.client)

    def _head_is_late(self) -> None:
        self._deadline = None
        self._refuse(408)

    def _refuse(self, status: int) -> None:
        self._refused = True
        self._stop_clock()
        if not self.transport.is_closing():
            self.transport.write(build_refusal(status))
            self.transport.close()

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
