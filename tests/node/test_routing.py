from __future__ import annotations

import asyncio
import enum
import functools
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

import msgspec
import pytest
from annotated_types import Len
from fastapi import Depends
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Raw, Struct
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass as pydantic_dataclass

from hubbub import ConfigError, Connection, Hub, RequestError
from hubbub.node.routing import Route, payload_decoder, takes
from tests.fakes import open_connection, say

if TYPE_CHECKING:
    from collections.abc import Mapping as OnlyForTypes

SECRET = "s3cret"


class Color(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Item(Struct):
    unit_price: int
    color: Color = Color.RED


class Order(Struct):
    order_id: str
    items: list[Item] = []


@dataclass
class Point:
    x_axis: int
    y_axis: int = 0


class Keys(TypedDict):
    some_key: int


class Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")

    user_id: str
    price_list: list[int] = []


@pydantic_dataclass
class Short:
    some_key: str = Field(max_length=2)


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Owner(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


class Range(Struct):
    low_end: int
    high_end: int

    def __post_init__(self) -> None:
        if self.low_end > self.high_end:
            raise ValueError("lowEnd is above highEnd")


class PlainRange(Struct):
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


class Tagged(Struct, tag="tagged"):
    some_value: int


class Other(Struct, tag="other"):
    some_value: int


class Unset(Struct):
    new_name: str | msgspec.UnsetType = msgspec.UNSET


class Tree(Struct):
    node_value: int
    children: list[Tree] = []


class Strange:
    """Nothing that JSON has a form for."""


def route_for(kind: Any, **options: Any) -> Route:
    """The route of a handler whose payload is annotated with `kind`."""

    def handle(conn: Connection, payload: Any) -> Any:
        return payload

    handle.__annotations__["payload"] = kind
    return Route.build("a", handle, reply=None, auth=False, thread=False)


def read(kind: Any, payload: Any) -> Any:
    """What a handler for `kind` is given when a client sends this payload."""
    return route_for(kind).decode(Raw(json.dumps(payload).encode()))


def complaint(kind: Any, payload: Any) -> RequestError:
    """What a client is told that sends this payload to a handler for `kind`."""
    with pytest.raises(RequestError) as caught:
        read(kind, payload)
    assert caught.value.code == "invalid_payload"
    return caught.value


# --- Payloads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "payload", "value"),
    [
        (int, 5, 5),
        (float, 5, 5.0),
        (str, "ü", "ü"),
        (bool, True, True),
        (list[int], [1, 2], [1, 2]),
        (tuple[int, str], [1, "a"], (1, "a")),
        (dict[str, int], {"a_b": 1}, {"a_b": 1}),
        (Any, {"any": [None]}, {"any": [None]}),
        (object, [1], [1]),
        (Literal["a", 1], 1, 1),
        (Color, "red", Color.RED),
        (Number, 1, Number.ONE),
        (int | None, None, None),
        (int | str, "x", "x"),
        (Annotated[int, Meta(ge=1)], 1, 1),
        (Order, {"orderId": "a", "items": [{"unitPrice": 1}]}, Order("a", [Item(1)])),
        (list[Item], [{"unitPrice": 1, "more": 2}], [Item(1)]),
        (Item | None, {"unitPrice": 1}, Item(1)),
        (Point, {"xAxis": 1}, Point(1)),
        (Keys, {"some_key": 1}, {"some_key": 1}),
        (Tagged | Other, {"type": "other", "someValue": 1}, Other(1)),
        (Unset, {}, Unset()),
        (Range, {"lowEnd": 1, "highEnd": 2}, Range(1, 2)),
        (Model, {"userId": "a", "priceList": [1]}, Model.model_validate({"userId": "a", "priceList": [1]})),
    ],
    ids=str,
)
def test_the_payload_is_what_the_handler_asks_for(kind: Any, payload: Any, value: Any) -> None:
    given = read(kind, payload)
    assert given == value
    assert type(given) is type(value)


def test_json_may_be_had_as_it_is() -> None:
    assert bytes(route_for(Raw).decode(Raw(b'{"a": 1 }'))) == b'{"a": 1 }'
    assert bytes(route_for(Raw).decode(Raw(b""))) == b""


@pytest.mark.parametrize(
    "kind", [Any, int | None, Item | None, None], ids=["any", "int or None", "Struct or None", "None"]
)
def test_a_payload_that_is_not_there_is_none_where_none_will_do(kind: Any) -> None:
    assert route_for(kind).decode(Raw(b"")) is None


@pytest.mark.parametrize("kind", [int, Item, Point, Keys, dict[str, Any], list[int], Unset], ids=str)
def test_elsewhere_it_is_missed(kind: Any) -> None:
    with pytest.raises(RequestError, match="This type needs a payload") as caught:
        route_for(kind).decode(Raw(b""))
    assert (caught.value.code, caught.value.field) == ("invalid_payload", "payload")


@pytest.mark.parametrize(
    ("kind", "payload", "field", "said"),
    [
        (int, "x", None, "payload: Expected `int`, got `str`"),
        (Order, {"orderId": 5}, "orderId", "payload.orderId: Expected `str`, got `int`"),
        (Order, {}, "orderId", "payload.orderId: Object missing required field `orderId`"),
        (Order, {"orderId": "", "items": [{"unitPrice": "x"}]}, "items[0].unitPrice", "payload.items[0].unitPrice: "),
        (Order, {"orderId": "", "items": [{}]}, "items[0].unitPrice", "missing required field"),
        (Point, {"xAxis": None}, "xAxis", "payload.xAxis: Expected `int`, got `null`"),
        (Keys, {}, "some_key", "payload.some_key: "),
        (list[int], [1, "x"], "[1]", "payload[1]: "),
        (Tagged | Other, {"type": "else"}, "type", "payload.type: Invalid value"),
        (Annotated[int, Meta(ge=1)], 0, None, "payload: Expected `int` >= 1"),
        (Range, {"lowEnd": 2, "highEnd": 1}, None, "payload: lowEnd is above highEnd"),
        (PlainRange, {"low": 2, "high": 1}, None, "payload: low is above high"),
        (list[PlainRange], [{"low": 2, "high": 1}], "[0]", "payload[0]: low is above high"),
        (Model, {}, "userId", "payload.userId: Field required"),
        (Model, {"userId": 5}, "userId", "payload.userId: Input should be a valid string"),
        (Model, {"userId": "", "priceList": [1, "x"]}, "priceList[1]", "payload.priceList[1]: "),
        (Model, [], None, "payload: "),
        (Owner, {"pet": {"kind": "cow"}}, "pet", "payload.pet: "),
    ],
)
def test_a_complaint_names_the_field_of_the_wire(kind: Any, payload: Any, field: str | None, said: str) -> None:
    error = complaint(kind, payload)
    assert error.field == field
    assert said in error.message


KINDS = [
    int,
    bool,
    list[int],
    dict[str, int],
    Literal["a", "b"],
    Color,
    Number,
    Order,
    Point,
    Keys,
    Tagged | Other,
    Annotated[str, Meta(pattern="^never$")],
    Model,
    Short,
    Owner,
]
BAD: st.SearchStrategy[Any] = st.recursive(
    st.just(SECRET) | st.text(max_size=8).map(lambda text: f"{text}{SECRET}{text}"),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(
            st.sampled_from(["orderId", "items", "unitPrice", "xAxis", "some_key", "type", "userId", "kind", "pet"]),
            inner,
            min_size=1,
            max_size=3,
        )
    ),
    max_leaves=5,
)


