"""One process of several that serve an app: `python -m hubbub.cli.worker`, as `hubbub.cli.workers` starts it.

Rules of this file:
1. The socket to the parent says what to serve, then one byte for each signal to take, and ends when the parent does.
   A worker answers with one line once it takes connections.
2. A worker whose parent is gone goes too.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from hubbub.errors import HubbubError

if TYPE_CHECKING:
    from hubbub.servers.server import Server

__all__ = ["Orders", "main"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a worker is to do.

    Args:
        app: where the app is.
        host: where it listens.
        env: `DEPLOY_ENV`.
        workers: how many there are.
        access_log: see `hubbub serve`.
        drain: seconds, see `Server`.
        ssl_certfile: path of the certificate.
        ssl_keyfile: path of its key.
        first: whether it is the one that warns.
        listener: number of the inherited socket.
    """

    app: str
    host: str
    env: str
    workers: int
    access_log: bool
    drain: float | None
    ssl_certfile: str | None
    ssl_keyfile: str | None
    first: bool = False
    listener: int = -1

    def line(self) -> bytes:
        """As they are sent."""
        return json.dumps(asdict(self)).encode() + b"\n"


def main() -> int:
    """Serve until told to stop; the exit code."""
    with socket.socket(fileno=int(sys.argv[1])) as parent, parent.makefile("rb", 0) as said:
        orders = Orders(**json.loads(said.readline()))
        server: list[Server] = []
        threading.Thread(target=_obey, args=(parent, server), daemon=True).start()
        try:
            return _serve(orders, parent, server)
        except HubbubError as error:
            print(f"hubbub: {error}", file=sys.stderr)
            return 1


def _serve(orders: Orders, parent: socket.socket, serving: list[Server]) -> int:
    from hubbub.cli.application import load_app
    from hubbub.cli.banner import hubs_here
    from hubbub.cli.exposure import check_lists
    from hubbub.config import load_settings
    from hubbub.servers.server import Server, configure

    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    load_app(orders.app, orders.host, orders.env, workers=orders.workers, warn=orders.first)
    files = {"ssl_certfile": orders.ssl_certfile, "ssl_keyfile": orders.ssl_keyfile}
    config = configure(orders.app, proxies=check_lists(load_settings()), access_log=orders.access_log, **files)

    def started() -> None:
        parent.sendall(json.dumps(hubs_here()).encode() + b"\n")

    server = Server(config, started=started, drain=orders.drain)
    serving.append(server)
    with socket.socket(fileno=orders.listener) as listener, contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    return 0 if server.started else 1


def _obey(parent: socket.socket, serving: list[Server]) -> None:
    """Take the parent's signals, once: who supervises the parent may have sent them too."""
    with contextlib.suppress(OSError):
        while byte := parent.recv(1):
            if not (serving and serving[0].stopping):
                _take(byte[0], serving)
    if not (serving and serving[0].stopping):  # a second one would end it at once
        _take(signal.SIGINT, serving)


def _take(number: int, serving: list[Server]) -> None:
    if not serving:
        os._exit(128 + number)  # nobody is connected yet
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    sys.exit(main())
