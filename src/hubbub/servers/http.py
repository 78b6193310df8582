"""uvicorn's `http=` class for `hubbub serve`: a deadline, a size and a count for every request's head."""

from __future__ import annotations

import asyncio
import sys
from enum import Enum

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from hubbub.core.handshake import Request
from hubbub.servers.forwarding import forward
from hubbub.servers.refusal import refuse
from hubbub.servers.uvicorn import WebSocketProtocol

__all__ = ["HttpProtocol"]

HEAD_SECONDS = 10.0
HEAD_BYTES = 64 * 1024
HEADER_LINE = 8 * 1024
HEADER_COUNT = 128


class Part(Enum):
    """What of a request the next bytes belong to."""

    NONE = "none"
    HEAD = "head"
    BODY = "body"


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which by itself waits for ever and reads without end."""

    due: float | None = None
    """When the first head must be complete, in the loop's seconds; by default `HEAD_SECONDS` from the connection on."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock with the connection."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._part = Part.NONE
        self._size = 0
        self._head_bytes = 0
        self._refused = False
        self._deadline: asyncio.TimerHandle | None = None
        self._start_clock()

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and refuse a head that is too large."""
        if self._refused:
            return
        if self._part is not Part.BODY:
            self._head_bytes += len(data)
        self._size = len(data)
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A new head begins."""
        super().on_message_begin()
        self._part = Part.HEAD

    def on_headers_complete(self) -> None:
        """The head is complete: the app sees it, unless it broke a limit."""
        self._part = Part.BODY
        self._head_bytes = 0
        self._stop_clock()
        lines = [len(name) + len(value) for name, value in self.headers]
        if len(self.url) > HEADER_LINE:
            self._refuse(414)
        elif len(lines) > HEADER_COUNT or max(lines, default=0) > HEADER_LINE or sum(lines) > HEAD_BYTES:
            self._refuse(431)
        elif not self._refused:
            forward(self.config, self.scope)
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Nothing of a refused request is read."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The next bytes are a new head."""
        self._part = Part.NONE
        if not self._refused:
            super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Hand the parsed head to our `ws=` class; uvicorn would lose its HTTP version and the bytes behind it."""
        if self._refused:
            return
        # uvicorn calls this while it handles the parser's exception, which says where the head ended.
        upgrade = sys.exception()
        if upgrade is None or upgrade.args[0] != self._size or self._answering():
            self._refuse(400)
            return
        self._part = Part.BODY  # no head follows: the clock must not start again
        self.connections.discard(self)
        version = b"HTTP/" + self.parser.get_http_version().encode()
        request = Request(self.scope["method"], self.url, self.headers, version)
        # It holds this object: the two would stay until the collector finds them.
        self.parser = None  # type: ignore[assignment]  # as uvicorn does at the end of a connection
        protocol = WebSocketProtocol(self.config, self.server_state, self.app_state)
        protocol.connection_made(self.transport)
        self.transport.set_protocol(protocol)
        protocol.upgrade(request, self.server, self.client)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP (uvicorn's name for it)."""
        self._refuse(400)

    def _watch_head(self) -> None:
        if self._refused or self._part is Part.BODY:
            return
        if self._head_bytes > HEAD_BYTES:
            self._refuse(431)
        elif self._part is Part.HEAD or not self._answering():
            self._start_clock()

    def _answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _head_is_late(self) -> None:
        self._deadline = None
        if self._answering():
            self._start_clock()  # while a request waits for its answer the next one may not even be read
        else:
            self._refuse(408)

    def _refuse(self, status: int) -> None:
        """Refuse once; inside somebody else's answer there is no place for words."""
        if self._refused:
            return
        self._refused = True
        self._stop_clock()
        if self._answering():
            self.transport.close()
        else:
            refuse(self.transport, status)

    def _start_clock(self) -> None:
        if self._deadline is None:
            due, self.due = self.due, None
            self._deadline = self.loop.call_at(due or self.loop.time() + HEAD_SECONDS, self._head_is_late)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
