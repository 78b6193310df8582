"""One connection of `hubbub check`, and what the answers mean."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from hubbub.cli.dial import describe_close, dial
from hubbub.errors import CloseCode, HubbubError

__all__ = ["Failed", "NotOffered", "Peer", "Target", "accepted", "encode_request"]

NOT_OFFERED = {
    "unknown_type": "no handler for `{type}`",
    "unauthorized": "`{type}` is refused without a valid --token",
    "forbidden": "`{type}` is forbidden for this user",
}
NOT_FOR_US = {CloseCode.UNAUTHORIZED, CloseCode.FORBIDDEN}


class Failed(HubbubError):
    """The server did something else than the protocol says."""


class NotOffered(HubbubError):
    """The server has no such feature, or not for us; no fault."""


class Peer:
    """One connection to the server under check; it numbers its requests and keeps what else arrives."""

    def __init__(self, socket: ClientConnection, timeout: float) -> None:
        self.welcome: dict[str, Any] = {}
        self._socket = socket
        self._timeout = timeout
        self._ids = (f"check-{number}" for number in itertools.count(1))
        self._pushed: list[dict[str, Any]] = []

    async def request(self, type: str, payload: Any, *, reply: str) -> Any:
        """Send a request and return the payload of its reply, which has to be of type `reply`."""
        return accepted(await self.answer(type, await self.send(type, payload)), type, reply)

    async def send(self, type: str, payload: Any = None) -> str:
        """Send a request without waiting for its answer; return its id."""
        request_id = next(self._ids)
        await self.send_text(encode_request(type, payload, request_id))
        return request_id

    async def send_text(self, text: str) -> None:
        """Send `text` as it is; a connection that closes meanwhile shows when reading."""
        async with self._patience("the server to read"):
            with suppress(ConnectionClosed):
                await self._socket.send(text)

    async def answer(self, type: str, *request_ids: str) -> dict[str, Any]:
        """Wait for the next message that carries one of `request_ids`."""
        return await self._next(lambda message: message.get("id") in request_ids, f"an answer to `{type}`")

    async def push(self, type: str, **fields: Any) -> Any:
        """Wait for a message of `type` that the server sends by itself, with these fields in its payload, and ack it.

        What waits in the user's inbox may come first.
        """

        def wanted(message: dict[str, Any]) -> bool:
            payload = message.get("payload")
            return message["type"] == type and (
                not fields or (isinstance(payload, dict) and fields.items() <= payload.items())
            )

        message = await self._next(wanted, f"`{type}`")
        if "cursor" in message:
            await self.send("ack", {"cursor": message["cursor"]})
        return message.get("payload")

    async def ping_frame(self) -> None:
        """Send a ping frame and wait for its pong (RFC 6455 section 5.5.2)."""
        async with self._patience("a pong frame"):
            await (await self._socket.ping())

    async def closed(self) -> tuple[int, str]:
        """Wait until the server closes; return code and reason."""
        async with self._patience("a close frame"):
            with suppress(ConnectionClosed):
                while True:
                    await self._socket.recv()
        return self._socket.close_code or CloseCode.ABNORMAL, self._socket.close_reason or ""

    async def _next(self, wanted: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        for index, message in enumerate(self._pushed):
            if wanted(message):
                return self._pushed.pop(index)
        async with self._patience(what):
            while not wanted(message := _decode(await self._socket.recv())):
                self._pushed.append(message)
        return message

    @asynccontextmanager
    async def _patience(self, what: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except TimeoutError:
            raise Failed(f"waited {self._timeout:g} s for {what}") from None
        except ConnectionClosed:
            code = self._socket.close_code or CloseCode.ABNORMAL
            verdict = NotOffered if code in NOT_FOR_US else Failed
            raise verdict(f"closed while waiting for {what}, {describe_close(code)}") from None


@dataclass(frozen=True, slots=True)
class Target:
    """The server under check.

    Args:
        url: its WebSocket address.
        timeout: the longest wait for any one answer, in seconds.
        token: signs every connection in; None where none is needed.
    """

    url: str
    timeout: float
    token: str | None

    @asynccontextmanager
    async def connect(self, *, sign_in: bool = True) -> AsyncIterator[Peer]:
        """Open a connection, take its `welcome`, and sign it in when we have a token."""
        # Uncompressed, so that sizes on the wire are the sizes we mean.
        socket = await dial(self.url, open_timeout=self.timeout, compress=False)
        try:
            peer = Peer(socket, self.timeout)
            peer.welcome = await peer.push("welcome") or {}
            if sign_in and self.token is not None:
                await self.sign_in(peer, self.token)
            yield peer
        finally:
            await socket.close()

    async def sign_in(self, peer: Peer, name: str) -> str:
        """Sign `peer` in by our token, or by a bare `name` where we have none; return its user id."""
        try:
            answer = await peer.request("authenticate", {"token": self.token or name}, reply="authenticated")
        except NotOffered as refusal:
            raise (NotOffered if self.token is None else Failed)(str(refusal)) from None
        if not isinstance(user_id := (answer or {}).get("userId"), str):
            raise Failed("`authenticated` has no userId")
        return user_id


def accepted(answer: dict[str, Any], type: str, reply: str) -> Any:
    """Return the payload of an answer of type `reply`, or raise what else it means."""
    if answer["type"] == reply:
        return answer.get("payload")
    if answer["type"] != "error":
        raise Failed(f"`{type}` was answered by `{answer['type']}`, not `{reply}`")
    code, message = (answer.get("payload") or {}).get("code"), (answer.get("payload") or {}).get("message")
    if code in NOT_OFFERED:
        raise NotOffered(NOT_OFFERED[code].format(type=type))
    raise Failed(f"`{type}` was answered by error {code}: {message}")


def encode_request(type: str, payload: Any, request_id: str) -> str:
    """Write a request as it goes over the wire."""
    message = {"type": type, "payload": payload, "timestamp": int(time.time() * 1e3), "id": request_id}
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


def _decode(text: str | bytes) -> dict[str, Any]:
    if isinstance(text, bytes):
        raise Failed("the server sent a binary message")
    try:
        message = json.loads(text)
    except ValueError:
        raise Failed(f"the server sent what is not JSON: {text[:80]!r}") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise Failed(f"the server sent what is not a message: {text[:80]!r}")
    return message
