from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from hubbub import CloseCode, ConfigError, Connection, Handshake, Hub, Message, RequestError
from tests.fakes import SCOPE, RecordingTransport, open_connection, say, tick

NAMES = ["on_connect", "on_message", "on_binary", "on_close", "on_error"]


def happen(hub: Hub, name: str) -> tuple[Connection, RecordingTransport]:
    """Do what calls the hooks of one kind."""
    connection, transport = open_connection(hub, transport=RecordingTransport(polite=False))
    if name == "on_message":
        say(connection, "unheard of", id="7")
    elif name == "on_binary":
        connection.receive_binary(b"x")
    elif name == "on_close":
        connection.lost(CloseCode.ABNORMAL, "")
    elif name == "on_error":
        hub.on("fails")(fails)
        say(connection, "fails")
    return connection, transport


def fails(conn: Connection) -> None:
    raise ValueError("s3cret")


def register(hub: Hub, name: str, waits: bool, body: Callable[[], None]) -> None:
    """A hook of any kind, plain or a coroutine that waits."""

    async def one(conn: Connection) -> None:
        await tick()
        body()

    async def two(conn: Connection, more: Any) -> None:
        await one(conn)

    alone = name in ("on_connect", "on_close")
    plain: Any = (lambda conn: body()) if alone else (lambda conn, more: body())
    getattr(hub, name)((one if alone else two) if waits else plain)


# --- What they are given ---------------------------------------------------------------------------------------------


async def test_a_new_connection_and_its_handshake(hub: Hub) -> None:
    seen: list[Any] = []

    @hub.on_connect
    def both(conn: Connection, handshake: Handshake) -> None:
        seen.append((conn.id, conn.is_open, handshake.header("Host"), handshake.client))

    @hub.on_connect
    def alone(conn: Connection) -> None:
        conn.send("hello")

    connection, transport = open_connection(hub)
    assert seen == [(connection.id, True, "testserver", "127.0.0.1")]
    assert transport.types == ["hello"]


async def test_a_handshake_knows_its_headers() -> None:
    handshake = Handshake({**SCOPE, "headers": [(b"x-a", b"\xfc"), (b"x-a", b"2")], "client": None})
    assert (handshake.header("X-A"), handshake.header("x-b"), handshake.client) == ("ü", None, None)


async def test_a_message_nobody_handles(hub: Hub) -> None:
    seen: list[Message] = []

    @hub.on_message
    def keep(conn: Connection, message: Message) -> None:
        seen.append(message)

    connection, transport = open_connection(hub)
    before = time.time() * 1000
    say(connection, "unheard of", {"a": [1]}, id="7")
    say(connection, "nothing with it")
    say(connection, "echo", 1)
    assert [(each.type, each.payload, each.id) for each in seen] == [
        ("unheard of", {"a": [1]}, "7"),
        ("nothing with it", None, None),
    ]
    assert before - 1 <= seen[0].timestamp <= time.time() * 1000
    assert transport.types == ["echo_response"]


async def test_a_message_that_cannot_be_read_is_not_given_to_them(hub: Hub) -> None:
    seen: list[Any] = []
    hub.on_message(lambda conn, message: seen.append(message))
    connection, transport = open_connection(hub)
    connection.receive_text(b'{"type":"a","payload":1e999,"id":"7"}')
    (error,) = transport.messages
    assert (error["payload"]["code"], error["payload"]["field"], error["id"]) == ("bad_json", "payload", "7")
    assert seen == []


