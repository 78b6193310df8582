from __future__ import annotations

import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hubbub.core.deflate import Agreement, SharedCompressor, inflate, negotiate
from hubbub.errors import ProtocolError

TAIL = b"\x00\x00\xff\xff"
NO_TAKEOVER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


def deflate(
    payload: bytes, *, level: int = 6, wbits: int = -15, strategy: int = 0, flush: int = zlib.Z_SYNC_FLUSH
) -> bytes:
    """What some other client sends."""
    compressor = zlib.compressobj(level, wbits=wbits, strategy=strategy)
    data = compressor.compress(payload) + compressor.flush(flush)
    return data if flush == zlib.Z_FINISH else data.removesuffix(TAIL)


# --- Negotiation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offers", "agreement"),
    [
        pytest.param("permessage-deflate", Agreement(15), id="bare"),
        pytest.param("permessage-deflate; client_max_window_bits", Agreement(15), id="Chrome, Safari"),
        pytest.param("permessage-deflate; client_max_window_bits=8", Agreement(15), id="client's own window"),
        pytest.param(NO_TAKEOVER, Agreement(15), id="no takeover asked"),
        pytest.param("permessage-deflate; server_max_window_bits=9", Agreement(9, asked=True), id="smallest window"),
        pytest.param("permessage-deflate; server_max_window_bits=15", Agreement(15, asked=True), id="largest window"),
        pytest.param('permessage-deflate;server_max_window_bits="10"', Agreement(10, asked=True), id="quoted"),
        pytest.param(" permessage-deflate\t;  server_max_window_bits = 10 ", Agreement(10, asked=True), id="spaces"),
        pytest.param("x-webkit-deflate-frame, permessage-deflate", Agreement(15), id="after another extension"),
        pytest.param('foo; a="1, 2; 3", permessage-deflate', Agreement(15), id="after a quoted comma"),
        pytest.param(
            "permessage-deflate; server_max_window_bits=8, permessage-deflate",
            Agreement(15),
            id="first declined, second taken",
        ),
        pytest.param(
            "permessage-deflate; server_max_window_bits=10, permessage-deflate",
            Agreement(10, asked=True),
            id="first of two",
        ),
    ],
)
def test_negotiate_accepts(offers: str, agreement: Agreement) -> None:
    assert negotiate(offers) == agreement


@pytest.mark.parametrize(
    "offers",
    [
        pytest.param("", id="nothing"),
        pytest.param("x-webkit-deflate-frame", id="another extension"),
        pytest.param("Permessage-Deflate-2", id="a name like it"),
        pytest.param("permessage-deflate; server_max_window_bits=8", id="a window zlib does not have"),
        pytest.param("permessage-deflate; server_max_window_bits=7", id="window too small"),
        pytest.param("permessage-deflate; server_max_window_bits=16", id="window too large"),
        pytest.param("permessage-deflate; server_max_window_bits=1000", id="window far too large"),
        pytest.param("permessage-deflate; server_max_window_bits=010", id="leading zero"),
        pytest.param("permessage-deflate; server_max_window_bits=+9", id="sign"),
        pytest.param("permessage-deflate; server_max_window_bits=1\u0660", id="digits of another script"),
        pytest.param("permessage-deflate; server_max_window_bits", id="server's window without a value"),
        pytest.param("permessage-deflate; server_max_window_bits=", id="server's window of nothing"),
        pytest.param("permessage-deflate; client_max_window_bits=", id="client's window of nothing"),
        pytest.param('permessage-deflate; client_max_window_bits=""', id="client's window of quoted nothing"),
        pytest.param("permessage-deflate; client_max_window_bits=16", id="client's window too large"),
        pytest.param("permessage-deflate; server_no_context_takeover=1", id="flag with a value"),
        pytest.param("permessage-deflate; client_no_context_takeover=", id="flag with an empty value"),
        pytest.param("permessage-deflate; client_max_window_bits; client_max_window_bits", id="duplicate"),
        pytest.param("permessage-deflate; level=9", id="unknown parameter"),
        pytest.param("permessage-deflate;", id="empty parameter"),
        pytest.param("permessage-deflate; =10", id="nameless parameter"),
        pytest.param('foo; a="x, permessage-deflate, y"', id="inside a quoted string"),
        pytest.param('foo; a="\\", permessage-deflate, \\""', id="inside a quoted string with escapes"),
        pytest.param('permessage-deflate; server_max_window_bits="10', id="quote that does not end"),
        pytest.param('permessage-deflate; server_max_window_bits=1"0"', id="quote inside a value"),
        pytest.param('permessage-deflate; server_max_window_bits="', id="one quote"),
        pytest.param("permessage-deflate, " * 60, id="over 1 KiB"),
    ],
)
def test_negotiate_declines(offers: str) -> None:
    assert negotiate(offers) is None


