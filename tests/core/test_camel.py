from __future__ import annotations

import datetime
import enum
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, Optional, TypedDict, TypeVar, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from hubbub.core.camel import from_wire, to_wire, twin
from hubbub.errors import UsageError

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"


class Flat(Struct):
    name: str
    size: int = 0


class Item(Struct):
    unit_price: int


@dataclass
class Line:
    line_item: Item
    note_text: str = ""


class Order(Struct):
    order_id: str
    lines: list[Line] = []
    by_name: dict[str, Item] = {}
    first_line: Line | None = None
    anything: Any = None


class Holder(Struct):
    item: Item


class Tagged(Struct, tag="tagged"):
    some_value: int


class Other(Struct, tag="other"):
    some_value: int


class Either(Struct):
    the_one: Tagged | Other


class Sparse(Struct, omit_defaults=True):
    user_id: str
    user_name: str = "none"
    user_tags: list[str] = []


class Patch(Struct):
    new_name: str | UnsetType | None = UNSET


class Row(Struct, array_like=True):
    row_id: int
    row_item: Item


class Strict(Struct, forbid_unknown_fields=True, kw_only=True):
    user_id: str = ""
    user_age: int


class Own(Struct, rename="pascal"):
    user_id: str
    best_item: Item


class Frozen(Struct, frozen=True):
    part_id: int


class Rich(Struct):
    made_at: datetime.datetime
    made_by: uuid.UUID
    made_for: Decimal
    made_of: bytes
    made_in: Color
    made_as: Literal["a", "b"]
    made_raw: Raw


class Tree(Struct):
    value: int
    children: list[Tree] = []


class SnakeTree(Struct):
    node_value: int
    children: list[SnakeTree] = []


class Forest(Struct):
    best_tree: SnakeTree


class CamelTree(Struct, rename="camel"):
    node_value: int
    children: list[CamelTree] = []


class Pair(NamedTuple):
    first_item: Item


class Keys(TypedDict):
    snake_key: int


class Named(TypedDict):
    item: Item


class Box(Struct, Generic[T]):
    box_content: T


class Crate(Struct, Generic[T]):
    content: T


class Checked(Struct):
    low_end: int
    high_end: int

    def __post_init__(self) -> None:
        if self.low_end > self.high_end:
            raise ValueError("low_end is above high_end")


WHEN = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
RICH = Rich(WHEN, uuid.UUID(int=7), Decimal("1.50"), b"\0\1", Color.RED, "a", Raw(b'{"snake_case":1}'))

TREE = {"nodeValue": 2, "children": []}

# A value, its type, and how it is written.
SAME_BOTH_WAYS = [
    pytest.param(Item(5), Item, {"unitPrice": 5}, id="Struct"),
    pytest.param(Line(Item(5), "x"), Line, {"lineItem": {"unitPrice": 5}, "noteText": "x"}, id="dataclass"),
    pytest.param(Holder(Item(5)), Holder, {"item": {"unitPrice": 5}}, id="only what it holds differs"),
    pytest.param(
        Order("a", [Line(Item(1))], {"x_y": Item(2)}, Line(Item(3))),
        Order,
        {
            "orderId": "a",
            "lines": [{"lineItem": {"unitPrice": 1}, "noteText": ""}],
            "byName": {"x_y": {"unitPrice": 2}},
            "firstLine": {"lineItem": {"unitPrice": 3}, "noteText": ""},
            "anything": None,
        },
        id="nested",
    ),
    pytest.param([Item(1), Item(2)], list[Item], [{"unitPrice": 1}, {"unitPrice": 2}], id="list"),
    pytest.param((Item(1), 2), tuple[Item, int], [{"unitPrice": 1}, 2], id="tuple"),
    pytest.param((Item(1),), tuple[Item, ...], [{"unitPrice": 1}], id="long tuple"),
    pytest.param([Item(1)], Sequence[Item], [{"unitPrice": 1}], id="sequence"),
    pytest.param({Frozen(1)}, set[Frozen], [{"partId": 1}], id="set"),
    pytest.param({"a_b": [Item(1)]}, dict[str, list[Item]], {"a_b": [{"unitPrice": 1}]}, id="dict of lists"),
    pytest.param(Item(1), Item | None, {"unitPrice": 1}, id="or None"),
    pytest.param(None, Optional[Item], None, id="None"),  # noqa: UP045  # the old spelling is another type
    pytest.param(Item(1), Annotated[Item, Meta(title="x")], {"unitPrice": 1}, id="annotated"),
    pytest.param(Other(1), Tagged | Other, {"type": "other", "someValue": 1}, id="tagged union"),
    pytest.param(Either(Tagged(1)), Either, {"theOne": {"type": "tagged", "someValue": 1}}, id="tagged union inside"),
    pytest.param(Sparse("u", user_tags=["x"]), Sparse, {"userId": "u", "userTags": ["x"]}, id="defaults left out"),
    pytest.param(Patch(), Patch, {}, id="unset"),
    pytest.param(Patch(None), Patch, {"newName": None}, id="set to None"),
    pytest.param(Row(1, Item(2)), Row, [1, {"unitPrice": 2}], id="array_like"),
    pytest.param(Strict(user_age=3), Strict, {"userId": "", "userAge": 3}, id="keyword only"),
    pytest.param(Own("u", Item(1)), Own, {"UserId": "u", "BestItem": {"unitPrice": 1}}, id="rename of its own"),
    pytest.param(
        RICH,
        Rich,
        {
            "madeAt": "2026-01-02T00:00:00Z",
            "madeBy": "00000000-0000-0000-0000-000000000007",
            "madeFor": "1.50",
            "madeOf": "AAE=",
            "madeIn": "red",
            "madeAs": "a",
            "madeRaw": {"snake_case": 1},
        },
        id="all kinds of values",
    ),
    pytest.param(
        CamelTree(1, [CamelTree(2)]),
        CamelTree,
        {"nodeValue": 1, "children": [{"nodeValue": 2, "children": []}]},
        id="tree",
    ),
    pytest.param(Checked(1, 2), Checked, {"lowEnd": 1, "highEnd": 2}, id="checked"),
]


