from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any, Literal

import pytest

from hubbub import CloseCode, Connection, Hub, Limits, RequestError, RequestTimeout, Timeouts
from hubbub.node import dispatch, node, workers
from tests.fakes import PLENTY, RecordingTransport, open_connection, say, tick

Kind = Literal["plain", "coroutine", "waiting", "thread"]
KINDS: list[Kind] = ["plain", "coroutine", "waiting", "thread"]
COROUTINES: list[Kind] = ["coroutine", "waiting"]


def handle(hub: Hub, type: str, kind: Kind, body: Callable[[Connection, Any], Any]) -> None:
    """Register `body` as a handler of one kind; a waiting one lets the loop turn before and after."""

    async def coroutine(conn: Connection, payload: Any) -> Any:
        return body(conn, payload)

    async def waiting(conn: Connection, payload: Any) -> Any:
        await tick()
        result = body(conn, payload)
        await tick()
        return result

    function = {"plain": body, "thread": body, "coroutine": coroutine, "waiting": waiting}[kind]
    hub.on(type, thread=kind == "thread")(function)


def fail(error: BaseException) -> Callable[[Connection, Any], Any]:
    """A body that raises."""

    def body(conn: Connection, payload: Any) -> Any:
        raise error

    return body


def give(result: Any) -> Callable[[Connection, Any], Any]:
    """A body that answers always the same."""
    return lambda conn, payload: result


def numbered(conn: Connection, payload: Any) -> Any:
    """A body that answers what it was given."""
    return payload


# --- One message -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_handler_returns_is_the_answer(hub: Hub, kind: Kind) -> None:
    handle(hub, "a", kind, numbered)
    connection, transport = open_connection(hub)
    say(connection, "a", {"x": 1}, id="7")
    assert await transport.heard("a_response") == {"type": "a_response", "payload": {"x": 1}, "id": "7"}


@pytest.mark.parametrize("kind", KINDS)
async def test_no_result_is_no_answer(hub: Hub, kind: Kind) -> None:
    handle(hub, "a", kind, give(None))
    handle(hub, "b", kind, numbered)
    connection, transport = open_connection(hub)
    say(connection, "a", 1)
    say(connection, "b", 2)
    await transport.heard("b_response")
    assert transport.types == ["b_response"]


async def test_an_answer_that_is_false_is_an_answer(hub: Hub) -> None:
    handle(hub, "a", "plain", numbered)
    connection, transport = open_connection(hub)
    payloads: list[Any] = [0, "", False, []]
    for payload in payloads:
        say(connection, "a", payload)
    assert transport.payloads("a_response") == payloads


# --- Order -----------------------------------------------------------------------------------------------------------


async def test_messages_of_a_connection_are_handled_in_order(hub: Hub) -> None:
    for kind in KINDS:
        handle(hub, kind, kind, numbered)
    connection, transport = open_connection(hub)
    order = [KINDS[number * 7 % 4] for number in range(40)] + ["plain", "thread", "plain", "plain", "coroutine"]
    for number, kind in enumerate(order):
        say(connection, kind, number)
    await transport.heard("coroutine_response", order.count("coroutine"))
    assert [message["payload"] for message in transport.messages] == list(range(len(order)))


async def test_connections_do_not_wait_for_each_other(hub: Hub) -> None:
    gate = asyncio.Event()

    @hub.on("wait")
    async def wait(conn: Connection) -> str:
        await gate.wait()
        return "waited"

    handle(hub, "a", "waiting", numbered)
    held = [open_connection(hub) for _ in range(200)]
    for connection, _ in held:
        say(connection, "wait")
    connection, transport = open_connection(hub)
    say(connection, "a", 1)
    await transport.heard("a_response")
    assert not any(waiting.messages for _, waiting in held)
    gate.set()
    for _, waiting in held:
        await waiting.heard("wait_response")


async def test_pings_do_not_wait(hub: Hub) -> None:
    gate = asyncio.Event()

    @hub.on("wait")
    async def wait(conn: Connection) -> str:
        await gate.wait()
        return "waited"

    connection, transport = open_connection(hub)
    say(connection, "wait")
    say(connection, "echo", 1)
    say(connection, "ping", id="7")
    await tick(3)
    assert transport.messages == [{"type": "pong", "id": "7"}]
    gate.set()
    await transport.heard("echo_response")
    assert transport.types == ["pong", "wait_response", "echo_response"]


