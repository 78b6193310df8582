"""The same bytes through our parser and the one of `websockets`: the same messages in order, and the same verdict.

Where the two differ on purpose, the difference has a name in `Difference`. A stream is compared up to the first frame
that has one; there our own verdict must be the one that the name stands for.
"""

from __future__ import annotations

import zlib
from codecs import getincrementaldecoder
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame
from websockets.protocol import State
from websockets.server import ServerProtocol

from hubbub.core.frames import Event, Opcode, Parser
from hubbub.core.limits import FrameLimits
from tests.core.wire import cut, feed, frame, header

LIMITS = FrameLimits(message_size=400, parts=6)
CONTROL, OPCODE, FIN = 0x08, 0x0F, 0x80


@dataclass
class Outcome:
    """What a parser made of a stream: messages and control frames, and the code it failed with (0 for none)."""

    events: list[Event]
    code: int = 0


class Difference(Enum):
    """Where we differ from `websockets` on purpose; the value is our verdict."""

    NON_MINIMAL = 1002
    """A length that is not in its shortest form (RFC 6455 section 5.2): they take it."""
    OVER_63_BITS = 1002, "they see a message that is too big"
    """A length with its highest bit set: they say 1009."""
    HEADER_FIRST = 1002, "they look at the length first"
    """A frame that is too big and wrong in its header as well: they say 1009."""
    CODE_FIRST = 1002, "they look at the reason first"
    """A close frame with a bad code and a bad reason: they say 1007."""
    TOO_MANY_PARTS = 1009
    """A message in more parts than the limit: their limit is in another layer."""
    CLOSE_INSIDE_MESSAGE = 0
    """A close frame between fragments, which section 5.4 allows: they say 1002."""
    CONTROL_IS_FREE = 0, "they count control frames"
    """A control frame larger than what is left for the message: they say 1009."""

    @property
    def verdict(self) -> int:
        """The code we fail with; 0 where we go on."""
        value: int | tuple[int, str] = self.value
        return value[0] if isinstance(value, tuple) else value


# --- The two parsers -------------------------------------------------------------------------------------------------


def ours(pieces: Iterable[bytes], *, limits: FrameLimits = LIMITS, inflate: bool = False) -> Outcome:
    parser = Parser(limits, inflate)
    events = feed(parser, pieces)
    return Outcome(events, parser.failure.code if parser.failure else 0)


def theirs(pieces: Iterable[bytes], *, limit: int = LIMITS.message_size, inflate: bool = False) -> Outcome:
    """Run their protocol, which gives frames, and do for messages and text what the layer above it does."""
    protocol = ServerProtocol(state=State.OPEN, max_size=limit)
    if inflate:
        protocol.extensions = [PerMessageDeflate(True, True, 15, 15)]
    outcome, message = Outcome([]), _Assembled()
    for piece in pieces:
        protocol.receive_data(piece)
        for received in protocol.events_received():
            assert isinstance(received, Frame)
            try:
                outcome.events += message.add(received, early=not inflate)
            except UnicodeDecodeError:
                outcome.code = 1007
                return outcome
    if protocol.parser_exc is not None:
        assert protocol.close_sent is not None
        outcome.code = protocol.close_sent.code
    return outcome


class _Assembled:
    """Their frames as messages."""

    def __init__(self) -> None:
        self.opcode, self.payload = Opcode.CONTINUATION, b""
        self.decoder = getincrementaldecoder("utf-8")()

    def add(self, received: Frame, *, early: bool) -> list[Event]:
        opcode, data = Opcode(received.opcode), bytes(received.data)
        if opcode & CONTROL:
            return [(opcode, data)]
        if opcode:
            self.__init__()  # type: ignore[misc]  # a new message begins
            self.opcode = opcode
        self.payload += data
        if self.opcode is Opcode.TEXT and (early or received.fin):
            self.decoder.decode(data if early else self.payload, final=received.fin)
        return [(self.opcode, self.payload)] if received.fin else []


# --- Where they part -------------------------------------------------------------------------------------------------


