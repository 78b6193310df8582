"""What goes over the wire in every measurement, the same for all peers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

__all__ = [
    "COLLECT",
    "FIRST_N",
    "SUBSCRIBE",
    "TEXT",
    "WELCOME",
    "burst",
    "echo_message",
    "echo_text",
    "now",
    "published",
    "ticks",
]

FIRST_N = 1_000_000  # seven digits from first to last, so that all messages have one length
ECHO_BYTES = 128
TEXT = "twenty bytes of text"
CHANNEL = "news"
PANGRAM = "The quick brown fox jumps over the lazy dog, again and again. "

WELCOME = json.dumps(
    {
        "type": "welcome",
        "payload": {
            "protocol": 1,
            "connectionId": "0123456789abcdef",
            "message": "Connected",
            "timestamp": 1_700_000_000_000,
        },
    },
    separators=(",", ":"),
)
SUBSCRIBE = json.dumps({"type": "subscribe", "payload": {"channel": CHANNEL}}, separators=(",", ":"))
COLLECT = '{"type":"collect","payload":{}}'


def burst(count: int) -> str:
    """The message that makes a server publish `count` messages at once."""
    return json.dumps({"type": "burst", "payload": {"count": count}}, separators=(",", ":"))


def echo_text(kind: str) -> str:
    """The text that fills an echo of type `kind` up to 128 bytes."""
    empty = json.dumps({"type": kind, "payload": {"n": FIRST_N, "text": ""}}, separators=(",", ":"))
    return PANGRAM.ljust(ECHO_BYTES, ".")[: ECHO_BYTES - len(empty)]


def echo_message(kind: str) -> str:
    """A 128-byte message of type `kind` that the server answers with the same payload."""
    return json.dumps({"type": kind, "payload": {"n": FIRST_N, "text": echo_text(kind)}}, separators=(",", ":"))


def now() -> int:
    """The envelope's timestamp, milliseconds since 1970: every peer sends it, so that all send the same bytes."""
    return time.time_ns() // 1_000_000


def published(n: int) -> str:
    """The 137-byte message a subscriber gets, as JSON."""
    payload = {"channel": CHANNEL, "event": "tick", "data": {"n": n, "text": TEXT}}
    return json.dumps({"type": "message", "payload": payload, "timestamp": now()}, separators=(",", ":"))


def ticks(count: int, numbers: Iterator[int]) -> Iterator[str]:
    """The next `count` messages to publish."""
    return (published(next(numbers)) for _ in range(count))
