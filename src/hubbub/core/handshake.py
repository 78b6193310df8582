"""The opening handshake, the server's side (RFC 6455 section 4.2): a request head in, the bytes of an answer out."""

from __future__ import annotations

import re
from binascii import Error, a2b_base64, b2a_base64
from collections.abc import Collection, Iterable
from hashlib import sha1
from http import HTTPStatus

from msgspec import Struct

from hubbub.errors import HandshakeError, UsageError

__all__ = [
    "Request",
    "accept_key",
    "build_refusal",
    "build_response",
    "check_upgrade",
    "header",
    "parse_request",
    "subprotocols",
]

Header = tuple[bytes, bytes]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# No pattern can match a byte in two ways, so each takes time in proportion to its input.
_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_VALUE = rb"[\t -~\x80-\xff]*+"
_HEAD = re.compile(rb"(%b) ([!-~]++) (HTTP/[0-9]\.[0-9])\r\n((?:%b:%b\r\n)*+)\r\n" % (_NAME, _NAME, _VALUE))
_FIELD = re.compile(rb"(%b):(%b)" % (_NAME, _VALUE))
_ELEMENT = re.compile(rb"(?:^|,)[ \t]*+(%b)[ \t]*+(?=,|$)" % _NAME)

_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
_SPELLED = {
    b"host": "Host",
    b"sec-websocket-key": "Sec-WebSocket-Key",
    b"sec-websocket-version": "Sec-WebSocket-Version",
}
_OURS = frozenset({b"connection", b"content-length", b"transfer-encoding"})


class Request(Struct, frozen=True):
    """The head of a request; header names are in lower case, values without the space around them."""

    method: str
    target: bytes
    headers: list[Header]
    version: bytes = b"HTTP/1.1"


def parse_request(head: bytes) -> Request:
    """Read a complete request head, the empty line at its end included (RFC 9112).

    Raises:
        HandshakeError: 400 for what is not HTTP/1: bare line ends, control characters, folded lines, odd names.
    """
    match = _HEAD.fullmatch(head)
    if match is None:
        raise HandshakeError(400, "malformed request")
    method, target, version, fields = match.groups()
    headers = []
    for line in fields.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        headers.append((name.lower(), value.strip(b" \t")))
    return Request(method.decode(), target, headers, version)


def check_upgrade(request: Request) -> bytes:
    """Return the client's Sec-WebSocket-Key when the request asks for a WebSocket (section 4.2.1).

    Raises:
        HandshakeError: 505, 405 or 426 for another HTTP version, method or WebSocket version; 400 for the rest.
    """
    if not b"HTTP/1.1" <= request.version < b"HTTP/2.0":
        raise HandshakeError(505, "use HTTP/1.1")
    if request.method != "GET":
        raise HandshakeError(405, "use GET", ((b"Allow", b"GET"),))
    fields = dict(request.headers)
    repeated = () if len(fields) == len(request.headers) else _join(request.headers, fields)
    _check_once(b"host", fields, repeated)
    # What follows the head must be frames: a body would be read as such.
    if b"transfer-encoding" in fields or fields.get(b"content-length", b"0") != b"0":
        raise HandshakeError(400, "an upgrade has no body")
    if not _names(fields.get(b"upgrade", b""), b"websocket"):
        raise HandshakeError(400, "Upgrade does not name websocket")
    if not _names(fields.get(b"connection", b""), b"upgrade"):
        raise HandshakeError(400, "Connection does not name Upgrade")
    _check_once(b"sec-websocket-version", fields, repeated)
    if fields[b"sec-websocket-version"] != b"13":
        supported = ((b"Sec-WebSocket-Version", b"13"), (b"Upgrade", b"websocket"))
        raise HandshakeError(426, "use WebSocket version 13", supported)
    _check_once(b"sec-websocket-key", fields, repeated)
    return _check_key(fields[b"sec-websocket-key"])


