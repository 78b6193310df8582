"""Questions from the server to one client, and the answers they wait for."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

import msgspec

from hubbub.core.envelope import Incoming
from hubbub.core.session import BACKLOG
from hubbub.errors import ConnectionClosed, RequestError, RequestTimeout
from hubbub.node.routing import payload_decoder

if TYPE_CHECKING:
    from hubbub.node.connection import Connection

__all__ = ["Requests"]

NULL = msgspec.Raw(b"null")


class Requests:
    """The open questions of one connection, by their id."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[str, asyncio.Future[Incoming | None]] = {}

    def __bool__(self) -> bool:
        return bool(self._open)

    async def ask(self, connection: Connection, type: str, payload: Any, timeout: float, returns: Any) -> Any:
        """Send `request` and wait for its answer; see `Connection.request`."""
        id = secrets.token_urlsafe(6)
        future = self._open[id] = asyncio.get_running_loop().create_future()
        connection.resume_reading(BACKLOG)
        try:
            sent = connection.send("request", {"type": type, "payload": payload}, id)
            async with asyncio.timeout(timeout):
                answer = await future if sent else None
        except TimeoutError:
            raise RequestTimeout(f"{connection!r} did not answer {type!r} within {timeout:g} s.") from None
        finally:
            del self._open[id]
        if answer is None:
            raise ConnectionClosed(f"{connection!r} closed before it answered {type!r}.")
        return _read(answer, returns)

    def answer(self, message: Incoming) -> None:
        """Give a `response` or `error` to the question that waits for it; late ones are dropped."""
        future = self._open.get(message.id or "")
        if future is not None and not future.done():
            future.set_result(message)

    def give_up(self) -> None:
        """Let every question end with `ConnectionClosed`."""
        for future in self._open.values():
            if not future.done():
                future.set_result(None)


def _read(answer: Incoming, returns: Any) -> Any:
    """Decode the client's answer, or raise what it says."""
    if answer.type == "error":
        raise RequestError("refused", "The client answered with an error.")
    return payload_decoder(returns)(answer.payload if bytes(answer.payload) else NULL)