@dataclass
class Header:
    """One frame as far as it has come, without a judgement."""

    at: int
    first: int
    length: int
    form: int
    payload: bytes | None
    end: int

    @classmethod
    def read(cls, stream: bytes, at: int) -> Header | None:
        if len(stream) < at + 2 or stream[at + 1] < 0x80:
            return None
        short = stream[at + 1] & 0x7F
        form = {126: 16, 127: 64}.get(short, 7)
        body = at + 2 + form // 8 + 4
        if len(stream) < body - 4:
            return None
        length = int.from_bytes(stream[at + 2 : body - 4], "big") if form > 7 else short
        whole = len(stream) >= body + length
        mask, masked = stream[body - 4 : body], stream[body : body + length]
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(masked)) if whole else None
        return cls(at, stream[at], length, form, payload, body + length)


def first_difference(stream: bytes) -> tuple[int, Difference | None]:
    """Where the frame starts that ends the comparison, and why: None where it is the one that has not come whole."""
    at, size, parts = 0, 0, 0
    while (head := Header.read(stream, at)) is not None:
        if (difference := _difference(head, LIMITS.message_size - size, parts)) is not None:
            return head.at, difference
        if head.payload is None:
            break
        if not head.first & CONTROL:
            size, parts = (0, 0) if head.first & FIN else (size + head.length, parts + 1)
        at = head.end
    return at, None


def completed(stream: bytes, at: int) -> bytes:
    """The stream with zeros put behind it, just so that the frame that starts at `at` is whole."""
    stream += bytes(max(0, at + 14 - len(stream))) if Header.read(stream, at) is None else b""
    head = Header.read(stream, at)
    assert head is not None
    missing = min(head.end - len(stream), LIMITS.message_size + 14)  # they wait for no more
    return stream[: head.end] + bytes(max(0, missing))


def _difference(head: Header, room: int, parts: int) -> Difference | None:
    first, control = head.first, bool(head.first & CONTROL)
    wrong_kind = first & 0x70 or first & OPCODE not in set(Opcode) or (control and not first & FIN)
    wrong_order = not control and bool(first & OPCODE) == bool(parts)
    wrong = wrong_kind or wrong_order or (control and head.length > 125)
    if head.length > room and wrong:
        return Difference.HEADER_FIRST
    if wrong:
        return None
    if head.length < {7: 0, 16: 126, 64: 65536}[head.form]:
        return Difference.NON_MINIMAL
    if head.length >> 63:
        return Difference.OVER_63_BITS
    if control and head.length > room:
        return Difference.CONTROL_IS_FREE
    if parts >= LIMITS.parts and not control:
        return Difference.TOO_MANY_PARTS
    if first & OPCODE == Opcode.CLOSE and head.payload:
        return _close_difference(head.payload, bool(parts))
    return Difference.CLOSE_INSIDE_MESSAGE if first == 0x88 and head.payload == b"" and parts else None


def _close_difference(payload: bytes, inside: bool) -> Difference | None:
    code = int.from_bytes(payload[:2], "big")
    good_code = len(payload) > 1 and (code in {*range(1000, 1004), *range(1007, 1015)} or 3000 <= code < 5000)
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return None if good_code else Difference.CODE_FIRST
    return Difference.CLOSE_INSIDE_MESSAGE if inside and good_code else None


def compare(stream: bytes, places: list[int]) -> None:
    """Both parsers must agree on the stream up to the first named difference, and ours must be as named there."""
    at, difference = first_difference(stream)
    shared = stream[:at] if difference else stream
    agreed, expected = ours(cut(shared, places)), theirs(cut(shared, places))
    if agreed.code and not expected.code:
        # We judge a frame by its header, they at its last byte: so they get to see one.
        whole = completed(shared, at)
        named = first_difference(whole)[1]
        expected = Outcome(expected.events, named.verdict) if named else theirs([whole])
    assert agreed == expected
    if difference is None or agreed.code or _closed(agreed):
        return
    event(difference.name)
    outcome = ours(cut(stream, places))
    if difference.verdict:
        assert outcome == Outcome(agreed.events, difference.verdict)
    else:
        head = Header.read(stream, at)
        assert head is not None
        taken = [(head.first & OPCODE, head.payload)] if head.payload is not None else []
        assert outcome.events[: len(agreed.events) + 1] == agreed.events + taken


def _closed(outcome: Outcome) -> bool:
    return bool(outcome.events) and outcome.events[-1][0] is Opcode.CLOSE


# --- Streams ---------------------------------------------------------------------------------------------------------

TEXTS = st.text(max_size=40).map(str.encode)
MASKS = st.binary(min_size=4, max_size=4)