@given(kind=st.sampled_from(KINDS), payload=BAD)
def test_a_complaint_never_repeats_the_input(kind: Any, payload: Any) -> None:
    try:
        read(kind, payload)
    except RequestError as error:
        said = f"{error.message} {error.field}"
        assert SECRET not in said, said


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        pytest.param(Owner, {"pet": {"kind": SECRET}}, id="the tag of a pydantic union"),
        pytest.param(Owner, {"pet": {"kind": f"it's \n{SECRET}"}}, id="a tag with a quote and a newline"),
        pytest.param(Tagged | Other, {"type": SECRET}, id="the tag of a Struct"),
        pytest.param(Color, SECRET, id="enum"),
        pytest.param(Model, SECRET, id="no object"),
    ],
)
def test_nor_does_it_repeat_what_chooses_the_type(kind: Any, payload: Any) -> None:
    error = complaint(kind, payload)
    assert SECRET not in f"{error.message} {error.field}"


# --- Signatures ------------------------------------------------------------------------------------------------------


def plain(conn: Connection, payload: Item) -> int:
    return payload.unit_price


async def coroutine(conn: Connection, payload: Item) -> int:
    return payload.unit_price


def conn_only(conn: Connection) -> str:
    return "alone"


async def conn_only_coroutine(conn: Connection) -> str:
    return "alone"


