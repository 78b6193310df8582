from __future__ import annotations

import gc
import time
import tracemalloc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame
from websockets.streams import StreamReader

from hubbub.core import frames
from hubbub.core.deflate import SharedCompressor
from hubbub.core.frames import Opcode, Parser, build_close, build_frame, parse_close, small_text
from hubbub.core.limits import FrameLimits
from hubbub.errors import ProtocolError, UsageError
from tests.core.wire import MASK, cut, feed, frame, header

LIMITS = FrameLimits(message_size=1000, parts=8)
COMPRESSED = SharedCompressor().compress(b"hello hello hello")

# --- Writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("opcode", "payload", "start"),
    [
        pytest.param(1, b"Hello", "8105", id="text of RFC 6455 5.7"),
        pytest.param(9, b"Hello", "8905", id="ping of RFC 6455 5.7"),
        pytest.param(2, bytes(256), "827e0100", id="256 bytes of RFC 6455 5.7"),
        pytest.param(2, bytes(65536), "827f0000000000010000", id="64 KiB of RFC 6455 5.7"),
        pytest.param(1, b"", "8100", id="empty"),
        pytest.param(1, bytes(125), "817d", id="last 7-bit length"),
        pytest.param(1, bytes(126), "817e007e", id="first 16-bit length"),
        pytest.param(1, bytes(65535), "817effff", id="last 16-bit length"),
    ],
)
def test_build_frame(opcode: int, payload: bytes, start: str) -> None:
    assert build_frame(opcode, payload) == bytes.fromhex(start) + payload


def test_build_compressed_frame_of_rfc_7692() -> None:
    payload = bytes.fromhex("f248cdc9c90700")
    assert build_frame(1, payload, compressed=True) == bytes.fromhex("c107") + payload


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_another_parser_reads_built_frames(opcode: Opcode, size: int) -> None:
    reader = StreamReader()
    reader.feed_data(build_frame(opcode, b"x" * size))
    with pytest.raises(StopIteration) as stop:
        next(Frame.parse(reader.read_exact, mask=False))
    assert stop.value.value == Frame(opcode, b"x" * size)  # type: ignore[arg-type]  # their opcodes equal ours


@pytest.mark.parametrize(
    ("code", "reason", "payload"),
    [
        pytest.param(1000, "", b"\x03\xe8", id="code alone"),
        pytest.param(1001, "bye", b"\x03\xe9bye", id="code and reason"),
        pytest.param(4999, "", b"\x13\x87", id="last of ours"),
        pytest.param(None, "lost", b"", id="no code"),
        pytest.param(1005, "lost", b"", id="1005 never travels"),
        pytest.param(1006, "lost", b"", id="1006 never travels"),
        pytest.param(1015, "lost", b"", id="1015 never travels"),
        pytest.param(1000, "x" * 200, b"\x03\xe8" + b"x" * 123, id="reason cut at 123 bytes"),
        pytest.param(1000, "x" * 122 + "é", b"\x03\xe8" + b"x" * 122, id="reason cut before a character"),
        pytest.param(1000, "€" * 41, b"\x03\xe8" + "€".encode() * 41, id="reason that just fits"),
        pytest.param(1000, "\ud800", b"\x03\xe8?", id="reason that is no text"),
    ],
)
def test_build_close(code: int | None, reason: str, payload: bytes) -> None:
    assert build_close(code, reason) == bytes((0x88, len(payload))) + payload


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1016, 2999, 5000, 70000])
def test_build_close_refuses_codes_nobody_may_send(code: int) -> None:
    with pytest.raises(UsageError, match=f"Close code {code} cannot be sent"):
        build_close(code)


# --- Close payloads --------------------------------------------------------------------------------------------------


def test_parse_close() -> None:
    assert parse_close(b"") == (1005, "")
    assert parse_close(b"\x03\xe8") == (1000, "")
    assert parse_close(b"\x0f\xa1gr\xc3\xbc\xc3\x9fe") == (4001, "grüße")


