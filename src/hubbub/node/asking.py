"""A question to a client, from any node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from hubbub.core.bus import Request
from hubbub.core.envelope import encode_payload
from hubbub.errors import ConnectionClosed, RequestError, RequestTimeout
from hubbub.node.routing import payload_decoder

if TYPE_CHECKING:
    from hubbub.node.node import Node

__all__ = ["ask_client"]

ON_THE_WAY = 1.0  # seconds for the question and its answer between nodes


async def ask_client(
    node: Node, connection_id: str, type: str, payload: Any, timeout: float | None, returns: Any
) -> Any:
    """Ask a client and wait for its answer; see `Hub.request`."""
    connection = node.registry.get(connection_id)
    if connection is not None:
        return await connection.request(type, payload, timeout=timeout, returns=returns)
    seconds = node.timeouts.request if timeout is None else timeout
    question = Request(connection_id, type, encode_payload(payload), seconds)
    try:
        answer = await node.cluster.at(connection_id, question, seconds + ON_THE_WAY)
    except RequestError as error:
        if error.code == "timeout":
            raise RequestTimeout(error.message) from None
        if error.code == "closed":
            raise ConnectionClosed(error.message) from None
        raise
    if answer is None:
        raise ConnectionClosed(f"No connection {connection_id!r} is open.")
    return payload_decoder(returns)(msgspec.Raw(answer))
