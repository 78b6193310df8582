"""The relay: commit order, entries that fail, several relays, a database that goes away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from hubbub import ConfigError, Hub, outbox
from hubbub.contracts import OutboxTable
from hubbub.core.outbox import Counts, Entry, Outcome, Refusal, publication
from hubbub.errors import StoreUnavailable
from hubbub.node import relay as relaying
from hubbub.node.relay import Relay
from hubbub.outbox.tables import find_table
from hubbub.testing import connect
from services.postgres import Postgres
from tests.outbox.ledger import Ledger, eventually
from tests.serving import until

LEASE = 5.0


@pytest.fixture
async def writers(postgres: str) -> AsyncIterator[list[asyncpg.Connection]]:
    """Three connections of an application."""
    connections = [await asyncpg.connect(postgres) for _ in range(3)]
    yield connections
    for connection in connections:
        connection.terminate()


def put(url: str, *items: tuple[str, Any]) -> None:
    """Commit publications, in one transaction."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with Session(engine) as session:
        for channel, data in items:
            outbox.publish(session, channel, "said", data)
        session.commit()
    engine.dispose()


async def targets(table: OutboxTable) -> list[str]:
    """The channels of what is to be sent now, in order."""
    return [entry.item.target for entry in (await table.read(100, []))[0]]


async def blocked(postgres: str, count: int) -> None:
    """Wait until so many connections wait for a lock."""
    watcher = await asyncpg.connect(postgres)
    async with asyncio.timeout(10):
        while await watcher.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < count:
            pass
    await watcher.close()


# The order of commits


async def test_two_transactions_that_commit_in_reverse(postgres: str, writers: list[asyncpg.Connection]) -> None:
    one, two, _ = writers
    hub = Hub(outbox_url=postgres)
    async with hub.running():
        ledger = Ledger(hub)
        first, second = one.transaction(), two.transaction()
        await first.start()
        await second.start()
        await outbox.publish_async(one, "room:1", "said", "first")
        waiting = asyncio.create_task(outbox.publish_async(two, "room:1", "said", "second"))
        await blocked(postgres, 1)
        await outbox.publish_async(one, "room:2", "said", "first")  # the second one waits, the first goes on
        assert not waiting.done()
        await first.commit()
        await waiting
        await second.commit()
        await ledger.until(3)
    assert ledger.on("room:1") == ["first", "second"]


async def test_a_rollback_lets_the_one_that_waits_go_on(postgres: str, writers: list[asyncpg.Connection]) -> None:
    one, two, _ = writers
    hub = Hub(outbox_url=postgres)
    async with hub.running():
        ledger = Ledger(hub)
        first = one.transaction()
        await first.start()
        await outbox.publish_async(one, "room:1", "said", "rolled back")
        async with two.transaction():
            waiting = asyncio.create_task(outbox.publish_async(two, "room:1", "said", "second"))
            await blocked(postgres, 1)
            await first.rollback()
            await waiting
        await ledger.until(1)
    assert ledger.published == [("room:1", "second")]


async def test_other_channels_do_not_wait(postgres: str, writers: list[asyncpg.Connection]) -> None:
    one, two, _ = writers
    async with asyncio.timeout(5):
        async with one.transaction():
            await outbox.publish_async(one, "room:1", "said", 1)
            await outbox.send_to_user_async(one, "room:1", "said", 1)  # a user of that name is another target
            async with two.transaction():
                await outbox.publish_async(two, "room:2", "said", 2)


async def test_a_transaction_that_stays_open_lets_nothing_overtake(
    postgres: str, writers: list[asyncpg.Connection]
) -> None:
    early, long, late = writers
    table = find_table(postgres)
    await table.open()
    first, open_ = early.transaction(), long.transaction()
    await first.start()
    await early.execute("SELECT pg_current_xact_id()")  # the oldest number of all
    await open_.start()
    await long.execute("CREATE TABLE something (id integer)")
    async with late.transaction():
        await outbox.publish_async(late, "room:1", "said", 1)
    await outbox.publish_async(early, "room:1", "said", 2)
    await first.commit()
    # The second is older than what is open, and the first is not: alone, it would be sent before it.
    assert await table.read(10, []) == ([], True)
    await open_.rollback()
    entries, ripening = await table.read(10, [])
    assert [entry.item.data for entry in entries] == ["1", "2"]
    assert not ripening
    await table.close()


