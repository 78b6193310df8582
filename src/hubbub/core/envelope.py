"""The one message shape, `{"type", "payload"?, "timestamp"?, "id"?}`: decoded once, encoded once.

Rules of this file:
1. A message is decoded in two steps: the envelope here, the payload by whoever knows its type.
2. The sender's `timestamp` is never read: the server's own time counts.
3. What is malformed raises `RequestError`; nothing else leaves `decode`.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import Any

import msgspec

from hubbub.core.camel import to_wire
from hubbub.core.labels import check_text
from hubbub.errors import RequestError

__all__ = ["Incoming", "Message", "decode", "encode", "encode_payload", "encode_stored", "invalid_payload"]

NOTHING = msgspec.Raw(b"")
# The closing quote may be missing: a text without it is read once, not once for each of its quotes.
STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
# What a decoder repeats of the input: a wrong value, or the name of a field that nobody knows.
ECHO = re.compile(r" '.*'|(?<=value) .*?(?= - at `|$)|(?<=unknown field) `.*?`(?= - at `|$)", re.DOTALL)
STEPS = bytes.maketrans(b"[{]}", b"\1\1\xff\xff")  # one level in or, as a signed byte, out
NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


class Incoming(msgspec.Struct, gc=False):
    """A client's message with its payload still in JSON."""

    type: str
    payload: msgspec.Raw = NOTHING
    id: str | None = None


class Message(msgspec.Struct, omit_defaults=True, frozen=True):
    """One message of the wire.

    Args:
        type: what it is.
        payload: whatever goes with it; None leaves it out.
        timestamp: when the server saw or made it, milliseconds since 1970.
        id: the request it belongs to.
        cursor: its place in the user's inbox, if it is durable.
    """

    type: str
    payload: Any = None
    timestamp: int = 0
    id: str | None = None
    cursor: int | None = None


def _plain(value: Any) -> Any:
    """Encode what msgspec cannot: a pydantic model says how itself, and a kind of text, as of templates, is a text."""
    if isinstance(value, str):
        return str.__str__(value)
    dump = getattr(value, "model_dump", None)
    if dump is None:
        raise TypeError(f"{type(value).__name__} has no JSON form: send a dict, Struct, dataclass or model.")
    return dump(mode="json", by_alias=True)


_decode = msgspec.json.Decoder(Incoming).decode
_encode = msgspec.json.Encoder(enc_hook=_plain).encode


def encode(type: str, payload: Any, timestamp: int, id: str | None = None) -> bytes:
    """Build the JSON text of one message.

    Args:
        type: the message's type.
        payload: anything with a JSON form; None leaves it out.
        timestamp: milliseconds since 1970.
        id: the request this answers.

    Raises:
        TypeError: the payload has no JSON form.
        UsageError: the type is no text.
    """
    if type.__class__ is not str:
        check_text(type, "A message's type")
    return _encode(Message(type, to_wire(payload), timestamp, id))


def encode_payload(payload: Any) -> bytes:
    """Build the JSON of a payload alone; nothing for None.

    Raises:
        TypeError: the payload has no JSON form.
    """
    return b"" if payload is None else _encode(to_wire(payload))


def encode_stored(type: str, payload: bytes, timestamp: int, cursor: int) -> bytes:
    """Build the JSON text of a message whose payload is JSON already; see `encode_payload`."""
    return _encode(Message(type, msgspec.Raw(payload) if payload else None, timestamp, None, cursor))


def decode(text: bytes, depth: int) -> Incoming:
    """Read one message.

    Args:
        text: JSON in valid UTF-8.
        depth: levels of arrays and objects allowed.

    Raises:
        RequestError: `bad_json`, `bad_envelope` or `unknown_type`.
    """
    # Counting brackets is cheap and an upper bound; only a suspect message is walked through.
    if text.count(b"[") + text.count(b"{") > depth and _deeper(text, depth):
        raise RequestError("bad_json", f"The message is nested deeper than {depth} levels.")
    try:
        return _decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise _explain(text) from None


def invalid_payload(error: Exception) -> RequestError:
    """Turn a decoder's complaint into `invalid_payload`, the field named, the input not echoed."""
    reason, _, path = ECHO.sub("", str(error)).partition(" - at `")
    reason += ", in a key" if path.startswith("key` in") else ""
    path = path.rstrip("`").rpartition("$")[2]
    missing = re.search(r"missing required field `([^`]+)`", reason)
    if missing:
        path = f"{path}.{missing[1]}"
    return RequestError("invalid_payload", f"payload{path}: {reason}.", path.removeprefix(".") or None)


def _explain(text: bytes) -> RequestError:
    """Say why a text is no envelope (slow path)."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return RequestError("bad_json", 'Not JSON. Send an object like {"type": "ping"}.')
    if not isinstance(value, dict):
        return RequestError("bad_envelope", 'A message is an object like {"type": "ping"}.')
    if not isinstance(value.get("type"), str):
        return RequestError("unknown_type", "`type` must be there and a string.", "type")
    return RequestError("bad_envelope", "`id` must be a string.", "id")


def _deeper(text: bytes, depth: int) -> bool:
    """Whether arrays and objects nest deeper than `depth`, brackets inside strings left out."""
    steps = STRINGS.sub(b"", text).translate(STEPS, NO_BRACKETS)
    return max(accumulate(memoryview(steps).cast("b")), default=0) > depth