@st.composite
def messages(draw: st.DrawFn, opcode: int, payloads: st.SearchStrategy[bytes], rsv1: int = 0) -> bytes:
    """One message, in as many parts as it likes, with control frames between them."""
    parts = list(cut(draw(payloads), draw(st.lists(st.integers(0, 400), max_size=4)))) or [b""]
    wire = b""
    for n, part in enumerate(parts):
        first = (rsv1 | opcode if n == 0 else 0) | (FIN if n == len(parts) - 1 else 0)
        wire += frame(first, part, mask=draw(MASKS))
        if n < len(parts) - 1 and draw(st.booleans()):
            wire += frame(draw(st.sampled_from([0x89, 0x8A])), draw(st.binary(max_size=8)))
    return wire


ODD_FRAMES = st.builds(
    lambda first, payload, form: (
        header(first, len(payload), form=max(form, 16 if len(payload) > 125 else 7)) + b"\0\0\0\0" + payload
    ),
    st.integers(0, 255),
    st.binary(max_size=10) | st.binary(min_size=120, max_size=135) | st.just(bytes(401)),
    st.sampled_from([7, 16, 64]),
)
CLOSES = st.builds(
    lambda code, reason: frame(0x88, code.to_bytes(2, "big") + reason),
    st.sampled_from([1000, 1001, 1004, 1005, 1014, 1015, 2999, 3000, 4999, 5000]) | st.integers(0, 65535),
    TEXTS.map(lambda text: text[:123]) | st.binary(max_size=5),
)
HEADERS = st.builds(header, st.integers(0, 255), st.integers(0, 2**64 - 1) | st.integers(390, 410))
BINARIES = st.binary(max_size=60) | st.integers(0, 405).map(bytes)