async def test_a_transaction_that_stays_open_delays_what_is_behind_it(
    postgres: str, writers: list[asyncpg.Connection]
) -> None:
    one, two, _ = writers
    hub = Hub(outbox_url=postgres)
    async with hub.running():
        ledger = Ledger(hub)
        open_ = one.transaction()
        await open_.start()
        await one.execute("SELECT pg_current_xact_id()")
        async with two.transaction():
            await outbox.publish_async(two, "room:1", "said", 1)
        await asyncio.to_thread(put, postgres, ("room:1", 2))
        assert not ledger.published
        await open_.commit()
        await ledger.until(2)
    assert ledger.on("room:1") == [1, 2]


async def test_numbers_are_the_triggers(postgres: str, writers: list[asyncpg.Connection]) -> None:
    # A number that somebody gives, or a bulk insert: the trigger takes the number behind the lock all the same.
    await writers[0].execute(
        "INSERT INTO hubbub_outbox (id, kind, target, data)"
        " SELECT -n, 'publish', 'room:1', n FROM generate_series(1, 3) n"
    )
    rows = await writers[0].fetch("SELECT id, data FROM hubbub_outbox ORDER BY id")
    assert [tuple(row) for row in rows] == [(1, "1"), (2, "2"), (3, "3")]


# What fails


