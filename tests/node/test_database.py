"""A store as the node uses it: opened once, bounded in time, left alone after a failure, let go of and opened anew."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hubbub import ConfigError, Hub, Timeouts
from hubbub.config import load_settings
from hubbub.errors import StorageFull, StoreError, StoreUnavailable
from hubbub.node import database as database_module
from hubbub.node.database import CLOSING, REST, Database, databases
from services.postgres import Postgres
from tests.fakes import ManualClock, open_connection, tick


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """A SQLite file that is not there yet, chosen by somebody."""
    database = Database(f"sqlite:///{tmp_path}/kept.db", given=True, timeout=5.0)
    yield database
    await database.close()


async def answer(value: int = 1) -> int:
    return value


async def down() -> None:
    raise StoreUnavailable("SQLite is away.")


# --- Opening and closing ---------------------------------------------------------------------------------------------


async def test_calls_that_come_at_once_open_it_once(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = 0
    really = database.store.open

    async def count() -> None:
        nonlocal opened
        opened += 1
        await really()

    monkeypatch.setattr(database.store, "open", count)
    assert await asyncio.gather(*(database.call(answer, n) for n in range(10))) == list(range(10))
    assert (opened, database.reached) == (1, True)


async def test_one_who_leaves_does_not_end_the_opening_for_the_others(database: Database) -> None:
    first = asyncio.create_task(database.call(answer))
    second = asyncio.create_task(database.call(answer, 2))
    await tick(2)
    first.cancel()
    assert await second == 2
    assert first.cancelled()


@pytest.mark.parametrize(("given", "made"), [(True, True), (False, False)], ids=["chosen", "by default"])
async def test_a_file_nobody_chose_is_made_with_the_first_thing_to_keep(
    tmp_path: Path, given: bool, made: bool
) -> None:
    file = tmp_path / "kept.db"
    database = Database(f"sqlite:///{file}", given=given, timeout=5.0)
    hub = Hub(timeouts=Timeouts(shutdown=0.05))
    hub.node.databases = {"inbox": database}
    await hub.node.open()
    assert (file.exists(), database.empty) == (made, not made)
    assert ("made when something is to be kept" in str(database)) == (not made)
    await database.call(database.store.archive_position)
    assert (file.exists(), database.empty) == (True, False)
    await database.close()
    assert not database.empty, "the file is there now"


async def test_it_opens_again_after_a_close(database: Database) -> None:
    await database.call(database.store.archive, (), "7")
    before = database.store
    await database.close()
    await database.close()
    assert not database.reached
    assert await database.call(lambda: database.store.archive_position()) == "7"
    assert database.store is not before


async def test_a_close_while_it_is_being_opened_is_an_error_and_no_cancellation(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = asyncio.Event()
    monkeypatch.setattr(database.store, "open", never.wait)
    waiting = asyncio.create_task(database.call(answer))
    await tick(2)
    await database.close()
    with pytest.raises(StoreUnavailable, match="closed while it was being opened"):
        await waiting


async def test_an_opening_that_failed_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "REST", 0.0)
    (tmp_path / "taken").write_text("a file where a directory is wanted")
    database = Database(f"sqlite:///{tmp_path}/taken/kept.db", given=True, timeout=5.0)
    with pytest.raises(StoreError, match="cannot be opened"):
        await database.open()
    assert not database.reached
    (tmp_path / "taken").unlink()
    await database.open()
    assert database.reached
    await database.close()


async def test_a_close_does_not_wait_for_a_store_that_hangs(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database_module, "CLOSING", 0.01)
    await database.open()
    store, never = database.store, asyncio.Event()
    with monkeypatch.context() as hanging:
        hanging.setattr(store, "close", never.wait)
        await asyncio.wait_for(database.close(), CLOSING)
    assert "did not let go in 0.01 s" in caplog.text
    await store.close()


# --- Failures --------------------------------------------------------------------------------------------------------


async def test_what_failed_is_left_alone_for_a_moment(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock.install(monkeypatch)
    with pytest.raises(StoreUnavailable, match="away"):
        await database.call(down)
    assert not database.healthy
    clock.now += REST - 0.01
    with pytest.raises(StoreUnavailable, match="away"):
        await database.call(answer)
    clock.now += 0.01
    assert await database.call(answer) == 1
    assert database.healthy
    assert [record.message.partition(".")[0] for record in caplog.records] == [
        "SQLite is away",
        str(database).partition(".")[0],
    ]


async def test_an_outage_is_logged_once(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database_module, "REST", 0.0)
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            await database.call(down)
    assert len(caplog.records) == 1


async def test_an_outage_is_found_without_traffic(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock.install(monkeypatch)
    assert await database.answers()
    with monkeypatch.context() as outage:
        outage.setattr(database.store, "archive_position", down)
        assert await database.answers()  # it did a moment ago
        clock.now += REST
        assert not await database.answers()
    assert not await database.answers()
    clock.now += REST
    assert await database.answers()


async def test_a_file_that_is_not_there_is_not_made_by_asking(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/kept.db", given=False, timeout=5.0)
    assert await database.answers()
    assert database.empty


async def test_a_call_ends_after_its_time(tmp_path: Path) -> None:
    database, never = Database(f"sqlite:///{tmp_path}/kept.db", given=True, timeout=0.05), asyncio.Event()
    await database.open()
    with pytest.raises(StoreUnavailable, match=r"did not answer in 0\.05 s"):
        await database.call(never.wait)
    await database.close()


async def test_a_full_disk_is_no_outage(database: Database) -> None:
    async def full() -> None:
        raise StorageFull("SQLite has no room left.")

    with pytest.raises(StorageFull):
        await database.call(full)
    assert database.healthy
    assert await database.call(answer) == 1


async def test_a_refusal_at_the_opening_is_logged_and_rests(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "taken").write_text("a file where a directory is wanted")
    database = Database(f"sqlite:///{tmp_path}/taken/kept.db", given=True, timeout=5.0)
    with pytest.raises(StoreError, match="cannot be opened"):
        await database.call(answer)
    assert not database.healthy
    assert "cannot be opened" in caplog.text
    (tmp_path / "taken").unlink()
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        await database.call(answer)


# --- Which ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("inbox", "archive", "count"), [("a", "a", 1), ("a", "b", 2)], ids=["one", "two"])
def test_roles_with_one_url_share_a_database(tmp_path: Path, inbox: str, archive: str, count: int) -> None:
    urls = [f"sqlite:///{tmp_path}/{name}.db" for name in (inbox, archive)]
    found = databases(load_settings(hubbub_inbox_url=urls[0], hubbub_archive_url=urls[1]), 5.0)
    assert [database.url for database in found.values()] == urls
    assert len(set(found.values())) == count


@pytest.mark.parametrize(
    ("url", "driver", "extra"),
    [
        ("postgresql://user:hidden@localhost/app", "asyncpg", "postgres"),
        ("mongodb://user:hidden@localhost/app", "pymongo", "mongo"),
    ],
    ids=["PostgreSQL", "MongoDB"],
)
def test_a_missing_driver_is_one_line_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, url: str, driver: str, extra: str
) -> None:
    for name in [name for name in sys.modules if name.startswith((driver, f"hubbub.stores.{extra}"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, driver, None)
    database = Database(url, given=True, timeout=5.0)
    with pytest.raises(ConfigError, match=rf'{driver} is not installed: pip install "hubbub\[{extra}\]"') as told:
        str(database)
    assert "hidden" not in str(told.value)


# --- A loop that died ------------------------------------------------------------------------------------------------


def test_a_hub_whose_loop_died_reaches_a_server_from_the_next() -> None:
    async def live(hub: Hub, n: int) -> None:
        hub.start()
        await hub.node.open()
        _, bo = open_connection(hub, "bo")
        assert (await hub.send_to_user("bo", "chat", n, durable=True)).stored
        await bo.heard("chat", n)
        hub.node.beat(time.monotonic())

    async def end(hub: Hub) -> Any:
        await live(hub, 2)
        await hub.shutdown()

    with Postgres() as server:
        hub = Hub(inbox_url=server.url("kept"), timeouts=Timeouts(shutdown=0.05))
        asyncio.run(live(hub, 1))
        with warnings.catch_warnings(action="ignore", category=ResourceWarning):
            asyncio.run(end(hub))
            gc.collect()  # what a dead loop leaves open, nobody can close
