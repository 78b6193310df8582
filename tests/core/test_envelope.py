from __future__ import annotations

import enum
import json
import time
from contextlib import suppress
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct
from pydantic import BaseModel, Field, computed_field

from hubbub.core.envelope import Message, decode, encode, invalid_payload
from hubbub.errors import RequestError

NOW = 1_700_000_000_000
SECRET = "s3cret"


class Point(Struct):
    x_axis: int


class Model(BaseModel):
    user_id: str = Field(serialization_alias="userId")


class Number(enum.IntEnum):
    ONE = 1


class Strict(Struct, forbid_unknown_fields=True):
    a: int = 0


class Cat(Struct, tag="cat"):
    lives: int


class Dog(Struct, tag="dog"):
    lives: int


class Kebab(Struct, rename="kebab"):
    user_id: str


class Fussy(Struct):
    a: int

    def __post_init__(self) -> None:
        raise ValueError(f"cannot use '{self.a}'")


class Deep(Struct):
    items: list[dict[str, Point]]


# --- Encode ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "wire"),
    [
        pytest.param({"snake_key": [1, "ü", None]}, {"snake_key": [1, "ü", None]}, id="dict"),
        pytest.param(Point(1), {"xAxis": 1}, id="Struct"),
        pytest.param([Point(1)], [{"xAxis": 1}], id="Structs in a list"),
        pytest.param(Model(user_id="u"), {"userId": "u"}, id="pydantic"),
        pytest.param({"model": Model(user_id="u")}, {"model": {"userId": "u"}}, id="pydantic inside"),
        pytest.param(msgspec.Raw(b'{"a":1}'), {"a": 1}, id="JSON"),
        pytest.param(0, 0, id="zero"),
        pytest.param("", "", id="empty"),
        pytest.param(False, False, id="False"),
    ],
)
def test_a_message_is_built(payload: Any, wire: Any) -> None:
    assert json.loads(encode("a", payload, NOW, "7")) == {"type": "a", "payload": wire, "timestamp": NOW, "id": "7"}


def test_what_is_not_there_is_left_out() -> None:
    assert encode("a", None, NOW) == b'{"type":"a","timestamp":1700000000000}'


@pytest.mark.parametrize("payload", [object(), {"a": [object()]}, lambda: None], ids=["object", "inside", "function"])
def test_what_has_no_json_form_is_refused_by_its_type(payload: Any) -> None:
    with pytest.raises(TypeError, match=r"(object|function) has no JSON form: send a dict, Struct, dataclass or model"):
        encode("a", payload, NOW)


def test_a_message_says_what_it_is() -> None:
    assert Message("a") == Message("a", None, 0, None)
    assert (
        msgspec.json.encode(Message("a", {"b": 1}, 5, "6")) == b'{"type":"a","payload":{"b":1},"timestamp":5,"id":"6"}'
    )


