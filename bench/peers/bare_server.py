"""Python's own floor: a uvloop protocol that unmasks, changes a word, frames and writes. No JSON, no checks, no limits.

What it costs is what no server in Python on this loop can go below; like the C floor it answers one known key.
"""

from __future__ import annotations

import asyncio
import os
import sys
from itertools import count
from typing import Any

import uvloop
from websockets.speedups import apply_mask

from bench.wire import FIRST_N, SUBSCRIBE, WELCOME, now, ticks

__all__ = ["Bare", "main"]

# RFC 6455 section 1.3: the key of its example, which is the one the load generator sends, has this answer.
UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
ECHO = b'{"type":"echo",'
numbers = count(FIRST_N)
subscribers: list[int] = []


def frame(text: bytes) -> bytes:
    """A text frame of less than 64 KiB."""
    length = len(text)
    return (bytes((0x81, length)) if length < 126 else b"\x81\x7e" + length.to_bytes(2)) + text


class Bare(asyncio.Protocol):
    """One connection; each read is one small frame."""

    def connection_made(self, transport: Any) -> None:
        """Keep the descriptor: `os.write` is cheaper than the loop's write."""
        self._fd: int = transport.get_extra_info("socket").fileno()
        self._upgraded = False

    def data_received(self, data: bytes) -> None:
        """Answer one frame."""
        if not self._upgraded:
            self._upgraded = True
            os.write(self._fd, UPGRADED + frame(WELCOME.encode()))
            return
        start = 6 if data[1] & 127 < 126 else 8
        text = apply_mask(data[start:], data[start - 4 : start])
        if text.startswith(ECHO):
            answer = b'{"type":"echo_response",%b,"timestamp":%d}' % (text[len(ECHO) : -1], now())
            os.write(self._fd, frame(answer))
        elif text == SUBSCRIBE.encode():
            subscribers.append(self._fd)
            os.write(self._fd, frame(SUBSCRIBE.replace("subscribe", "subscribed").encode()))
        else:
            self._publish()

    def connection_lost(self, error: Exception | None) -> None:
        """Publish no more to it."""
        if self._fd in subscribers:
            subscribers.remove(self._fd)

    def _publish(self) -> None:
        (message,) = ticks(1, numbers)
        data = frame(message.encode())
        for subscriber in subscribers:
            os.write(subscriber, data)


async def main(port: int) -> None:
    """Serve on `port` until killed."""
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
