"""The native door: uvicorn's `ws=` class, which lets the hub take a socket over.

What uvicorn asks of this class is pinned by `tests/servers/test_uvicorn_contract.py`. The takeover, step by step: the
app's routing and middleware run as for any ASGI WebSocket; the hub's endpoint says what it wants (`prepare`) and
accepts through the app's `send`, so that headers which middleware adds reach the 101; then it takes the socket, which
sends the 101 and the welcome in one write, and the ASGI call ends.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from urllib.parse import unquote

from uvicorn.protocols.utils import is_ssl

from hubbub.contracts import Handshake, Receiver
from hubbub.core.arrival import Refusal
from hubbub.core.deflate import Agreement, negotiate
from hubbub.core.forms import FRAMES, deflated
from hubbub.core.handshake import (
    Request,
    build_response,
    check_upgrade,
    header,
    parse_request,
    subprotocols,
)
from hubbub.core.limits import FrameLimits
from hubbub.errors import CloseCode, HandshakeError
from hubbub.node.connection import Connection
from hubbub.node.entrance import Entrance
from hubbub.node.hub import Hub
from hubbub.servers.forwarding import forward
from hubbub.servers.native import NativeTransport
from hubbub.servers.refusal import refuse
from hubbub.servers.socket import AsgiSocket, Event
from hubbub.servers.takeover import TAKEOVER

__all__ = ["WebSocketProtocol"]

logger = logging.getLogger("hubbub.uvicorn")

Address = tuple[str, int | None] | None


class WebSocketProtocol(asyncio.Protocol):
    """One upgrade: from the request's head to a socket of the hub's, or an ordinary ASGI one.

    What a client says before it has its 101 waits until somebody owns the socket, and nothing more is read then.

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
        self.native: NativeTransport | None = None
        self.entered: Entrance | None = None
        self.socket: AsgiSocket | None = None
        self._key = b""
        self._started = False
        self._early = b""
        self._head: bytes | None = None
        self._agreed: Agreement | None = None
        self._prepared: tuple[FrameLimits, bool] | None = None
        self._refusal: tuple[int, Any, bytes] | None = None
        self._connected = False
        self._ended = False
        self._gone: asyncio.Event | None = None

    # uvicorn's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket from uvicorn's HTTP protocol."""
        self.transport = transport  # type: ignore[assignment]  # uvloop's class is a stranger to asyncio's
        self.state.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Read the request's head, which uvicorn hands over whole; whatever follows a refusal is dropped."""
        if self._ended:
            return
        if self._started:
            self.transport.pause_reading()
            self._early += data
            return
        try:
            request = parse_request(data)
        except HandshakeError as error:
            self._refuse(error.status, error.reason.encode(), error.headers)
            return
        self.upgrade(request, _address(self.transport, "sockname"), _address(self.transport, "peername"))

    def upgrade(self, request: Request, server: Address, client: Address) -> None:
        """Start the app on a request, or refuse one that is no proper upgrade."""
        self._started = True
        self.request = request
        try:
            self._key = check_upgrade(request)
        except HandshakeError as error:
            self._refuse(error.status, error.reason.encode(), error.headers)
            return
        scope = self._scope(server, client)
        forward(self.config, scope)
        refusal = self._enter(scope)
        if refusal is not None:
            self._refuse(refusal.status, refusal.body, refusal.headers)
            return
        task = asyncio.get_running_loop().create_task(self._run(scope))
        self.state.tasks.add(task)
        task.add_done_callback(self.state.tasks.discard)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left before the handshake was done."""
        self.state.connections.discard(self)
        self._end()

    def pause_writing(self) -> None:
        """Nothing is written that could wait: the native transport asks for itself."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""

    def shutdown(self) -> None:
        """The server stops while the app still decides (uvicorn's call; it may come twice)."""
        self._refuse(503, b"the server stops", ())

    # The app's side (ASGI)

    async def receive(self) -> Event:
        """What the app awaits: the connect event, then the socket's."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        if self.socket is not None:
            return await self.socket.receive()
        if not self._ended:
            self._gone = asyncio.Event()
            await self._gone.wait()
        return {"type": "websocket.disconnect", "code": CloseCode.ABNORMAL}

    async def send(self, message: Event) -> None:
        """What the app calls: accept or refuse, then the socket's events."""
        kind = message["type"]
        if self.socket is not None:
            await self.socket.send(message)
        elif self._ended:
            raise OSError("the client is gone")
        elif kind == "websocket.accept" and self._head is None:
            self._accept(message)
        elif kind == "websocket.close":
            self._refuse(403, b"", ())
        elif kind == "websocket.http.response.start":
            self._refusal = message["status"], message.get("headers", ()), b""
        elif kind == "websocket.http.response.body" and self._refusal is not None:
            self._send_body(*self._refusal, message)
        else:
            raise RuntimeError(f"Unexpected ASGI message {kind!r} before the WebSocket was accepted.")

    # The hub's side (`servers.takeover.Takeover`)

    def prepare(self, limits: FrameLimits, deflate: bool) -> None:
        """Note what the hub wants of the socket it is about to accept."""
        self._prepared = limits, deflate

    def take(self, connection: Connection, handshake: Handshake) -> None:
        """Give the accepted socket to the hub.

        Raises:
            OSError: the client left meanwhile.
            RuntimeError: the socket was not prepared and accepted before.
        """
        if self._ended:
            raise OSError("the client is gone")
        if self._head is None or self.socket is not None:
            raise RuntimeError("prepare and accept a WebSocket before taking it over")
        head = self._open(connection)
        native = self._native()
        if native.paused:
            self.transport.write(head)  # an earlier answer is still unread: what the hub queues may be dropped for that
            connection.accept(native, handshake)
        else:
            connection.accept(native, handshake, head)

    # Inside

    def _enter(self, scope: dict[str, Any]) -> Refusal | None:
        """Ask the entrance of the hub that has this path before the app does any work; the endpoint asks for others."""
        path = scope["path"].removeprefix(scope["root_path"])
        hubs = Hub.all_at(path)
        if len(hubs) != 1:
            return None  # one that is mounted, or not started: the endpoint knows better which
        client, entrance = scope["client"], hubs[0].node.entrance
        self.entered = entrance
        return entrance.check(entrance.read(scope["headers"], client[0] if client else None, scope["scheme"] == "wss"))

    async def _run(self, scope: dict[str, Any]) -> None:
        """Call the app; when it returns the socket lives on if the hub took it."""
        try:
            await self.config.loaded_app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            (self.native or self).shutdown()
            raise
        except Exception as error:
            self._failed(error)
        else:
            self._returned()
        finally:
            scope["extensions"].clear()  # the scope may live on in a hook: it shall not keep this object

    def _failed(self, error: Exception) -> None:
        gone = self._ended if self.socket is None else self.socket.gone
        if gone and _says_gone(error):
            return
        logger.error("the app failed on a WebSocket", exc_info=error)
        if self.native is not None:
            self.native.receiver.close(CloseCode.INTERNAL_ERROR, "")
        else:
            self._refuse(500, b"Internal Server Error", ())

    def _returned(self) -> None:
        if self.socket is not None:
            self.socket.close(CloseCode.NORMAL, "")
        elif self.native is None and not self._ended:
            logger.error("the app returned without accepting or closing a WebSocket")
            self._refuse(500, b"Internal Server Error", ())

    def _scope(self, server: Address, client: Address) -> dict[str, Any]:
        request, config = self.request, self.config
        path, _, query = request.target.partition(b"?")
        raw_path = config.root_path.encode() + path
        return {
            "type": "websocket",
            "asgi": {"version": config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if is_ssl(self.transport) else "ws",
            "server": server,
            "client": client,
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
        """Make the 101; it goes out at once for the app, and with the welcome for the hub."""
        wanted = self.config.ws_per_message_deflate if self._prepared is None else self._prepared[1]
        offers = header(self.request, b"sec-websocket-extensions") if wanted else None
        self._agreed = negotiate(offers.decode("latin-1")) if offers is not None else None
        extensions = self._agreed.header if self._agreed is not None else None
        headers = [*self.state.default_headers, *message.get("headers", ())]
        self._head = build_response(self._key, message.get("subprotocol"), extensions, headers)
        if self._prepared is None:
            self.socket = AsgiSocket(self.config.ws_ping_interval, self.config.ws_ping_timeout)
            self.transport.write(self._open(self.socket))
            self.socket.open(self._native())

    def _open(self, receiver: Receiver) -> bytes:
        """Put the native transport in this object's place; the 101 to send first."""
        limits = _limits(self.config.ws_max_size) if self._prepared is None else self._prepared[0]
        agreed, connections = self._agreed, self.state.connections
        form = FRAMES if agreed is None else deflated(agreed.window_bits)
        self.native = NativeTransport(self.transport, receiver, limits, form, inflate=agreed is not None)
        self.native.registered = connections
        connections.discard(self)
        connections.add(self.native)
        self.transport.set_protocol(self.native)
        if self._early:
            self.native.read_later(self._early)
        return self._head or b""

    def _native(self) -> NativeTransport:
        assert self.native is not None
        return self.native

    def _send_body(self, status: int, headers: Any, body: bytes, message: Event) -> None:
        body += message.get("body", b"")
        if message.get("more_body"):
            self._refusal = status, headers, body
        else:
            self._refuse(status, body, headers)

    def _refuse(self, status: int, body: bytes, headers: Any) -> None:
        """Answer with an HTTP error instead of 101, and end."""
        if not self._ended:
            refuse(self.transport, status, body, headers)
        self._end()

    def _end(self) -> None:
        self._ended = True
        if self._gone is not None:
            self._gone.set()


def _address(transport: asyncio.Transport, name: str) -> Address:
    """One end of a socket, for the scope; the loop knows both, and asks the kernel no more."""
    found = transport.get_extra_info(name)
    if isinstance(found, tuple):
        return str(found[0]), int(found[1])
    return (found, None) if found and isinstance(found, str) else None


def _limits(size: int) -> FrameLimits:
    """What the server's `ws_max_size` allows a route of the app; parts of 256 bytes are the smallest to be expected."""
    return FrameLimits(size, max(FrameLimits().parts, size // 256))


def _says_gone(error: Exception) -> bool:
    """Whether an error only tells that the client left; Starlette and Litestar have a class of their own for that."""
    return isinstance(error, OSError) or type(error).__name__ == "WebSocketDisconnect"
