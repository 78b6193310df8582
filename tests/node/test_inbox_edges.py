"""What goes wrong around durable messages: outages, shutdowns, slow clients, callers that leave, loops that die."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from hubbub import Hub, Limits, Timeouts, UsageError
from hubbub.core.identity import Identity
from hubbub.core.inbox import Draft, Page, Stored
from hubbub.errors import StorageFull, StoreUnavailable
from hubbub.node import database as database_module
from hubbub.node import node as node_module
from hubbub.node.mailbox import PAGE
from tests.fakes import RecordingTransport, open_connection, say, tick
from tests.serving import until


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database that does not exist yet."""
    return f"sqlite:///{tmp_path}/inbox.db"


@pytest.fixture
async def hub(url: str) -> AsyncIterator[Hub]:
    """A hub whose inboxes are in that database."""
    async with make(url).running() as hub:
        yield hub


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait neither for a database that failed nor for one that hangs."""
    monkeypatch.setattr(database_module, "REST", 0.0)
    monkeypatch.setattr(database_module, "CLOSING", 0.05)
    monkeypatch.setattr(node_module, "LAST_WRITES", 0.05)


def make(url: str, **options: Any) -> Hub:
    return Hub(inbox_url=url, timeouts=Timeouts(shutdown=0.05), **options)


def durable(transport: RecordingTransport) -> list[Any]:
    """The payloads of the durable messages a client was sent, in order."""
    return [message["payload"] for message in transport.messages if "cursor" in message]


async def send(hub: Hub, payload: Any, to: str = "bo", **options: Any) -> Any:
    return await hub.send_to_user(to, "chat", payload, durable=True, **options)


async def waiting(connection: Any, count: int) -> None:
    """Wait until this many messages wait for a connection's user."""
    async with asyncio.timeout(5):
        while (await connection.node.inbox.pending(connection, None, 1))["pending"] != count:  # noqa: ASYNC110
            await asyncio.sleep(0)


# --- What is sent ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"type": "a\0b"}, {"type": "\ud800"}, {"type": ""}, {"type": "x" * 600_000}, {"ttl": float("inf")},
     {"ttl": float("nan")}, {"ttl": -1}, {"ttl": 1e300}],
    ids=["NUL", "surrogate", "empty", "long", "for ever", "not a number", "negative", "huge"],
)  # fmt: skip
async def test_what_no_database_can_keep_is_refused_and_harms_nobody_else(hub: Hub, options: dict[str, Any]) -> None:
    bad = hub.send_to_user("bo", **{"type": "chat", "payload": None, "durable": True, **options})
    refused: Any
    sent: Any
    refused, sent = await asyncio.gather(bad, send(hub, 1, to="ann"), return_exceptions=True)
    assert isinstance(refused, UsageError)
    assert sent.stored


async def test_a_caller_that_leaves_takes_no_message_with_it(hub: Hub) -> None:
    _, bo = open_connection(hub, "bo")
    sends = [asyncio.create_task(send(hub, n)) for n in range(3)]
    await tick()
    sends[1].cancel()
    receipts = await asyncio.gather(*sends, return_exceptions=True)
    assert isinstance(receipts[1], asyncio.CancelledError)
    await bo.heard("chat", 3)
    assert durable(bo) == [0, 1, 2]