def test_the_close_codes_that_may_travel() -> None:
    def travels(code: int) -> bool:
        try:
            return parse_close(code.to_bytes(2, "big")) == (code, "")
        except ProtocolError as error:
            return error.code != 1002

    valid = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
    assert {code for code in range(65536) if travels(code)} == valid


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        pytest.param(b"\x03", 1002, id="half a code"),
        pytest.param(b"\x03\xe8\xff", 1007, id="reason of a stray byte"),
        pytest.param(b"\x03\xe8\xe2\x82", 1007, id="reason cut inside a character"),
        pytest.param(b"\x03\xe8\xed\xa0\x80", 1007, id="reason with a surrogate"),
    ],
)
def test_parse_close_refuses(payload: bytes, code: int) -> None:
    with pytest.raises(ProtocolError) as error:
        parse_close(payload)
    assert error.value.code == code


# --- Reading: what is right ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "events"),
    [
        pytest.param(bytes.fromhex("818537fa213d7f9f4d5158"), [(1, b"Hello")], id="masked text of RFC 6455 5.7"),
        pytest.param(frame(0x81), [(1, b"")], id="empty text"),
        pytest.param(frame(0x82, b"\xff\x00"), [(2, b"\xff\x00")], id="binary is not checked as text"),
        pytest.param(frame(0x81, "žluťoučký €😀".encode()), [(1, "žluťoučký €😀".encode())], id="text of all widths"),
        pytest.param(frame(0x01, b"Hel") + frame(0x80, b"lo"), [(1, b"Hello")], id="two parts"),
        pytest.param(frame(0x01) + frame(0x00) + frame(0x80), [(1, b"")], id="empty parts"),
        pytest.param(
            frame(0x01, b"\xe2") + frame(0x00, b"\x82") + frame(0x80, b"\xac"),
            [(1, b"\xe2\x82\xac")],
            id="€ in three parts",
        ),
        pytest.param(
            frame(0x02, b"a") + frame(0x89, b"?") + frame(0x8A, b"!") + frame(0x80, b"b"),
            [(9, b"?"), (10, b"!"), (2, b"ab")],
            id="control frames between parts",
        ),
        pytest.param(frame(0x89, bytes(125)), [(9, bytes(125))], id="longest ping"),
        pytest.param(frame(0x88), [(8, b"")], id="close without a code"),
        pytest.param(frame(0x88, b"\x03\xe8bye"), [(8, b"\x03\xe8bye")], id="close"),
        pytest.param(frame(0x81, b"a") * 3, [(1, b"a")] * 3, id="three in one read"),
        pytest.param(frame(0x81, b"x" * 1000), [(1, b"x" * 1000)], id="message of the limit"),
        pytest.param(frame(0x01, b"x" * 999) + frame(0x80, b"x"), [(1, b"x" * 1000)], id="parts of the limit together"),
        pytest.param(
            frame(0x01, b"x" * 999) + frame(0x89, bytes(99)) + frame(0x80, b"x"),
            [(9, bytes(99)), (1, b"x" * 1000)],
            id="control frames do not count towards the limit",
        ),
        pytest.param(
            frame(0x82, b"x" * 1000) + frame(0x01, b"x" * 999) + frame(0x80, b"x") + frame(0x82, b"x" * 1000),
            [(2, b"x" * 1000), (1, b"x" * 1000), (2, b"x" * 1000)],
            id="each message has the whole limit",
        ),
        pytest.param(
            frame(0x01, b"x") + frame(0x00, b"x") * 6 + frame(0x80, b"x"), [(1, b"x" * 8)], id="as many parts as may be"
        ),
        pytest.param(frame(0xC1, COMPRESSED), [(1, b"hello hello hello")], id="compressed text"),
        pytest.param(frame(0xC2, COMPRESSED), [(2, b"hello hello hello")], id="compressed binary"),
        pytest.param(frame(0xC1, b"\x00"), [(1, b"")], id="compressed empty text"),
        pytest.param(
            frame(0x41, COMPRESSED[:5]) + frame(0x89) + frame(0x00) + frame(0x80, COMPRESSED[5:]),
            [(9, b""), (1, b"hello hello hello")],
            id="compressed text in parts",
        ),
    ],
)
@pytest.mark.parametrize("step", [1, 2, 3, 7, 1_000_000])
def test_parser_reads(wire: bytes, events: list[tuple[int, bytes]], step: int) -> None:
    parser = Parser(LIMITS, inflate=True)
    assert feed(parser, cut(wire, range(0, len(wire), step))) == events
    assert parser.failure is None
    assert parser.idle == (events[-1][0] != Opcode.CLOSE)


