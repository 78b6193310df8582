"""The servers that are measured: one file each, all speaking the messages of `bench.wire`."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "BARE",
    "FASTAPI",
    "FASTAPI_ROUTED",
    "FLOOR",
    "HUBBUB",
    "HUBBUB_ASGI",
    "HUBBUB_ASGI_ROUTED",
    "HUBBUB_NODE",
    "HUBBUB_ROUTED",
    "HUBBUB_UNCHECKED",
    "HUBBUB_USUAL",
    "HUBBUB_WORKERS",
    "SOCKETIFY",
    "WEBSOCKETS",
    "WS",
    "Peer",
]

HERE = Path(__file__).parent
NODE_PACKAGES = HERE.parent.parent / "tests" / "peers"


@dataclass(frozen=True, slots=True)
class Peer:
    """A server to measure.

    Args:
        command: the command line that serves on a port of 127.0.0.1, given the folder of compiled programs.
        missing: what has to be installed first, or None.
    """

    command: Callable[[int, Path], list[str]]
    missing: Callable[[], str | None]


def _uvicorn(app: str) -> Callable[[int, Path], list[str]]:
    # The settings that are kindest to it: no line of log per connection, and the C parts of its "standard" extra.
    options = "--loop uvloop --http httptools --ws websockets-sansio --ws-per-message-deflate false"
    quiet = "--no-access-log --log-level warning"
    return lambda port, _: [sys.executable, "-m", "uvicorn", app, "--port", str(port), *options.split(), *quiet.split()]


def _hubbub(app: str, *options: str) -> Callable[[int, Path], list[str]]:
    program = Path(sys.executable).with_name("hubbub")
    return lambda port, _: [str(program), "serve", app, "--host", "127.0.0.1", "--port", str(port), *options]


def _module(name: str) -> Callable[[int, Path], list[str]]:
    return lambda port, _: [sys.executable, "-m", name, str(port)]


def _needs(*modules: str) -> Callable[[], str | None]:
    def missing() -> str | None:
        absent = [module for module in modules if importlib.util.find_spec(module) is None]
        return f"install {', '.join(absent)} into {Path(sys.prefix).name}" if absent else None

    return missing


def _no_node() -> str | None:
    if shutil.which("node") is None:
        return "install Node.js 18 or newer"
    if not (NODE_PACKAGES / "node_modules" / "ws").is_dir():
        return "run `npm ci` in tests/peers"
    return None


HUBBUB = Peer(_hubbub("bench.peers.hubbub_app:app"), _needs("hubbub", "uvicorn", "uvloop", "fastapi"))
HUBBUB_ROUTED = Peer(_hubbub("bench.peers.hubbub_app:routed"), HUBBUB.missing)
HUBBUB_UNCHECKED = Peer(_hubbub("bench.peers.hubbub_app:unchecked"), HUBBUB.missing)
HUBBUB_USUAL = Peer(_hubbub("bench.peers.hubbub_app:usual"), HUBBUB.missing)
HUBBUB_NODE = Peer(_hubbub("bench.peers.nodes_app:app"), HUBBUB.missing)
HUBBUB_WORKERS = Peer(_hubbub("bench.peers.nodes_app:app", "--workers", "2"), HUBBUB.missing)
HUBBUB_ASGI = Peer(_uvicorn("bench.peers.hubbub_app:app"), HUBBUB.missing)
HUBBUB_ASGI_ROUTED = Peer(_uvicorn("bench.peers.hubbub_app:routed"), HUBBUB.missing)
FASTAPI = Peer(_uvicorn("bench.peers.fastapi_app:app"), _needs("uvicorn", "uvloop", "fastapi", "httptools"))
FASTAPI_ROUTED = Peer(_uvicorn("bench.peers.fastapi_app:routed"), FASTAPI.missing)
WEBSOCKETS = Peer(_module("bench.peers.websockets_server"), _needs("websockets", "uvloop"))
BARE = Peer(_module("bench.peers.bare_server"), WEBSOCKETS.missing)
SOCKETIFY = Peer(_module("bench.peers.socketify_server"), _needs("socketify"))
WS = Peer(lambda port, _: ["node", "--expose-gc", str(HERE / "ws_server.mjs"), str(port)], _no_node)
FLOOR = Peer(lambda port, programs: [str(programs / "floor"), str(port)], _needs())
