"""Handle the messages of each connection, one at a time and in order, through the handler of their type."""

from __future__ import annotations

import inspect
import logging
import secrets
from collections import deque
from collections.abc import Callable
from contextvars import Context
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Any

import msgspec

from hubbub.core.envelope import Incoming, Message, decode
from hubbub.core.session import BACKLOG, ConnectionState
from hubbub.errors import ERROR_CODES, CloseCode, RequestError, StoreError
from hubbub.node.hooks import HookName, Hooks
from hubbub.node.throttle import Throttle
from hubbub.node.workers import Job, Workers

if TYPE_CHECKING:
    from hubbub.node.connection import Connection
    from hubbub.node.node import Node
    from hubbub.node.routing import Route

__all__ = ["Dispatcher"]

logger = logging.getLogger("hubbub.dispatch")

SLOW = 0.1
WHILE_ASKING = 1024

STRANGER = RequestError("unauthorized", "Sign in first: send `authenticate`.", close=CloseCode.UNAUTHORIZED)
ALLOWED = {"authenticate", "ping", "response", "error"}  # the last two answer what we asked
UNKNOWN = RequestError("unknown_type", "Nobody handles this type here; the server's documentation lists them.", "type")


class Dispatcher:
    """Routes, hooks, and the order in which they run.

    Messages of a connection wait in its backlog while one of them is handled by a coroutine. Those with an urgent type
    (answers to our own requests, pings) do not wait.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.routes: dict[str, Route] = {}
        self.urgent: dict[str, Callable[[Connection, Incoming], None]] = {}
        self.workers = Workers()
        self.hooks = Hooks(self.workers, self._hook_failed, self._next)
        self.throttle = Throttle(node.entrance.quotas.rates)

    def receive(self, connection: Connection, text: bytes) -> None:
        """Handle one message now, or queue it behind what is being handled."""
        if connection.state is not ConnectionState.OPEN:
            return
        connection.credit -= 1
        connection.byte_credit -= len(text)
        if (connection.credit < 0 or connection.byte_credit < 0) and not self.throttle.settle(connection, text):
            return
        try:
            message = decode(text, self.node.limits.depth)
        except RequestError as error:
            self._malformed(connection, error)
            return
        if message.type in self.throttle.types and not self.throttle.permit(connection, message):
            return
        urgent = self.urgent.get(message.type)
        if urgent is not None:
            if connection.identity is None and self.node.gate.required and self._is_stranger(connection, message):
                return
            urgent(connection, message)
        elif connection.running is not None or connection.backlog:
            self._queue(connection, message)
        else:
            self._handle(connection, message, connection.heard)

    def receive_binary(self, connection: Connection, data: bytes) -> None:
        """Give a binary message to the hooks, in its place among the messages; without a hook, close with 1003."""
        if connection.state is not ConnectionState.OPEN:
            return
        connection.credit -= 1
        connection.byte_credit -= len(data)
        if (connection.credit < 0 or connection.byte_credit < 0) and not self.throttle.settle(connection, data):
            return
        if "binary" not in self.hooks:
            connection.close(CloseCode.UNSUPPORTED_DATA, "text messages only")
        elif connection.running is not None or connection.backlog:
            self._queue(connection, data)
        else:
            self._handle_binary(connection, data)

    def receive_control(self, connection: Connection) -> None:
        """Count a ping or a pong; nothing answers one too many, but the end."""
        connection.credit -= 1
        if connection.credit < 0 and connection.state is ConnectionState.OPEN:
            self.throttle.settle(connection, None)

    def stop(self, connection: Connection) -> None:
        """Drop what a connection that is gone still waits for."""
        connection.backlog = None
        if connection.running is not None:
            connection.running.cancel()

    # In order

    def _queue(self, connection: Connection, message: Incoming | bytes) -> None:
        if connection.backlog is None:
            connection.backlog = deque()
        connection.backlog.append(message)
        # While we ask the client something its answer must get through, so we read further than the limit.
        bound = WHILE_ASKING if connection.asking else self.node.limits.in_flight
        if len(connection.backlog) + 1 >= bound:
            connection.hold_reading(BACKLOG)

    def _next(self, connection: Connection) -> None:
        """Go on with the backlog until a coroutine runs again or nothing is left."""
        if connection.state is not ConnectionState.OPEN:
            connection.backlog = None
            return
        while connection.backlog and connection.running is None:
            message = connection.backlog.popleft()
            if isinstance(message, bytes):
                self._handle_binary(connection, message)
            else:
                self._handle(connection, message, monotonic())
        if len(connection.backlog or ()) + (connection.running is not None) < self.node.limits.in_flight:
            connection.resume_reading(BACKLOG)

    # One message

    def _handle(self, connection: Connection, message: Incoming, started: float) -> None:
        """Run a message's handler: a plain one here and now, a coroutine in a worker, for which later messages wait."""
        if connection.identity is None and self.node.gate.required and self._is_stranger(connection, message):
            return
        route = self.routes.get(message.type)
        if route is None:
            self._unrouted(connection, message)
            return
        id, result = message.id, None
        try:
            if route.auth and connection.user_id is None:
                raise RequestError("unauthorized", f"{route.type!r} needs a signed-in user.")
            payload = route.decode(message.payload)
            if not route.inline:
                connection.running = call = _HandlerCall(self, route, connection, payload, id)
                self.workers.submit(call)
                return
            result = Context().run(route.call, connection, payload)  # its variables are nobody else's
            if result is not None:
                connection.send(route.reply, result, id)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if inspect.iscoroutine(result):
                result.close()  # a plain function gave it: the error says that it has no JSON form
            self._failed(connection, f"handler {route.name} of {route.type!r}", id, error)
        if monotonic() - started > SLOW:
            milliseconds = (monotonic() - started) * 1000
            logger.warning(
                "handler %s held the loop for %.0f ms: make it async, or thread=True", route.name, milliseconds
            )

    def ended(self, call: _HandlerCall, result: Any, error: BaseException | None) -> None:
        """Answer for a coroutine that is done, and go on with the connection's messages."""
        connection, route = call.connection, call.route
        connection.running = None
        if call.overdue:
            self.node.timed_out += 1
            limit = self.node.timeouts.handler
            error = RequestError("timeout", f"{route.type!r} took longer than {limit:g} s and was stopped.")
        elif error is not None and not isinstance(error, Exception):
            error = None if call.dropped else _from_inside(error)
        try:
            if error is not None:
                raise error
            if result is not None:
                connection.send(route.reply, result, call.id)
        except Exception as failure:
            self._failed(connection, f"handler {route.name} of {route.type!r}", call.id, failure)
        if connection.backlog or not connection.reading:
            self._next(connection)

    def _handle_binary(self, connection: Connection, data: bytes) -> None:
        if connection.identity is None and self.node.gate.required and self._is_stranger(connection, data):
            return
        self.hooks.run("binary", connection, data)

    def _unrouted(self, connection: Connection, message: Incoming) -> None:
        """Give a message nobody handles to the `on_message` hooks, or answer `unknown_type`."""
        if "message" not in self.hooks:
            connection.send_error(UNKNOWN, message.id)
            return
        try:
            payload = msgspec.json.decode(message.payload) if bytes(message.payload) else None
        except (msgspec.MsgspecError, RecursionError, ValueError):
            error = RequestError("bad_json", "The payload cannot be read.", "payload")
            connection.send_error(error, message.id)
            return
        whole = Message(message.type, payload, time_ns() // 1_000_000, message.id)
        self.hooks.run("message", connection, whole)

    # What went wrong

    def answer(self, connection: Connection, error: RequestError, id: str | None) -> None:
        """Answer a message with `error`, and close the connection if the error says so."""
        connection.send_error(error, id)
        if error.close is not None:
            connection.close(error.close, error.message)

    def _is_stranger(self, connection: Connection, message: Incoming | bytes) -> bool:
        """Whether nothing of this connection may be handled yet."""
        if isinstance(message, Incoming) and message.type in ALLOWED:
            return False
        self.answer(connection, STRANGER, message.id if isinstance(message, Incoming) else None)
        return True

    def _malformed(self, connection: Connection, error: RequestError) -> None:
        connection.send_error(error)
        if error.code == "bad_json":
            connection.bad_messages += 1
            if connection.bad_messages >= self.node.limits.bad_messages:
                connection.close(CloseCode.BAD_REQUEST, "too many messages that are not JSON")

    def _failed(self, connection: Connection, what: str, id: str | None, error: BaseException) -> None:
        """Tell the client what it may know and the log what happened, by one reference."""
        error = _alone(error)
        if isinstance(error, StoreError):
            # The node logs an outage once, not for each request that needed the database.
            error = RequestError(error.code, f"{ERROR_CODES[error.code].meaning.capitalize()}. Try again later.")
        if isinstance(error, RequestError):
            try:
                self.answer(connection, error, id)
                return
            except Exception as unsendable:
                error = unsendable
        reference = secrets.token_hex(4)
        logger.error("%s failed, reference %s, %r", what, reference, connection, exc_info=error)
        self.hooks.run("error", connection, error)
        known = RequestError("internal", f"The server failed to handle this; its log has reference {reference}.")
        connection.send_error(known, id)

    def _hook_failed(self, connection: Connection, error: BaseException, name: HookName, args: Any) -> None:
        if name == "error":
            logger.error("on_error failed, %r", connection, exc_info=error)
        else:
            self._failed(connection, f"on_{name}", args[0].id if name == "message" else None, error)


def _alone(error: BaseException) -> BaseException:
    """The one answer inside an `ExceptionGroup`, as a `TaskGroup` raises it; anything else as it is."""
    found = error
    while isinstance(found, BaseExceptionGroup) and len(found.exceptions) == 1:
        found = found.exceptions[0]
    return found if isinstance(found, RequestError | StoreError) else error


def _from_inside(cause: BaseException) -> Exception:
    """An error for a coroutine that ended by a cancellation which was not ours."""
    error = RuntimeError(f"the handler ended with {type(cause).__name__}, which nobody outside of it asked for")
    error.__cause__ = cause
    return error


class _HandlerCall(Job):
    """One call of a coroutine handler, and whom to answer."""

    __slots__ = ("connection", "dispatcher", "id", "route")

    def __init__(
        self, dispatcher: Dispatcher, route: Route, connection: Connection, payload: Any, id: str | None
    ) -> None:
        super().__init__(route.call, connection, payload)
        self.dispatcher = dispatcher
        self.route = route
        self.connection = connection
        self.id = id

    def done(self, result: Any, error: BaseException | None) -> None:
        self.dispatcher.ended(self, result, error)
