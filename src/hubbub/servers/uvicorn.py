"""The native door: uvicorn's `ws=` class, which lets the hub take a socket over, and `http=` with limits of its own.

What uvicorn asks of these classes is pinned by `tests/servers/test_uvicorn_contract.py`. The takeover, step by step:
the app's routing and middleware run as for any ASGI WebSocket; the hub's endpoint accepts through the app's `send`, so
that headers which middleware adds reach the 101; then it takes the transport over, and the ASGI call ends.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from urllib.parse import unquote

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl

from hubbub.contracts import Handshake
from hubbub.core.deflate import Agreement, negotiate
from hubbub.core.forms import FRAMES, deflated
from hubbub.core.handshake import (
    Request,
    build_refusal,
    build_response,
    check_upgrade,
    header,
    parse_request,
    subprotocols,
)
from hubbub.core.limits import FrameLimits
from hubbub.errors import CloseCode, HandshakeError
from hubbub.node.connection import Connection
from hubbub.servers.native import NativeTransport
from hubbub.servers.socket import AsgiSocket, Event
from hubbub.servers.takeover import TAKEOVER

__all__ = ["HttpProtocol", "WebSocketProtocol"]

logger = logging.getLogger("hubbub.uvicorn")

HEAD_SECONDS = 10.0
HEAD_BYTES = 64 * 1024
HEADER_LINE = 8 * 1024
HEADER_COUNT = 128


class WebSocketProtocol(asyncio.Protocol):
    """One upgrade: from the request's head to a socket of the hub's, or an ordinary ASGI one.

    Args:
        config: uvicorn's.
        server_state: uvicorn's.
        app_state: what the lifespan left for `scope["state"]`.
    """

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
        self.config = config
        self.state = server_state
        self.app_state = app_state
        self.transport: asyncio.Transport
        self.request: Request
        self.key = b""
        self.limits = FrameLimits(message_size=config.ws_max_size)
        self.deflate = config.ws_per_message_deflate
        self.native: NativeTransport | None = None
        self.socket: AsgiSocket | None = None
        self._connected = False
        self._taken: Connection | None = None
        self._refused: tuple[int, Any] | None = None
        self._ended = False
        self._gone = asyncio.Event()

    # uvicorn's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket from uvicorn's HTTP protocol."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "pause_reading")
        self.transport = transport  # type: ignore[assignment]  # uvloop's class is a stranger to asyncio's
        self.state.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Read the request's head, which uvicorn hands over whole, and start the app."""
        self.transport.pause_reading()
        try:
            self.request = parse_request(data)
            self.key = check_upgrade(self.request)
        except HandshakeError as error:
            self._refuse(error.status, error.reason.encode(), error.headers)
            return
        task = asyncio.get_running_loop().create_task(self._run())
        self.state.tasks.add(task)
        task.add_done_callback(self.state.tasks.discard)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left before the handshake was done."""
        self.state.connections.discard(self)
        self._ended = True
        self._gone.set()

    def pause_writing(self) -> None:
        """Nothing is written that could wait: the native transport asks again."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""

    def shutdown(self) -> None:
        """The server stops while the app still decides."""
        if self.native is not None:
            self.native.shutdown()
        elif not self._ended:
            self._refuse(503, b"the server stops", ())

    # The app's side (ASGI)

    async def receive(self) -> Event:
        """What the app awaits: the connect event, then the socket's."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        if self.socket is None:
            await self._gone.wait()
            return {"type": "websocket.disconnect", "code": CloseCode.ABNORMAL}
        return await self.socket.receive()

    async def send(self, message: Event) -> None:
        """What the app calls: accept or refuse, then the socket's events."""
        kind = message["type"]
        if self.socket is not None:
            await self.socket.send(message)
        elif self._ended:
            raise OSError("the client is gone")
        elif kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            self._refuse(403, b"", ())
        elif kind == "websocket.http.response.start":
            self._refused = message["status"], message.get("headers", ())
        elif kind == "websocket.http.response.body" and self._refused is not None:
            await self._send_body(message)
        else:
            raise RuntimeError(f"Unexpected ASGI message {kind!r} before the WebSocket was accepted.")

    def prepare(self, limits: FrameLimits, deflate: bool) -> None:
        """What the hub wants of the socket it is about to accept."""
        self.limits = limits
        self.deflate = deflate

    def take(self, connection: Connection, handshake: Handshake) -> None:
        """Give the accepted socket to the hub; what came in between comes first."""
        native, socket = self.native, self.socket
        if native is None or socket is None:
            raise RuntimeError("accept the WebSocket before taking it over")
        self._taken = connection
        native.receiver = connection
        connection.accept(native, handshake)
        for event in socket.hand_over():
            if event["type"] == "websocket.disconnect":
                connection.close_received(event["code"], event.get("reason", ""))
            elif "text" in event:
                connection.receive_text(event["text"].encode())
            else:
                connection.receive_binary(event["bytes"])
        if self._ended:
            connection.lost(CloseCode.ABNORMAL, "")

    # Inside

    async def _run(self) -> None:
        """Call the app; when it returns the socket lives on if the hub took it."""
        try:
            scope = self._scope()
            await self.config.loaded_app(scope, self.receive, self.send)
            scope["extensions"].clear()
        except Exception as error:
            self._failed(error)
        else:
            self._returned()

    def _failed(self, error: Exception) -> None:
        if isinstance(error, OSError) and self._ended:
            return
        logger.error("the app failed on a WebSocket", exc_info=error)
        if self.native is not None:
            self.native.receiver.close(CloseCode.INTERNAL_ERROR, "")
        else:
            self._refuse(500, b"Internal Server Error", ())

    def _returned(self) -> None:
        if self._taken is not None:
            return
        if self.socket is not None:
            self.socket.close(CloseCode.NORMAL, "")
        elif not self._ended:
            logger.error("the app returned without accepting or closing a WebSocket")
            self._refuse(500, b"Internal Server Error", ())

    def _scope(self) -> dict[str, Any]:
        request, config, transport = self.request, self.config, self.transport
        path, _, query = request.target.partition(b"?")
        raw_path = config.root_path.encode() + path
        return {
            "type": "websocket",
            "asgi": {"version": config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(transport) else "ws",
            "server": get_local_addr(transport),
            "client": get_remote_addr(transport),
            "root_path": config.root_path,
            "path": unquote(raw_path.decode("ascii")) if b"%" in raw_path else raw_path.decode("ascii"),
            "raw_path": raw_path,
            "query_string": query,
            "headers": request.headers,
            "subprotocols": subprotocols(request),
            "state": self.app_state.copy(),
            "extensions": {"websocket.http.response": {}, TAKEOVER: self},
        }

    def _accept(self, message: Event) -> None:
        """Answer 101 and open the socket."""
        agreed = self._agree()
        headers = [*self.state.default_headers, *message.get("headers", ())]
        head = build_response(self.key, message.get("subprotocol"), agreed.header if agreed else None, headers)
        self.socket = AsgiSocket(self.config.ws_ping_interval, self.config.ws_ping_timeout)
        form = deflated(agreed.window_bits) if agreed else FRAMES
        self.native = NativeTransport(self.transport, self.socket, self.limits, form, inflate=agreed is not None)
        self.socket.open(self.native)
        self.transport.write(head)
        self.state.connections.discard(self)
        self.state.connections.add(self.native)
        self.native.registered = self.state.connections
        self.transport.set_protocol(self.native)
        self.transport.resume_reading()

    def _agree(self) -> Agreement | None:
        offers = header(self.request, b"sec-websocket-extensions") if self.deflate else None
        return None if offers is None else negotiate(offers.decode("latin-1"))

    async def _send_body(self, message: Event) -> None:
        assert self._refused is not None
        status, headers = self._refused
        if message.get("more_body"):
            raise RuntimeError("A refused WebSocket gets its body in one piece.")
        self._refuse(status, message.get("body", b""), headers)

    def _refuse(self, status: int, body: bytes, headers: Any) -> None:
        """Answer with an HTTP error instead of 101 and close."""
        self._ended = True
        self._gone.set()
        if not self.transport.is_closing():
            self.transport.write(build_refusal(status, body, headers))
            self.transport.close()


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with a deadline, a size and a count for the request's head."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock with the connection."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._head_bytes = 0
        self._in_head = True
        self._too_much = 0
        self._trailing = False
        self._deadline: asyncio.TimerHandle | None = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and refuse a head that is too large."""
        if self._too_much:
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._deadline is None:
                self._deadline = self.loop.call_later(HEAD_SECONDS, self._head_is_late)
        self._trailing = not data.endswith(b"\r\n\r\n")
        super().data_received(data)
        if self._in_head and not self._too_much and self._head_bytes > HEAD_BYTES:
            self._too_much = 431
        if self._too_much and not self.transport.is_closing():
            self._refuse(self._too_much)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A new head begins."""
        super().on_message_begin()
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        """Note a target that is too long."""
        super().on_url(url)
        if len(self.url) > HEADER_LINE:
            self._too_much = 414

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note headers that are too many or too long."""
        super().on_header(name, value)
        if len(self.headers) > HEADER_COUNT or len(name) + len(value) > HEADER_LINE:
            self._too_much = 431

    def on_headers_complete(self) -> None:
        """The head is complete: the app may see it, unless it broke a limit."""
        self._in_head = False
        self._head_bytes = 0
        self._stop_clock()
        if not self._too_much:
            super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        """Refuse what uvicorn would lose on the way to the `ws=` class: the HTTP version, and bytes after the head."""
        if self._too_much:
            return
        if self.parser.get_http_version() == "1.0":
            self._too_much = 505
        elif self._trailing:
            self._too_much = 400
        else:
            super().handle_websocket_upgrade()

    def _head_is_late(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self._refuse(408)

    def _refuse(self, status: int) -> None:
        self._stop_clock()
        self.transport.write(build_refusal(status))
        self.transport.close()

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
