"""What `hubbub check` tries on a server: eight scenarios, each alone on fresh connections.

A scenario returns one line of detail, or raises `Failed` or `NotOffered` with it. It sees the server only through
the wire, so any server that speaks protocol version 1 can be checked.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from hubbub.cli.dial import describe_close, dial
from hubbub.errors import CloseCode, HubbubError

__all__ = ["SCENARIOS", "Failed", "NotOffered", "Target"]

RAPID_FIRE = 100
UNLIMITED_PROBE = 1 << 20
LARGEST_PROBE = 16 << 20
NOT_OFFERED = {
    "unknown_type": "no handler for `{type}`",
    "unauthorized": "`{type}` is refused without a valid --token",
    "forbidden": "`{type}` is forbidden for this user",
}
NOT_FOR_US = {CloseCode.UNAUTHORIZED, CloseCode.FORBIDDEN}
NESTED = {"text": "hello", "number": 42, "float": 0.5, "yes": True, "nothing": None, "list": [1, [2, {"three": 3}]]}
SPECIAL = {
    "scripts": "日本語 中文 한국어 العربية עברית हिन्दी Ελληνικά Кириллица",
    "emoji": "🎉 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇪🇺",
    "combining marks": "e\u0301 n\u0303 Z\u0351\u036b\u0343 ﷽",
    "escapes": "\"quotes\" \\backslash\\ /slash/ \b\f\n\r\t \u0000\u0001\u001f\u007f",
    "markup": "<script>alert('&amp;')</script> ${x} {{y}} %s '; DROP TABLE users; --",
    "separators": "a\u2028b\u2029c\u00a0d\u200be\ufefff\u202eg",
    "edges of UTF-8": "\u007f\u0080\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff",
    "empty": "",
}


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
        return _accepted(await self.answer(type, await self.send(type, payload)), type, reply)

    async def send(self, type: str, payload: Any = None) -> str:
        """Send a request without waiting for its answer; return its id."""
        request_id = next(self._ids)
        await self.send_text(_encode(type, payload, request_id))
        return request_id

    async def send_text(self, text: str) -> None:
        """Send `text` as it is; a connection that closes meanwhile shows when reading."""
        async with self._patience("the server to read"):
            with suppress(ConnectionClosed):
                await self._socket.send(text)

    async def answer(self, type: str, *request_ids: str) -> dict[str, Any]:
        """Wait for the next message that carries one of `request_ids`."""
        return await self._next(lambda message: message.get("id") in request_ids, f"an answer to `{type}`")

    async def push(self, type: str) -> Any:
        """Wait for a message of `type` that the server sends by itself; return its payload."""
        return (await self._next(lambda message: message["type"] == type, f"`{type}`")).get("payload")

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
        socket = await dial(self.url, timeout=self.timeout, compress=False)
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


async def ping(target: Target) -> str:
    """`ping` gives `pong`, and so does a ping frame."""
    async with target.connect() as peer:
        started = time.perf_counter()
        await peer.request("ping", None, reply="pong")
        message = time.perf_counter()
        await peer.ping_frame()
        frame = time.perf_counter()
    return f"message {1e3 * (message - started):.1f} ms, frame {1e3 * (frame - message):.1f} ms"


async def echo(target: Target) -> str:
    """`echo` gives the same payload back."""
    async with target.connect() as peer:
        if await peer.request("echo", NESTED, reply="echo_response") != NESTED:
            raise Failed("the payload came back changed")
    return "nested payload came back unchanged"


async def authentication(target: Target) -> str:
    """`authenticate` gives `authenticated` with the user's id."""
    async with target.connect(sign_in=False) as peer:
        return f"signed in as {await target.sign_in(peer, 'check')}"


async def invalid_type(target: Target) -> str:
    """An unknown type gives `error unknown_type`, and the connection stays."""
    async with target.connect() as peer:
        answer = await peer.answer("check_no_such_type", await peer.send("check_no_such_type"))
        code = (answer.get("payload") or {}).get("code")
        if answer["type"] != "error" or code != "unknown_type":
            raise Failed(f"answered by `{answer['type']}` {code or ''}, not by error unknown_type")
        await peer.request("ping", None, reply="pong")
    return "error unknown_type, and the connection stays"


