"""Opening a client connection from the command line; every way it can fail becomes one sentence and the next step."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from socket import gaierror
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus, InvalidURI, ProxyError
from websockets.http11 import Response
from websockets.typing import Subprotocol

from hubbub.errors import CLOSE_CODES, CloseCode, HubbubError

__all__ = ["DEFAULT_PATH", "SUBPROTOCOL", "DialError", "describe_close", "dial", "may_reconnect", "websocket_url"]

DEFAULT_PATH = "/ws"
SUBPROTOCOL = "hubbub.v1"
MAX_ANSWER = 64 << 20
LONGEST_QUOTE = 120
SCHEMES = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}
STATUS_ADVICE = {
    400: "the server refused the handshake: check the headers",
    401: "it wants credentials: --header 'Authorization: ...'",
    403: "it refused this client: check its allowed origins, or send --header 'Origin: ...'",
    404: "nothing is served at this path: check WS_PATH (it is /ws by default)",
    426: "it wants another version of the protocol",
}


class DialError(HubbubError):
    """The connection could not be opened; the message names the URL and what to try next.

    Args:
        url: where we tried to go.
        problem: what happened, in words.
        advice: what to try next.
        retry: whether the same call may work later.
    """

    def __init__(self, url: str, problem: str, advice: str, *, retry: bool = False) -> None:
        super().__init__(f"cannot connect to {url}: {problem}; {advice}")
        self.retry = retry


def websocket_url(url: str) -> str:
    """Complete what a person types: `localhost:5000` and `http://localhost:5000` mean `ws://localhost:5000/ws`.

    Raises:
        DialError: it is no address of a WebSocket.
    """
    try:
        parts = urlsplit(url if "://" in url else f"ws://{url}")
    except ValueError as error:
        raise _explain(url, error, 0.0) from None
    scheme = SCHEMES.get(parts.scheme)
    if scheme is None:
        raise DialError(url, f"{parts.scheme}:// is not a WebSocket address", "use ws:// or wss://")
    if not parts.hostname:
        raise DialError(url, "the address has no host", "write it like ws://127.0.0.1:5000/ws")
    return parts._replace(scheme=scheme, path=parts.path or DEFAULT_PATH, fragment="").geturl()


async def dial(
    url: str,
    *,
    open_timeout: float = 10.0,
    subprotocols: Sequence[str] = (SUBPROTOCOL,),
    headers: Sequence[tuple[str, str]] = (),
    compress: bool = True,
) -> ClientConnection:
    """Open one connection.

    Args:
        url: complete, as `websocket_url` returns it.
        open_timeout: for TCP, TLS and the handshake together, in seconds.

    Raises:
        DialError: it could not be opened.
    """
    try:
        return await connect(
            url,
            open_timeout=open_timeout,
            close_timeout=2.0,
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            additional_headers=list(headers),
            compression="deflate" if compress else None,
            max_size=MAX_ANSWER,
        )
    except (OSError, InvalidHandshake, InvalidURI, ProxyError, ValueError, EOFError) as error:
        raise _explain(url, error, open_timeout) from error


def may_reconnect(code: int) -> bool:
    """Whether a client should come back after this close code; unknown codes go by their range."""
    if code in CLOSE_CODES:
        return CLOSE_CODES[CloseCode(code)].reconnect
    return not 4500 <= code <= 4999


def describe_close(code: int, reason: str = "") -> str:
    """Say what a close code means, with the server's own words behind it."""
    meaning = CLOSE_CODES[CloseCode(code)].meaning if code in CLOSE_CODES else "a code of this application"
    return f"{code}: {meaning}" + (f" ({reason})" if reason else "")


def _explain(url: str, error: Exception, timeout: float) -> DialError:
    match error:
        case InvalidURI() | ValueError() if not isinstance(error, ssl.SSLError):
            return DialError(url, f"the address is not valid ({error})", "write it like ws://127.0.0.1:5000/ws")
        case InvalidStatus():
            return _refused(url, error.response)
        case ProxyError():
            return DialError(url, f"the proxy failed ({error})", "check HTTPS_PROXY, or list the host in NO_PROXY")
        case InvalidMessage() | EOFError():
            return DialError(url, "what listens there does not speak HTTP", "check the port, and ws:// against wss://")
        case InvalidHandshake():
            return DialError(url, f"this is not a WebSocket ({error})", "check the path, and any proxy in between")
        case _:
            return _unreachable(url, error, timeout)


def _refused(url: str, response: Response) -> DialError:
    status = response.status_code
    said = bytes(response.body or b"").decode(errors="replace").strip().partition("\n")[0]
    words = said if 0 < len(said) <= LONGEST_QUOTE and "<" not in said else response.reason_phrase
    advice = STATUS_ADVICE.get(status, "see the log of the server" if status >= 500 else "check the path")
    return DialError(url, f"not a WebSocket, HTTP {status} {words}".rstrip(), advice, retry=status >= 500)


def _unreachable(url: str, error: Exception, timeout: float) -> DialError:
    host = urlsplit(url).hostname or ""
    match error:
        case ssl.SSLCertVerificationError():
            why = f"the certificate is not trusted ({error.verify_message})"
            return DialError(url, why, "for a private authority set SSL_CERT_FILE to its certificate")
        case ssl.SSLError():
            return DialError(url, f"TLS failed ({error.reason or error})", "check wss:// against ws://, and the port")
        case gaierror():
            return DialError(url, f"the name {host!r} is not known", "check the spelling, and your DNS", retry=True)
        case TimeoutError():
            advice = "check the host and the firewall, or give it longer with --timeout"
            return DialError(url, f"no answer within {timeout:g} s", advice, retry=True)
        case ConnectionRefusedError():
            return _nobody(url)
        case _ if "Connect call failed" in str(error):  # several addresses were tried: asyncio joins their errors
            return _nobody(url)
        case ConnectionError():
            return DialError(url, "the connection was cut", "check the port, and ws:// against wss://", retry=True)
        case _:
            return DialError(url, str(error) or type(error).__name__, "check the address and the network", retry=True)


def _nobody(url: str) -> DialError:
    return DialError(
        url, "nobody listens there", "start the server (hubbub serve module:app) or check the port", retry=True
    )