def with_default(conn: Connection, payload: int = 3) -> int:
    return payload


def with_more_defaults(conn: Connection, payload: int, more: int = 7, *, named: int = 0) -> int:
    return payload + more


def only_for_types(conn: OnlyForTypes[str, str], payload: Item) -> OnlyForTypes[str, str]:
    return payload.unit_price  # type: ignore[return-value]  # what matters is that the names are unknown at run time


def added(number: int, conn: Connection, payload: Item) -> int:
    return payload.unit_price + number


async def added_later(number: int, conn: Connection, payload: Item) -> int:
    return payload.unit_price + number


class Handlers:
    """Handlers that are methods, and objects that are handlers."""

    def method(self, conn: Connection, payload: Item) -> int:
        return payload.unit_price

    async def coroutine_method(self, conn: Connection, payload: Item) -> int:
        return payload.unit_price

    @staticmethod
    def static(conn: Connection, payload: Item) -> int:
        return payload.unit_price

    @classmethod
    def of_class(cls, conn: Connection, payload: Item) -> int:
        return payload.unit_price

    def __call__(self, conn: Connection, payload: Item) -> int:
        return payload.unit_price


class LaterHandler:
    """An object whose call is a coroutine."""

    async def __call__(self, conn: Connection, payload: Item) -> int:
        return payload.unit_price


@functools.wraps(plain)
def wrapped(*args: Any) -> Any:
    return plain(*args)


@functools.wraps(coroutine)
async def wrapped_coroutine(*args: Any) -> Any:
    return await coroutine(*args)


@pytest.mark.parametrize(
    ("function", "answer"),
    [
        pytest.param(plain, 5, id="function"),
        pytest.param(coroutine, 5, id="coroutine"),
        pytest.param(conn_only, "alone", id="without payload"),
        pytest.param(conn_only_coroutine, "alone", id="coroutine without payload"),
        pytest.param(with_more_defaults, None, id="more defaults"),
        pytest.param(only_for_types, 5, id="other annotations for types only"),
        pytest.param(lambda conn, payload: payload["unitPrice"], 5, id="lambda"),
        pytest.param(Handlers().method, 5, id="method"),
        pytest.param(Handlers().coroutine_method, 5, id="coroutine method"),
        pytest.param(Handlers.static, 5, id="static method"),
        pytest.param(Handlers.of_class, 5, id="class method"),
        pytest.param(Handlers(), 5, id="object"),
        pytest.param(LaterHandler(), 5, id="object with a coroutine"),
        pytest.param(functools.partial(added, 1), 6, id="partial"),
        pytest.param(functools.partial(added_later, 1), 6, id="partial coroutine"),
        pytest.param(wrapped, 5, id="wrapped"),
        pytest.param(wrapped_coroutine, 5, id="wrapped coroutine"),
    ],
)
async def test_whatever_can_be_called_is_a_handler(hub: Hub, function: Callable[..., Any], answer: Any) -> None:
    hub.on("a")(function)
    connection, transport = open_connection(hub)
    if answer is None:
        say(connection, "a", 5)
        answer = 12
    else:
        say(connection, "a", {"unitPrice": 5})
    assert (await transport.heard("a_response"))["payload"] == answer


