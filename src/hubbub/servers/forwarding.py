"""Who the client is, where a proxy stands between: written into every scope before anybody reads it."""

from __future__ import annotations

import logging
from typing import Any

from hubbub.core.forwarded import UNIX, Peer, Proxies, is_near

__all__ = ["Forwarding", "forward"]

logger = logging.getLogger("hubbub.proxies")

SECURE = {"ws": "wss", "http": "https"}
PLAIN = {"wss": "ws", "https": "http"}


class Forwarding:
    """Puts the client's address and scheme into scopes, as trusted proxies tell them.

    Args:
        proxies: those that are trusted.
    """

    def __init__(self, proxies: Proxies) -> None:
        self._proxies = proxies
        self._warned = False

    def apply(self, scope: dict[str, Any]) -> None:
        """Correct the `client` and `scheme` of a scope."""
        address, scheme = scope["client"] and scope["client"][0], scope["scheme"]
        if not self._proxies.trusts(address):
            if not self._warned:
                self._warn(address, scope["headers"])
            return
        found = self._proxies.client(Peer(address, scheme in PLAIN), scope["headers"])
        if found.address != address:
            scope["client"] = found.address, 0  # the port is the proxy's affair
        scope["scheme"] = SECURE.get(scheme, scheme) if found.secure else PLAIN.get(scheme, scheme)

    def _warn(self, address: str | None, headers: list[tuple[bytes, bytes]]) -> None:
        """Tell once that a header which may be a proxy's of ours is not believed."""
        for name, _ in headers:  # each client's headers are looked at: no generator
            if name == b"x-forwarded-for" and is_near(address):
                self._warned = True
                peer, value = address or "a Unix socket", address or UNIX
                why = "to believe it, if that is a proxy of yours, set HUBBUB_TRUSTED_PROXIES"
                logger.warning("X-Forwarded-For from %s is ignored: %s=%s", peer, why, value)
                return


def forward(config: Any, scope: Any) -> None:
    """Apply the forwarding of a server's configuration; plain uvicorn's has none, but a middleware of its own."""
    forwarding: Forwarding | None = getattr(config, "forwarding", None)
    if forwarding is not None:
        forwarding.apply(scope)
