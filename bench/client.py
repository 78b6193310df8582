"""A WebSocket client that costs its process little: plain sockets, frames made before, nothing parsed but lengths."""

from __future__ import annotations

import socket
import struct

__all__ = ["HEAD", "Client", "frame"]

HEAD = (
    "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
ROOM = 1 << 18


def frame(text: str) -> bytes:
    """A client's text frame; with the mask of zeros its bytes stay as they are."""
    data = text.encode()
    length = bytes([0x80 | len(data)]) if len(data) < 126 else struct.pack("!BH", 0x80 | 126, len(data))
    return b"\x81" + length + bytes(4) + data


class Client:
    """One connection, welcomed.

    Args:
        port: of 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10.0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall((HEAD % port).encode())
        self._rest = b""
        while b"\r\n\r\n" not in self._rest:
            self._rest += self._receive()
        self._rest = self._rest.partition(b"\r\n\r\n")[2]
        while not self.read():
            self._rest += self._receive()
        self.socket.setblocking(False)

    def send(self, data: bytes) -> None:
        """Send a frame."""
        self.socket.sendall(data)

    def receive(self) -> list[bytes]:
        """The messages that are there now."""
        try:
            self._rest += self._receive()
        except BlockingIOError:
            return []
        return self.read()

    def read(self) -> list[bytes]:
        """The whole messages among what was received."""
        data, at, messages = self._rest, 0, []
        while len(data) - at >= 2:
            size, head = data[at + 1], 2
            if size >= 126:
                head = 4 if size == 126 else 10
                size = int.from_bytes(data[at + 2 : at + head], "big")
            if len(data) - at < head + size:
                break
            messages.append(data[at + head : at + head + size])
            at += head + size
        self._rest = data[at:]
        return messages

    def _receive(self) -> bytes:
        data = self.socket.recv(ROOM)
        if not data:
            raise ConnectionError("the server closed a connection")
        return data
