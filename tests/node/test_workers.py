from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from hubbub import Connection, Hub
from hubbub.node.workers import Job, Workers
from tests.fakes import open_connection, say, tick

variable: ContextVar[str] = ContextVar("variable", default="clean")

Body = Callable[[], Coroutine[Any, Any, Any]]


class Call(Job):
    """A job that keeps how it ended."""

    __slots__ = ("ends",)

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        super().__init__(call, *args)
        self.ends: list[tuple[Any, Any]] = []

    def done(self, result: Any, error: BaseException | None) -> None:
        """Keep it."""
        self.ends.append((result, error))


async def answer_of(hub: Hub, body: Body) -> Any:
    """What a client is answered by a handler with this body."""

    @hub.on("a")
    async def handler(conn: Connection) -> Any:
        return await body()

    connection, transport = open_connection(hub)
    say(connection, "a")
    return (await transport.heard("a_response"))["payload"]


# --- A handler's task is a task --------------------------------------------------------------------------------------


async def own_task() -> Any:
    task = asyncio.current_task()
    await tick()
    return task is not None and asyncio.current_task() is task and not task.done()


async def timeout_that_fires() -> Any:
    try:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()
    except TimeoutError:
        return True


async def timeout_at_once() -> Any:
    try:
        async with asyncio.timeout(0):
            await tick()
    except TimeoutError:
        return True


async def timeout_that_does_not() -> Any:
    async with asyncio.timeout(5):
        await tick()
    return True


async def wait_for() -> Any:
    try:
        await asyncio.wait_for(asyncio.Event().wait(), 0.001)
    except TimeoutError:
        return True


async def task_group() -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.sleep(0, number)) for number in range(3)]
    return [task.result() for task in tasks] == [0, 1, 2]


async def task_group_that_fails() -> Any:
    async def fail() -> None:
        raise ValueError

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await asyncio.Event().wait()
    except* ValueError:
        pass
    await tick()
    return True


async def gather() -> Any:
    return sum(await asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2))) == 3


async def to_thread() -> Any:
    return await asyncio.to_thread(threading.get_ident) != threading.get_ident()


async def anyio_timeout() -> Any:
    with anyio.move_on_after(0.001) as scope:
        await anyio.sleep_forever()
    return scope.cancelled_caught


async def anyio_timeout_that_does_not() -> Any:
    with anyio.move_on_after(5) as scope:
        await anyio.lowlevel.checkpoint()
    return not scope.cancelled_caught


async def anyio_task_group() -> Any:
    found = []

    async def put(number: int) -> None:
        await anyio.lowlevel.checkpoint()
        found.append(number)

    async with anyio.create_task_group() as group:
        group.start_soon(put, 1)
        group.start_soon(put, 2)
    return found == [1, 2]


async def anyio_cancel() -> Any:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        group.cancel_scope.cancel()
    await tick()
    return True


async def anyio_thread() -> Any:
    return await anyio.to_thread.run_sync(threading.get_ident) != threading.get_ident()