@pytest.mark.parametrize(
    ("agreement", "header"),
    [
        pytest.param(Agreement(15), NO_TAKEOVER, id="client named no window"),
        pytest.param(Agreement(15, asked=True), f"{NO_TAKEOVER}; server_max_window_bits=15", id="client asked for 15"),
        pytest.param(Agreement(9, asked=True), f"{NO_TAKEOVER}; server_max_window_bits=9", id="client asked for 9"),
    ],
)
def test_response_header(agreement: Agreement, header: str) -> None:
    assert agreement.header == header


@given(
    st.text(alphabet='permessage-deflate;,=" \t\\serverclientnocontexttakeovermaxwindowbits0123456789', max_size=120)
)
@settings(max_examples=300, deadline=None)
def test_negotiate_never_raises(text: str) -> None:
    for offers in (text, f"permessage-deflate;{text}", f"{text},permessage-deflate; server_max_window_bits={text}"):
        assert negotiate(offers) in [None, Agreement(15), *(Agreement(bits, asked=True) for bits in range(9, 16))]


@pytest.mark.parametrize("junk", [" ", ",", '"', ";", "\\", "=", ', "', "a,", "permessage-deflate,"])
def test_negotiate_is_quick_on_hostile_input(junk: str) -> None:
    offers = "permessage-deflate; " + junk * (65536 // len(junk))
    start = time.thread_time()
    negotiate(offers)
    assert time.thread_time() - start < 0.005


# --- Compressing -----------------------------------------------------------------------------------------------------

PAYLOADS = st.lists(
    st.binary(max_size=300) | st.text(max_size=200).map(str.encode) | st.integers(0, 40_000).map(lambda n: b"ab" * n),
    min_size=1,
    max_size=6,
)


@given(PAYLOADS, st.integers(9, 15), st.data())
@settings(max_examples=100, deadline=None)
def test_each_message_stands_alone(payloads: list[bytes], window_bits: int, data: st.DataObject) -> None:
    compressor = SharedCompressor(window_bits)
    messages = [(compressor.compress(payload), payload) for payload in payloads]
    for message, payload in data.draw(st.permutations(messages)):
        assert zlib.decompressobj(wbits=-window_bits).decompress(message + TAIL) == payload


@pytest.mark.parametrize("window_bits", range(9, 16))
def test_a_client_that_keeps_its_window_reads_every_message(window_bits: int) -> None:
    compressor, client = SharedCompressor(window_bits), zlib.decompressobj(wbits=-window_bits)
    compressor.compress(b"for somebody else" * 100)
    for payload in (b"", b"one" * 1000, b"", b"two" * 50_000, b"one" * 1000):
        assert client.decompress(compressor.compress(payload) + TAIL) == payload


def test_an_empty_message_is_one_zero_byte() -> None:
    assert SharedCompressor().compress(b"") == b"\x00"  # RFC 7692 section 7.2.3.6


def test_a_compressor_never_mixes_messages_of_two_threads() -> None:
    compressor = SharedCompressor()
    payloads = [bytes([n]) * 20_000 + b"end" for n in range(200)]
    with ThreadPoolExecutor(8) as threads:
        assert [inflate(message, 30_000) for message in threads.map(compressor.compress, payloads)] == payloads


# --- Inflating -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param("f248cdc9c90700", id="7.2.3.1 one block"),
        pytest.param("000500faff48656c6c6f00", id="7.2.3.3 without compression"),
        pytest.param("f348cdc9c9070000", id="7.2.3.4 a final block"),
        pytest.param("f248050000 00ffff cac9c90700", id="7.2.3.5 two blocks"),
        pytest.param("f348cdc9c90700", id="a final block and no more"),
        pytest.param("000500faff48656c6c6f 01", id="an empty final block that was cut"),
        pytest.param("0300 f248cdc9c90700", id="a block behind a final one"),
        pytest.param("0300 0300 f348cdc9c90700 00", id="several final blocks"),
    ],
)
def test_inflate_hello_of_rfc_7692(wire: str) -> None:
    assert inflate(bytes.fromhex(wire), 5) == b"Hello"


