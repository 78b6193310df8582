"""Every way a connection cannot be opened is one sentence with the URL and the next step."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hubbub.cli.dial import DialError, describe_close, dial, may_reconnect, websocket_url
from hubbub.errors import CLOSE_CODES
from tests.cli.standin import port_of, stand_in


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("ws://h:5000/ws", "ws://h:5000/ws"),
        ("h:5000", "ws://h:5000/ws"),
        ("http://h", "ws://h/ws"),
        ("https://h/live?a=b#c", "wss://h/live?a=b"),
        ("wss://h/", "wss://h/"),
        ("[::1]:5000", "ws://[::1]:5000/ws"),
    ],
)
def test_an_address_is_completed(typed: str, meant: str) -> None:
    assert websocket_url(typed) == meant


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        ("ftp://h", "ftp:// is not a WebSocket address; use ws:// or wss://"),
        ("ws://", "the address has no host"),
        ("ws://[::1", "the address is not valid (Invalid IPv6 URL)"),
    ],
)
def test_what_is_no_address_is_refused(typed: str, problem: str) -> None:
    with pytest.raises(DialError) as caught:
        websocket_url(typed)
    assert str(caught.value).startswith(f"cannot connect to {typed}: {problem}")


@asynccontextmanager
async def tcp(greeting: bytes | None, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that says `greeting` and hangs up, or says nothing and waits; its port."""

    left: list[asyncio.Future[None]] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left.append(asyncio.get_running_loop().create_future())
        if greeting is None:
            await reader.read()
        else:
            await reader.readline()
            writer.write(greeting)
        writer.close()
        await writer.wait_closed()
        left[-1].set_result(None)

    async with await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls) as server:
        yield port_of(server)
        await asyncio.gather(*left)


@pytest.mark.parametrize(
    ("greeting", "scheme", "problem"),
    [
        pytest.param(b"", "ws", "does not speak HTTP", id="hangs up"),
        pytest.param(b"SSH-2.0-x\r\n", "ws", "does not speak HTTP", id="another protocol"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "ws", "HTTP 200 OK", id="a web page"),
        pytest.param(b"HTTP/1.1 101 OK\r\n\r\n", "ws", "this is not a WebSocket", id="101 without its headers"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", "wss", "check wss:// against ws://", id="no TLS"),
        pytest.param(None, "ws", "no answer within 0.2 s; check the host and the firewall", id="silent"),
    ],
)
async def test_what_listens_is_no_websocket(greeting: bytes | None, scheme: str, problem: str) -> None:
    async with tcp(greeting) as port:
        url = f"{scheme}://127.0.0.1:{port}/ws"
        with pytest.raises(DialError) as caught:
            await dial(url, open_timeout=0.2 if greeting is None else 5.0)
    assert url in str(caught.value)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("status", "advice", "retry"),
    [
        (401, "HTTP 401 no; it wants credentials", False),
        (403, "HTTP 403 no; it refused this client: check its allowed origins", False),
        (404, "HTTP 404 no; nothing is served at this path", False),
        (409, "HTTP 409 no; check the path", False),
        (503, "HTTP 503 no; see the log of the server", True),
    ],
)
async def test_a_refusal_shows_its_status(status: int, advice: str, retry: bool) -> None:
    async with stand_in(status=status) as url:
        with pytest.raises(DialError) as caught:
            await dial(url)
    assert f"not a WebSocket, {advice}" in str(caught.value)
    assert caught.value.retry is retry


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_nobody_listens(host: str) -> None:
    with socket.socket() as taken:  # bound, not listening: nobody else can take the port
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(DialError, match="nobody listens there; start the server") as caught:
            await dial(f"ws://{host}:{taken.getsockname()[1]}/ws")
    assert caught.value.retry


async def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(DialError, match=r"the name 'nowhere\.invalid' is not known; check the spelling"):
        await dial("ws://nowhere.invalid/ws")


@pytest.mark.parametrize("url", ["ws://h:99999/ws", "ws://h:x/ws"])
async def test_a_port_that_cannot_be(url: str) -> None:
    with pytest.raises(DialError, match="the address is not valid"):
        await dial(url)


async def test_a_certificate_that_nobody_trusts(tmp_path: Path) -> None:
    async with tcp(b"", tls=self_signed(tmp_path)) as port:
        with pytest.raises(
            DialError, match=r"not trusted \(self.signed certificate\); for a private authority set SSL_CERT"
        ):
            await dial(f"wss://127.0.0.1:{port}/ws")


def self_signed(folder: Path) -> ssl.SSLContext:
    """What a server needs for TLS with a certificate of its own making."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    certificate = builder.sign(key, hashes.SHA256())
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    file = folder / "both.pem"
    file.write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()) + certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def test_close_codes_say_what_they_mean_and_whether_to_come_back() -> None:
    assert describe_close(4001, "bye") == "4001: the token expired: bring a new one (bye)"
    assert describe_close(4200) == "4200: a code of this application"
    assert all(may_reconnect(code) is CLOSE_CODES[code].reconnect for code in CLOSE_CODES)
    assert [may_reconnect(code) for code in (3000, 4499, 4500, 4999)] == [True, True, False, False]
