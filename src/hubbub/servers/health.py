"""`{path}/healthz` and `{path}/readyz`: for whoever starts, stops and balances nodes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hubbub.node.node import Node

__all__ = ["HEALTH", "health"]

HEALTH = ("healthz", "readyz")


async def health(node: Node, name: str) -> tuple[int, bytes]:
    """The status and JSON for one of the two.

    `healthz` is 200 while the process answers. `readyz` is 200 while new clients are welcome: the node has opened and
    does not go, and its broker and databases answer; else 503.

    Args:
        node: whose.
        name: which.
    """
    if name == "healthz":
        return 200, b'{"status":"ok"}\n'
    databases = {role: await database.answers() for role, database in node.databases.items()}
    parts: dict[str, Any] = {
        "open": node.ready,
        "draining": node.draining or node.closing,
        "broker": node.broker.healthy,
        "databases": databases,
    }
    ready = parts["open"] and not parts["draining"] and parts["broker"] and all(databases.values())
    body = {"status": "ready" if ready else "not ready", **parts}
    return 200 if ready else 503, json.dumps(body).encode() + b"\n"