# --- Decode ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "type", "payload", "id"),
    [
        ('{"type":"a"}', "a", b"", None),
        ('{"type":"a","payload":null}', "a", b"null", None),
        ('{"type":"a","payload": [1, {"b": "}"}] ,"id":"1"}', "a", b'[1, {"b": "}"}]', "1"),
        ('{"type":"a","id":null}', "a", b"", None),
        (' \n{"id":"x","type":"\\u00fc"}\t', "ü", b"", "x"),
        ('{"type":"a","timestamp":"not read","more":{"and":["more"]}}', "a", b"", None),
        ('{"type":""}', "", b"", None),
        ('{"type":"a","type":"b"}', "b", b"", None),
        ('{"type":"a","payload":1e999}', "a", b"1e999", None),
    ],
    ids=["least", "null payload", "all", "null id", "any order", "unknown", "empty type", "twice", "huge number"],
)
def test_a_message_is_read(text: str, type: str, payload: bytes, id: str | None) -> None:
    message = decode(text.encode(), 32)
    assert (message.type, bytes(message.payload), message.id) == (type, payload, id)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "bad_json"),
        ("hello", "bad_json"),
        ('{"type":"a"', "bad_json"),
        ('{"type":"a"}}', "bad_json"),
        ('{"type":"a","payload":[1,2,}', "bad_json"),
        ("{'type':'a'}", "bad_json"),
        ('{"type":"a"}{"type":"b"}', "bad_json"),
        ('{"type":"a","payload":NaN}', "bad_json"),
        ('{"type":"\\ud800"}', "bad_json"),
        ('{"type":"a","id":"\\ud800"}', "bad_json"),
        ("[" * 100_000, "bad_json"),
        ("null", "bad_envelope"),
        ("5", "bad_envelope"),
        ('"text"', "bad_envelope"),
        ("[]", "bad_envelope"),
        ('[{"type":"a"}]', "bad_envelope"),
        ('{"type":"a","id":7}', "bad_envelope"),
        ('{"type":"a","id":{}}', "bad_envelope"),
        ("{}", "unknown_type"),
        ('{"type":5}', "unknown_type"),
        ('{"type":null}', "unknown_type"),
        ('{"Type":"a"}', "unknown_type"),
    ],
    ids=lambda value: value[:25] if isinstance(value, str) else None,
)
def test_what_is_no_message_is_refused(text: str, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        decode(text.encode(), 32)
    assert caught.value.code == code


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_nothing_but_a_request_error_leaves(text: bytes) -> None:
    with suppress(RequestError):
        decode(text, 32)


# --- Depth -----------------------------------------------------------------------------------------------------------


def nested(levels: int, opening: str = "[", closing: str = "]") -> bytes:
    """A message of so many levels: its own object is the first."""
    return ('{"type":"a","payload":' + opening * (levels - 1) + closing * (levels - 1) + "}").encode()


@pytest.mark.parametrize("limit", [2, 5, 32])
def test_depth_is_counted_in_levels(limit: int) -> None:
    assert decode(nested(limit), limit).type == "a"
    with pytest.raises(RequestError, match=f"nested deeper than {limit} levels"):
        decode(nested(limit + 1), limit)


def test_what_is_too_deep_for_any_reader_is_not_json() -> None:
    with pytest.raises(RequestError) as caught:
        decode(nested(100_000), 1_000_000)
    assert caught.value.code == "bad_json"


def test_objects_count_as_arrays_do() -> None:
    with pytest.raises(RequestError, match="nested deeper"):
        decode(b'{"type":"a","payload":{"b":[{"c":{}}]}}', 4)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param([[]] * 50, id="side by side"),
        pytest.param("[" * 50, id="in a string"),
        pytest.param('\\"[{' * 50, id="behind quotes"),
        pytest.param("\\" * 50 + "[" * 50, id="behind backslashes"),
        pytest.param({"[" * 50: "{" * 50}, id="in a key"),
    ],
)
def test_brackets_that_do_not_nest_do_not_count(payload: Any) -> None:
    text = json.dumps({"type": "a", "payload": payload}).encode()
    assert json.loads(bytes(decode(text, 4).payload)) == payload


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.text('[]{}"\\a', max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}"\\a', max_size=3), inner, max_size=3),
)