def header(request: Request, name: bytes) -> bytes | None:
    """Return the first value of a header, or None; the name in lower case."""
    for field, value in request.headers:
        if field == name:
            return value
    return None


def subprotocols(request: Request) -> list[str]:
    """List the subprotocols that the client offers, the one it likes best first."""
    values = [value for name, value in request.headers if name == b"sec-websocket-protocol"]
    return [name.decode() for name in _ELEMENT.findall(b",".join(values))] if values else []


def accept_key(key: bytes) -> bytes:
    """Compute Sec-WebSocket-Accept, the proof that we read the key (section 4.2.2)."""
    return b2a_base64(sha1(key + _GUID, usedforsecurity=False).digest(), newline=False)


def build_response(key: bytes, subprotocol: str | None, extensions: str | None, headers: Iterable[Header]) -> bytes:
    """Build the 101 that turns the connection into a WebSocket (section 4.2.2).

    Args:
        key: what `check_upgrade` returned.
        subprotocol: one that the client offered, or None.
        extensions: what was agreed on, as `Agreement.header` says it, or None.
        headers: more names and values, from the application.

    Raises:
        UsageError: a header whose name or value would break the head in two.
    """
    lines = [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
        accept_key(key),
        b"\r\n",
    ]
    if subprotocol is not None:
        lines.append(_line(b"Sec-WebSocket-Protocol", subprotocol.encode()))
    if extensions is not None:
        lines.append(_line(b"Sec-WebSocket-Extensions", extensions.encode()))
    lines += [_line(name, value) for name, value in headers]
    lines.append(b"\r\n")
    return b"".join(lines)


def build_refusal(status: int, body: bytes = b"", headers: Iterable[Header] = ()) -> bytes:
    """Build an HTTP error after which the connection is closed.

    Args:
        status: an HTTP status.
        body: plain text, unless `headers` say otherwise.
        headers: more names and values; those that frame the answer are left out, for they are ours.

    Raises:
        UsageError: a header whose name or value would break the head in two.
    """
    kept = [(name, value) for name, value in headers if name.lower() not in _OURS]
    if body and all(name.lower() != b"content-type" for name, _ in kept):
        kept.append((b"Content-Type", b"text/plain; charset=utf-8"))
    kept += [(b"Content-Length", b"%d" % len(body)), (b"Connection", b"close")]
    lines = b"".join([_line(name, value) for name, value in kept])
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, _PHRASES.get(status, b""), lines, body)


def _join(headers: list[Header], fields: dict[bytes, bytes]) -> set[bytes]:
    """Make one field of those that came several times, as lists are read (RFC 9110 section 5.3); their names."""
    seen: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        seen.setdefault(name, []).append(value)
    repeated = {name for name, values in seen.items() if len(values) > 1}
    fields.update((name, b",".join(seen[name])) for name in repeated)
    return repeated


def _check_once(name: bytes, fields: dict[bytes, bytes], repeated: Collection[bytes]) -> None:
    if name not in fields or name in repeated:
        raise HandshakeError(400, f"{_SPELLED[name]} must be there, once")


def _names(value: bytes, wanted: bytes) -> bool:
    """Whether a field that is a list names something, in any case (RFC 9110 section 5.6.1)."""
    value = value.lower()
    return value == wanted or wanted in _ELEMENT.findall(value)


def _check_key(value: bytes) -> bytes:
    try:
        nonce = a2b_base64(value, strict_mode=True)
    except Error:
        nonce = b""
    if len(nonce) != 16:
        raise HandshakeError(400, "Sec-WebSocket-Key is not 16 bytes in base64")
    return value


def _line(name: bytes, value: bytes) -> bytes:
    """One header line, which stays one line whatever the application put into it."""
    line = b"%b: %b" % (name, value)
    if (field := _FIELD.fullmatch(line)) is None or field[1] != name:
        raise UsageError(f"Header {name!r}: {value!r} has a character that no header may have.")
    return line + b"\r\n"