MESSAGES = st.lists(
    st.one_of(
        st.tuples(st.just(Opcode.TEXT), st.text(max_size=200).map(str.encode)),
        st.tuples(st.just(Opcode.BINARY), st.binary(max_size=200) | st.integers(0, 70000).map(bytes)),
        st.tuples(st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125)),
    ),
    max_size=6,
)


@given(MESSAGES, st.lists(st.integers(0, 200_000), max_size=12), st.binary(min_size=4, max_size=4), st.data())
@settings(max_examples=150, deadline=None)
def test_messages_survive_any_fragments_and_any_cuts(
    messages: list[tuple[Opcode, bytes]], places: list[int], mask: bytes, data: st.DataObject
) -> None:
    wire = b""
    for opcode, payload in messages:
        if opcode > Opcode.BINARY:
            wire += frame(0x80 | opcode, payload, mask=mask)
            continue
        first, *rest = [b"", *cut(payload, data.draw(st.lists(st.integers(0, 70000), max_size=3)))]
        parts = [(opcode, first), *((Opcode.CONTINUATION, part) for part in rest)]
        for n, (kind, part) in enumerate(parts, 1):
            wire += frame((0x80 if n == len(parts) else 0) | kind, part, mask=mask if len(part) < 1000 else bytes(4))
    parser = Parser(FrameLimits(message_size=70_000))
    assert feed(parser, cut(wire, places)) == messages
    assert parser.idle


# --- Reading: what is wrong ------------------------------------------------------------------------------------------

