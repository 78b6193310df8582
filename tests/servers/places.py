"""Where a native server runs in these tests: both loops, plain and with TLS.

A server costs a fifth of a second to stop, so most tests share one for each place, and change the app inside it.
"""

from __future__ import annotations

import datetime
import functools
import ipaddress
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hubbub import Hub
from tests.serving import Loop, RunningServer, running, serving, until

__all__ = ["PLACES", "PLAIN", "Place", "Watcher", "certificate", "stop_shared", "trust"]


@dataclass(frozen=True)
class Place:
    """A loop, with or without TLS."""

    loop: Loop
    tls: bool = False

    def __str__(self) -> str:
        return f"{self.loop}{'-tls' * self.tls}"

    def serving(self, app: Any, **options: Any) -> AbstractAsyncContextManager[RunningServer]:
        """Serve `app` here, as `hubbub serve` does."""
        return serving(app, "native", self.loop, **self._options, **options)

    @asynccontextmanager
    async def sharing(self, app: Any) -> AsyncIterator[RunningServer]:
        """Serve `app` here, without its lifespan, on a server that other tests use as well.

        It must be as before afterwards: no connection, no task, no hub is left.
        """
        if self not in _shared:
            switch = Switch()
            context = running(switch, "native", self.loop, **self._options, lifespan="off")
            _shared[self] = context, context.__enter__(), switch
        _, server, switch = _shared[self]
        switch.app = app
        try:
            yield server
        finally:
            for hub in Hub.all_running():
                await server.run(hub.shutdown(timeout=0.1))
            state = server.server.server_state
            await until(lambda: not state.connections and not state.tasks, otherwise=lambda: repr(vars(state)))

    @property
    def _options(self) -> dict[str, Any]:
        return certificate() if self.tls else {}

    @property
    def client(self) -> dict[str, Any]:
        """What a client needs to connect here."""
        return {"ssl": trust()} if self.tls else {}


PLAIN = [Place("uvloop"), Place("asyncio")]
PLACES = [*PLAIN, Place("uvloop", tls=True), Place("asyncio", tls=True)]


class Switch:
    """An app that is another one."""

    app: Any

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Let the present app serve."""
        await self.app(scope, receive, send)


_shared: dict[Place, tuple[AbstractContextManager[RunningServer], RunningServer, Switch]] = {}


def stop_shared() -> None:
    """Stop the servers that tests shared."""
    while _shared:
        _, (context, _, _) = _shared.popitem()
        context.__exit__(None, None, None)


@functools.cache
def certificate() -> dict[str, str]:
    """A certificate for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = Path(tempfile.mkdtemp(prefix="hubbub-test-"))
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(secret)
    return {"ssl_certfile": str(folder / "cert.pem"), "ssl_keyfile": str(folder / "key.pem")}


@functools.cache
def trust() -> ssl.SSLContext:
    """A client's context that trusts the certificate."""
    return ssl.create_default_context(cafile=certificate()["ssl_certfile"])


class Watcher:
    """A pure ASGI middleware around both callables, which writes down what passes."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.seen: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one scope."""
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return

        async def hear() -> Any:
            message = await receive()
            self.seen.append(message["type"])
            return message

        async def tell(message: Any) -> None:
            self.seen.append(message["type"])
            if message["type"] == "websocket.accept":
                message = {**message, "headers": [*message.get("headers", ()), (b"set-cookie", b"seen=1; Path=/")]}
            await send(message)

        try:
            await self.app(scope, hear, tell)
        finally:
            self.seen.append("end")