BODIES = [
    own_task,
    timeout_that_fires,
    timeout_at_once,
    timeout_that_does_not,
    wait_for,
    task_group,
    task_group_that_fails,
    gather,
    to_thread,
    anyio_timeout,
    anyio_timeout_that_does_not,
    anyio_task_group,
    anyio_cancel,
    anyio_thread,
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
async def test_whatever_needs_a_task_works_in_a_handler(hub: Hub, body: Body) -> None:
    assert await answer_of(hub, body) is True


async def test_all_of_it_one_after_the_other_and_at_once(hub: Hub) -> None:
    for number, body in enumerate(BODIES):

        @hub.on(f"{number}", reply="done")
        async def handler(conn: Connection, body: Any = body) -> Any:
            return await bodies[id(conn)]()

    bodies: dict[int, Body] = {}
    transports = []
    for number, body in enumerate(BODIES * 5):
        connection, transport = open_connection(hub)
        bodies[id(connection)] = body
        say(connection, f"{number % len(BODIES)}", None)
        transports.append(transport)
    for transport in transports:
        assert (await transport.heard("done"))["payload"] is True


async def test_handlers_that_do_not_wait_share_a_task(hub: Hub) -> None:
    tasks = []

    @hub.on("a")
    async def handler(conn: Connection) -> None:
        tasks.append(asyncio.current_task())

    for _ in range(10):
        connection, _ = open_connection(hub)
        say(connection, "a")
    await tick(3)
    assert len(tasks) == 10
    assert len(set(tasks)) == 1


async def test_handlers_that_wait_have_a_task_each(hub: Hub) -> None:
    tasks = []

    @hub.on("a")
    async def handler(conn: Connection) -> None:
        tasks.append(asyncio.current_task())
        await tick()

    for _ in range(10):
        connection, _ = open_connection(hub)
        say(connection, "a")
    await tick(30)
    assert len(set(tasks)) == len(tasks) == 10


# --- Nothing leaks into the next -------------------------------------------------------------------------------------


async def set_and_return() -> None:
    variable.set("dirty")


async def set_and_wait() -> None:
    variable.set("dirty")
    await tick(2)


async def wait_and_set() -> None:
    await tick(2)
    variable.set("dirty")


async def set_and_fail() -> None:
    variable.set("dirty")
    raise ValueError


def set_plainly() -> None:
    variable.set("dirty")


@pytest.mark.parametrize("other", [False, True], ids=["same connection", "other connection"])
@pytest.mark.parametrize("reader", ["plain", "coroutine", "thread"])
@pytest.mark.parametrize(
    "writer", [set_and_return, set_and_wait, wait_and_set, set_and_fail, set_plainly], ids=lambda body: body.__name__
)
async def test_context_variables_do_not_leak(
    hub: Hub, writer: Any, reader: str, other: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def write(conn: Connection) -> None:
        await writer()

    hub.on("write")((lambda conn: writer()) if writer is set_plainly else write)

    def read(conn: Connection) -> str:
        return variable.get()

    async def read_later(conn: Connection) -> str:
        return variable.get()

    hub.on("read", thread=reader == "thread")(read_later if reader == "coroutine" else read)
    first, _ = open_connection(hub)
    second, transport = open_connection(hub) if other else (first, _)
    for _ in range(3):
        say(first, "write")
        say(second, "read")
    await transport.heard("read_response", 3)
    assert transport.payloads("read_response") == ["clean"] * 3
    assert variable.get() == "clean"


async def test_a_handler_does_not_see_who_happened_to_wake_it(hub: Hub) -> None:
    seen = []

    @hub.on("a")
    async def handler(conn: Connection) -> None:
        seen.append(variable.get())

    async def serve(number: int) -> None:
        variable.set(f"the request of {number}")
        connection, _ = open_connection(hub)
        say(connection, "a")

    await asyncio.gather(*(serve(number) for number in range(3)))
    await tick(2)
    assert seen == ["clean"] * 3


class Incomparable:
    """A value that cannot be compared, like an array."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("neither equal nor not")

    __hash__ = None  # type: ignore[assignment]  # as with an array


async def test_a_context_may_hold_anything(hub: Hub) -> None:
    anything: ContextVar[Any] = ContextVar("anything", default=None)
    anything.set(Incomparable())

    @hub.on("a")
    async def handler(conn: Connection) -> bool:
        anything.set(Incomparable())
        return True

    connection, transport = open_connection(hub)
    for _ in range(3):
        say(connection, "a")
    await transport.heard("a_response", 3)
    await tick(3)
    gc.collect()  # a worker that ended with an error would tell of it now


async def cancel_oneself() -> Any:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    return True


async def cancel_oneself_and_wait() -> Any:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await tick()


async def cancel_oneself_and_swallow_it() -> Any:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    try:
        await tick()
    except asyncio.CancelledError:
        return True


@pytest.mark.parametrize(
    ("body", "answer"),
    [(cancel_oneself, "a_response"), (cancel_oneself_and_wait, "error"), (cancel_oneself_and_swallow_it, "a_response")],
)
async def test_a_handler_that_cancels_itself_does_not_harm_the_next(hub: Hub, body: Body, answer: str) -> None:
    @hub.on("a")
    async def handler(conn: Connection) -> Any:
        return await body()

    @hub.on("b")
    async def after(conn: Connection) -> str:
        await tick()
        return "unharmed"

    first, transport = open_connection(hub)
    second, other = open_connection(hub)
    say(first, "a")
    say(second, "b")
    say(first, "b")
    await other.heard("b_response")
    await transport.heard("b_response")
    assert transport.types == [answer, "b_response"]


async def test_a_handler_that_fails_does_not_harm_the_next(hub: Hub) -> None:
    @hub.on("a")
    async def handler(conn: Connection, payload: bool) -> str:
        if payload:
            raise ValueError
        return "unharmed"

    clients = [open_connection(hub) for _ in range(10)]
    for number, (connection, _) in enumerate(clients):
        say(connection, "a", number % 2 == 0)
    await tick(3)
    assert [transport.types for _, transport in clients] == [["error"], ["a_response"]] * 5


# --- Workers by themselves -------------------------------------------------------------------------------------------


async def give(value: Any) -> Any:
    return value


async def test_a_job_learns_its_result_once() -> None:
    workers, call = Workers(), Call(give, 5)
    workers.submit(call)
    assert call.ends == []
    await tick(2)
    assert call.ends == [(5, None)]


async def test_a_job_learns_its_error() -> None:
    async def fail() -> None:
        await tick()
        raise ValueError("x")

    workers, call = Workers(), Call(fail)
    workers.submit(call)
    await tick(3)
    ((result, error),) = call.ends
    assert (result, str(error)) == (None, "x")
    assert not workers.waiting


async def test_many_jobs_give_the_loop_its_turn() -> None:
    workers = Workers()
    calls = [Call(give, number) for number in range(1000)]
    for call in calls:
        workers.submit(call)
    await tick()
    await tick()
    assert any(not call.ends for call in calls)
    await tick(100)
    assert all(call.ends == [(number, None)] for number, call in enumerate(calls))


async def test_a_job_may_submit_another() -> None:
    workers = Workers()
    calls = []

    async def submit(depth: int) -> None:
        if depth:
            calls.append(Call(submit, depth - 1))
            workers.submit(calls[-1])

    workers.submit(Call(submit, 2000))
    await tick(200)
    assert len(calls) == 2000
    assert all(call.ends for call in calls)


async def test_a_cancelled_job_ends() -> None:
    workers = Workers()
    started, waiting, unstarted = Call(asyncio.Event().wait), Call(asyncio.Event().wait), Call(give, 1)
    workers.submit(started)
    workers.submit(waiting)
    await tick(2)
    workers.submit(unstarted)
    for call in (started, unstarted):
        call.cancel()
        call.cancel()
    await tick(2)
    assert isinstance(started.ends[0][1], asyncio.CancelledError)
    assert unstarted.ends == [(None, None)]
    assert waiting.ends == []
    waiting.cancel()
    await tick(2)
    assert len(waiting.ends) == 1


async def test_stop_lets_what_runs_come_to_its_end() -> None:
    workers, call = Workers(), Call(asyncio.sleep, 0.005, "done")
    workers.submit(call)
    await workers.stop(asyncio.get_running_loop().time() + 5)
    assert call.ends == [("done", None)]


async def test_stop_cancels_what_is_left_at_the_deadline() -> None:
    workers = Workers()
    calls = [Call(asyncio.Event().wait) for _ in range(3)]
    for call in calls:
        workers.submit(call)
    await tick(2)
    await workers.stop(asyncio.get_running_loop().time() + 0.005)
    assert all(isinstance(call.ends[0][1], asyncio.CancelledError) for call in calls)


async def test_a_job_whose_loop_went_away_is_silent() -> None:
    workers, call = Workers(), Call(asyncio.Event().wait)
    workers.submit(call)
    await tick(2)
    (task,) = workers._tasks
    task.get_coro().close()  # as the garbage collector does
    assert call.ends == []
    call.cancel()
    await tick(2)


FACTORIES = [None, *([asyncio.eager_task_factory] if hasattr(asyncio, "eager_task_factory") else [])]


@pytest.mark.parametrize("factory", FACTORIES, ids=["usual tasks", "eager tasks"][: len(FACTORIES)])
@pytest.mark.parametrize("waits", [7, 10_000], ids=["some wait", "none waits"])
async def test_any_kind_of_task_will_do(hub: Hub, factory: Any, waits: int) -> None:
    asyncio.get_running_loop().set_task_factory(factory)

    @hub.on("a")
    async def handler(conn: Connection, payload: int) -> int:
        if payload % waits == 0:
            await tick()
        return payload

    connection, transport = open_connection(hub)
    say(connection, "a", 0)
    for number in range(1, 1500):
        say(connection, "a", number)
    await transport.heard("a_response", 1500)
    assert transport.payloads("a_response") == list(range(1500))
