"""Compressed messages: nothing inflates past its limit, and what is taken is what zlib makes of it."""

from __future__ import annotations

import zlib

from hubbub.core.deflate import SharedCompressor, inflate, negotiate
from hubbub.core.frames import Opcode, Parser
from hubbub.core.limits import FrameLimits
from hubbub.errors import ProtocolError
from tests.core.wire import cut, feed, frame
from tests.fuzz.draw import Draw

__all__ = ["check"]

LIMITS = 1, 40, 1000, 65536
COMPRESSORS = [SharedCompressor(bits) for bits in (9, 12, 15)]
TAIL = b"\x00\x00\xff\xff"


def check(data: bytes) -> None:
    """Inflate one payload, or deflate it and inflate that, damaged or not."""
    draw = Draw(data)
    choices, limit = draw.byte(), LIMITS[draw.byte() % len(LIMITS)]
    if choices & 3 == 3:
        _check_offers(draw.rest().decode("latin-1"))
    elif choices & 3 == 2:
        _check_round_trip(draw, choices)
    else:
        damage = [(draw.byte(), draw.byte()) for _ in range(choices >> 5)]
        payload = bytearray(draw.rest() if choices & 1 else _deflated(draw, choices))
        for place, value in damage:
            if payload:
                payload[place % len(payload)] ^= value
        _check_inflate(bytes(payload), limit, choices)


def _deflated(draw: Draw, choices: int) -> bytes:
    """What some client would send: a level, and one block, or two with a flush or an end between them."""
    compressor = zlib.compressobj(choices >> 2 & 7, wbits=-15)
    flush = (zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_FINISH, zlib.Z_NO_FLUSH)[draw.byte() % 4]
    text = draw.take(draw.byte()) * (1 + draw.byte())
    first = compressor.compress(text) + compressor.flush(flush)
    if flush == zlib.Z_FINISH:
        compressor = zlib.compressobj(wbits=-15)
    return first + (compressor.compress(draw.rest()) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def _check_inflate(payload: bytes, limit: int, choices: int) -> None:
    message: bytes | None = None
    try:
        message = inflate(payload, limit)
    except ProtocolError as error:
        assert error.code in (1007, 1009)  # noqa: PT017  # the point is which of the two
        if error.code == 1009:
            assert len(_by_zlib(payload, limit + 1)) > limit
    if message is not None:
        assert len(message) <= limit
        assert _by_zlib(payload, limit + 1) == message
    _check_parser(payload, limit, choices, message)


def _by_zlib(payload: bytes, most: int) -> bytes:
    """Inflate with zlib alone, a byte at a time, up to the first fault: without a judgement."""
    message, stream = b"", zlib.decompressobj(wbits=-15)
    try:
        for byte in payload + TAIL:
            rest = bytes((byte,))
            while piece := stream.decompress(rest, 1):  # what comes before a fault is lost if they come at once
                message, rest = message + piece, stream.unconsumed_tail
            if stream.eof:
                rest, stream = stream.unused_data, zlib.decompressobj(wbits=-15, zdict=message[-32768:])
                message += stream.decompress(rest)
            if len(message) >= most:
                break
    except zlib.error:
        pass
    return message


def _check_parser(payload: bytes, limit: int, choices: int, message: bytes | None) -> None:
    """The same through a parser, in two frames."""
    parser = Parser(FrameLimits(message_size=limit), inflate=True)
    half = len(payload) // 2
    stream = frame(0x42, payload[:half]) + frame(0x80, payload[half:])
    events = feed(parser, cut(stream, [choices, len(stream) - choices]))
    if message is None or len(payload) > limit:
        assert not events
        assert parser.failure is not None
        assert parser.failure.code in (1007, 1009)
    else:
        assert events == [(Opcode.BINARY, message)]


def _check_round_trip(draw: Draw, choices: int) -> None:
    message = draw.take(draw.byte()) * (1 + draw.byte()) + draw.rest()
    packed = COMPRESSORS[choices % len(COMPRESSORS)].compress(message)
    assert inflate(packed, max(1, len(message))) == message
    if len(message) > 1:
        try:
            inflate(packed, len(message) - 1)
        except ProtocolError as error:
            assert error.code == 1009  # noqa: PT017  # no other will do
        else:
            raise AssertionError("inflated past the limit")


def _check_offers(offers: str) -> None:
    agreement = negotiate(offers)
    if agreement is not None:
        assert 9 <= agreement.window_bits <= 15
        assert "permessage-deflate" in offers
        assert negotiate(agreement.header) == agreement
