"""Durable messages on one node, kept in a real SQLite file."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hubbub import Connection, Hub, Limits, Message, Timeouts, UsageError
from hubbub.core.identity import Identity
from hubbub.core.inbox import Standing
from hubbub.errors import StorageFull, StoreUnavailable
from hubbub.node import database as database_module
from hubbub.node.mailbox import PAGE
from tests.fakes import RecordingTransport, open_connection, say, tick


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database that does not exist yet."""
    return f"sqlite:///{tmp_path}/inbox.db"


@pytest.fixture
async def hub(url: str) -> AsyncIterator[Hub]:
    """A hub whose inboxes are in that database."""
    async with make(url).running() as hub:
        yield hub


def make(url: str, **options: Any) -> Hub:
    return Hub(inbox_url=url, timeouts=Timeouts(shutdown=0.05), **options)


def durable(transport: RecordingTransport) -> list[tuple[int, Any]]:
    """Cursor and payload of the durable messages a client was sent, in order."""
    return [(message["cursor"], message["payload"]) for message in transport.messages if "cursor" in message]


async def pending(connection: Any) -> int:
    """How many messages wait, as the client is told."""
    answer = await connection.node.inbox.pending(connection, None, 300)
    return int(answer["pending"])


async def test_a_message_for_nobody_waits_for_the_user(hub: Hub) -> None:
    receipt = await hub.send_to_user("bo", "chat", {"n": 1}, durable=True)
    assert (receipt.connections, receipt.delivered, receipt.stored, receipt.cursor) == (0, False, True, 1)
    _, bo = open_connection(hub, "bo")
    assert await bo.heard("chat") == {"type": "chat", "payload": {"n": 1}, "cursor": 1}
    assert bo.payloads("inbox") == [{"cursor": 0, "pending": 1}]


async def test_a_connected_user_gets_it_at_once_on_every_connection(hub: Hub) -> None:
    _, one = open_connection(hub, "bo")
    _, two = open_connection(hub, "bo")
    receipt = await hub.send_to_user("bo", "chat", {"n": 1}, durable=True)
    assert receipt.connections == 2
    await one.heard("chat")
    await two.heard("chat")
    assert durable(one) == durable(two) == [(1, {"n": 1})]


async def test_everything_comes_in_order_and_only_once(hub: Hub) -> None:
    sends = (hub.send_to_user("bo", "chat", n, durable=True) for n in range(2 * PAGE + 50))
    receipts = await asyncio.gather(*sends)
    assert [receipt.cursor for receipt in receipts] == list(range(1, 2 * PAGE + 51))
    _, bo = open_connection(hub, "bo")
    live = [hub.send_to_user("bo", "chat", n, durable=True) for n in range(2 * PAGE + 50, 3 * PAGE)]
    await asyncio.gather(*live)
    await bo.heard("chat", 3 * PAGE)
    assert durable(bo) == [(n + 1, n) for n in range(3 * PAGE)]


async def test_an_acked_message_does_not_come_again_and_others_do(hub: Hub) -> None:
    connection, bo = open_connection(hub, "bo")
    for n in range(3):
        await hub.send_to_user("bo", "chat", n, durable=True)
    await bo.heard("chat", 3)
    say(connection, "ack", {"cursor": 2})
    await settled_ack(hub, connection, 1)
    connection.close()
    _, again = open_connection(hub, "bo")
    await again.heard("chat")
    assert durable(again) == [(3, 2)]
    assert again.payloads("inbox") == [{"cursor": 2, "pending": 1}]
    assert "acked" not in bo.types


async def settled_ack(hub: Hub, connection: Any, left: int) -> None:
    async with asyncio.timeout(5):
        while await pending(connection) != left:  # noqa: ASYNC110  # it is the database that we wait for
            await asyncio.sleep(0)


async def test_an_ack_on_its_way_counts_for_who_comes_back_at_once(hub: Hub) -> None:
    connection, bo = open_connection(hub, "bo")
    for n in range(3):
        await hub.send_to_user("bo", "chat", n, durable=True)
    await bo.heard("chat", 3)
    say(connection, "ack", {"cursor": 2})
    connection.close()
    _, again = open_connection(hub, "bo")
    await again.heard("chat")
    assert durable(again) == [(3, 2)]


