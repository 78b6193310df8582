"""What one gets over HTTP at the hub's path: the test page, its health, a word for those who forgot to upgrade."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from hubbub.servers.health import HEALTH, health

if TYPE_CHECKING:
    from hubbub.node.hub import Hub

__all__ = ["local_path", "pages", "serve_page"]

FILES = {
    "client": ("client.html", b"text/html; charset=utf-8"),
    "client.js": ("client.js", b"text/javascript; charset=utf-8"),
    "client.css": ("client.css", b"text/css; charset=utf-8"),
}
POLICY = b"default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'"

Header = tuple[bytes, bytes]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@cache
def pages(path: str) -> frozenset[str]:
    """The URL paths below the hub's."""
    return frozenset(f"{path.rstrip('/')}/{name}" for name in (*FILES, *HEALTH))


def local_path(scope: Mapping[str, Any]) -> str:
    """The path of a request, below where the app is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root) else path


async def serve_page(hub: Hub, scope: Mapping[str, Any], send: Send) -> None:
    """Answer an HTTP request at or below the hub's path."""
    path, name = hub.path, scope["path"].rpartition("/")[2]
    if name in HEALTH and scope["path"] != path and not scope["path"].endswith(path):
        status, body = await health(hub.node, name)
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
        await _answer(send, status, body, headers, scope)
    elif scope["path"] != path and not scope["path"].endswith(path) and name in FILES:
        file, media = FILES[name]
        headers = [(b"content-type", media), (b"content-security-policy", POLICY), (b"cache-control", b"no-cache")]
        await _answer(send, 200, _read(file), headers, scope)
    else:
        body = b"This is a WebSocket: connect with ws:// or wss://, or open the test page at %b/client\n"
        headers = [(b"upgrade", b"websocket"), (b"sec-websocket-version", b"13"), (b"content-type", b"text/plain")]
        await _answer(send, 426, body % path.rstrip("/").encode(), headers, scope)


async def _answer(send: Send, status: int, body: bytes, headers: list[Header], scope: Mapping[str, Any]) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


@cache
def _read(name: str) -> bytes:
    return files("hubbub.servers").joinpath("console", name).read_bytes()
