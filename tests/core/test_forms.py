from __future__ import annotations

import pytest

from hubbub.core.deflate import inflate
from hubbub.core.forms import FRAMES, TEXTS, Form, deflated

SHORT = b'{"type":"ping"}'
LONG = b'{"type":"message","payload":"' + b"hello " * 100 + b'"}'


def test_frames_are_plain_text_frames() -> None:
    assert FRAMES.encode(SHORT) == bytes((0x81, len(SHORT))) + SHORT
    assert FRAMES.encode(LONG) == b"\x81\x7e" + len(LONG).to_bytes(2, "big") + LONG


def test_texts_are_strings_for_the_server_underneath() -> None:
    assert TEXTS.encode('{"type":"grüß"}'.encode()) == ('{"type":"grüß"}',)
    assert TEXTS.size(("ab", "ü")) == 3


@pytest.mark.parametrize("window_bits", range(9, 16))
def test_deflated_frames(window_bits: int) -> None:
    data = deflated(window_bits).encode(LONG)
    assert isinstance(data, bytes)
    assert data[0] == 0xC1
    assert data[1] == len(data) - 2 < len(LONG) // 4
    assert inflate(data[2:], len(LONG)) == LONG


@pytest.mark.parametrize(("size", "first"), [(0, 0x81), (199, 0x81), (200, 0xC1)])
def test_short_messages_are_not_worth_deflating(size: int, first: int) -> None:
    assert deflated(15).encode(b"x" * size)[0] == first


def test_one_form_a_process_for_each_window() -> None:
    assert deflated(12) is deflated(12)
    assert deflated(12) is not deflated(15)


@pytest.mark.parametrize(
    "form",
    [pytest.param(FRAMES, id="frames"), pytest.param(deflated(15), id="deflated"), pytest.param(TEXTS, id="texts")],
)
def test_join_keeps_order_and_size(form: Form) -> None:
    pieces = [form.encode(SHORT), form.encode(LONG), form.encode(SHORT)]
    joined = form.join(pieces)
    assert list(joined) == [item for piece in pieces for item in piece]
    assert form.size(joined) == sum(map(form.size, pieces)) == sum(len(x) if isinstance(x, str) else 1 for x in joined)
    assert form.join([joined, pieces[0]]) == form.join([*pieces, pieces[0]])