@pytest.mark.parametrize(("value", "kind", "wire"), SAME_BOTH_WAYS)
def test_what_is_written_is_read_again(value: Any, kind: Any, wire: Any) -> None:
    text = msgspec.json.encode(to_wire(value))
    assert msgspec.json.decode(text) == wire
    read = from_wire(msgspec.json.decode(text, type=twin(kind)))
    assert type(read) is type(value)
    assert msgspec.json.encode(read) == msgspec.json.encode(value)


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        pytest.param({"user": {"best": Item(1)}}, {"user": {"best": {"unitPrice": 1}}}, id="in dicts"),
        pytest.param([[Item(1), "x"]], [[{"unitPrice": 1}, "x"]], id="in lists"),
        pytest.param(Order("a", anything=Item(1)).anything, {"unitPrice": 1}, id="in a field of any type"),
        pytest.param(Pair(Item(1)), [{"unitPrice": 1}], id="in a named tuple"),
        pytest.param(Box(Item(1)), {"boxContent": {"unitPrice": 1}}, id="in a generic"),
        pytest.param(SnakeTree(1, [SnakeTree(2)]), {"nodeValue": 1, "children": [TREE]}, id="in itself"),
        pytest.param(Flat("a"), {"name": "a", "size": 0}, id="nothing to do"),
        pytest.param(Item(cast("int", "x")), {"unitPrice": "x"}, id="a value of the wrong type"),
    ],
)
def test_records_are_renamed_wherever_they_are(value: Any, wire: Any) -> None:
    assert msgspec.json.decode(msgspec.json.encode(to_wire(value))) == wire


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        {"snake_key": 1, "nested_dict": {"a_b": [1, {"c_d": None}]}},
        [1, "a", [None]],
        Flat("x"),
        {"flat": Flat("x")},
        Raw(b"{}"),
        WHEN,
        CamelTree(1, [CamelTree(2)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_needs_no_change_is_the_same_object(value: Any) -> None:
    assert to_wire(value) is value
    assert from_wire(value) is value


@pytest.mark.parametrize(
    "kind",
    [
        int,
        Any,
        str | None,
        list[int],
        dict[str, Any],
        Literal["a"],
        Color,
        Flat,
        Tree,
        CamelTree,
        Keys,
        Crate[int],
        Raw,
    ],
    ids=str,
)
def test_a_type_that_needs_no_twin_is_its_own(kind: Any) -> None:
    assert twin(kind) is kind


def test_a_type_has_one_twin() -> None:
    assert twin(Item) is twin(Item)
    assert twin(Item).__name__ == "Item"


def test_rules_of_the_type_hold_for_its_twin() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.json.decode(b'{"userAge":1,"more":2}', type=twin(Strict))
    with pytest.raises(msgspec.ValidationError, match="missing required field `userAge`"):
        msgspec.json.decode(b"{}", type=twin(Strict))


def test_an_error_names_the_field_of_the_wire() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"at `\$\.lines\[0\]\.lineItem\.unitPrice`"):
        msgspec.json.decode(b'{"orderId":"a","lines":[{"lineItem":{"unitPrice":"x"}}]}', type=twin(Order))


def test_a_check_of_the_type_runs_on_what_is_read() -> None:
    with pytest.raises(ValueError, match="low_end is above high_end"):
        from_wire(msgspec.json.decode(b'{"lowEnd":2,"highEnd":1}', type=twin(Checked)))


def test_defaults_that_are_made_are_made_anew() -> None:
    first, second = (from_wire(msgspec.json.decode(b'{"orderId":"a"}', type=twin(Order))) for _ in range(2))
    assert first.lines == second.lines == []
    assert first.lines is not second.lines


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        pytest.param(SnakeTree, 'SnakeTree contains itself: declare it with rename="camel"', id="contains itself"),
        pytest.param(list[SnakeTree], "SnakeTree contains itself", id="a list of those"),
        pytest.param(Forest, "SnakeTree contains itself", id="holds one of those"),
        pytest.param(Box[int], 'Box has other names on the wire.*rename="camel"', id="generic"),
        pytest.param(Named, "Named has other names on the wire", id="TypedDict that holds one"),
        pytest.param(Pair, "Pair has other names on the wire", id="named tuple that holds one"),
    ],
)
def test_a_type_that_cannot_have_a_twin_says_the_way_out(kind: Any, reason: str) -> None:
    for _ in range(2):  # the first try leaves nothing behind
        with pytest.raises(UsageError, match=reason):
            twin(kind)


def test_a_dataclass_with_a_factory() -> None:
    @dataclass
    class Basket:
        item_ids: list[int] = field(default_factory=list)

    assert from_wire(msgspec.json.decode(b"{}", type=twin(Basket))) == Basket([])
    assert msgspec.json.encode(to_wire(Basket([1]))) == b'{"itemIds":[1]}'


SHAPES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.integers(0, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(max_size=3), inner) | st.builds(Box, inner) | st.builds(Crate, inner)
    ),
)


@given(SHAPES)
def test_whatever_the_shape_only_names_change(value: Any) -> None:
    plain = msgspec.json.encode(value)
    assert msgspec.json.encode(to_wire(value)) == plain.replace(b'"box_content":', b'"boxContent":')