@pytest.mark.parametrize("kind", ["plain", "coroutine", "waiting"])
async def test_thousands_of_waiting_messages_neither_recurse_nor_hold_the_loop(kind: Kind) -> None:
    async with Hub(limits=Limits(in_flight=100_000, send_queue=1 << 30), rates=PLENTY).running() as hub:
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1
            asyncio.get_running_loop().call_soon(turn)

        handle(hub, "first", "waiting", numbered)
        handle(hub, "a", kind, numbered)
        connection, transport = open_connection(hub)
        say(connection, "first", 0)
        for number in range(5000):
            say(connection, "a", number)
        turn()
        while len(transport.writes) < 5002:
            await tick()
        assert transport.payloads("a_response") == list(range(5000))
        assert turns > (1 if kind == "plain" else 50)


# --- How much is in flight -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_flight", [2, 4, 16])
async def test_reading_pauses_at_the_bound_and_goes_on_below(in_flight: int) -> None:
    async with Hub(limits=Limits(in_flight=in_flight)).running() as hub:
        gates = [asyncio.Event() for _ in range(in_flight + 1)]

        @hub.on("wait")
        async def wait(conn: Connection, payload: int) -> int:
            await gates[payload].wait()
            return payload

        connection, transport = open_connection(hub)
        for number in range(in_flight):
            assert transport.reading
            say(connection, "wait", number)
        assert not transport.reading
        say(connection, "wait", in_flight)  # it was on its way already
        gates[0].set()
        await transport.heard("wait_response")
        assert not transport.reading
        gates[1].set()
        await transport.heard("wait_response", 2)
        assert transport.reading
        for gate in gates:
            gate.set()
        await transport.heard("wait_response", in_flight + 1)
        assert transport.payloads("wait_response") == list(range(in_flight + 1))


async def test_with_one_in_flight_reading_goes_on_when_nothing_waits() -> None:
    async with Hub(limits=Limits(in_flight=1)).running() as hub:
        handle(hub, "a", "waiting", numbered)
        connection, transport = open_connection(hub)
        for number in range(4):
            say(connection, "a", number)
        assert not transport.reading
        await transport.heard("a_response", 4)
        assert transport.reading


async def test_a_connection_that_goes_while_it_is_held_back(hub: Hub) -> None:
    @hub.on("wait")
    async def wait(conn: Connection) -> None:
        await asyncio.Event().wait()

    connection, transport = open_connection(hub)
    for _ in range(20):
        say(connection, "wait")
    assert not transport.reading
    await tick()
    connection.lost(CloseCode.ABNORMAL, "")
    await tick(3)
    assert hub.connection_count == 0


@pytest.mark.parametrize("before", [0, 1, 5], ids=lambda count: f"{count} messages waiting")
async def test_a_handler_may_ask_whatever_is_in_flight(before: int) -> None:
    async with Hub(limits=Limits(in_flight=1)).running() as hub:
        begin = asyncio.Event()

        @hub.on("ask")
        async def ask(conn: Connection) -> Any:
            await begin.wait()
            return [await conn.request("first"), await conn.request("second")]

        handle(hub, "a", "plain", numbered)
        connection, transport = open_connection(hub)
        say(connection, "ask")
        for number in range(before):
            say(connection, "a", number)
        assert transport.reading == (before == 0)
        begin.set()
        for count in (1, 2):
            question = await transport.heard("request", count)
            assert transport.reading
            say(connection, "a", 10 + count)
            assert transport.reading
            say(connection, "response", count, question["id"])
        assert (await transport.heard("ask_response"))["payload"] == [1, 2]
        await tick(3)
        assert transport.payloads("a_response") == [*range(before), 11, 12]
        assert transport.reading


async def test_what_comes_while_a_handler_asks_is_bounded_too() -> None:
    async with Hub(limits=Limits(in_flight=1), rates=PLENTY).running() as hub:

        @hub.on("ask")
        async def ask(conn: Connection) -> Any:
            try:
                return await conn.request("question", timeout=0.01)
            except RequestTimeout:
                return "no answer"

        connection, transport = open_connection(hub)
        say(connection, "ask")
        await transport.heard("request")
        for _ in range(2000):
            if transport.reading:
                say(connection, "echo", 1)
        assert not transport.reading
        await transport.heard("ask_response")
        await tick(3)
        assert transport.reading