async def one_whose_ack_is_on_its_way(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Connection:
    """A connection of bo that has got three messages and acked two, of which the database has not heard yet."""
    connection, bo = open_connection(hub, "bo")
    for n in range(3):
        await hub.send_to_user("bo", "chat", n, durable=True)
    await bo.heard("chat", 3)
    monkeypatch.setattr(hub.node.inbox, "_write_soon", lambda: None)
    say(connection, "ack", {"cursor": 2})
    return connection


async def test_an_ack_on_its_way_does_not_hide_what_waits_where_others_have_expired(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await one_whose_ack_is_on_its_way(hub, monkeypatch)
    connection.close()
    expired = Standing(acked=0, pending=1, dropped=0)  # the first two have

    async def standing(*_: Any) -> Standing:
        return expired

    monkeypatch.setattr(hub.node.databases["inbox"].store, "standing", standing)
    _, again = open_connection(hub, "bo")
    await again.heard("chat")
    assert durable(again) == [(3, 2)]


async def test_what_is_told_to_be_acked_does_not_go_back(hub: Hub) -> None:
    (first, one), (second, two), (_, three) = (open_connection(hub, "bo") for _ in range(3))
    for n in range(3):
        await hub.send_to_user("bo", "chat", n, durable=True)
    for each in (one, two, three):
        await each.heard("chat", 3)
    say(first, "ack", {"cursor": 2})
    await two.heard("acked")
    say(second, "ack", {"cursor": 1})
    for n in range(2):
        await hub.send_to_user("bo", "chat", n, durable=True)  # behind which an ack is written
    say(second, "ack", {"cursor": 3})
    await one.heard("acked")
    assert [payload["cursor"] for payload in three.payloads("acked")] == [2, 3]


async def test_two_tabs_get_each_message_once_and_an_ack_on_one_clears_both(hub: Hub) -> None:
    first, one = open_connection(hub, "bo")
    _, two = open_connection(hub, "bo")
    await hub.send_to_user("bo", "chat", "a", durable=True)
    await hub.send_to_user("bo", "chat", "b", durable=True)
    await one.heard("chat", 2)
    await two.heard("chat", 2)
    say(first, "ack", {"cursor": 2})
    assert (await two.heard("acked"))["payload"] == {"cursor": 2}
    assert durable(one) == durable(two) == [(1, "a"), (2, "b")]
    assert "acked" not in one.types
    _, three = open_connection(hub, "bo")
    await settled_ack(hub, first, 0)
    assert durable(three) == []


@pytest.mark.parametrize(
    ("payload", "code"),
    [({"cursor": 2}, "bad_cursor"), ({"cursor": -1}, "invalid_payload"), ({"cursor": "1"}, "invalid_payload"),
     ({}, "invalid_payload"), ({"cursor": 2**63}, "invalid_payload")],
    ids=str,
)  # fmt: skip
async def test_an_ack_of_what_was_not_sent_is_refused(hub: Hub, payload: Any, code: str) -> None:
    connection, bo = open_connection(hub, "bo")
    await hub.send_to_user("bo", "chat", "a", durable=True)
    await bo.heard("chat")
    say(connection, "ack", payload, id="7")
    (error,) = [message for message in bo.messages if message["type"] == "error"]
    assert (error["payload"]["code"], error["id"]) == (code, "7")
    assert await pending(connection) == 1


async def test_only_a_user_has_an_inbox(hub: Hub) -> None:
    connection, nobody = open_connection(hub)
    say(connection, "ack", {"cursor": 1})
    say(connection, "inbox")
    await nobody.heard("error", 2)
    assert [error["code"] for error in nobody.payloads("error")] == ["unauthorized"] * 2


async def test_a_device_reads_and_acks_on_its_own(url: str) -> None:
    async with make(url, inbox="per_device").running() as hub:
        phone, on_phone = open_connection(hub)
        phone.identify(Identity("bo", device="phone"))
        laptop, on_laptop = open_connection(hub)
        laptop.identify(Identity("bo", device="laptop"))
        await settled_ack(hub, phone, 0)
        await settled_ack(hub, laptop, 0)
        await hub.send_to_user("bo", "chat", "a", durable=True)
        await on_phone.heard("chat")
        await on_laptop.heard("chat")
        say(phone, "ack", {"cursor": 1})
        await settled_ack(hub, phone, 0)
        assert await pending(laptop) == 1
        assert "acked" not in on_laptop.types
        again, on_again = open_connection(hub)
        again.identify(Identity("bo", device="laptop"))
        assert (await on_again.heard("chat"))["payload"] == "a"


async def test_a_key_makes_two_sends_one_message(hub: Hub) -> None:
    _, bo = open_connection(hub, "bo")
    first, second = await asyncio.gather(
        *(hub.send_to_user("bo", "chat", n, durable=True, key="order-7") for n in range(2))
    )
    assert first.cursor == second.cursor == 1
    third = await hub.send_to_user("bo", "chat", 3, durable=True, key="order-7")
    assert (third.cursor, third.connections) == (1, 1)
    await bo.heard("chat")
    assert durable(bo) == [(1, 0)]


async def test_what_has_expired_is_not_sent(hub: Hub) -> None:
    await hub.send_to_user("bo", "chat", "old", durable=True, ttl=0)
    await hub.send_to_user("bo", "chat", "new", durable=True)
    _, bo = open_connection(hub, "bo")
    await bo.heard("chat")
    assert durable(bo) == [(2, "new")]


async def test_past_the_cap_the_oldest_go_and_the_user_is_told(url: str) -> None:
    async with make(url, limits=Limits(inbox=3)).running() as hub:
        for n in range(5):
            await hub.send_to_user("bo", "chat", n, durable=True)
        _, bo = open_connection(hub, "bo")
        await bo.heard("chat", 3)
        assert bo.types[:2] == ["inbox_dropped", "inbox"]
        assert bo.payloads("inbox_dropped") == [{"count": 2}]
        assert durable(bo) == [(3, 2), (4, 3), (5, 4)]
        await hub.send_to_user("bo", "chat", 5, durable=True)
        assert bo.types[-2:] == ["inbox_dropped", "chat"]


async def test_a_client_can_ask_what_waits(hub: Hub) -> None:
    for n in range(5):
        await hub.send_to_user("bo", "chat", {"n": n}, durable=True)
    connection, bo = open_connection(hub, "bo")
    await bo.heard("chat", 5)
    say(connection, "inbox", {"after": 1, "limit": 2}, id="1")
    answer = [message for message in bo.messages if message.get("id") == "1"] or [await bo.heard("inbox", 2)]
    messages = answer[0]["payload"]["messages"]
    assert [(each["cursor"], each["payload"], each["type"]) for each in messages] == [
        (2, {"n": 1}, "chat"),
        (3, {"n": 2}, "chat"),
    ]
    assert answer[0]["payload"]["pending"] == 5


async def test_who_asks_behind_its_ack_is_told_of_it(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = await one_whose_ack_is_on_its_way(hub, monkeypatch)
    answer = await hub.node.inbox.pending(connection, None, 300)
    assert ([each["cursor"] for each in answer["messages"]], answer["pending"], answer["cursor"]) == ([3], 1, 2)


async def test_what_was_stored_before_a_restart_comes_after_it(url: str) -> None:
    hub = make(url)
    async with hub.running():
        await hub.send_to_user("bo", "chat", "before", durable=True)
    async with make(url).running() as hub:
        _, bo = open_connection(hub, "bo")
        assert (await bo.heard("chat"))["payload"] == "before"


async def test_a_slow_reader_is_not_drowned_in_its_inbox(hub: Hub) -> None:
    body = "x" * 50_000
    await asyncio.gather(*(hub.send_to_user("bo", "chat", body, durable=True) for _ in range(40)))
    transport = RecordingTransport(room=1000)
    connection, bo = open_connection(hub, "bo", transport)
    async with asyncio.timeout(5):
        while len(durable(bo)) < 40:
            await asyncio.sleep(0)
            bo.take(room=1000)
    assert connection.is_open
    assert hub.node.slow_consumers == 0
    assert [cursor for cursor, _ in durable(bo)] == list(range(1, 41))


async def test_a_user_who_changes_gets_the_other_inbox(hub: Hub) -> None:
    await hub.send_to_user("ann", "chat", "for ann", durable=True)
    connection, client = open_connection(hub, "bo")
    connection.identify("ann")
    await client.heard("chat")
    await hub.send_to_user("bo", "chat", "for bo", durable=True)
    assert [payload for _, payload in durable(client)] == ["for ann"]


async def test_a_file_is_made_with_the_first_message_where_nobody_chose_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HUBBUB_DATA_DIR")
    async with Hub().running() as hub:
        _, bo = open_connection(hub, "bo")
        await tick(3)
        assert os.listdir(tmp_path) == []
        await hub.send_to_user("bo", "chat", 1, durable=True)
        assert durable(bo) == [(1, 1)]
    assert "inbox.db" in os.listdir(tmp_path / ".hubbub")


async def test_an_outage_is_an_error_and_ends_by_itself(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "REST", 0.0)
    store = hub.node.databases["inbox"].store
    _, bo = open_connection(hub, "bo")

    async def down(*_: Any) -> Any:
        raise StoreUnavailable("SQLite is away.")

    with monkeypatch.context() as outage:
        outage.setattr(store, "append", down)
        outage.setattr(store, "archive_position", down)
        with pytest.raises(StoreUnavailable, match="away"):
            await hub.send_to_user("bo", "chat", 1, durable=True)
        assert (await hub.stats())["databases"]["inbox"] is False
        await hub.send_to_user("bo", "live", 1)
        assert bo.types == ["live"]
    assert (await hub.send_to_user("bo", "chat", 2, durable=True)).stored
    assert (await hub.stats())["databases"]["inbox"] is True


@pytest.mark.parametrize(
    ("error", "code"),
    [(StoreUnavailable("x"), "unavailable"), (StorageFull("x"), "storage_full")],
    ids=["down", "full"],
)
async def test_a_client_is_told_what_is_wrong_with_the_database(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    @hub.on("keep")
    async def keep(conn: Any) -> None:
        await hub.send_to_user("bo", "chat", 1, durable=True)

    async def fails(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(hub.node.databases["inbox"].store, "append", fails)
    connection, client = open_connection(hub)
    say(connection, "keep", id="1")
    answer = await client.heard("error")
    assert (answer["payload"]["code"], answer["id"]) == (code, "1")


async def test_a_slow_database_is_not_waited_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(inbox_url=url, timeouts=Timeouts(store=0.05, shutdown=0.05))
    async with hub.running():
        hung = asyncio.Event()

        async def hang(*_: Any) -> Any:
            await hung.wait()

        with monkeypatch.context() as slow:
            slow.setattr(hub.node.databases["inbox"].store, "append", hang)
            with pytest.raises(StoreUnavailable, match=r"did not answer in 0\.05 s"):
                await hub.send_to_user("bo", "chat", 1, durable=True)
            started = time.monotonic()
            with pytest.raises(StoreUnavailable):  # it is left alone for a moment
                await hub.send_to_user("bo", "chat", 1, durable=True)
            assert time.monotonic() - started < 0.05


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"key": ""}, "key"),
        ({"key": "a\nb"}, "key"),
        ({"key": "x" * 256}, "key"),
        ({"payload": "x" * 600_000}, "too large"),
    ],
    ids=["empty key", "control character", "long key", "large payload"],
)
async def test_what_could_never_be_kept_is_refused(hub: Hub, options: Any, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        await hub.send_to_user("bo", "chat", **{"payload": 1, "durable": True, **options})


async def test_key_and_ttl_need_durable(hub: Hub) -> None:
    with pytest.raises(UsageError, match="durable"):
        await hub.send_to_user("bo", "chat", 1, key="a")


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "coroutine"])
async def test_what_nobody_acked_is_reported_once(url: str, monkeypatch: pytest.MonkeyPatch, plain: bool) -> None:
    hub = make(url)
    told: list[tuple[str, Message]] = []
    enough = asyncio.Event()

    def note(user_id: str, message: Message) -> None:
        told.append((user_id, message))
        if len(told) == 2:
            enough.set()

    async def waits(user_id: str, message: Message) -> None:
        note(user_id, message)

    hub.on_undelivered(after=0.0)(note if plain else waits)
    async with hub.running():
        connection, bo = open_connection(hub, "bo")
        await hub.send_to_user("bo", "chat", "read", durable=True)
        await bo.heard("chat")
        say(connection, "ack", {"cursor": 1})
        await settled_ack(hub, connection, 0)
        await hub.send_to_user("bo", "chat", "unread", durable=True)
        await hub.send_to_user("ann", "chat", "unread too", durable=True)
        async with asyncio.timeout(5):
            while not enough.is_set():
                hub.node.beat(time.monotonic() + 10)
                await asyncio.sleep(0)
        hub.node.beat(time.monotonic() + 30)
        await tick(5)
        assert sorted((user, message.payload, message.type) for user, message in told) == [
            ("ann", "unread too", "chat"),
            ("bo", "unread", "chat"),
        ]
        assert bo.types.count("chat") == 2


def test_there_is_one_hook_for_what_is_undelivered(url: str) -> None:
    hub = make(url)

    @hub.on_undelivered(after=5.0)
    def once(user_id: str, message: Message) -> None: ...

    with pytest.raises(UsageError, match="already"):
        hub.on_undelivered()(once)
