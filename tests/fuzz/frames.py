"""Frames: whatever comes, however it is cut, the parser says the same, keeps little and never raises.

An input is one byte of choices, the places of the cuts, and then the stream: raw bytes, or frames to be built, since a
mutation seldom hits a length and its mask.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Iterator

from websockets.exceptions import PayloadTooBig
from websockets.exceptions import ProtocolError as TheirError
from websockets.frames import Frame
from websockets.speedups import apply_mask
from websockets.streams import StreamReader

from hubbub.core.frames import Event, Opcode, Parser, parse_close, small_text
from hubbub.core.limits import FrameLimits
from hubbub.errors import ProtocolError
from tests.core.wire import cut, header
from tests.fuzz.draw import Draw

__all__ = ["check"]

SMALL, USUAL = FrameLimits(message_size=300, parts=4), FrameLimits()
DEFLATE, RAW, UNLIMITED, ALONE = 0x01, 0x02, 0x04, 0x08
HEAD = 14


def check(data: bytes) -> None:
    """Parse one stream in one piece and in many."""
    draw = Draw(data)
    choices = draw.byte()
    inflate, limits = bool(choices & DEFLATE), USUAL if choices & UNLIMITED else SMALL
    places = [draw.byte() | draw.byte() << 8 for _ in range(choices >> 4)]
    stream = draw.rest() if choices & RAW else b"".join(_frames(draw))

    whole = Parser(limits, inflate)
    events = whole.feed(stream)
    parser = Parser(limits, inflate)
    pieces = cut(stream, range(len(stream)) if choices & ALONE and len(stream) < 100 else places)
    assert _feed(parser, pieces, limits) == events
    assert str(parser.failure) == str(whole.failure)
    assert parser.idle == whole.idle
    for event in events:
        _check_event(*event, limits)
    assert whole.failure is None or (whole.failure.code in (1002, 1007, 1009) and not whole.feed(b"\x81\x80\0\0\0\0"))
    _check_small_text(stream, limits)
    if not inflate and len(stream) < 2000:
        _check_with_another(stream, events, whole.failure)


def _frames(draw: Draw) -> Iterator[bytes]:
    """Frames as a client builds them, most of them: a byte says what is odd about one."""
    while draw:
        first, odd, size = draw.byte(), draw.byte(), draw.byte()
        payload = draw.take(size) if not odd & 0x10 else bytes((draw.byte(),)) * (size * 2)
        form = 64 if odd & 0x20 else 16 if odd & 0x40 or len(payload) > 125 else 7
        if odd & 0x0F == 1:
            yield header(first, len(payload), masked=False, form=form) + payload
        elif odd & 0x0F == 2:
            yield header(first, int.from_bytes(draw.take(8), "big"), form=64)
        else:
            mask = draw.take(4).ljust(4, b"\0") if odd & 0x80 else bytes(4)
            yield header(first, len(payload), form=form) + mask + apply_mask(payload, mask)


def _feed(parser: Parser, pieces: Iterator[bytes], limits: FrameLimits) -> list[Event]:
    events: list[Event] = []
    for piece in pieces:
        events += parser.feed(piece)
        assert len(parser._kept) < limits.message_size + HEAD
    return events


def _check_event(opcode: Opcode, payload: bytes, limits: FrameLimits) -> None:
    assert type(payload) is bytes
    if opcode is Opcode.TEXT:
        payload.decode()
    elif opcode is Opcode.CLOSE:
        parse_close(payload)
    assert len(payload) <= (125 if opcode & 0x08 else limits.message_size)


def _check_small_text(stream: bytes, limits: FrameLimits) -> None:
    payload = small_text(stream, limits.message_size)
    if payload is not None:
        parser = Parser(limits)
        assert parser.feed(stream) == [(Opcode.TEXT, payload)]
        assert parser.idle


def _check_with_another(stream: bytes, events: list[Event], failure: ProtocolError | None) -> None:
    """What we took as whole, the frame parser of `websockets` takes too, and finds the same in it."""
    theirs = _their_events(stream)
    for event in events:
        assert event == next(theirs)
    if failure is None and not (events and events[-1][0] is Opcode.CLOSE):
        assert next(theirs, None) is None


def _their_events(stream: bytes) -> Iterator[Event]:
    reader = StreamReader()
    reader.feed_data(stream)
    reader.feed_eof()
    opcode, parts, decoder = Opcode.CONTINUATION, b"", getincrementaldecoder("utf-8")()
    while reader.buffer:
        try:
            next(Frame.parse(reader.read_exact, mask=True))
            return
        except StopIteration as stop:
            received = stop.value
        except (EOFError, TheirError, PayloadTooBig):
            return
        if received.opcode & 0x08:
            yield Opcode(received.opcode), bytes(received.data)
            continue
        opcode = Opcode(received.opcode) or opcode
        parts += received.data
        if opcode is Opcode.TEXT:
            decoder.decode(bytes(received.data), final=received.fin)
        if received.fin:
            yield opcode, parts
            opcode, parts = Opcode.CONTINUATION, b""
