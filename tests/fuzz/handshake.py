"""The opening handshake: a head is refused with a reason, or every part of it is what it seems to be."""

from __future__ import annotations

from base64 import b64decode
from ipaddress import ip_address

from hubbub.core.arrival import Arrival
from hubbub.core.credentials import find_credential, read_cookies, redact
from hubbub.core.deflate import negotiate
from hubbub.core.forwarded import Peer, Proxies
from hubbub.core.handshake import (
    Request,
    build_refusal,
    build_response,
    check_upgrade,
    header,
    parse_request,
    subprotocols,
)
from hubbub.core.origins import Origins
from hubbub.errors import HandshakeError, UsageError
from tests.fuzz.draw import Draw

__all__ = ["check"]

ORIGIN = b"https://a.example"
LISTED, LOOPBACK = Origins([ORIGIN.decode()]), Origins(None)
PROXIES = Proxies(["127.0.0.1", "10.0.0.0/8"])
RAW, WITHOUT_KEY = 0x01, 0x02
START = b"GET /ws?token=%b HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + (
    b"Sec-WebSocket-Version: 13\r\n"
)
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def check(data: bytes) -> None:
    """Read one head, and answer it."""
    draw = Draw(data)
    choices = draw.byte()
    if choices & RAW:
        head = draw.rest()
    else:
        head = START % draw.take(choices >> 4) + (b"" if choices & WITHOUT_KEY else KEY) + draw.rest() + b"\r\n\r\n"
    try:
        request = parse_request(head)
    except HandshakeError as error:
        _check_refusal(error)
        return
    _check_request(request)
    try:
        key = check_upgrade(request)
    except HandshakeError as error:
        _check_refusal(error)
        return
    _check_answer(request, key)


def _check_refusal(error: HandshakeError) -> None:
    answer = build_refusal(error.status, error.reason.encode(), error.headers)
    assert error.status in (400, 405, 426, 505)
    assert answer.startswith(b"HTTP/1.1 %d " % error.status)
    assert answer.count(b"\r\n\r\n") == 1


def _check_request(request: Request) -> None:
    """A head that was taken says the same once written down again: nothing in it could be read in two ways."""
    lines = b"".join(b"%b: %b\r\n" % field for field in request.headers)
    again = b"%b %b %b\r\n%b\r\n" % (request.method.encode(), request.target, request.version, lines)
    assert parse_request(again) == request
    assert not any(byte <= 32 or byte >= 127 for byte in request.target)
    for name, value in request.headers:
        assert set(name) <= TOKEN
        assert name
        assert not any((byte < 32 and byte != 9) or byte == 127 for byte in value)
        assert header(request, name) is not None


def _check_answer(request: Request, key: bytes) -> None:
    assert len(b64decode(key, validate=True)) == 16
    offered = subprotocols(request)
    assert all(name and set(name.encode()) <= TOKEN for name in offered)
    agreement = negotiate((header(request, b"sec-websocket-extensions") or b"").decode("latin-1"))
    chosen = offered[0] if offered else None
    answer = build_response(key, chosen, agreement.header if agreement else None, [])
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert answer.count(b"\r\n\r\n") == 1
    assert answer.count(b"\n") == 5 + (chosen is not None) + (agreement is not None)
    for name, value in request.headers:
        try:
            build_response(key, None, None, [(name, value)])
        except UsageError as error:
            raise AssertionError("a header that was read cannot be written") from error
    _check_credentials(request, offered)
    _check_arrival(request)


def _check_arrival(request: Request) -> None:
    """Only the listed origin, letter by letter, gets past a list; only a trusted proxy speaks for another."""
    said = [value for name, value in request.headers if name == b"origin"]
    arrival = Arrival.read(request.headers, "127.0.0.1", False, "hubbub_token")
    if LISTED.judge(arrival) is None:
        usual = ORIGIN + b":443"
        assert said in ([], [ORIGIN], [usual])
        assert said or not arrival.has_cookie
    stranger = Arrival.read(request.headers, "203.0.113.9", False, "hubbub_token")
    assert not said or LOOPBACK.judge(stranger) is not None
    far = Peer("203.0.113.9", False)
    assert PROXIES.client(far, request.headers) == far
    client = PROXIES.client(Peer("127.0.0.1", False), request.headers)
    ip_address(client.address or "")


def _check_credentials(request: Request, offered: list[str]) -> None:
    path, _, query = request.target.partition(b"?")
    find_credential(request.headers, offered, query, "hubbub_token", True)
    assert not any(";" in name or ";" in value or "=" in name for name, value in read_cookies(request.headers).items())
    url = redact(request.target.decode("latin-1"))
    assert redact(url) == url
    for part in query.split(b"&"):
        name, equals, value = part.partition(b"=")
        if name in (b"token", b"ticket") and equals and b"?" not in path + query and b";" not in query:
            assert f"{name.decode()}={value.decode('latin-1')}&" not in f"{url}&" or value == b"[hidden]"