async def test_a_default_counts_where_no_payload_came(hub: Hub) -> None:
    hub.on("a")(with_default)
    connection, transport = open_connection(hub)
    say(connection, "a")
    say(connection, "a", 4)
    assert transport.payloads("a_response") == [3, 4]


async def test_a_type_made_where_the_handler_is_declared_is_known(hub: Hub) -> None:
    class Local(Struct):
        local_name: str

    @hub.on("a")
    async def handle(conn: Connection, payload: Local) -> str:
        return payload.local_name

    connection, transport = open_connection(hub)
    say(connection, "a", {"localName": "x"})
    assert (await transport.heard("a_response"))["payload"] == "x"


def no_arguments() -> None: ...


def three(conn: Connection, payload: int, more: int) -> None: ...


def keyword_only(conn: Connection, *, payload: int) -> None: ...


def needs_keyword(conn: Connection, payload: int, *, database: str) -> None: ...


def only_stars(*args: Any, **kwargs: Any) -> None: ...


def unknown_type(conn: Connection, payload: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def no_attribute(conn: Connection, payload: json.Nowhere) -> None: ...  # type: ignore[name-defined]


def no_syntax(conn: Connection, payload: Any) -> None: ...


no_syntax.__annotations__["payload"] = "1 +"


def strange(conn: Connection, payload: Strange) -> None: ...


def strange_inside(conn: Connection, payload: dict[str, Strange]) -> None: ...


def models(conn: Connection, payload: list[Model]) -> None: ...


def tree(conn: Connection, payload: Tree) -> None: ...


def untagged(conn: Connection, payload: Item | Order) -> None: ...


CurrentUser = Annotated[str, Depends(lambda: "ann")]


def injected(conn: Connection, payload: CurrentUser) -> None: ...


def yields(conn: Connection) -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (no_arguments, r"must take \(conn\) or \(conn, payload\), not \(\)"),
        (three, r"must take \(conn\) or \(conn, payload\), not \(conn: "),
        (keyword_only, r"must take \(conn\) or \(conn, payload\)"),
        (needs_keyword, r"must take \(conn\) or \(conn, payload\)"),
        (only_stars, r"must take \(conn\) or \(conn, payload\)"),
        (unknown_type, "annotation of 'payload' is unknown here: name 'Nowhere' is not defined"),
        (no_attribute, "annotation of 'payload' is unknown here: module 'json' has no attribute 'Nowhere'"),
        (no_syntax, "annotation of 'payload' is unknown here"),
        (strange, "Strange.* cannot be read from JSON"),
        (strange_inside, "Strange.* cannot be read from JSON"),
        (models, "Model.* cannot be read from JSON"),
        (tree, "Tree contains itself"),
        (injected, "'payload' would be what the client sends"),
        (yields, "has a `yield`"),
        (untagged, r"Item \| tests.* cannot be read from JSON: .*must be tagged"),
    ],
)
def test_what_cannot_be_a_handler_is_refused_by_its_name(hub: Hub, function: Callable[..., Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        hub.on("a")(function)
    assert function.__name__ in str(caught.value)
    assert "a" not in hub.node.dispatcher.routes


def test_a_struct_whose_fields_cannot_be_known_is_refused_by_the_name_of_the_handler(hub: Hub) -> None:
    class Inner(Struct):
        some_value: int

    class Outer(Struct):
        some_inner: Inner

    def handle(conn: Connection, payload: Outer) -> None: ...

    with pytest.raises(ConfigError, match=r"handle: .*Outer.* cannot be read from JSON: .*'Inner'"):
        hub.on("a")(handle)


@pytest.mark.parametrize("function", [coroutine, Handlers().coroutine_method, LaterHandler()])
def test_a_coroutine_is_not_for_a_thread(hub: Hub, function: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"is `async def`: thread=True is for a plain blocking function"):
        hub.on("a", thread=True)(function)


@pytest.mark.parametrize(
    ("function", "count"),
    [
        (lambda a: None, 1),
        (lambda a, b: None, 2),
        (lambda a, b, c: None, 3),
        (lambda a, b=1: None, 2),
        (lambda a, b, c, d=1: None, 3),
    ],
)
def test_how_many_arguments_a_function_takes(function: Callable[..., Any], count: int) -> None:
    assert takes(function, "(a) to (a, b, c)", 1, 3) == count


# --- Options ---------------------------------------------------------------------------------------------------------


async def test_a_decorated_function_stays_what_it_is(hub: Hub) -> None:
    assert hub.on("a")(plain) is plain


async def test_the_reply_may_have_a_type_of_its_own(hub: Hub) -> None:
    hub.on("a", reply="b")(conn_only)
    connection, transport = open_connection(hub)
    say(connection, "a", id="7")
    assert transport.messages == [{"type": "b", "payload": "alone", "id": "7"}]


async def test_a_type_may_be_for_users_only(hub: Hub) -> None:
    hub.on("a", auth=True)(conn_only)
    connection, transport = open_connection(hub)
    say(connection, "a", id="7")
    connection.identify("ann")
    say(connection, "a", id="8")
    refused, answered = transport.messages
    assert (refused["type"], refused["payload"]["code"], refused["id"]) == ("error", "unauthorized", "7")
    assert answered == {"type": "a_response", "payload": "alone", "id": "8"}


async def test_a_blocking_function_may_have_a_thread(hub: Hub) -> None:
    @hub.on("a", thread=True)
    def handle(conn: Connection, payload: int) -> Any:
        return [payload, threading.get_ident() != hub.node.thread]

    connection, transport = open_connection(hub)
    say(connection, "a", 5)
    assert (await transport.heard("a_response"))["payload"] == [5, True]


async def test_an_iterator_that_ends_in_a_thread_fails_the_handler_at_once(hub: Hub) -> None:
    @hub.on("a", thread=True)
    def handle(conn: Connection) -> Any:
        return next(iter(()))

    connection, transport = open_connection(hub)
    say(connection, "a")
    assert (await transport.heard("error"))["payload"]["code"] == "internal"


async def test_the_last_handler_of_a_type_counts(hub: Hub) -> None:
    hub.on("a")(lambda conn: 1)
    hub.on("a")(lambda conn: 2)
    connection, transport = open_connection(hub)
    say(connection, "a")
    assert transport.payloads("a_response") == [2]


async def test_a_built_in_type_may_be_replaced(hub: Hub) -> None:
    @hub.on("ping", reply="pong")
    async def ping(conn: Connection) -> str:
        await asyncio.sleep(0)
        return "mine"

    connection, transport = open_connection(hub)
    say(connection, "ping")
    assert (await transport.heard("pong"))["payload"] == "mine"


def test_a_dataclass_of_pydantics_names_the_field() -> None:
    with pytest.raises(RequestError, match=r"payload\.some_key: String should have at most 2 characters\.$") as caught:
        read(Short, {"someKey": SECRET})
    assert caught.value.field == "some_key"


class Bounded(TypedDict):
    amount: Annotated[int, Field(ge=1)]


@dataclass
class Purchase:
    parts: list[Bounded]


@pytest.mark.parametrize(
    "kind",
    [
        Annotated[int, Field(gt=3)],
        Annotated[str, Field(pattern="^a")],
        Annotated[int, AfterValidator(abs)],
        Annotated[list[int], Len(1)],
        Bounded,
        Purchase,
    ],
)
def test_a_check_that_nobody_would_make_is_refused(kind: Any) -> None:
    with pytest.raises(ConfigError, match=r"would not be checked: write msgspec\.Meta"):
        payload_decoder(kind)


@pytest.mark.parametrize("kind", [Annotated[int, Meta(gt=3)], Annotated[int, Field(description="how many")]])
def test_other_marks_are_welcome(kind: Any) -> None:
    assert payload_decoder(kind)(Raw(b"4")) == 4