def test_a_block_behind_a_final_one_may_refer_to_it() -> None:
    first = zlib.compressobj(wbits=-15)
    final = first.compress(b"hello world, hello world") + first.flush(zlib.Z_FINISH)
    second = zlib.compressobj(wbits=-15, zdict=b"hello world, hello world")
    more = (second.compress(b"hello world, hello world") + second.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
    assert inflate(final + more, 100) == b"hello world, hello world" * 2


@pytest.mark.parametrize("size", [0, 1, 999, 1000])
def test_inflate_up_to_the_limit(size: int) -> None:
    assert inflate(deflate(b"x" * size) or b"\x00", 1000) == b"x" * size


@given(
    st.binary(max_size=500) | st.integers(0, 40_000).map(lambda n: b"abc" * n),
    st.integers(0, 9),
    st.integers(9, 15),
    st.sampled_from([zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE, zlib.Z_FIXED]),
    st.sampled_from([zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_FINISH]),
)
@settings(max_examples=150, deadline=None)
def test_inflate_what_any_client_deflates(payload: bytes, level: int, bits: int, strategy: int, flush: int) -> None:
    wire = deflate(payload, level=level, wbits=-bits, strategy=strategy, flush=flush)
    assert inflate(wire or b"\x00", len(payload) or 1) == payload


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        pytest.param(deflate(b"x" * 1001), 1009, id="one byte over"),
        pytest.param(deflate(bytes(50_000_000)), 1009, id="bomb"),
        pytest.param(
            deflate(bytes(800), flush=zlib.Z_FINISH) + deflate(bytes(201)), 1009, id="two streams over together"
        ),
        pytest.param(b"", 1007, id="nothing, which is no block"),
        pytest.param(b"\xff\xff", 1007, id="reserved block type"),
        pytest.param(b"\x04\x00", 1007, id="block cut in its table of codes"),
        pytest.param(b"\x00\x05\x00\xfa\xffH", 1007, id="stored block cut by as much as is put behind"),
        pytest.param(b"\x00\x05\x00\x00\x00Hello\x00", 1007, id="stored block with a wrong length"),
        pytest.param(bytes.fromhex("f248cdc9c907"), 1007, id="without its last byte"),
        pytest.param(bytes.fromhex("f348cdc9c90700") + b"junk", 1007, id="junk behind a final block"),
        pytest.param(b"\x03\x00" * 40_000 + b"\x00", 1007, id="endless final blocks"),
        pytest.param(zlib.compress(b"Hello"), 1007, id="zlib instead of raw deflate"),
    ],
)
def test_inflate_refuses(wire: bytes, code: int) -> None:
    with pytest.raises(ProtocolError) as error:
        inflate(wire, 1000)
    assert error.value.code == code


@given(st.binary(min_size=20, max_size=300) | st.text(min_size=20, max_size=200).map(str.encode), st.integers(1, 400))
@settings(max_examples=150, deadline=None)
def test_a_message_that_is_cut_fails(payload: bytes, missing: int) -> None:
    part = deflate(payload)[:-missing]
    assume(part != b"\x00")  # which is the whole of an empty message
    with pytest.raises(ProtocolError, match="1007"):
        inflate(part, 1000)


def test_a_bomb_takes_no_more_memory_than_the_limit() -> None:
    wire = deflate(bytes(100_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="1009"):
            inflate(wire, 65536)
        assert tracemalloc.get_traced_memory()[1] < 65536 + (1 << 20)
    finally:
        tracemalloc.stop()


def test_final_blocks_without_end_cost_little() -> None:
    wire = b"\x03\x00" * (1 << 22)
    start = time.thread_time()
    with pytest.raises(ProtocolError, match="1007"):
        inflate(wire, 1 << 24)
    assert time.thread_time() - start < 2
