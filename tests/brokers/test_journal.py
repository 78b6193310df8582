"""Durable channels on a real SQLite file: what outlives the process, and what happens when the database fails."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from hubbub.brokers.memory import MemoryBroker
from hubbub.brokers.memory.owner import Owner
from hubbub.core.namespaces import Namespace
from hubbub.core.records import Kept
from hubbub.core.recovery import Memory, Past, Position, Publication
from hubbub.errors import StorageFull, StoreError, StoreUnavailable
from hubbub.node.database import Database
from hubbub.stores.sqlite import SqliteStore

ROOM = Namespace("room", history=5, history_ttl=60)
LOG = Namespace("log", history=2, history_ttl=60, archive=True)
LOBBY = Namespace("lobby", history=5, durable=False)
KINDS = [ROOM, LOG, LOBBY]


def moment() -> int:
    """Now, in milliseconds."""
    return time.time_ns() // 1_000_000


class Told:
    """A node that notes what it is told."""

    def __init__(self) -> None:
        self.all: list[tuple[str, int, bytes]] = []

    def published(self, channel: str, publication: Publication) -> None:
        """Note it."""
        self.all.append((channel, publication.offset, publication.data))

    def broken(self, channel: str) -> None:
        """Nothing breaks here."""

    def told(self, topic: str, data: bytes) -> None:
        """Nobody else is there."""

    def resumed(self) -> None:
        """It is always there."""


class FailingStore(SqliteStore):
    """A store whose next writes to the journal fail, before or after the commit."""

    failures: list[tuple[StoreError, bool]]

    async def keep(self, owner: str, behind: int, entries: Sequence[Kept]) -> bool:
        """Fail, if that is due."""
        if not self.failures:
            return await super().keep(owner, behind, entries)
        error, done = self.failures.pop(0)
        if done:
            await super().keep(owner, behind, entries)
        raise error


class Life:
    """One life of a process: a broker on the database."""

    def __init__(self, path: Path, *, given: bool = True, store: Any = SqliteStore) -> None:
        url = f"sqlite:///{path}/archive.db"
        self.database = Database(url, given=given, timeout=5)
        self.database._store = store(url)
        self.broker = MemoryBroker(self.database, skip=True)
        self.told = Told()
        self.broker.listen(self.told)

    async def open(self) -> Life:
        """Begin."""
        await self.broker.open(KINDS)
        return self

    async def publish(self, channel: str, data: int = 0, *, key: str | None = None, now: int | None = None) -> Position:
        """Publish a number."""
        [namespace] = [each for each in KINDS if each.name == channel.partition(":")[0]]
        return await self.broker.publish(
            namespace, channel, None, b"%d" % data, idempotency=key, tags=None, now=now or moment()
        )

    async def past(self, channel: str, since: Position | None = None, now: int | None = None) -> Past:
        """What is remembered behind a position."""
        [namespace] = [each for each in KINDS if each.name == channel.partition(":")[0]]
        return await self.broker.past(namespace, channel, since, 100, now or moment())

    async def die(self) -> None:
        """End as by `kill -9`: nobody is told, nothing is left."""
        journal = self.broker.journal
        assert journal is not None
        if journal._writer is not None:
            journal._writer.cancel()
            await asyncio.wait([journal._writer])
        journal._tenure._owner._token = "dead"
        await self.database.close()


@pytest.fixture
async def life(tmp_path: Path) -> Any:
    """A life, and its end."""
    lives = [await Life(tmp_path).open()]

    async def next_life() -> Life:
        await lives[-1].die()
        lives.append(await Life(tmp_path).open())
        return lives[-1]

    lives[0].next = next_life  # type: ignore[attr-defined]
    yield lives[0]
    await lives[-1].broker.close()
    await lives[-1].database.close()


def numbers(past: Past) -> list[int]:
    """What was published."""
    return [int(publication.data) for publication in past.publications]


async def test_window_offsets_and_epoch_outlive_the_process(life: Any) -> None:
    places = [await life.publish("room:1", number) for number in range(3)]
    before = await life.past("room:1")
    after = await life.next()
    past = await after.past("room:1", places[0])
    assert (past.complete, numbers(past)) == (True, [1, 2])
    assert await after.past("room:1") == before
    place = await after.publish("room:1", 3)
    assert place.epoch == places[0].epoch
    assert place.offset > places[-1].offset
    assert numbers(await after.past("room:1", places[0])) == [1, 2, 3]


async def test_a_channel_that_is_not_durable_does_not(life: Any) -> None:
    place = await life.publish("lobby", 1)
    after = await life.next()
    past = await after.past("lobby", place)
    assert (past.complete, past.publications) == (False, [])
    assert await after.publish("lobby", 1) != place


async def test_a_quiet_durable_channel_is_complete_after_a_restart(life: Any) -> None:
    head = (await life.past("room:quiet")).head
    await life.publish("room:1", 1)
    after = await life.next()
    assert (await after.past("room:quiet", head)).complete


@pytest.mark.parametrize("trimmed", [False, True], ids=["at once", "after the journal was tidied"])
async def test_what_was_pushed_out_is_not_recovered(life: Any, trimmed: bool) -> None:
    places = [await life.publish("room:1", number) for number in range(8)]
    if trimmed:
        await life.broker.journal._tidy()
    after = await life.next()
    await after.publish("room:1", 8)
    assert not (await after.past("room:1", places[2])).complete
    past = await after.past("room:1", places[3])
    assert (past.complete, numbers(past)) == (True, [4, 5, 6, 7, 8])


@pytest.mark.parametrize("tidied", [False, True], ids=["at once", "after the journal was tidied"])
async def test_what_has_expired_is_not_recovered(life: Any, tidied: bool) -> None:
    now = moment()
    life.broker.journal.memory.sweep(now)
    place = await life.publish("room:1", 1)
    await life.publish("room:1", 2)
    later = now + 62_000
    if tidied:
        life.broker.sweep(later)
        await life.broker.journal._tidy()
    after = await life.next()
    past = await after.past("room:1", place, later)
    assert (past.complete, past.publications) == (False, [])
    await after.publish("room:1", 3, now=later)
    assert not (await after.past("room:1", place, later)).complete


async def test_a_purge_outlives_the_process(life: Any) -> None:
    place = await life.publish("room:1", 1)
    await life.broker.purge("room:1")
    assert not (await life.past("room:1", place)).complete
    after = await life.next()
    past = await after.past("room:1", place)
    assert (past.complete, past.publications) == (False, [])
    assert (await after.publish("room:1", 2)).offset > place.offset


async def test_a_key_outlives_the_process(life: Any) -> None:
    place = await life.publish("room:1", 1, key="k")
    for number in range(6):
        await life.publish("room:1", number)  # pushed out, its key is not
    after = await life.next()
    assert await after.publish("room:1", 1, key="k") == place


async def test_those_who_publish_at_once_are_told_in_the_order_of_offsets(life: Any) -> None:
    places = await asyncio.gather(*(life.publish(f"room:{n % 3}", n) for n in range(600)))
    offsets = [offset for _, offset, _ in life.told.all]
    assert offsets == sorted(set(offsets))
    assert sorted(place.offset for place in places) == offsets
    assert [place.offset for place in places] == offsets  # one after the other, as they asked


async def test_of_one_key_at_once_there_is_one(life: Any) -> None:
    places = await asyncio.gather(*(life.publish("room:1", n, key="k") for n in range(10)))
    assert len(set(places)) == 1
    assert [data for _, _, data in life.told.all] == [b"0"]


async def test_nobody_hears_of_it_before_it_is_kept(life: Any) -> None:
    asked, kept = asyncio.Event(), asyncio.Event()
    store = life.database.store
    keep = store.keep

    async def slow(*args: Any) -> bool:
        asked.set()
        await kept.wait()
        done: bool = await keep(*args)
        return done

    store.keep = slow
    publishing = asyncio.create_task(life.publish("room:1", 1))
    await asked.wait()
    await life.publish("lobby", 1)
    assert life.told.all == [("lobby", life.told.all[0][1], b"1")]
    assert (await life.past("room:1")).publications == []
    head = (await life.past("room:1")).head
    kept.set()
    place = await publishing
    assert place.offset > head.offset  # what was read meanwhile is behind it
    assert life.told.all[1:] == [("room:1", place.offset, b"1")]


@pytest.mark.parametrize("error", [StoreUnavailable("down"), StorageFull("full")], ids=["unavailable", "full"])
@pytest.mark.parametrize("done", [False, True], ids=["not written", "written after all"])
async def test_what_failed_is_not_told_and_leaves_nothing(tmp_path: Path, error: StoreError, done: bool) -> None:
    life = await Life(tmp_path, store=FailingStore).open()
    store: Any = life.database.store
    store.failures = []
    first = await life.publish("room:1", 1)
    store.failures = [(error, done)]
    results = await asyncio.gather(*(life.publish("room:1", 2) for _ in range(3)), return_exceptions=True)
    assert {type(result) for result in results} == {type(error)}
    assert len({id(result) for result in results}) == 3
    life.database._failed_at = -10.0  # as if some time had gone by
    last = await life.publish("room:1", 3)
    assert [data for _, _, data in life.told.all] == [b"1", b"3"]
    assert numbers(await life.past("room:1", first)) == [3]
    await life.die()
    after = await Life(tmp_path).open()
    past = await after.past("room:1", first)
    assert (past.complete, numbers(past), past.head) == (True, [3], last)
    await after.die()


async def test_a_publisher_that_goes_away_breaks_nothing(life: Any) -> None:
    for turns in range(6):
        calls = [asyncio.create_task(life.publish("room:1", n, key="same" if n else None)) for n in range(4)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for call in calls[:2]:
            call.cancel()
        for call in calls:
            with suppress(asyncio.CancelledError):
                await call
    place = await life.publish("room:1", 9)
    assert (await life.past("room:1")).head == place


async def test_two_live_processes_cannot_have_one_journal(life: Any, tmp_path: Path) -> None:
    other = Life(tmp_path)
    journal = life.broker.journal
    await life.publish("room:1", 1)

    async def renew() -> None:
        while True:
            await journal._tidy()
            await asyncio.sleep(0)

    alive = asyncio.create_task(renew())
    with pytest.raises(StoreError, match="NATS or Redis"):
        await other.open()
    alive.cancel()
    await asyncio.wait([alive])
    with pytest.raises(StoreError, match="NATS or Redis"):
        await other.publish("room:1", 1)
    await other.database.close()


async def test_who_lost_the_journal_publishes_nothing(life: Any, tmp_path: Path) -> None:
    await life.publish("room:1", 1)
    name = life.broker.journal._tenure._owner.name
    await life.database.store.take_journal("elsewhere 1 x", "e", moment(), 2 * moment(), name)
    with pytest.raises(StoreError, match="NATS or Redis"):
        await life.publish("room:1", 2)
    assert [data for _, _, data in life.told.all] == [b"1"]
    await life.database.store.take_journal(name, "e", moment(), 2 * moment(), "elsewhere 1 x")
    await life.publish("room:1", 3)
    assert numbers(await life.past("room:1")) == [1, 3]


async def test_a_process_that_leaves_leaves_the_journal_to_the_next(life: Any, tmp_path: Path) -> None:
    place = await life.publish("room:1", 1)
    await life.broker.close()
    other = await Life(tmp_path).open()
    assert (await other.past("room:1")).head == place
    await other.broker.close()
    await other.database.close()
    await life.broker.open(KINDS)
    assert (await life.past("room:1")).head == place


async def test_a_database_that_nobody_chose_is_made_for_what_must_be_kept(tmp_path: Path) -> None:
    life = await Life(tmp_path, given=False).open()
    await life.publish("room:1", 1)
    assert (await life.past("log:1")).publications == []
    assert not life.database.store.exists
    place = await life.publish("log:1", 1)
    assert life.database.store.exists
    await life.die()
    after = await Life(tmp_path, given=False).open()
    assert (await after.past("log:1", Position(place.offset, place.epoch))).complete
    await after.die()


async def test_the_journal_is_tidied_in_passing(life: Any) -> None:
    for number in range(7):
        await life.publish("room:1", number)
    await life.broker.journal._tidy()
    assert len(await life.database.store.kept(0, 100)) == ROOM.history


async def test_what_the_archive_does_not_have_stays(life: Any) -> None:
    for number in range(5):
        await life.publish("log:1", number)
        await life.publish("room:1", number)
    await life.broker.journal._tidy()
    after = await life.next()
    records, position = await after.broker.unarchived(None, 3)
    assert [record.data for record in records] == [b"0", b"1", b"2"]
    rest, end = await after.broker.unarchived(position, 3)
    assert [record.data for record in rest] == [b"3", b"4"]
    assert await after.broker.unarchived(end, 3) == ([], end)
    await after.broker.journal._tidy()
    entries = await after.database.store.kept(0, 100, archive=True)
    left = [int(entry.publication.data) for entry in entries]
    assert left == [3, 4]


def test_what_failed_half_way_is_not_restored() -> None:
    memory, now = Memory("e"), moment()
    for offset, previous in ((1, 0), (2, 1), (3, 1), (4, 3)):  # 2 was never committed: nobody behind it knows of it
        memory.restore("room:1", Publication(offset, previous, now, None, b""), 60)
    assert [each.offset for each in memory.past("room:1", None, 10, now).publications] == [1, 3, 4]


@pytest.mark.parametrize(
    ("name", "died"),
    [
        (f"{socket.gethostname()} {os.getpid()} other", True),
        (f"{socket.gethostname()} {os.getppid()} other", False),
        (f"{socket.gethostname()} {2**22 + 1} other", True),
        (f"another-host {2**22 + 1} other", False),
        ("nonsense", False),
    ],
    ids=["an earlier life of ours", "a living process", "no process", "another machine", "nonsense"],
)
def test_whether_an_owner_died(name: str, died: bool) -> None:
    owner = Owner()
    assert Owner.died(name) is died
    assert not Owner.died(owner.name)