TOO_MANY_PARTS = frame(0x01, b"x") + frame(0x00, b"x") * 7


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        pytest.param(b"\x81\x05Hello", 1002, id="not masked"),
        pytest.param(header(0x88, 0, masked=False), 1002, id="close not masked"),
        pytest.param(header(0xA1, 5), 1002, id="RSV2"),
        pytest.param(header(0x91, 5), 1002, id="RSV3"),
        pytest.param(header(0xC9, 0), 1002, id="RSV1 on a control frame"),
        pytest.param(frame(0x01, b"a") + header(0xC0, 1), 1002, id="RSV1 on a continuation"),
        pytest.param(header(0x83, 0), 1002, id="reserved data opcode"),
        pytest.param(header(0x8B, 0), 1002, id="reserved control opcode"),
        pytest.param(header(0x09, 0), 1002, id="control frame in parts"),
        pytest.param(header(0x89, 126), 1002, id="control frame of 126 bytes"),
        pytest.param(header(0x88, 5, form=64), 1002, id="control frame with a long length"),
        pytest.param(header(0x80, 1), 1002, id="continuation of nothing"),
        pytest.param(frame(0x01) + frame(0x80, b"\xe2"), 1007, id="last part begins a character"),
        pytest.param(frame(0x01, b"a") + header(0x81, 1), 1002, id="text inside a message"),
        pytest.param(frame(0x01, b"a") + header(0x02, 1), 1002, id="binary inside a message"),
        pytest.param(header(0x81, 125, form=16), 1002, id="7-bit length in 16 bits"),
        pytest.param(header(0x81, 125, form=64), 1002, id="7-bit length in 64 bits"),
        pytest.param(header(0x82, 65535, form=64), 1002, id="16-bit length in 64 bits"),
        pytest.param(header(0x82, 2**63), 1002, id="length 2**63"),
        pytest.param(header(0x82, 2**64 - 1), 1002, id="length 2**64-1"),
        pytest.param(header(0x82, 2**63 - 1), 1009, id="length 2**63-1"),
        pytest.param(header(0x82, 2**40), 1009, id="length 2**40"),
        pytest.param(header(0x81, 1001), 1009, id="one byte over the limit"),
        pytest.param(header(0xC1, 1001), 1009, id="compressed, one byte over the limit"),
        pytest.param(frame(0x01, b"x" * 999) + header(0x00, 2), 1009, id="parts over the limit together"),
        pytest.param(TOO_MANY_PARTS + header(0x80, 0), 1009, id="one part too many"),
        pytest.param(frame(0x02) + frame(0x00) * 8, 1009, id="one empty part too many"),
        pytest.param(frame(0xC2, SharedCompressor().compress(bytes(1001))), 1009, id="inflated over the limit"),
        pytest.param(
            frame(0x42, SharedCompressor().compress(bytes(10**6))[:500]) + frame(0x80), 1009, id="bomb in parts"
        ),
        pytest.param(frame(0xC1, b"\xff\xff"), 1007, id="corrupt compressed message"),
        pytest.param(frame(0xC1, COMPRESSED[:-3]), 1007, id="compressed message that is cut"),
        pytest.param(frame(0xC1, b""), 1007, id="compressed message of nothing"),
        pytest.param(frame(0xC1, SharedCompressor().compress(b"\xff" * 10)), 1007, id="compressed, not UTF-8"),
        pytest.param(frame(0x81, b"\xff"), 1007, id="not UTF-8"),
        pytest.param(frame(0x81, b"\xc0\xaf"), 1007, id="overlong UTF-8"),
        pytest.param(frame(0x81, b"\xed\xa0\x80"), 1007, id="surrogate"),
        pytest.param(frame(0x81, b"\xf4\x90\x80\x80"), 1007, id="over U+10FFFF"),
        pytest.param(frame(0x81, b"\xe2\x82"), 1007, id="text that ends inside a character"),
        pytest.param(frame(0x01, b"\xe2\x82") + frame(0x80), 1007, id="last part ends inside a character"),
        pytest.param(frame(0x01, b"\xff"), 1007, id="first part not UTF-8"),
        pytest.param(frame(0x01, b"ok\xe2") + frame(0x00, b"("), 1007, id="second part breaks a character"),
        pytest.param(frame(0x88, b"\x03"), 1002, id="close with half a code"),
        pytest.param(frame(0x88, b"\x03\xed"), 1002, id="close with 1005"),
        pytest.param(frame(0x88, b"\x03\xe8\xff"), 1007, id="close with a reason not UTF-8"),
    ],
)
@pytest.mark.parametrize("step", [1, 3, 1_000_000])
def test_parser_fails_as_soon_as_it_can(wire: bytes, code: int, step: int) -> None:
    parser = Parser(LIMITS, inflate=True)
    before = frame(0x82, b"before") + frame(0x89)
    assert feed(parser, cut(before + wire, range(0, len(before + wire), step))) == [(2, b"before"), (9, b"")]
    assert parser.failure is not None
    assert parser.failure.code == code
    assert parser.feed(frame(0x82, b"after")) == []
    assert not parser.idle


@pytest.mark.parametrize("inflate", [False, True])
def test_every_first_byte(inflate: bool) -> None:
    def may_start_a_stream(first: int) -> bool:
        fin, rsv, opcode = first & 0x80, first & 0x70, first & 0x0F
        if opcode in (1, 2):
            return rsv == 0 or (inflate and rsv == 0x40)
        return opcode in (8, 9, 10) and rsv == 0 and fin != 0

    for first in range(256):
        parser = Parser(LIMITS, inflate)
        parser.feed(header(first, 0))
        assert (parser.failure is None) == may_start_a_stream(first), hex(first)
        assert parser.failure is None or parser.failure.code == 1002


