"""The ASGI door: the hub as an ASGI endpoint, under any server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from hubbub.contracts import Handshake
from hubbub.core.arrival import Refusal
from hubbub.core.forms import TEXTS, Form
from hubbub.core.frames import cut_reason
from hubbub.errors import CloseCode, HubbubError, RequestError, UsageError
from hubbub.node.connection import Connection
from hubbub.servers.api import Api
from hubbub.servers.flushes import Flushes
from hubbub.servers.pages import local_path, pages, serve_page
from hubbub.servers.redaction import hide_credentials
from hubbub.servers.takeover import takeover_of

if TYPE_CHECKING:
    from hubbub.node.hub import Hub

__all__ = ["App", "AsgiTransport", "Door", "Endpoint", "Receive", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SUBPROTOCOL = "hubbub.v1"


class Endpoint:
    """The hub at its path: WebSockets, and below it the test page and the HTTP API."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._api = Api(hub)
        self._frames = hub.node.limits.frames
        self._flushes = Flushes(hub.node.dispatcher.workers)
        hide_credentials()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope, of either kind."""
        _start(self.hub)
        if scope["type"] == "websocket":
            await self._connect(scope, receive, send)
        elif self._api.serves(scope):
            await self._api(scope, receive, send)
        else:
            await serve_page(self.hub, scope, send)

    def serves(self, scope: Scope) -> bool:
        """Whether a scope is for the hub, and not for the app behind it."""
        path = local_path(scope)
        return path == self.hub.path or (
            scope["type"] == "http" and (path in pages(self.hub.path) or self._api.serves(scope))
        )

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept one client; give the socket to the native server's transport, or stay and serve it here."""
        await receive()
        hub = self.hub
        refusal = _enter(hub, scope)
        if refusal is not None:
            await _turn_away(refusal, scope, send)
            return
        handshake, connection = Handshake(scope), Connection(hub.node)
        accept: dict[str, Any] = {"type": "websocket.accept"}
        if SUBPROTOCOL in scope.get("subprotocols", ()):
            accept["subprotocol"] = SUBPROTOCOL
        try:
            if not (hub.node.closing or hub.node.draining):  # then there is a goodbye for all: it costs no ticket
                connection.identity = await hub.node.gate.admit(handshake)
        except RequestError as error:
            # Accepted all the same: a browser shows its page no HTTP status, but the code of a close.
            await send(accept)
            code = error.close or CloseCode.UNAUTHORIZED
            await send({"type": "websocket.close", "code": code, "reason": cut_reason(error.message)})
            return
        native = takeover_of(scope) if hub.native else None
        if native is not None:
            native.prepare(self._frames, hub.deflate)
            await send(accept)
            native.take(connection, handshake)
            return
        await send(accept)
        transport = AsgiTransport(connection, receive, send, hub.node.limits.message_size, self._flushes)
        await transport.run(handshake)


