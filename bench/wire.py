"""What goes over the wire in every measurement, the same for all peers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

__all__ = [
    "BUSY",
    "BUSY_TEXT",
    "CHANNEL",
    "COLLECT",
    "CROWD",
    "EPOCH",
    "FIRST_N",
    "FLOOD",
    "KEPT",
    "MISSED",
    "MISSED_COUNT",
    "STATS",
    "SUBSCRIBE",
    "TEXT",
    "WELCOME",
    "burst",
    "echo_message",
    "echo_text",
    "now",
    "published",
    "recover",
    "subscribe",
    "ticks",
    "unsubscribe",
]

FIRST_N = 1_000_000  # seven digits from first to last, so that all messages have one length
ECHO_BYTES = 128
TEXT = "twenty bytes of text"
CHANNEL = "news"
CROWD = "crowd"
"""The namespace of channels that know who is there."""
KEPT, MISSED = "kept", "missed"
"""A channel with a history, and one in which something was missed; only Hubbub has them."""
MISSED_COUNT = 50
BUSY = "busy"
"""A channel with large messages, which fill the queues of who does not read."""
BUSY_TEXT = TEXT * 400
STATS = '{"type":"stats","payload":{}}'
FLOOD = '{"type":"flood","payload":{}}'
EPOCH = "bench"
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


def burst(count: int, channel: str = CHANNEL) -> str:
    """The message that makes a server publish `count` messages at once."""
    more = {} if channel == CHANNEL else {"channel": channel}
    return json.dumps({"type": "burst", "payload": {"count": count, **more}}, separators=(",", ":"))


def subscribe(channel: str, **more: Any) -> str:
    """The message that subscribes."""
    return json.dumps({"type": "subscribe", "payload": {"channel": channel, **more}}, separators=(",", ":"))


def recover() -> str:
    """The message of a client that missed all there is in `MISSED`."""
    return subscribe(MISSED, since={"offset": FIRST_N, "epoch": EPOCH})


def unsubscribe(channel: str) -> str:
    """The message that ends a subscription."""
    return json.dumps({"type": "unsubscribe", "payload": {"channel": channel}}, separators=(",", ":"))


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