async def test_a_store_that_breaks_its_word_does_not_end_the_writing(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def forgetful(drafts: list[Draft], cap: int) -> list[Stored]:
        return []

    with monkeypatch.context() as broken:
        broken.setattr(hub.node.databases["inbox"].store, "append", forgetful)
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(send(hub, 1), 1)
    assert (await asyncio.wait_for(send(hub, 2), 1)).stored
    assert "cannot be stored" in caplog.text


# --- What is read ----------------------------------------------------------------------------------------------------


async def test_a_slow_client_keeps_no_page_in_memory(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    await asyncio.gather(*(send(hub, [n, "x" * 20_000]) for n in range(PAGE + 20)))
    store, sizes = hub.node.databases["inbox"].store, list[int]()
    read: Callable[..., Any] = store.read

    async def noted(user_id: str, after: int, limit: int, now: int) -> Page:
        sizes.append(limit)
        page: Page = await read(user_id, after, limit, now)
        return page

    monkeypatch.setattr(store, "read", noted)
    _, bo = open_connection(hub, "bo", RecordingTransport(room=1000))
    async with asyncio.timeout(5):
        while len(durable(bo)) < PAGE + 20:
            await asyncio.sleep(0)
            bo.take(room=1000)
    assert [number for number, _ in durable(bo)] == list(range(PAGE + 20))
    assert sizes[0] == PAGE
    assert max(sizes[1:]) < 10


async def test_an_answer_about_the_inbox_is_never_larger_than_what_may_wait(url: str) -> None:
    async with make(url, limits=Limits(send_queue=10_000)).running() as hub:
        await asyncio.gather(*(send(hub, [n, "x" * 1000]) for n in range(20)))
        connection, _ = open_connection(hub, "bo")
        after, found = 0, list[int]()
        while page := (await hub.node.inbox.pending(connection, after, 300))["messages"]:
            assert len(page) <= 5
            found += [entry["cursor"] for entry in page]
            after = page[-1]["cursor"]
        assert found == list(range(1, 21))
        assert len((await hub.node.inbox.pending(connection, 0, 1))["messages"]) == 1


async def test_a_user_who_changes_while_reading_gets_nothing_of_the_first(hub: Hub) -> None:
    await asyncio.gather(
        *(send(hub, ["bo", n]) for n in range(250)), *(send(hub, ["ann", n], to="ann") for n in range(250))
    )
    connection, client = open_connection(hub, "bo")
    await client.heard("chat")
    connection.identify("ann")
    client.forget()
    await client.heard("chat", 250)
    assert durable(client) == [["ann", n] for n in range(250)]


async def test_a_device_that_was_there_before_the_first_message_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBBUB_DATA_DIR", str(tmp_path))
    async with Hub(inbox="per_device", timeouts=Timeouts(shutdown=0.05)).running() as hub:
        phone, on_phone = open_connection(hub)
        phone.identify(Identity("bo", device="phone"))
        laptop, _ = open_connection(hub)
        laptop.identify(Identity("bo", device="laptop"))
        async with asyncio.timeout(5):
            while hub.node.inbox.reader(laptop).reading:  # noqa: ASYNC110
                await asyncio.sleep(0)
        laptop.close()
        await send(hub, 1)
        await on_phone.heard("chat")
        say(phone, "ack", {"cursor": 1})
        await waiting(phone, 0)
        again, on_laptop = open_connection(hub)
        again.identify(Identity("bo", device="laptop"))
        await on_laptop.heard("chat")
        assert durable(on_laptop) == [1]


async def test_what_is_stored_while_a_client_is_welcomed_comes_once_and_in_order(hub: Hub) -> None:
    await send(hub, 0)
    sends = [asyncio.create_task(send(hub, n)) for n in range(1, 50)]
    clients = []
    for _ in range(10):
        clients.append(open_connection(hub, "bo")[1])
        await asyncio.sleep(0)
    await asyncio.gather(*sends)
    for client in clients:
        await client.heard("chat", 50)
        assert durable(client) == list(range(50))


# --- Outages ---------------------------------------------------------------------------------------------------------


async def kept(hub: Hub) -> int:
    """How many messages the database has for the user."""
    return int((await hub.node.databases["inbox"].store.standing("bo", "", 0)).pending)


@pytest.mark.usefixtures("impatient")
async def test_an_ack_in_an_outage_is_kept_until_it_is_over(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    connection, bo = open_connection(hub, "bo")
    await send(hub, 1)
    await bo.heard("chat")
    refused = asyncio.Event()

    async def down(*_: Any) -> None:
        refused.set()
        raise StoreUnavailable("SQLite is away.")

    with monkeypatch.context() as outage:
        outage.setattr(hub.node.databases["inbox"].store, "ack", down)
        say(connection, "ack", {"cursor": 1})
        await asyncio.wait_for(refused.wait(), 1)
        await tick(3)
    assert await kept(hub) == 1
    hub.node.beat(time.monotonic())
    async with asyncio.timeout(5):
        while await kept(hub):  # noqa: ASYNC110  # it is the database that we wait for
            await asyncio.sleep(0)


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_signs_in_during_an_outage_gets_its_inbox_afterwards(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hubbub.node.mailbox.RETRY", 0.01)
    await send(hub, 1)
    refused = asyncio.Event()

    async def down(*_: Any) -> None:
        refused.set()
        raise StoreUnavailable("SQLite is away.")

    with monkeypatch.context() as outage:
        outage.setattr(hub.node.databases["inbox"].store, "standing", down)
        _, bo = open_connection(hub, "bo")
        await asyncio.wait_for(refused.wait(), 1)
        await hub.send_to_user("bo", "live", 1)
        assert bo.types == ["live"]
    await bo.heard("chat")
    assert durable(bo) == [1]


async def test_a_full_disk_is_no_reason_to_leave_the_database_alone(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: Any) -> None:
        raise StorageFull("SQLite has no room left.")

    with monkeypatch.context() as disk:
        disk.setattr(hub.node.databases["inbox"].store, "append", full)
        with pytest.raises(StorageFull):
            await send(hub, 1)
    assert (await send(hub, 2)).stored


# --- The end ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
async def test_a_shutdown_does_not_wait_for_a_database_that_hangs(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = make(url)
    async with hub.running():
        never = asyncio.Event()

        async def hang(*_: Any) -> None:
            await never.wait()

        monkeypatch.setattr(hub.node.databases["inbox"].store, "append", hang)
        sends = [asyncio.create_task(send(hub, n)) for n in range(300)]
        await tick(5)
        started = time.monotonic()
        await hub.shutdown()
        assert time.monotonic() - started < 2
        ends = await asyncio.gather(*sends, return_exceptions=True)
        assert {type(end) for end in ends} == {StoreUnavailable}


@pytest.mark.usefixtures("impatient")
async def test_a_shutdown_ends_while_others_go_on_sending(url: str) -> None:
    hub = make(url)
    await asyncio.sleep(0)

    async def forever(n: int) -> None:
        while True:
            await send(hub, n, to=f"user-{n}")

    async with hub.running():
        senders = [asyncio.create_task(forever(n)) for n in range(400)]
        await send(hub, 1)
        async with asyncio.timeout(5):
            await hub.shutdown()
        ends = await asyncio.wait_for(asyncio.gather(*senders, return_exceptions=True), 5)
        assert {type(end) for end in ends} <= {StoreUnavailable, UsageError}


async def test_what_was_accepted_before_the_end_is_stored(url: str) -> None:
    hub = make(url)
    async with hub.running():
        sends = [asyncio.create_task(send(hub, n)) for n in range(600)]
        await tick()
    assert all(receipt.stored for receipt in await asyncio.gather(*sends))
    async with make(url).running() as hub:
        _, bo = open_connection(hub, "bo")
        await bo.heard("chat", 600)
        assert durable(bo) == list(range(600))


async def test_what_an_app_sends_after_the_end_is_stored_and_let_go_of(url: str) -> None:
    hub = make(url)
    hub.wrap(lambda *_: None)
    async with hub.running():
        pass
    assert (await send(hub, "late")).stored
    assert hub.node.databases["inbox"].reached
    await hub.shutdown()
    assert not hub.node.databases["inbox"].reached


def test_a_hub_whose_loop_died_works_in_the_next(url: str) -> None:
    hub, told = make(url), list[Any]()
    hub.on_undelivered(after=0.0)(lambda user_id, message: told.append(message.payload))

    async def live(n: int) -> None:
        hub.start()
        await hub.node.open()
        _, bo = open_connection(hub, "bo")
        assert (await send(hub, n)).stored
        await bo.heard("chat", n)
        hub.node.beat(time.monotonic() + 100 * n)  # its task dies with the loop
        if n == 2:
            async with asyncio.timeout(5):
                while len(told) < 2:
                    hub.node.beat(time.monotonic() + 1000)
                    await asyncio.sleep(0.01)
            await hub.shutdown()

    asyncio.run(live(1))
    asyncio.run(live(2))
    assert told == [1, 2]


async def test_what_waits_in_a_file_that_another_process_made_is_undelivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBBUB_DATA_DIR", str(tmp_path))
    app, script, told = Hub(), Hub(), list[Any]()
    app.on_undelivered(after=0.0)(lambda user_id, message: told.append((user_id, message.payload)))
    async with app.running(), script.running():
        await script.send_to_user("bo", "chat", 1, durable=True)
        await until(lambda: told)
    assert told == [("bo", 1)]


async def test_two_hubs_share_a_file(url: str) -> None:
    async with make(url).running() as one, make(url).running() as two:
        _, bo = open_connection(two, "bo")
        await asyncio.gather(*(send(hub, n) for n in range(50) for hub in (one, two)))
        await send(two, "last")
        await bo.heard("chat", 101)
        cursors = [message["cursor"] for message in bo.messages if "cursor" in message]
        assert cursors == list(range(1, 102))
