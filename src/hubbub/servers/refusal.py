"""The end of a connection that is refused: an HTTP error, and a client that may still be talking."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from hubbub.core.handshake import build_refusal

__all__ = ["refuse"]

LINGER = 2.0


def refuse(
    transport: asyncio.Transport, status: int, body: bytes = b"", headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Answer with an error and end the connection; the caller's protocol drops what still comes.

    Closing at once would reset a connection with unread bytes, and a reset can overtake the answer. So the client gets
    an end of stream, and `LINGER` seconds to take it.
    """
    if transport.is_closing():
        return
    transport.write(build_refusal(status, body, headers))
    if transport.can_write_eof():
        transport.write_eof()
        transport.resume_reading()
        asyncio.get_running_loop().call_later(LINGER, transport.abort)
    else:
        transport.close()  # TLS has no half-closed state