def levels(value: Any) -> int:
    """How deep a value nests, the plain way."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, dict | list) + max(map(levels, inner), default=0)


@given(payload=JSON, limit=st.integers(1, 6), ascii=st.booleans())
def test_depth_is_exact(payload: Any, limit: int, ascii: bool) -> None:
    message = {"type": "a", "payload": payload}
    text = json.dumps(message, ensure_ascii=ascii).encode()
    try:
        decode(text, limit)
        fits = True
    except RequestError:
        fits = False
    assert fits == (levels(message) <= limit)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b'"' + b'\\"' * 32_000 + b"[" * 40, id="a string without end"),
        pytest.param(b'"[' * 32_000, id="many quotes"),
        pytest.param(b"[" * 64_000, id="brackets"),
        pytest.param(b'{"type":"' + b"\\" * 64_000 + b"{" * 40, id="backslashes"),
    ],
)
def test_a_hostile_text_is_refused_quickly(text: bytes) -> None:
    started = time.process_time()
    with pytest.raises(RequestError):
        decode(text, 32)
    assert time.process_time() - started < 0.1


# --- Complaints ------------------------------------------------------------------------------------------------------


def complaint(kind: Any, value: Any) -> RequestError:
    """What a client is told that sent this value where that type is wanted."""
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(json.dumps(value), type=kind)
    return invalid_payload(caught.value)


@pytest.mark.parametrize(
    ("kind", "value", "field", "message"),
    [
        (int, "x", None, "payload: Expected `int`, got `str`."),
        (Point, {"x_axis": "x"}, "x_axis", "payload.x_axis: Expected `int`, got `str`."),
        (Point, {}, "x_axis", "payload.x_axis: Object missing required field `x_axis`."),
        (Kebab, {}, "user-id", "payload.user-id: Object missing required field `user-id`."),
        (list[int], [1, "x"], "[1]", "payload[1]: Expected `int`, got `str`."),
        (
            Deep,
            {"items": [{"k": {"x_axis": None}}]},
            "items[0][...].x_axis",
            "payload.items[0][...].x_axis: Expected `int`, got `null`.",
        ),
        (Deep, {"items": [{"k": {}}]}, "items[0][...].x_axis", None),
        (dict[int, int], {"x": 1}, None, "payload: Expected `int`, got `str`, in a key."),
        (Annotated[int, Meta(ge=5)], 3, None, "payload: Expected `int` >= 5."),
    ],
    ids=["itself", "field", "missing", "missing, renamed", "index", "deep", "deep, missing", "key", "range"],
)
def test_a_complaint_names_the_field(kind: Any, value: Any, field: str | None, message: str | None) -> None:
    error = complaint(kind, value)
    assert (error.code, error.field) == ("invalid_payload", field)
    assert message is None or error.message == message


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        pytest.param(int, SECRET, id="int"),
        pytest.param(Literal["a", "b"], SECRET, id="literal"),
        pytest.param(Literal[1, 2], 77001, id="number literal"),
        pytest.param(Number, 77001, id="number enum"),
        pytest.param(list[Number], [1, 77001], id="number enum in a list"),
        pytest.param(Cat | Dog, {"type": SECRET, "lives": 1}, id="tag"),
        pytest.param(Cat | Dog, {"type": f"a' - at `$.{SECRET}", "lives": 1}, id="tag that looks like a path"),
        pytest.param(Strict, {SECRET: 1}, id="unknown field"),
        pytest.param(dict[int, int], {SECRET: 1}, id="key"),
        pytest.param(dict[str, int], {SECRET: "x"}, id="value under a key"),
        pytest.param(Annotated[str, Meta(pattern="^a")], SECRET, id="pattern"),
        pytest.param(Fussy, {"a": 77001}, id="a check of the type"),
    ],
)
def test_a_complaint_does_not_repeat_the_input(kind: Any, value: Any) -> None:
    error = complaint(kind, value)
    for part in (error.message, error.field or ""):
        assert SECRET not in part
        assert "77001" not in part


class Html(str):
    """A text that knows more, as templates make it; its `str` is not plain."""

    def __str__(self) -> str:
        return self


def test_a_kind_of_text_is_a_text() -> None:
    assert json.loads(encode("a", {"html": Html("<b>")}, NOW))["payload"] == {"html": "<b>"}


class Broken(BaseModel):
    @computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> int:
        return self.nowhere  # type: ignore[attr-defined,no-any-return]


def test_what_a_model_fails_with_is_not_hidden() -> None:
    with pytest.raises(Exception, match="nowhere"):
        encode("a", Broken(), NOW)