async def chat(target: Target) -> str:
    """A message from one user reaches another, and the sender learns so."""
    async with target.connect(sign_in=False) as sender, target.connect(sign_in=False) as recipient:
        sender_id = await target.sign_in(sender, "check-sender")
        recipient_id = await target.sign_in(recipient, "check-recipient")
        text = f"hello {recipient_id}"
        asked = {"recipientId": recipient_id, "message": text}
        receipt = await sender.request("chat", asked, reply="chat_received")
        if not (receipt or {}).get("delivered"):
            raise Failed(f"not delivered: {(receipt or {}).get('reason', 'no reason given')}")
        got = await recipient.push("chat") or {}
    if (got.get("from"), got.get("message")) != (sender_id, text):
        raise Failed(f"arrived changed: from {got.get('from')!r}, message {got.get('message')!r}")
    return f"{sender_id} to {recipient_id}, delivered"


async def rapid_fire(target: Target) -> str:
    """A hundred messages without a pause are all answered, in order."""
    async with target.connect() as peer:
        await peer.request("echo", 0, reply="echo_response")
        started = time.perf_counter()
        ids = [await peer.send("echo", number) for number in range(RAPID_FIRE)]
        answers = [await peer.answer("echo", *ids) for _ in ids]
        rate = RAPID_FIRE / (time.perf_counter() - started)
    for number, answer in enumerate(answers):
        if _accepted(answer, "echo", "echo_response") != number:
            raise Failed(f"answer {number + 1} of {RAPID_FIRE} is out of order")
    return f"{RAPID_FIRE} messages in order, {rate:,.0f} a second"


async def large_payload(target: Target) -> str:
    """A message of exactly the limit is answered; one byte more closes with 1009."""
    async with target.connect() as peer:
        limit = peer.welcome.get("maxMessage")
        size = limit if isinstance(limit, int) and limit <= LARGEST_PROBE else UNLIMITED_PROBE
        await peer.send_text(_sized("large", size))
        _accepted(await peer.answer("echo", "large"), "echo", "echo_response")
    if size != limit:
        return f"{size:,} bytes pass; the limit, {limit or 'none'}, was not tried"
    async with target.connect() as peer:
        await peer.send_text(_sized("over", size + 1))
        code, _ = await peer.closed()
    if code != CloseCode.MESSAGE_TOO_BIG:
        raise Failed(f"{size + 1:,} bytes closed with {code}, not 1009")
    return f"{size:,} bytes pass, one more closes with 1009"


async def special_characters(target: Target) -> str:
    """Text of every kind comes back unchanged."""
    async with target.connect() as peer:
        for name, text in SPECIAL.items():
            if await peer.request("echo", {"text": text, text: name}, reply="echo_response") != {"text": text, text: name}:
                raise Failed(f"came back changed: {name}")
    return f"{', '.join(list(SPECIAL)[:3])} and {len(SPECIAL) - 3} more"


SCENARIOS: dict[str, Callable[[Target], Awaitable[str]]] = {
    "ping / pong": ping,
    "echo": echo,
    "authentication": authentication,
    "invalid type": invalid_type,
    "chat": chat,
    "rapid fire": rapid_fire,
    "large payload": large_payload,
    "unicode and special characters": special_characters,
}
"""The scenarios by the name a person sees, in the order they run."""


def _accepted(answer: dict[str, Any], type: str, reply: str) -> Any:
    if answer["type"] == reply:
        return answer.get("payload")
    if answer["type"] != "error":
        raise Failed(f"`{type}` was answered by `{answer['type']}`, not `{reply}`")
    code, message = (answer.get("payload") or {}).get("code"), (answer.get("payload") or {}).get("message")
    if code in NOT_OFFERED:
        raise NotOffered(NOT_OFFERED[code].format(type=type))
    raise Failed(f"`{type}` was answered by error {code}: {message}")


def _encode(type: str, payload: Any, request_id: str) -> str:
    message = {"type": type, "payload": payload, "timestamp": int(time.time() * 1e3), "id": request_id}
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


def _sized(request_id: str, size: int) -> str:
    return _encode("echo", "x" * (size - len(_encode("echo", "", request_id))), request_id)


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
