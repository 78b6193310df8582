"""The app's hooks: functions called when a connection opens, says something unhandled, fails or ends."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Literal

from hubbub.node.routing import Handler, refuse_unawaited, takes, underlying
from hubbub.node.workers import Job, Workers

if TYPE_CHECKING:
    from hubbub.node.connection import Connection

__all__ = ["ChannelHook", "HookName", "Hooks"]

logger = logging.getLogger("hubbub.hooks")

HookName = Literal["connect", "message", "binary", "close", "error", "subscribe", "unsubscribe"]

ChannelHook = Literal["occupied", "vacated"]

ARGUMENTS: dict[HookName, tuple[str, int, int]] = {
    "connect": ("(conn) or (conn, handshake)", 1, 2),
    "message": ("(conn, message)", 2, 2),
    "binary": ("(conn, data)", 2, 2),
    "close": ("(conn) or (conn, code, reason)", 1, 3),
    "error": ("(conn, error)", 2, 2),
    "subscribe": ("(conn, channel)", 2, 2),
    "unsubscribe": ("(conn, channel)", 2, 2),
}


class Hooks:
    """The hooks of one hub, and how they run.

    Args:
        workers: runs those that are coroutine functions.
        failed: told the connection, the error, the kind and the arguments of a hook that failed.
        free: told the connection when a hook that held its messages back is done.
    """

    def __init__(
        self,
        workers: Workers,
        failed: Callable[[Connection, BaseException, HookName, tuple[Any, ...]], None],
        free: Callable[[Connection], None],
    ) -> None:
        self._workers = workers
        self._failed = failed
        self._free = free
        self._hooks: dict[HookName, list[tuple[Handler, bool]]] = {name: [] for name in ARGUMENTS}
        self._about: dict[ChannelHook, list[tuple[Handler, bool]]] = {"occupied": [], "vacated": []}

    def __contains__(self, name: HookName) -> bool:
        return bool(self._hooks[name])

    def add(self, name: HookName, function: Handler) -> None:
        """Register a hook.

        Raises:
            ConfigError: it does not take the arguments of its kind.
        """
        count = takes(function, *ARGUMENTS[name])
        call = function if count == ARGUMENTS[name][2] else functools.partial(_first, function, count)
        self._hooks[name].append((call, inspect.iscoroutinefunction(underlying(function))))

    def run(self, name: HookName, connection: Connection, *args: Any) -> None:
        """Call the hooks of one kind, in order; the connection's messages wait from the first coroutine on."""
        hooks = self._hooks[name]
        for at, (hook, waits) in enumerate(hooks):
            if waits:
                self._start(name, connection, hooks[at:], args)
                return
            try:
                refuse_unawaited(Context().run(hook, connection, *args))  # its variables are nobody else's
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                self._failed(connection, error, name, args)

    def tell(self, name: ChannelHook, channel: str) -> None:
        """Call the hooks about a channel that has its first subscriber here, or lost its last."""
        for hook, waits in self._about[name]:
            if waits:
                self._workers.submit(_ChannelCall(hook, channel, name))
                continue
            try:
                refuse_unawaited(Context().run(hook, channel))
            except Exception:
                logger.exception("on_%s failed for %r", name, channel)

    def add_about(self, name: ChannelHook, function: Handler) -> None:
        """Register a hook about channels.

        Raises:
            ConfigError: it does not take a channel's name.
        """
        takes(function, "(channel)", 1, 1)
        self._about[name].append((function, inspect.iscoroutinefunction(underlying(function))))

    def _start(self, name: HookName, connection: Connection, hooks: list[tuple[Handler, bool]], args: Any) -> None:
        async def call_all() -> None:
            for hook, waits in hooks:
                try:
                    result = hook(connection, *args)
                    if waits:
                        await result
                    else:
                        refuse_unawaited(result)
                except Exception as error:
                    self._failed(connection, error, name, args)

        job = _HookCall(self, name, connection, args, call_all)
        if name in ("connect", "message", "binary"):
            connection.running = job
        self._workers.submit(job)

    def ended(self, call: _HookCall, error: BaseException | None) -> None:
        """Report a failure, and let the connection's messages go on."""
        if call.overdue:
            error = TimeoutError(f"on_{call.name} took too long and was stopped")
        elif error is not None and not isinstance(error, Exception) and not call.dropped:
            error = RuntimeError(f"on_{call.name} ended with {type(error).__name__}, which nobody outside asked for")
        if isinstance(error, Exception):
            self._failed(call.connection, error, call.name, call.given)
        if call.connection.running is call:
            call.connection.running = None
            self._free(call.connection)


class _HookCall(Job):
    """The coroutines among the hooks of one event, one after the other."""

    __slots__ = ("connection", "given", "hooks", "name")

    def __init__(
        self, hooks: Hooks, name: HookName, connection: Connection, given: tuple[Any, ...], call: Handler
    ) -> None:
        super().__init__(call)
        self.hooks = hooks
        self.name = name
        self.connection = connection
        self.given = given

    def done(self, result: Any, error: BaseException | None) -> None:
        self.hooks.ended(self, error)


class _ChannelCall(Job):
    """One coroutine hook about a channel."""

    __slots__ = ("name",)

    def __init__(self, hook: Handler, channel: str, name: str) -> None:
        super().__init__(hook, channel)
        self.name = name

    def done(self, result: Any, error: BaseException | None) -> None:
        if error is not None and not self.dropped:
            logger.error("on_%s failed for %r", self.name, self.args[0], exc_info=error)


def _first(function: Handler, count: int, *args: Any) -> Any:
    return function(*args[:count])