def test_rsv1_needs_the_agreement() -> None:
    parser = Parser(LIMITS)
    assert parser.feed(frame(0xC1, COMPRESSED)) == []
    assert str(parser.failure) == "1002 reserved bit set"


def test_nothing_counts_after_a_close() -> None:
    parser = Parser(LIMITS)
    assert parser.feed(frame(0x88) + frame(0x88, b"\x03") + b"\xff\xff") == [(8, b"")]
    assert parser.feed(frame(0x81, b"after")) == []
    assert parser.failure is None
    assert not parser.idle


def test_close_may_come_inside_a_message() -> None:
    parser = Parser(LIMITS)
    assert parser.feed(frame(0x01, b"half") + frame(0x88, b"\x03\xe8")) == [(8, b"\x03\xe8")]
    assert parser.failure is None


@pytest.mark.parametrize(
    ("wire", "idle"),
    [
        pytest.param(b"", True, id="nothing"),
        pytest.param(b"\x81", False, id="half a header"),
        pytest.param(frame(0x81, b"ab")[:-1], False, id="half a frame"),
        pytest.param(frame(0x81, b"ab"), True, id="a whole frame"),
        pytest.param(frame(0x01, b"ab"), False, id="half a message"),
        pytest.param(frame(0x01, b"ab") + frame(0x89), False, id="half a message and a ping"),
        pytest.param(frame(0x01, b"ab") + frame(0x80), True, id="a whole message"),
    ],
)
def test_idle(wire: bytes, idle: bool) -> None:
    parser = Parser(LIMITS)
    parser.feed(wire)
    assert parser.idle == idle


# --- Cost ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "step", "messages"),
    [
        pytest.param(frame(0x82, bytes(1 << 20), mask=bytes(4)), 1, 1, id="1 MiB byte by byte"),
        pytest.param(frame(0x82, bytes(1 << 24), mask=bytes(4)), 1400, 1, id="16 MiB in packets"),
        pytest.param(frame(0x81) * 200_000, 1 << 24, 200_000, id="200,000 frames in one read"),
        pytest.param(
            frame(0x02, bytes(16000)) + frame(0x00, bytes(16000)) * 1000 + frame(0x80), 1400, 1, id="1000 parts"
        ),
    ],
)
def test_reading_is_linear(wire: bytes, step: int, messages: int) -> None:
    parser = Parser(FrameLimits(message_size=1 << 24))
    start = time.thread_time()
    count = sum(len(parser.feed(wire[at : at + step])) for at in range(0, len(wire), step))
    assert count == messages
    assert time.thread_time() - start < 10  # far under a second here; minutes where a read rescans or recopies


def test_a_huge_claim_reserves_nothing_and_a_done_message_leaves_nothing() -> None:
    parser = Parser(FrameLimits(message_size=1 << 24))
    pieces = list(cut(frame(0x82, bytes(1 << 22), mask=bytes(4)), range(0, 1 << 22, 65536)))
    tracemalloc.start()
    try:
        parser.feed(header(0x82, 1 << 24))
        assert tracemalloc.get_traced_memory()[0] < 10_000
        parser = Parser(FrameLimits(message_size=1 << 24))
        assert len(feed(parser, pieces)) == 1
        assert parser.idle
        assert tracemalloc.get_traced_memory()[0] < 10_000
        for last in (frame(0x88), b"\xff\xff"):
            parser = Parser(FrameLimits(message_size=1 << 24))
            parser.feed(frame(0x02, bytes(1 << 18), mask=bytes(4)))
            parser.feed(header(0x00, 1 << 18))
            parser.feed(bytes(1 << 18))
            assert tracemalloc.get_traced_memory()[0] > 1 << 18
            parser.feed(bytes(4) + last)
            assert tracemalloc.get_traced_memory()[0] < 10_000
    finally:
        tracemalloc.stop()


