"""The one thing `serve` prints: where everything is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Banner", "hubs_here"]


@dataclass(frozen=True, slots=True)
class Banner:
    """What is printed once connections are taken.

    Args:
        app: where the app is.
        address: host and port.
        tls: whether it speaks TLS.
        env: `DEPLOY_ENV`.
    """

    app: str
    address: tuple[str, int]
    tls: bool
    env: str

    def show(self, hubs: Iterable[Mapping[str, Any]] | None = None, more: Mapping[str, str] | None = None) -> None:
        """Print it.

        Args:
            hubs: what `hubs_here` says where they run; here, if not given.
            more: further lines, by what they are about; they replace those of the hubs.
        """
        host, port = self.address
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        http, ws = ("https", "wss") if self.tls else ("http", "ws")
        lines = [f"hubbub serves {self.app} ({self.env})", _line("HTTP", f"{http}://{where}")]
        for hub in hubs_here() if hubs is None else hubs:
            lines.append(_line("WebSocket", f"{ws}://{where}{hub['path']}"))
            lines.append(_line("Test page", f"{http}://{where}{hub['path'].rstrip('/')}/client"))
            lines += [_line(part, place) for part, place in hub["parts"].items() if part not in (more or {})]
        lines += [_line(part, place) for part, place in (more or {}).items()]
        print("\n".join([*lines, "  Stop with Ctrl+C"]), flush=True)


def hubs_here() -> list[dict[str, Any]]:
    """The hubs that run in this process: their paths, databases, and broker if they have company."""
    from hubbub.node.hub import Hub

    return [asdict(_Place.of(hub)) for hub in Hub.all_running()]


@dataclass(frozen=True, slots=True)
class _Place:
    path: str
    parts: dict[str, str]

    @classmethod
    def of(cls, hub: Any) -> _Place:
        parts = {role.capitalize(): str(database) for role, database in hub.node.databases.items()}
        broker = {"Broker": hub.node.broker.place} if hub.node.broker.shared else {}
        return cls(hub.path, parts | broker)


def _line(part: str, place: str) -> str:
    return f"  {part:<10} {place}"