class Door:
    """A hub in front of any ASGI app: its path is the hub's, everything else the app's.

    Args:
        hub: the hub.
        app: the ASGI app behind it; its lifespan is joined, and made up where it has none.
    """

    def __init__(self, hub: Hub, app: App) -> None:
        if not callable(app):
            raise UsageError(f"hub.wrap takes an ASGI app, not a {type(app).__name__}.")
        self.hub: Hub = hub
        self.app = app
        if isinstance(app, Door) and app.hub is not hub and app.hub.path == hub.path:
            raise UsageError(f"Another hub is at {hub.path} of this app: give one of them Hub(path=...).")
        self._endpoint = Endpoint(hub)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        _start(self.hub)
        if self._endpoint.serves(scope):
            await self._endpoint(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the hub inside the app's lifespan: after its startup, until before its shutdown."""
        asked = False

        async def hear() -> MutableMapping[str, Any]:
            nonlocal asked
            asked = True
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self.hub.shutdown()
            return message

        async def tell(message: MutableMapping[str, Any]) -> None:
            await send(await self._begin() if message["type"] == "lifespan.startup.complete" else message)

        try:
            await self.app(scope, hear, tell)
        except Exception:
            if asked:
                raise
        if not asked:
            # The app knows no lifespan (Django raises, others return): ASGI lets it be, so we answer for it.
            await self._own_lifespan(receive, send)

    async def _own_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        begun = await self._begin()
        await send(begun)
        if begun["type"] == "lifespan.startup.complete":
            await receive()
            await self.hub.shutdown()
            await send({"type": "lifespan.shutdown.complete"})

    async def _begin(self) -> dict[str, Any]:
        """Start the hub, databases and all; what to tell the server."""
        try:
            self.hub.start()
            await self.hub.node.open()
        except HubbubError as error:
            await self.hub.shutdown()
            return {"type": "lifespan.startup.failed", "message": str(error)}
        return {"type": "lifespan.startup.complete"}


def _enter(hub: Hub, scope: Scope) -> Refusal | None:
    """Ask the hub's entrance, unless the native door did before the app was called."""
    entrance, native = hub.node.entrance, takeover_of(scope)
    if native is not None and native.entered is entrance:
        return None
    client = scope.get("client")
    return entrance.check(entrance.read(scope["headers"], client[0] if client else None, scope.get("scheme") == "wss"))


async def _turn_away(refusal: Refusal, scope: Scope, send: Send) -> None:
    """Answer with the refusal's HTTP status where the server can; a close before the accept is a 403 everywhere.

    uvicorn's log has an error for every answer that is neither, so 403 is left to the server, without the reason.
    """
    own = "websocket.http.response" in (scope.get("extensions") or {})
    if refusal.status == HTTPStatus.FORBIDDEN or not own:
        await send({"type": "websocket.close", "code": CloseCode.POLICY_VIOLATION, "reason": refusal.reason})
        return
    headers = [*refusal.headers, (b"content-type", b"text/plain; charset=utf-8")]
    headers.append((b"content-length", b"%d" % len(refusal.body)))
    await send({"type": "websocket.http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": refusal.body})


def _start(hub: Hub) -> None:
    """Start a hub whose app has no lifespan with its first request; a late one does not wake it again."""
    if not hub.node.stopped:
        hub.start()


class AsgiTransport:
    """One client behind somebody else's server.

    What a handler answers is sent by the task that received the question; anything else by one of the node's workers.
    Until the server has taken a write, the transport is paused. The goodbye is always said by the task that receives:
    granian would not send it while somebody waits for the next message.
    """

    form: Form = TEXTS

    def __init__(
        self, connection: Connection, receive: Receive, send: Send, message_size: int, flushes: Flushes
    ) -> None:
        self.paused = False
        self._connection = connection
        self._receive = receive
        self._send = send
        self._message_size = message_size
        self._batch: tuple[str, ...] = ()
        self._farewell: tuple[int, str] | None = None
        self._said = False
        self._aborted = False
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._flushing = False
        self._flushed: asyncio.Event | None = None
        self._waiting = False
        self._receiving = False
        self._task: asyncio.Task[Any] | None = None
        self._flushes = flushes
        self._submitted = False

    async def run(self, handshake: Handshake) -> None:
        """Serve the client until it is gone."""
        self._task = asyncio.current_task()
        code, reason = int(CloseCode.ABNORMAL), ""
        try:
            self._receiving = True
            self._connection.accept(self, handshake)
            code, reason = await self._read()
        except OSError:
            pass  # the server says that the client is gone
        except asyncio.CancelledError:
            if not self._aborted:
                raise
        finally:
            self._connection.lost(code, reason)
            self._batch = ()
            self._flushes.drop(self)

    # `contracts.Transport`

    @property
    def buffered(self) -> int:
        """Characters the server has not taken yet."""
        return TEXTS.size(self._batch)

    def write(self, data: Any) -> None:
        """Take texts for the server, which has them once the next `flush` is through."""
        self._batch = data
        self.paused = True
        self._connection.pause_writing()
        if not (self._receiving or self._flushing or self._submitted):
            self._submitted = True
            self._flushes.add(self)

    def ping(self) -> bool:
        """ASGI has no ping."""
        return False

    def pause_reading(self) -> None:
        """Receive no more after the present message."""
        self._may_read.clear()

    def resume_reading(self) -> None:
        """Receive again."""
        self._may_read.set()

    def close(self, code: int, reason: str) -> None:
        """Close behind what was written."""
        if self._farewell is None:
            self._farewell = (code, reason)
            self._may_read.set()
            if self._waiting and self._task is not None:
                self._task.cancel()

    def abort(self) -> None:
        """End the ASGI call; the server closes the socket."""
        self._aborted = True
        if self._task is not None:
            self._task.cancel()

    # Inside

    async def _read(self) -> tuple[int, str]:
        """Hand over what comes; the code and reason of the end."""
        while True:
            self._receiving = False
            await self.flush()
            await self._may_read.wait()
            if self._farewell is not None and not self._said:
                await self._say_goodbye(*self._farewell)
            event = await self._next()
            if event is None:
                continue
            self._receiving = True
            if event["type"] == "websocket.disconnect":
                return event.get("code", CloseCode.NO_STATUS), event.get("reason") or ""
            self._hand_over(event)

    async def _next(self) -> MutableMapping[str, Any] | None:
        """Receive; None if `close` was called meanwhile."""
        self._waiting = True
        try:
            return await self._receive()
        except asyncio.CancelledError:
            if self._aborted or self._said or self._farewell is None or self._task is None:
                raise
            self._task.uncancel()
            return None
        finally:
            self._waiting = False

    def _hand_over(self, event: MutableMapping[str, Any]) -> None:
        text = event.get("text")
        data = event["bytes"] if text is None else text.encode()
        if len(data) > self._message_size:
            self._connection.close(CloseCode.MESSAGE_TOO_BIG, f"message over {self._message_size} bytes")
        elif text is None:
            self._connection.receive_binary(data)
        else:
            self._connection.receive_text(data)

    async def flush(self) -> None:
        """Give the server everything, unless that is being done."""
        if self._flushing:
            return
        self._flushing = True
        try:
            while self._batch:
                for text in self._batch:
                    await self._send({"type": "websocket.send", "text": text})
                self._batch, self.paused = (), False
                self._connection.resume_writing()
        finally:
            self._flushing = False
            if self._flushed is not None:
                self._flushed.set()

    def written(self, overdue: bool) -> None:
        """Learn that the worker is done, or was stopped because the server did not take it."""
        self._submitted = False
        if overdue:
            self.abort()

    async def _say_goodbye(self, code: int, reason: str) -> None:
        if self._flushing:
            self._flushed = asyncio.Event()
            await self._flushed.wait()
        self._said = True
        await self._send({"type": "websocket.close", "code": code, "reason": cut_reason(reason)})