def test_a_failed_parser_is_freed_without_the_collector() -> None:
    class Weak(Parser):
        __slots__ = ("__weakref__",)

    gc.disable()
    try:
        parser = Weak(LIMITS)
        parser.feed(frame(0x81, b"\xff" * 100))
        assert parser.failure is not None
        assert parser.failure.__traceback__ is None
        gone = weakref.ref(parser)
        del parser
        assert gone() is None
    finally:
        gc.enable()


def test_a_parser_has_no_dict() -> None:
    assert not hasattr(Parser(LIMITS), "__dict__")


# --- One whole text frame --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2, 124, 125, 126, 127, 128, 1000, 65534, 65535])
def test_small_text_takes_one_whole_text_frame(size: int) -> None:
    assert small_text(frame(0x81, b"x" * size)) == b"x" * size


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x81\x80" + MASK[:3], id="half a mask"),
        pytest.param(frame(0x81, b"abc")[:-1], id="half a frame"),
        pytest.param(frame(0x81, b"abc") + b"\x81", id="more than a frame"),
        pytest.param(frame(0x81, b"x" * 200)[:-1], id="half a longer frame"),
        pytest.param(frame(0x81, b"x" * 200) + b"\x81", id="more than a longer frame"),
        pytest.param(frame(0x82, b"x" * 200), id="longer binary"),
        pytest.param(frame(0x82, b"abc"), id="binary"),
        pytest.param(frame(0x01, b"abc"), id="first part"),
        pytest.param(frame(0x80, b"abc"), id="last part"),
        pytest.param(frame(0xC1, COMPRESSED), id="compressed"),
        pytest.param(frame(0x89, b"abc"), id="ping"),
        pytest.param(b"\x81\x03abcdefg", id="not masked"),
        pytest.param(frame(0x81, b"\xff"), id="not UTF-8"),
        pytest.param(frame(0x81, b"\xff" * 200), id="long and not UTF-8"),
        pytest.param(frame(0x81, b"x" * 124, form=16), id="length not minimal, as long as the longest short frame"),
        pytest.param(frame(0x81, b"x" * 125, form=16), id="length not minimal"),
        pytest.param(frame(0x81, b"x" * 125, form=64), id="length in 64 bits"),
        pytest.param(frame(0x81, b"x" * 65536), id="over 65535 bytes"),
    ],
)
def test_small_text_leaves_the_rest_to_the_parser(wire: bytes) -> None:
    assert small_text(wire) is None


@pytest.mark.parametrize("size", [10, 200])
def test_small_text_keeps_the_limit(size: int) -> None:
    wire = frame(0x81, b"x" * size)
    assert small_text(wire, size) == b"x" * size
    assert small_text(wire, size - 1) is None


@given(
    st.binary(max_size=300).map(lambda payload: frame(0x81, payload))
    | st.text(max_size=140).map(lambda text: frame(0x81, text.encode()))
    | st.binary(max_size=12).map(lambda head: b"\x81" + head)
    | st.binary(max_size=20),
    st.integers(0, 400),
    st.integers(0, 255),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_small_text_agrees_with_the_parser(wire: bytes, at: int, byte: int, change: bool) -> None:
    if change and wire:
        at %= len(wire)
        wire = wire[:at] + bytes((byte,)) + wire[at + 1 :]
    parser = Parser(FrameLimits())
    events = parser.feed(wire)
    alone = len(events) == 1 and parser.idle and events[0][0] == Opcode.TEXT
    text = small_text(wire)
    assert text == (events[0][1] if alone and wire[1] != 0xFF else None)
    assert text is None or (parser.failure is None and len(wire) - len(text) in (6, 8))


def test_the_python_twin_of_apply_mask_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from websockets.utils import apply_mask

    monkeypatch.setattr(frames, "apply_mask", apply_mask)
    wire = frame(0x81, b"a" * 20) + frame(0x01) + frame(0x80, b"b" * 300)
    assert feed(Parser(LIMITS), cut(wire, range(0, len(wire), 50))) == [(1, b"a" * 20), (1, b"b" * 300)]
    assert small_text(frame(0x81, b"abc")) == b"abc"