async def test_without_such_a_hook_an_unknown_type_is_an_error(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    say(connection, "unheard of", id="7")
    (error,) = transport.messages
    assert (error["payload"]["code"], error["payload"]["field"], error["id"]) == ("unknown_type", "type", "7")
    assert "unheard of" not in error["payload"]["message"]


async def test_a_binary_message(hub: Hub) -> None:
    seen: list[bytes] = []
    hub.on_binary(lambda conn, data: seen.append(data))
    connection, _ = open_connection(hub)
    connection.receive_binary(b"\0\xff")
    assert seen == [b"\0\xff"]


async def test_without_such_a_hook_a_binary_message_ends_it(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    connection.receive_binary(b"x")
    assert transport.closes == [(1003, "text messages only")]


@pytest.mark.parametrize(
    ("take", "given"),
    [
        (lambda seen: lambda conn: seen.append(conn.state.name), ["CLOSED"]),
        (lambda seen: lambda conn, code: seen.append(code), [4500]),
        (lambda seen: lambda conn, code, reason: seen.append((code, reason)), [(4500, "enough")]),
    ],
    ids=["connection", "code", "reason"],
)
async def test_the_end_of_a_connection(hub: Hub, take: Any, given: list[Any]) -> None:
    seen: list[Any] = []
    hub.on_close(take(seen))
    connection, _ = open_connection(hub)
    connection.close(4500, "enough")
    assert seen == []
    await tick()
    assert seen == given


async def test_an_error_of_a_handler(hub: Hub) -> None:
    seen: list[Any] = []
    hub.on_error(lambda conn, error: seen.append((conn, repr(error))))
    connection, _ = happen(hub, "on_error")
    assert seen == [(connection, "ValueError('s3cret')")]


async def test_a_no_is_no_error(hub: Hub) -> None:
    seen: list[Any] = []
    hub.on_error(lambda conn, error: seen.append(error))

    @hub.on("a")
    def no(conn: Connection) -> None:
        raise RequestError("no", "No.")

    connection, _ = open_connection(hub)
    say(connection, "a")
    assert seen == []


# --- Order -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kinds", [[False] * 3, [True] * 3, [False, True, False], [True, False, True]], ids=str)
async def test_hooks_run_in_the_order_they_were_registered(hub: Hub, name: str, kinds: list[bool]) -> None:
    order: list[int] = []
    for number, waits in enumerate(kinds):
        register(hub, name, waits, functools.partial(order.append, number))
    happen(hub, name)
    await tick(8)
    assert order == list(range(len(kinds)))


@pytest.mark.parametrize("name", ["on_connect", "on_message", "on_binary"])
async def test_messages_wait_for_a_hook_that_waits(hub: Hub, name: str) -> None:
    order: list[str] = []
    register(hub, name, True, lambda: order.append("hook"))

    @hub.on("a")
    def a(conn: Connection) -> None:
        order.append("message")

    connection, _ = happen(hub, name)
    say(connection, "a")
    connection.receive_text(b'{"type":"ping"}')
    assert order == []
    await tick(4)
    assert order == ["hook", "message"]


async def test_texts_and_binary_messages_keep_their_order(hub: Hub) -> None:
    order: list[Any] = []

    @hub.on_binary
    async def binary(conn: Connection, data: bytes) -> None:
        await tick()
        order.append(data)

    @hub.on_message
    async def message(conn: Connection, message: Message) -> None:
        await tick()
        order.append(message.payload)

    hub.on("plain")(lambda conn, payload: order.append(payload))
    connection, _ = open_connection(hub)
    for number in range(0, 12, 3):
        connection.receive_binary(bytes([number]))
        say(connection, "plain", number + 1)
        say(connection, "unheard of", number + 2)
    await tick(60)
    assert order == [bytes([number]) if number % 3 == 0 else number for number in range(12)]


async def test_thousands_of_unhandled_messages_do_not_recurse(hub: Hub) -> None:
    seen: list[int] = []

    @hub.on_message
    async def keep(conn: Connection, message: Message) -> None:
        seen.append(message.payload)

    connection, _ = open_connection(hub)
    for number in range(5000):
        say(connection, "unheard of", number)
    await tick(300)
    assert seen == list(range(5000))


async def test_the_end_of_one_connection_waits_for_nobody(hub: Hub) -> None:
    gate = asyncio.Event()
    seen: list[str] = []

    @hub.on_close
    async def closed(conn: Connection) -> None:
        await gate.wait()
        seen.append(conn.id)

    connections = [open_connection(hub)[0] for _ in range(100)]
    for connection in connections:
        connection.lost(CloseCode.ABNORMAL, "")
    assert hub.connection_count == 0
    await tick(3)
    gate.set()
    await tick(3)
    assert sorted(seen) == sorted(connection.id for connection in connections)


variable: ContextVar[str] = ContextVar("variable", default="clean")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("waits", [False, True], ids=["plain", "coroutine"])
async def test_context_variables_do_not_leak(hub: Hub, name: str, waits: bool) -> None:
    seen: list[str] = []

    def look_and_set() -> None:
        seen.append(variable.get())
        variable.set("dirty")

    register(hub, name, waits, look_and_set)
    for _ in range(3):
        happen(hub, name)
        await tick(4)
    assert seen == ["clean"] * 3
    assert variable.get() == "clean"


# --- What goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("waits", [False, True], ids=["plain", "coroutine"])
async def test_a_hook_that_fails_does_not_stop_the_others(
    hub: Hub, name: str, waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    def fail() -> None:
        raise ValueError("s3cret")

    register(hub, name, waits, fail)
    register(hub, name, waits, lambda: seen.append("the other"))
    connection, transport = happen(hub, name)
    await tick(6)
    assert seen == ["the other"]
    assert "s3cret" in caplog.text
    if name == "on_close":
        assert transport.messages == []
    else:
        assert [error["payload"]["code"] for error in transport.messages] == ["internal"]
        assert "s3cret" not in str(transport.messages)
        assert connection.is_open


@pytest.mark.parametrize("waits", [False, True], ids=["plain", "coroutine"])
@pytest.mark.parametrize("error", [ValueError("x"), RequestError("no", "No.")], ids=["failure", "no"])
async def test_what_a_message_hook_raises_carries_the_id(hub: Hub, waits: bool, error: Exception) -> None:
    def fail() -> None:
        raise error

    register(hub, "on_message", waits, fail)
    _, transport = happen(hub, "on_message")
    answer = await transport.heard("error")
    assert answer["id"] == "7"
    assert answer["payload"]["code"] == ("no" if isinstance(error, RequestError) else "internal")


@pytest.mark.parametrize("name", ["on_connect", "on_message", "on_binary", "on_close"])
@pytest.mark.parametrize("waits", [False, True], ids=["plain", "coroutine"])
async def test_on_error_hears_of_hooks_that_fail(hub: Hub, name: str, waits: bool) -> None:
    seen: list[str] = []
    hub.on_error(lambda conn, error: seen.append(repr(error)))

    def fail() -> None:
        raise ValueError("x")

    register(hub, name, waits, fail)
    happen(hub, name)
    await tick(4)
    assert seen == ["ValueError('x')"]


@pytest.mark.parametrize("waits", [False, True], ids=["plain", "coroutine"])
@pytest.mark.parametrize(
    "error", [asyncio.CancelledError(), RequestError("no", "\ud800")], ids=["cancelled", "no text"]
)
async def test_an_odd_end_of_a_hook_leaves_the_connection(hub: Hub, waits: bool, error: BaseException) -> None:
    def fail() -> None:
        raise error

    register(hub, "on_message", waits, fail)
    connection, transport = happen(hub, "on_message")
    say(connection, "unheard of")
    say(connection, "echo", 1)
    await transport.heard("echo_response")


async def test_a_hook_that_takes_too_long_is_stopped(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    @hub.on_connect
    async def never(conn: Connection) -> None:
        await asyncio.Event().wait()

    connection, transport = open_connection(hub)
    say(connection, "echo", 1)
    await tick(2)
    hub.node.beat(time.monotonic() + 31)
    await transport.heard("echo_response")
    assert transport.types == ["error", "echo_response"]
    assert "on_connect took too long" in caplog.text


async def test_a_connection_that_goes_while_it_is_greeted(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    @hub.on_connect
    async def greet(conn: Connection) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("greeted")

    hub.on_close(lambda conn: seen.append("closed"))
    connection, transport = open_connection(hub)
    say(connection, "echo", 1)
    await tick(2)
    connection.lost(CloseCode.ABNORMAL, "")
    await tick(3)
    assert sorted(seen) == ["closed", "greeted"]
    assert transport.messages == []
    assert not caplog.records


async def test_a_hook_may_close_the_connection_it_is_given(hub: Hub) -> None:
    @hub.on_connect
    def refuse(conn: Connection) -> None:
        conn.close(CloseCode.FORBIDDEN, "not you")

    _, transport = open_connection(hub)
    assert transport.closes == [(4503, "not you")]
    await tick()
    assert hub.connection_count == 0


async def test_each_open_has_its_close() -> None:
    hub = Hub()
    opened: list[str] = []
    closed: list[str] = []
    hub.on_connect(lambda conn: opened.append(conn.id))
    hub.on_close(lambda conn: closed.append(conn.id))
    async with hub.running():
        open_connection(hub)
        stopping = asyncio.create_task(hub.shutdown())
        await tick()
        late, transport = open_connection(hub)
        assert transport.closes == [(1001, "the server stops")]
        assert not late.is_open
        await stopping
    assert opened == closed
    assert len(opened) == 1


# --- Signatures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "function", "form"),
    [
        ("on_connect", lambda: None, r"\(conn\) or \(conn, handshake\)"),
        ("on_connect", lambda a, b, c: None, r"\(conn\) or \(conn, handshake\)"),
        ("on_message", lambda conn: None, r"\(conn, message\)"),
        ("on_binary", lambda conn: None, r"\(conn, data\)"),
        ("on_close", lambda a, b, c, d: None, r"\(conn\) or \(conn, code, reason\)"),
        ("on_error", lambda conn: None, r"\(conn, error\)"),
        ("on_error", lambda conn, error, *, more: None, r"\(conn, error\)"),
    ],
)
def test_a_hook_with_other_arguments_is_refused(name: str, function: Any, form: str) -> None:
    with pytest.raises(ConfigError, match=f"<lambda> must take {form}"):
        getattr(Hub(), name)(function)


class Greeter:
    """An object as a hook."""

    async def __call__(self, conn: Connection) -> None:
        await tick()
        conn.send("hello", "object")

    async def method(self, conn: Connection) -> None:
        conn.send("hello", "method")


async def greet(greeting: str, conn: Connection) -> None:
    conn.send("hello", greeting)


@pytest.mark.parametrize(
    ("function", "greeting"),
    [(Greeter(), "object"), (Greeter().method, "method"), (functools.partial(greet, "partial"), "partial")],
    ids=["object", "method", "partial"],
)
async def test_whatever_can_be_called_is_a_hook(hub: Hub, function: Any, greeting: str) -> None:
    assert hub.on_connect(function) is function
    _, transport = open_connection(hub)
    assert (await transport.heard("hello"))["payload"] == greeting


def undecorated(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that is not made for coroutines."""

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args)

    return call


async def test_a_coroutine_that_nobody_awaits_is_an_error(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    @hub.on_connect
    @undecorated
    async def check_in(conn: Connection) -> None:
        conn.send("never")

    _, transport = open_connection(hub)
    assert (await transport.heard("error"))["payload"]["code"] == "internal"
    assert "check_in was not awaited" in caplog.text


async def test_a_hook_that_yields_is_refused(hub: Hub) -> None:
    async def check_in(conn: Connection) -> AsyncIterator[None]:
        yield

    with pytest.raises(ConfigError, match="check_in has a `yield`"):
        hub.on_connect(check_in)
