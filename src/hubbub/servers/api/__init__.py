"""The HTTP API, `{path}/api`: what other servers ask of the hub, by POST and JSON, with a key.

It is there once a key is set, and only then. It has no CORS: a browser has no business here, nor the key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from hubbub.errors import RequestError
from hubbub.servers.api.calls import CALLS
from hubbub.servers.api.failures import Failed, explain, failure
from hubbub.servers.api.openapi import DOCUMENT, describe
from hubbub.servers.pages import local_path

if TYPE_CHECKING:
    from hubbub.node.hub import Hub
    from hubbub.servers.asgi import Receive, Scope, Send

__all__ = ["BODY_BYTES", "BODY_SECONDS", "MOST_AT_ONCE", "Api", "api_path", "api_paths"]

BODY_BYTES = 1024 * 1024
BODY_SECONDS = 10.0
MOST_AT_ONCE = 256
"""Calls of one hub on one node at the same time."""

Header = tuple[bytes, bytes]


def api_path(hub: Hub) -> str | None:
    """Where the API is, without a slash at the end; None while it is off."""
    return f"{hub.path.rstrip('/')}/api" if hub.api_key else None


def api_paths(hub: Hub) -> list[str]:
    """The paths of all calls, for routers that have no prefixes; none while the API is off."""
    place = api_path(hub)
    return [] if place is None else [place, *(f"{place}/{name}" for name in (*CALLS, DOCUMENT))]


class Api:
    """The API of one hub.

    Args:
        hub: whose.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._running = 0

    def serves(self, scope: Scope) -> bool:
        """Whether a scope is for the API."""
        place = api_path(self._hub)
        return place is not None and scope["type"] == "http" and f"{local_path(scope)}/".startswith(f"{place}/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            body = await self._answer(scope, receive)
        except ConnectionResetError:
            return
        except Exception as error:
            found = failure(error)
            await _send(send, found.status, msgspec.json.encode(found.body), found.headers)
        else:
            await _send(send, 200, body, ())

    async def _answer(self, scope: Scope, receive: Receive) -> bytes:
        name = local_path(scope).removeprefix(api_path(self._hub) or "").removeprefix("/")
        call = CALLS.get(name)
        if call is None and name != DOCUMENT:
            raise Failed(404, "not_found", f"There is nothing here. {DOCUMENT} says what there is.")
        method = "POST" if call else "GET"
        if scope["method"] != method:
            allowed = ((b"allow", method.encode()),)
            raise Failed(405, "method_not_allowed", f"Ask this by {method}.", allowed)
        if call is None:
            return describe(scope.get("root_path", "") + (api_path(self._hub) or ""))
        self._check_key(scope["headers"])
        if self._running >= MOST_AT_ONCE:
            raise RequestError("rate_limited", f"More than {MOST_AT_ONCE} calls at once.", retry_after=1.0)
        self._running += 1
        try:
            asked = await _read(scope["headers"], receive, call.decoder)
            return msgspec.json.encode(await self._do(call.run, asked))
        finally:
            self._running -= 1

    async def _do(self, run: Any, asked: Any) -> Any:
        node = self._hub.node
        if node.closing or not node.running:
            raise RequestError("unavailable", "This node is going: ask another one.")
        await node.open()  # behind an app without a lifespan nobody has yet
        return await run(self._hub, asked)

    def _check_key(self, headers: Iterable[Header]) -> None:
        given = _first(headers, b"x-api-key")
        if given is None:
            scheme, _, rest = (_first(headers, b"authorization") or b"").partition(b" ")
            given = rest.strip() if scheme.lower() == b"bearer" else b""
        if not self._hub.api_key.fits(given):
            challenge = ((b"www-authenticate", b"Bearer"),)
            raise Failed(401, "unauthorized", "Send the key as `Authorization: Bearer` or `X-API-Key`.", challenge)


async def _read(headers: Iterable[Header], receive: Receive, decoder: msgspec.json.Decoder[Any]) -> Any:
    """What a request asks.

    Raises:
        HubbubError: it cannot be read; the error says why.
    """
    media = (_first(headers, b"content-type") or b"").partition(b";")[0].strip().lower()
    if media != b"application/json":
        raise Failed(415, "unsupported_media_type", "Send JSON, as `Content-Type: application/json`.")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await _receive(_first(headers, b"content-length") or b"", receive)
    except TimeoutError:
        raise Failed(408, "timeout", f"The body did not come within {BODY_SECONDS:g} s.") from None
    try:
        body.decode()  # data and payloads are passed on as they are
        return decoder.decode(body)
    except (ValueError, RecursionError) as error:
        raise explain(error) from None


async def _receive(length: bytes, receive: Receive) -> bytes:
    body = bytearray()
    more = True
    while more:
        if len(body) > BODY_BYTES or (length.isdigit() and int(length[:16]) > BODY_BYTES):
            raise Failed(413, "too_large", f"A body has at most {BODY_BYTES:,} bytes.")
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        body += message.get("body", b"")
        more = message.get("more_body", False) or len(body) > BODY_BYTES
    return bytes(body)


async def _send(send: Send, status: int, body: bytes, more: Iterable[Header]) -> None:
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), *more]
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _first(headers: Iterable[Header], name: bytes) -> bytes | None:
    return next((value for key, value in headers if key.lower() == name), None)
