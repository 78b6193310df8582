"""Messages: `RequestError` is all that comes out, it says nothing of the input, and what is taken is what JSON says."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from hubbub.core.envelope import Incoming, decode, encode
from hubbub.errors import ERROR_CODES, RequestError
from hubbub.node.routing import payload_decoder
from tests.fuzz.draw import Draw

__all__ = ["check"]

DEPTHS = 1, 3, 32
LONGEST = 400
KEYS = [
    b'"%b"' % name for name in (b"id", b"items", b"byName", b"name", b"next", b"count", b"price", b"key", b"", b"\\n`$")
]
SCALARS = [b"0", b"1", b"-1", b"1.5", b"1e400", b"9" * 400, b"null", b"true", b'""', b'"x"', b'"AAAA"', b'"\\u0000"']


class Item(msgspec.Struct, rename="camel"):
    """A part of what a handler asks for."""

    name: str
    count: int = 0
    price: float | None = None


class Order(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """What a handler asks for: every kind of JSON value, one in the other."""

    id: int
    items: list[Item]
    by_name: dict[str, Item] = {}
    flag: bool | None = None
    key: bytes = b""
    next: Order | None = None


READERS = [payload_decoder(kind) for kind in (Order, dict[str, int], list[Item], Any, str)]


def check(data: bytes) -> None:
    """Decode one message and its payload."""
    draw = Draw(data)
    depth, reader = DEPTHS[draw.byte() % len(DEPTHS)], READERS[draw.byte() % len(READERS)]
    if draw.byte() & 1:
        text = draw.rest().decode("utf-8", "replace").encode()  # the frame parser lets nothing else through
    else:
        text = b'{"type":"a","payload":%b,"id":"b"}' % _value(draw, 40)
    try:
        message = decode(text, depth)
    except RequestError as error:
        _check_error(error)
        return
    _check_message(message, text, depth)
    try:
        payload = reader(message.payload)
    except RequestError as error:
        assert error.code == "invalid_payload"  # noqa: PT017  # no other will do
        _check_error(error)
        return
    _check_answer(message, payload)


def _value(draw: Draw, deepest: int) -> bytes:
    """One JSON value, near to what the readers ask for."""
    choice = draw.byte()
    if choice < 0x60 or not deepest:
        return SCALARS[choice % len(SCALARS)]
    if choice < 0x68:
        return msgspec.json.encode(draw.take(draw.byte()).decode("utf-8", "replace"))
    values = [_value(draw, deepest - 1) for _ in range(choice % 8)]
    if choice < 0x80:
        return b"[%b]" % b",".join(values)
    return b"{%b}" % b",".join([b"%b:%b" % (KEYS[draw.byte() % len(KEYS)], value) for value in values])


def _check_error(error: RequestError) -> None:
    assert error.code in ERROR_CODES
    assert len(error.message) < LONGEST
    assert error.message.isprintable()
    assert error.field is None or (len(error.field) < LONGEST and error.field.isprintable())
    encode("error", {"message": error.message, "field": error.field}, 0)


def _check_message(message: Incoming, text: bytes, depth: int) -> None:
    try:
        value = json.loads(text, parse_int=float)
    except RecursionError:
        raise AssertionError("taken, although no other parser could") from None
    assert value["type"] == message.type
    assert value.get("id") == message.id
    assert _depth(value) <= depth


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _check_answer(message: Incoming, payload: Any) -> None:
    """What came can go out again, and says the same."""
    text = encode(message.type, payload, 1, message.id)
    again = decode(text, 64)
    assert (again.type, again.id) == (message.type, message.id)
    assert b"\n" not in text