STREAMS = st.lists(
    st.one_of(
        messages(1, TEXTS),
        messages(1, TEXTS),
        messages(2, BINARIES),
        messages(1, st.binary(max_size=10)),
        messages(2, st.integers(0, 405).map(bytes)).map(lambda wire: wire[: len(wire) // 2]),
        ODD_FRAMES,
        CLOSES,
        HEADERS,
        st.binary(max_size=6),
    ),
    max_size=5,
).map(b"".join)
MUTATIONS = st.lists(
    st.tuples(st.integers(0, 2000), st.integers(0, 255), st.sampled_from(["set", "insert", "delete"])), max_size=3
)
PLACES = st.lists(st.integers(0, 2000), max_size=8)


def mutate(stream: bytes, mutations: Iterable[tuple[int, int, str]]) -> bytes:
    changed = bytearray(stream)
    for place, byte, kind in mutations:
        at = place % (len(changed) + 1)
        changed[at : at + (kind != "insert")] = b"" if kind == "delete" else bytes((byte,))
    return bytes(changed)


@given(STREAMS, MUTATIONS, PLACES)
@example(header(0x81, 5, form=16) + bytes(4) + b"Hello", [], [])
@example(header(0x82, 2**63), [], [])
@example(header(0xA1, 1000), [], [])
@example(header(0xA1, 1000)[:3], [], [])
@example(header(0xA1, 2**63)[:3], [], [])
@example(header(0x00, 397), [], [])
@example(b"\x88\xfe", [], [])
@example(frame(0x88, b"\x00\x00\xff"), [], [])
@example(frame(0x01, b"a") * 1 + frame(0x00, b"a") * 6, [], [])
@example(frame(0x01, b"a") + frame(0x88, b"\x03\xe8"), [], [])
@example(frame(0x01, bytes(350)) + frame(0x89, bytes(100)) + frame(0x80, b"b"), [], [])
@settings(max_examples=800, deadline=None)
def test_same_messages_and_same_verdict(
    stream: bytes, mutations: list[tuple[int, int, str]], places: list[int]
) -> None:
    compare(mutate(stream, mutations), places)


@pytest.mark.parametrize("difference", Difference, ids=lambda difference: difference.name)
def test_every_named_difference_is_one(difference: Difference) -> None:
    streams = {
        Difference.NON_MINIMAL: header(0x81, 5, form=16) + bytes(4) + b"Hello",
        Difference.OVER_63_BITS: header(0x82, 2**63),
        Difference.HEADER_FIRST: header(0xA1, 1000),
        Difference.CODE_FIRST: frame(0x88, b"\x00\x00\xff"),
        Difference.TOO_MANY_PARTS: frame(0x01, b"a") + frame(0x00, b"a") * 6,
        Difference.CLOSE_INSIDE_MESSAGE: frame(0x01, b"a") + frame(0x88, b"\x03\xe8"),
        Difference.CONTROL_IS_FREE: frame(0x01, bytes(350)) + frame(0x89, bytes(100)),
    }
    stream = streams[difference]
    assert first_difference(stream)[1] is difference
    assert ours([stream]).code == difference.verdict
    assert theirs([stream]) != ours([stream])


# --- With compression ------------------------------------------------------------------------------------------------


def deflate(payload: bytes, level: int, strategy: int, flush: int) -> bytes:
    compressor = zlib.compressobj(level, wbits=-15, strategy=strategy)
    data = compressor.compress(payload) + compressor.flush(flush)
    return data.removesuffix(b"\x00\x00\xff\xff") if flush != zlib.Z_FINISH else data + b"\x00"


COMPRESSED = st.builds(
    deflate,
    TEXTS.map(lambda text: text * 3) | st.binary(max_size=100),
    st.integers(0, 9),
    st.sampled_from([zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED]),
    st.sampled_from([zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_FINISH]),
).filter(bool)
WIDE = FrameLimits(message_size=2000)


@given(
    st.lists(
        messages(1, COMPRESSED, 0x40) | messages(2, COMPRESSED, 0x40) | messages(1, TEXTS) | messages(2, BINARIES),
        max_size=5,
    ).map(b"".join),
    PLACES,
)
@settings(max_examples=200, deadline=None)
def test_same_compressed_messages(stream: bytes, places: list[int]) -> None:
    assert ours(cut(stream, places), limits=WIDE, inflate=True) == theirs(cut(stream, places), limit=2000, inflate=True)


@given(st.integers(0, 3000), st.integers(1, 3000), st.sampled_from([b"a", b"abc"]))
@settings(max_examples=100, deadline=None)
def test_same_limit_for_what_is_inflated(size: int, limit: int, pattern: bytes) -> None:
    payload = (pattern * size)[:size]
    stream = frame(0xC2, deflate(payload, 6, 0, zlib.Z_SYNC_FLUSH) or b"\x00")
    limits = FrameLimits(message_size=limit)
    assert ours([stream], limits=limits, inflate=True) == theirs([stream], limit=limit, inflate=True)


class Deflated(Enum):
    """How we differ on a compressed message that is wrong: where they do something else, our verdict is 1007."""

    CORRUPT = "they say 1002"
    UNFINISHED = "they take what was there"
    BEHIND_FINAL = "they ignore what follows a final block, we read on"


def what_is_wrong(payload: bytes) -> Deflated | None:
    """Tell by zlib alone why a compressed payload is not a whole message."""
    stream, tail = zlib.decompressobj(wbits=-15), b"\x00\x00\xff\xff"
    try:
        stream.decompress(payload + tail)
        if stream.eof:
            rest = stream.unused_data
            if len(rest) < len(tail):
                return Deflated.UNFINISHED
            return Deflated.BEHIND_FINAL if rest not in (tail, b"\x00" + tail) else None
        # A block that follows must come out as it went in, or else the message was not at its end.
        whole = stream.decompress(b"\x00\x01\x00\xfe\xff!") == b"!"
    except zlib.error:
        return Deflated.CORRUPT
    return None if whole else Deflated.UNFINISHED


@given(COMPRESSED, MUTATIONS, st.sampled_from([0xC1, 0xC2]))
@example(b"", [], 0xC1)
@example(b"\x03\x00\xf3\x48\xcd\xc9\xc9\x07\x00\x00", [], 0xC1)
@settings(max_examples=400, deadline=None)
def test_same_verdict_on_damaged_compression(payload: bytes, mutations: list[tuple[int, int, str]], first: int) -> None:
    payload = mutate(payload, mutations)
    stream = [frame(first, payload)]
    result, expected = ours(stream, limits=WIDE, inflate=True), theirs(stream, limit=2000, inflate=True)
    if result == expected:
        return
    wrong = what_is_wrong(payload)
    event(str(wrong))
    assert wrong is not None
    if result.events:
        assert wrong is Deflated.BEHIND_FINAL
        assert result.events[0][1].startswith(expected.events[0][1] if expected.events else b"")
    else:
        assert result.code in (1007, 1009 if wrong is Deflated.BEHIND_FINAL else 1007)