async def test_one_that_is_refused_is_set_aside_and_holds_up_its_own_line_alone(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(relaying, "PAUSE", 0.001)
    await asyncio.to_thread(put, url, ("nowhere:1", 1), ("room:1", 2), ("nowhere:1", 3), ("room:1", 4))
    hub = Hub(outbox_url=url)
    hub.namespace("room")
    assert hub.node.relay is not None
    assert hub.node.relay.place == find_table(url).place
    published: list[Any] = []
    hub.listen("*")(lambda channel, data: published.append(data))
    async with hub.running():
        relay = hub.node.relay
        assert relay is not None

        async def all_done() -> bool:
            return await relay.count() == Counts(waiting=0, failed=2)

        await eventually(all_done)
    assert published == [2, 4]
    assert [record.levelname for record in caplog.records if "set aside" in record.message] == ["ERROR"] * 2
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        rows = connection.execute(text("SELECT tries, failed_at > 0, error FROM hubbub_outbox ORDER BY id")).fetchall()
        assert [(tries, bool(failed)) for tries, failed, _ in rows] == [(relaying.TRIES, True)] * 2
        assert "bad_channel" in rows[0][2]
        # As the guide says: what was set aside is tried again.
        connection.execute(text("UPDATE hubbub_outbox SET failed_at = NULL, tries = 0"))
    engine.dispose()
    again = Hub(outbox_url=url)
    async with again.running():
        ledger = Ledger(again)
        await ledger.until(2)
    assert ledger.on("nowhere:1") == [1, 3]


async def test_what_is_no_json_reaches_no_client(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "PAUSE", 0.001)
    await asyncio.to_thread(put, url, ("room:1", 1), ("room:1", 2))
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE hubbub_outbox SET data = 'placed' WHERE data = '1'"))
    hub = Hub(outbox_url=url)
    hub.namespace("room")
    async with hub.running(), connect(hub) as client:
        await client.request("subscribe", {"channel": "room:1"})
        assert (await client.expect("message"))["data"] == 2
    with engine.begin() as connection:
        assert (
            "malformed" in connection.execute(text("SELECT error FROM hubbub_outbox WHERE failed_at > 0")).scalar_one()
        )
    engine.dispose()


class Unsteady:
    """A hub whose channels fail for a while."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.published: list[tuple[str, Any, str | None]] = []
        self.enough = asyncio.Event()

    async def publish(self, channel: str, event: str | None, data: Any = None, *, key: str | None, tags: Any) -> None:
        """Publish, or fail."""
        if channel == "room:1" and self.failures:
            self.failures -= 1
            raise StoreUnavailable("The broker is away.")
        self.published.append((channel, int(bytes(data)), key))
        if len(self.published) == 6:
            self.enough.set()

    async def send_to_user(self, user_id: str, type: str, payload: Any = None, **options: Any) -> None:
        """Nobody is sent anything."""


async def test_what_is_out_of_reach_is_tried_until_it_works(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(relaying, "PAUSE", 0.001)
    monkeypatch.setattr(relaying, "LONGEST_PAUSE", 0.01)
    await asyncio.to_thread(put, url, *((f"room:{number % 2}", number) for number in range(6)))
    hub = Unsteady(relaying.TRIES * 3)
    relay = Relay(hub, url)
    relay.beat()
    async with asyncio.timeout(20):
        await hub.enough.wait()
    await relay.stop()
    assert [number for channel, number, _ in hub.published if channel == "room:1"] == [1, 3, 5]
    assert [number for channel, number, _ in hub.published if channel == "room:0"] == [0, 2, 4]
    assert len({key for _, _, key in hub.published}) == 6
    assert [channel for channel, _, _ in hub.published][:3] == ["room:0"] * 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_too_many_lines_that_fail_stop_the_relay_for_a_while(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "PAUSE", 0.01)
    monkeypatch.setattr(relaying, "MOST_PAUSED", 1)
    await asyncio.to_thread(put, url, *((f"room:{number % 2}", number) for number in range(6)))
    hub = Unsteady(2)
    relay = Relay(hub, url)
    relay.beat()
    async with asyncio.timeout(20):
        await hub.enough.wait()
    await relay.stop()
    assert [number for channel, number, _ in hub.published if channel == "room:1"] == [1, 3, 5]


# Several relays


async def test_one_leads_and_its_fence_counts(url: str, table: OutboxTable) -> None:
    other = find_table(url)
    await other.open()
    await asyncio.to_thread(put, url, ("room:1", 1), ("room:1", 2))
    [first, second] = (await table.read(10, []))[0]
    fence = await table.lead("one", -1.0)
    assert await table.lead("one", -1.0) == fence
    taken = await other.lead("two", LEASE)
    assert fence is not None
    assert taken == fence + 1
    assert await table.lead("one", LEASE) is None
    assert not await table.settle(fence, LEASE, Outcome([first.id], [Refusal(second.id, 1, "no", True)]))
    assert await targets(table) == ["room:1"] * 2
    assert await other.settle(taken, LEASE, Outcome([first.id], [Refusal(second.id, 1, "no", True)]))
    assert await targets(table) == []
    assert await table.counts() == await other.counts()
    await other.leave("two")
    assert await table.lead("one", LEASE) == taken + 1
    await other.close()


async def test_one_of_two_hubs_relays_and_the_other_goes_on(url: str) -> None:
    hubs = [Hub(outbox_url=url), Hub(outbox_url=url)]
    ledgers = [Ledger(hub) for hub in hubs]
    async with hubs[1].running(), hubs[0].running():
        await asyncio.to_thread(put, url, ("room:1", 1))
        await asyncio.wait([asyncio.create_task(each.until(1)) for each in ledgers], return_when="FIRST_COMPLETED")
        leads = [(await hub.stats())["outbox"]["relaying"] for hub in hubs]
        assert sorted(leads) == [False, True]
        await hubs[leads.index(True)].shutdown()
        await asyncio.to_thread(put, url, ("room:1", 2))
        await ledgers[leads.index(False)].until(1)
    assert [ledgers[leads.index(lead)].published for lead in (True, False)] == [[("room:1", 1)], [("room:1", 2)]]


async def test_a_relay_that_lost_its_lease_sends_nothing_more(
    url: str, table: OutboxTable, caplog: pytest.LogCaptureFixture
) -> None:
    await asyncio.to_thread(put, url, ("room:1", 1), ("room:1", 2))

    class Slow(Unsteady):
        async def publish(self, *args: Any, **options: Any) -> None:
            await super().publish(*args, **options)
            await eventually(lambda: table.lead("another", LEASE))

    hub = Slow(0)
    relay = Relay(hub, url, lease=0.1)
    relay.beat()
    await until(lambda: "silent for too long" in caplog.text, 20)
    await relay.stop()
    assert [number for _, number, _ in hub.published] == [1]
    assert await targets(table) == ["room:1"] * 2


# The database


async def test_a_commit_in_this_process_is_known_at_once(sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(outbox_url=sqlite)
    ledger = Ledger(hub)
    async with hub.running():
        await asyncio.to_thread(put, sqlite, ("room:1", 1))
        await ledger.until(1)
        monkeypatch.setattr("hubbub.outbox.sqlite.OFTEN", 3600.0)
        monkeypatch.setattr(relaying, "OFTEN", 3600.0)
        monkeypatch.setattr(relaying, "LEASE", 3600.0)
        await asyncio.to_thread(put, sqlite, ("room:1", 2))
        await ledger.until(2)
        await asyncio.to_thread(put, sqlite, ("room:1", 3))
        await ledger.until(3)


async def test_the_database_goes_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(relaying, "REST", 0.01)
    with Postgres() as server:
        url = server.url("app")
        hub = Hub(outbox_url=url)
        ledger = Ledger(hub)
        async with hub.running():
            await asyncio.to_thread(put, url, ("room:1", 1))
            await ledger.until(1)
            server.kill()
            assert hub.node.relay is not None
            relay = hub.node.relay
            await until(lambda: not relay.state["healthy"], 20)
            await hub.publish("room:2", "live", "goes on")
            await asyncio.to_thread(server.start)
            await asyncio.to_thread(put, url, ("room:1", 2))
            await ledger.until(3)
            await ledger.until_empty()
            assert (await hub.stats())["outbox"]["healthy"]
    assert ledger.published == [("room:1", 1), ("room:2", "goes on"), ("room:1", 2)]
    levels = [record.levelno for record in caplog.records if record.name == "hubbub.outbox"]
    assert [level for level in levels if level > logging.INFO] == [logging.ERROR, logging.WARNING]


async def test_what_could_not_be_noted_is_noted_later(url: str, table: OutboxTable) -> None:
    await asyncio.to_thread(put, url, ("room:1", 1))
    hub = Unsteady(0)
    relay = Relay(hub, url)
    settle = relay._table.settle
    lost: list[Outcome] = []

    async def lose(fence: int, seconds: float, outcome: Outcome) -> bool:
        if not lost:
            lost.append(outcome)
            raise StoreUnavailable("The answer was lost.")
        return await settle(fence, seconds, outcome)

    relay._table.settle = lose  # type: ignore[method-assign]  # an answer that is lost on the way
    relay.beat()

    async def nothing_waits() -> bool:
        return not (await table.counts()).waiting

    await eventually(nothing_waits)
    await relay.stop()
    assert lost
    assert [number for _, number, _ in hub.published] == [1]


async def test_a_database_that_is_not_there_stops_the_start() -> None:
    hub = Hub(outbox_url="postgresql://nobody@127.0.0.1:1/app")
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1/app cannot be reached"):
        async with hub.running():
            pass


# The tables


@pytest.mark.parametrize("url", ["mongodb://host/app", "mysql://host/app"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"SQLite or PostgreSQL|HUBBUB_OUTBOX_URL"):
        find_table(url)
    with pytest.raises(ConfigError):
        outbox.ddl("mysql")
    with pytest.raises(ConfigError, match="HUBBUB_OUTBOX_URL"):
        Hub(outbox_url=url)


async def test_made_by_ones_own_migrations(server: Postgres, tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/own.db", server.url("own")):
        engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
        with engine.begin() as connection:
            for statement in outbox.ddl(url.partition(":")[0]):
                connection.execute(text(statement))
        engine.dispose()
        assert await outbox.create(url) == (1, 1)
        await asyncio.to_thread(put, url, ("room:1", 1))


def test_the_key_names_the_number_unless_the_app_names_it() -> None:
    item = publication("room:1", "said", 1)
    assert Entry(7, 1000, 0, item).key == "outbox:7:1000"
    assert Entry(7, 1000, 0, publication("room:1", "said", 1, "mine")).key == "mine"