# --- What goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_handler_may_say_no(hub: Hub, kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    handle(hub, "a", kind, fail(RequestError("sold_out", "None left.", "items[0]")))
    connection, transport = open_connection(hub)
    say(connection, "a", 1, id="7")
    assert await transport.heard("error") == {
        "type": "error",
        "payload": {"code": "sold_out", "message": "None left.", "field": "items[0]"},
        "id": "7",
    }
    assert not caplog.records


async def test_a_task_of_a_handler_may_say_no(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    async def refuse() -> None:
        raise RequestError("sold_out", "None left.")

    @hub.on("a")
    async def handler(conn: Connection, tasks: int) -> None:
        async with asyncio.TaskGroup() as outer, asyncio.TaskGroup() as group:
            outer.create_task(asyncio.sleep(0))
            for _ in range(tasks):
                group.create_task(refuse())

    connection, transport = open_connection(hub)
    say(connection, "a", 1)
    assert (await transport.heard("error"))["payload"] == {"code": "sold_out", "message": "None left."}
    assert not caplog.records
    say(connection, "a", 2)  # which of two answers it is, is not ours to choose
    assert (await transport.heard("error", 2))["payload"]["code"] == "internal"
    assert "2 sub-exceptions" in caplog.text


class Odd(BaseException):
    """Not an `Exception`, and none of Python's own."""


class Unspeakable(Exception):
    """An error that cannot even be shown."""

    def __str__(self) -> str:
        raise ValueError("no words")


FAILURES: dict[str, Callable[[Connection, Any], Any]] = {
    "an error": fail(ValueError("s3cret")),
    "a cancelled future": fail(asyncio.CancelledError()),
    "an odd exception": fail(Odd()),
    "an error without words": fail(Unspeakable()),
    "a result without JSON": give(object()),
    "a result that is not text": give("\ud800"),
    "a no without JSON": fail(RequestError("no", object())),  # type: ignore[arg-type]  # the mistake
    "a no that is not text": fail(RequestError("no", "\ud800")),
    "a time out of its own": fail(TimeoutError()),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", FAILURES.values(), ids=FAILURES.keys())
async def test_a_failure_is_answered_with_a_reference_to_the_log(
    hub: Hub, kind: Kind, body: Callable[[Connection, Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    handle(hub, "a", kind, body)
    handle(hub, "b", "plain", numbered)
    connection, transport = open_connection(hub)
    say(connection, "a", 1, id="7")
    say(connection, "b", 2)
    error = await transport.heard("error")
    assert (error["payload"]["code"], error["id"]) == ("internal", "7")
    assert "s3cret" not in json.dumps(transport.messages)
    reference = error["payload"]["message"].rstrip(".").rpartition(" ")[2]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("hubbub.dispatch", logging.ERROR)
    assert reference in record.getMessage()
    assert record.exc_info is not None
    assert connection.is_open
    await transport.heard("b_response")


@pytest.mark.parametrize("kind", KINDS)
async def test_the_log_names_the_handler_that_failed(hub: Hub, kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    handle(hub, "order", kind, give(object()))
    connection, transport = open_connection(hub)
    say(connection, "order", 1)
    await transport.heard("error")
    assert "'order'" in caplog.text


async def test_a_plain_function_that_gives_a_coroutine_is_named(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    async def later() -> int:
        return 1

    hub.on("order")(lambda conn: later())
    connection, transport = open_connection(hub)
    say(connection, "order")
    assert (await transport.heard("error"))["payload"]["code"] == "internal"
    assert "coroutine" in caplog.text
    assert "'order'" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=["SystemExit", "KeyboardInterrupt"])
def test_an_exit_ends_the_loop(kind: Kind, error: BaseException) -> None:
    async def main() -> None:
        hub = Hub()
        hub.start()
        handle(hub, "a", kind, fail(error))
        connection, transport = open_connection(hub)
        say(connection, "a", 1)
        await transport.heard("never")

    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(lambda loop, context: None)  # that a task raised it
        with pytest.raises(type(error)):
            runner.run(main())


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"no json", "bad_json"),
        (b"[" * 50, "bad_json"),
        (b"[]", "bad_envelope"),
        (b'{"type":"a","id":5}', "bad_envelope"),
        (b'{"type":5}', "unknown_type"),
        (b'{"type":"nobody","id":"7"}', "unknown_type"),
        (b'{"type":"a","payload":"x","id":"7"}', "invalid_payload"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_what_cannot_be_handled_is_answered(hub: Hub, text: bytes, code: str) -> None:
    @hub.on("a")
    def a(conn: Connection, payload: int) -> None: ...

    connection, transport = open_connection(hub)
    connection.receive_text(text)
    (error,) = transport.messages
    assert (error["type"], error["payload"]["code"]) == ("error", code)
    assert error.get("id") == ("7" if b'"7"' in text else None)
    assert connection.is_open


async def test_too_much_that_is_not_json_ends_it(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    for text in (b"no", b"[]", b"no", b'{"type":"ping"}', b'{"type":5}', b"no", b"no"):
        connection.receive_text(text)
    assert connection.is_open
    connection.receive_text(b"no")
    assert transport.closes == [(4500, "too many messages that are not JSON")]
    assert transport.payloads("error")[-1]["code"] == "bad_json"


@pytest.mark.parametrize("end", ["close", "close_received"])
async def test_what_comes_after_the_goodbye_is_ignored(hub: Hub, end: str) -> None:
    calls: list[Any] = []
    hub.on("a")(lambda conn: calls.append(1))
    connection, transport = open_connection(hub)
    getattr(connection, end)(1000, "")
    say(connection, "a")
    connection.receive_binary(b"x")
    assert (calls, transport.messages) == ([], [])


# --- Time ------------------------------------------------------------------------------------------------------------


def later(seconds: float) -> float:
    """So many seconds from now."""
    return time.monotonic() + seconds


async def test_a_handler_that_takes_too_long_is_stopped(hub: Hub) -> None:
    ended: list[str] = []

    @hub.on("wait")
    async def wait(conn: Connection) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")

    connection, transport = open_connection(hub)
    say(connection, "wait", id="7")
    say(connection, "echo", 1)
    await tick(2)
    hub.node.beat(later(29))
    await tick(3)
    assert transport.messages == []
    hub.node.beat(later(31))
    hub.node.beat(later(32))
    await transport.heard("echo_response")
    error = transport.messages[0]
    assert (error["type"], error["payload"]["code"], error["id"]) == ("error", "timeout", "7")
    assert error["payload"]["message"] == "'wait' took longer than 30 s and was stopped."
    assert ended == ["cleaned up"]
    assert (await hub.stats())["handlerTimeouts"] == 1


async def test_a_handler_that_will_not_be_stopped_at_once_gets_no_second_answer(hub: Hub) -> None:
    ended: list[str] = []

    @hub.on("wait")
    async def wait(conn: Connection) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await tick(3)
        ended.append("by myself")
        return "ended by myself"

    connection, transport = open_connection(hub)
    say(connection, "wait")
    say(connection, "echo", 1)
    await tick(2)
    hub.node.beat(later(31))
    await tick(2)
    hub.node.beat(later(32))
    await transport.heard("echo_response")
    assert transport.types == ["error", "echo_response"]
    assert ended == ["by myself"]


async def test_time_counts_from_the_start_of_a_handler(hub: Hub) -> None:
    gates = [asyncio.Event() for _ in range(2)]

    @hub.on("wait")
    async def wait(conn: Connection, payload: int) -> str:
        await gates[payload].wait()
        return "in time"

    connection, transport = open_connection(hub)
    say(connection, "wait", 0)
    say(connection, "wait", 1)
    await tick(2)
    gates[0].set()
    await transport.heard("wait_response")
    await tick(2)
    hub.node.beat(later(20))
    gates[1].set()
    await transport.heard("wait_response", 2)
    assert transport.types == ["wait_response"] * 2


@pytest.mark.parametrize("kind", ["coroutine", "waiting"])
async def test_a_handler_may_have_a_deadline_of_its_own(hub: Hub, kind: Kind) -> None:
    @hub.on("a")
    async def a(conn: Connection) -> str:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        except TimeoutError:
            return "my own"
        return "none"

    connection, transport = open_connection(hub)
    say(connection, "a")
    assert (await transport.heard("a_response"))["payload"] == "my own"
    assert hub.node.timed_out == 0


async def test_a_plain_handler_that_holds_the_loop_is_named(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @hub.on("a")
    def slow_one(conn: Connection) -> None: ...

    @hub.on("b")
    async def coroutine(conn: Connection) -> None: ...

    connection, _ = open_connection(hub)
    say(connection, "a")
    say(connection, "b")
    assert not caplog.records
    monkeypatch.setattr(dispatch, "SLOW", -1.0)
    say(connection, "a")
    say(connection, "b")
    await tick(2)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "slow_one" in record.getMessage()
    assert "make it async, or thread=True" in record.getMessage()


# --- The end of the connection ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", COROUTINES)
async def test_a_handler_is_cancelled_when_its_connection_goes(
    hub: Hub, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[str] = []

    @hub.on("wait")
    async def wait(conn: Connection, payload: Any) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            events.append(f"cancelled while {conn.state.name}")
            raise
        return "never"

    connection, transport = open_connection(hub)
    say(connection, "wait", 1)
    say(connection, "wait", 2)
    await tick(2)
    connection.lost(CloseCode.ABNORMAL, "")
    await tick(3)
    assert events == ["cancelled while CLOSED"]
    assert transport.messages == []
    assert not caplog.records
    assert not hub.node.dispatcher.workers.waiting


async def test_a_handler_that_did_not_begin_never_does(hub: Hub) -> None:
    calls: list[Any] = []

    @hub.on("a")
    async def a(conn: Connection) -> None:
        calls.append(conn)

    connection, _ = open_connection(hub)
    say(connection, "a")
    connection.lost(CloseCode.ABNORMAL, "")
    await tick(3)
    assert calls == []


async def test_a_handler_may_close_its_own_connection(hub: Hub) -> None:
    @hub.on("bye")
    async def bye(conn: Connection) -> str:
        conn.close(4500, "as you wish")
        await tick(3)
        return "never sent"

    connection, transport = open_connection(hub)
    say(connection, "bye")
    await tick(4)
    assert transport.closes == [(4500, "as you wish")]
    assert transport.messages == []
    assert hub.connection_count == 0


async def test_what_waits_behind_a_goodbye_is_not_handled(hub: Hub) -> None:
    calls: list[Any] = []

    @hub.on("bye")
    async def bye(conn: Connection) -> None:
        conn.close()

    hub.on("a")(lambda conn: calls.append("handled"))
    connection, _ = open_connection(hub, transport=RecordingTransport(polite=False))
    say(connection, "bye")
    say(connection, "a")
    await tick(3)
    assert connection.state.name == "CLOSING"
    assert calls == []


async def test_a_handler_that_fails_behind_the_goodbye_is_in_the_log(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    @hub.on("a")
    async def a(conn: Connection) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("late")

    connection, _ = open_connection(hub)
    say(connection, "a")
    await tick(2)
    connection.lost(CloseCode.ABNORMAL, "")
    await tick(3)
    assert "late" in caplog.text


@pytest.mark.parametrize("swallows", [False, True], ids=["gives in", "goes on"])
async def test_at_shutdown_handlers_have_until_its_end(swallows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "LAST_HOOKS", 0.02)
    events: list[str] = []
    hub = Hub(timeouts=Timeouts(shutdown=0.02))
    async with hub.running():

        @hub.on_close
        async def closed(conn: Connection) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                events.append("cancelled")
                if not swallows:
                    raise

        open_connection(hub)
    assert events == ["cancelled"]


async def test_a_handler_that_never_ends_does_not_hold_up_shutdown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(node, "LAST_HOOKS", 0.02)
    monkeypatch.setattr(workers, "STUBBORN", 0.02)
    over = asyncio.Event()
    hub = Hub(timeouts=Timeouts(shutdown=0.02))

    @hub.on_close
    async def closed(conn: Connection) -> None:
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                continue

    hub.start()
    open_connection(hub)
    try:
        async with asyncio.timeout(1):
            await hub.shutdown()
        assert not hub.node.running
        assert "do not let themselves be cancelled" in caplog.text
    finally:
        over.set()
        await tick(3)
