"""The port that `serve` listens on."""

from __future__ import annotations

import errno
import socket
import sys

from hubbub.errors import ConfigError

__all__ = ["LAST_PORT", "Port", "listen"]

TRIES = 20
LAST_PORT = 65535
BALANCED = sys.platform == "linux"
"""Whether the system spreads connections over all listeners of one port; others give all to one."""


def listen(host: str, port: int, next_free: bool) -> socket.socket:
    """Bind the port, or the next free one where that is wanted.

    Args:
        host: address to listen on.
        port: 0 for any.
        next_free: whether another will do.

    Raises:
        ConfigError: it is not to be had.
    """
    last = min(port + TRIES, LAST_PORT) if next_free and port else port
    for candidate in range(port, last + 1):
        listener = _socket(host)
        try:
            listener.bind((host, candidate))
            listener.listen(0)
        except OSError as error:
            listener.close()
            failure = error
        else:
            listener.set_inheritable(True)
            return listener
    raise _refused(host, port, failure)


class Port:
    """A port for several processes: each has a listener of its own, so that connections are spread evenly.

    Where the system does not do that, they share one.

    Args:
        host: address to listen on.
        listener: has the port; closed by this.
        balanced: see `BALANCED`.

    Raises:
        ConfigError: another took the port meanwhile.
    """

    def __init__(self, host: str, listener: socket.socket, *, balanced: bool = BALANCED) -> None:
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self._host = host
        self._balanced = balanced
        self._kept = listener
        if balanced:
            # One that listens would get its part of the connections; one that is only bound keeps the port.
            listener.close()
            self._kept = self._bind()

    def listener(self) -> socket.socket:
        """A socket on the port; who gets it listens."""
        return self._bind() if self._balanced else self._kept

    def release(self, listener: socket.socket) -> None:
        """Close a listener whose process is gone: what waits there is for nobody."""
        if listener is not self._kept:
            listener.close()

    def close(self) -> None:
        """Give up the port."""
        self._kept.close()

    def _bind(self) -> socket.socket:
        bound = _socket(self._host)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.bind((self._host, self.address[1]))
        except OSError as error:
            bound.close()
            raise _refused(*self.address, error) from None
        return bound


def _socket(host: str) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


def _refused(host: str, port: int, error: OSError) -> ConfigError:
    way = " Try another --port, or --next-free-port." if error.errno == errno.EADDRINUSE else ""
    return ConfigError(f"Cannot listen on {host}:{port}: {error.strerror or error}.{way}")
