"""What is special to MongoDB: cursors and documents are two steps, so there are holes; the rest is in the contract."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import AutoReconnect, BulkWriteError, NotPrimaryError, OperationFailure, PyMongoError, WTimeoutError

from hubbub.core.inbox import FORGET_KEY, Ack, Draft
from hubbub.errors import StorageFull, StoreError, StoreUnavailable
from hubbub.stores.mongo import MongoStore
from hubbub.stores.mongo.document import Document, tombstone
from hubbub.stores.mongo.failures import named
from hubbub.stores.mongo.messages import PATIENCE, Messages
from hubbub.stores.mongo.writer import Writer
from services.mongo import Mongo

NOW = 1_700_000_000_000
LATER = NOW + PATIENCE
NEVER = NOW + 365 * 24 * 3600 * 1000
REAL = os.environ.get("HUBBUB_TEST_MONGODB_URL")
SERVERS = ["wire server", *(["real server"] if REAL else [])]
numbers = itertools.count()


@pytest.fixture(scope="module")
def mongo() -> Iterator[Mongo]:
    with Mongo() as server:
        yield server


@pytest.fixture(params=SERVERS)
async def url(request: pytest.FixtureRequest, mongo: Mongo) -> AsyncIterator[str]:
    """A database of its own for each test."""
    name = f"hubbub_test_{os.getpid()}_{next(numbers)}"
    if request.param == "wire server":
        yield mongo.url(name)
        return
    assert REAL is not None
    address, mark, options = REAL.partition("?")
    host, _, _ = address.partition("://")[2].partition("/")
    yield f"{address.partition('://')[0]}://{host}/{name}{mark}{options}"
    async with AsyncMongoClient[Document](REAL) as client:
        await client.drop_database(name)


@pytest.fixture
async def store(url: str) -> AsyncIterator[MongoStore]:
    found = MongoStore(url)
    await found.open()
    yield found
    await found.close()


@pytest.fixture
async def other(url: str, store: MongoStore) -> AsyncIterator[MongoStore]:
    """A second client of the same database, as another process has one."""
    found = MongoStore(url)
    await found.open()
    yield found
    await found.close()


@pytest.fixture
async def database(url: str, store: MongoStore) -> AsyncIterator[AsyncDatabase[Document]]:
    """The documents themselves."""
    async with AsyncMongoClient[Document](url) as client:
        yield client.get_default_database()


class SlowWriter(Writer):
    """Falls asleep between the two steps, the first time: it has a cursor, and inserts when it is woken."""

    def __init__(self, database: AsyncDatabase[Document]) -> None:
        super().__init__(Messages(database))
        self.taken = asyncio.Event()
        self.awake = asyncio.Event()

    async def _take(self, user: str, rows: list[Any]) -> None:
        await super()._take(user, rows)
        if not self.taken.is_set():
            self.taken.set()
            await self.awake.wait()


def draft(text: object = "", *, user: str = "ann", key: str | None = None, at: int = NOW, until: int = NEVER) -> Draft:
    return Draft(user, "note", str(text).encode(), at, until, key)


async def texts(store: MongoStore, user: str = "ann", now: int = NOW) -> list[str]:
    page = await store.read(user, 0, 1000, now)
    assert page.whole
    return [entry.payload.decode() for entry in page.entries]


async def lose(database: AsyncDatabase[Document], count: int = 1) -> None:
    """Take cursors and die."""
    await database["hubbub_heads"].update_one({"_id": "ann"}, {"$inc": {"head": count}})


# --- Holes -----------------------------------------------------------------------------------------------------------


async def test_readers_wait_at_a_hole_and_pass_when_it_is_old(
    store: MongoStore, database: AsyncDatabase[Document]
) -> None:
    await store.append([draft("a")], 100)
    await lose(database, 2)
    [stored] = await store.append([draft("b")], 100)
    assert stored.cursor == 4
    for _ in range(2):
        page = await store.read("ann", 0, 10, LATER - 1)
        assert [entry.cursor for entry in page.entries] == [1]
        assert not page.whole
    assert not (await store.read("ann", 1, 10, LATER)).whole  # this one fills it
    page = await store.read("ann", 1, 10, LATER)
    assert page.whole
    assert [entry.cursor for entry in page.entries] == [4]


async def test_a_hole_at_the_end_holds_nobody(store: MongoStore, database: AsyncDatabase[Document]) -> None:
    await store.append([draft("a")], 100)
    await lose(database)
    assert await texts(store) == ["a"]


@pytest.mark.parametrize("acked", [False, True], ids=["read", "acked over"])
@pytest.mark.parametrize("key", [None, "k"], ids=["no key", "key"])
async def test_a_writer_that_slept_too_long_starts_again(
    store: MongoStore, database: AsyncDatabase[Document], key: str | None, acked: bool
) -> None:
    slow = SlowWriter(database)
    await store.append([draft("first")], 100)
    writing = asyncio.create_task(slow.append([draft("late 1", key=key), draft("late 2")], 100))
    await slow.taken.wait()
    await store.append([draft("quick")], 100)
    await store.read("ann", 0, 10, LATER)
    seen = (await store.read("ann", 0, 10, LATER)).entries
    assert [(entry.cursor, entry.payload) for entry in seen] == [(1, b"first"), (4, b"quick")]
    if acked:
        await store.ack([Ack("ann", "", 4)], LATER)
        await store.sweep(LATER)
    slow.awake.set()
    assert [stored.cursor for stored in await writing] == [5, 6]
    page = await store.read("ann", 4, 10, LATER)
    assert [entry.payload for entry in page.entries] == [b"late 1", b"late 2"]
    assert page.whole


async def test_a_batch_stays_in_order_though_only_its_middle_was_given_up(
    store: MongoStore, database: AsyncDatabase[Document]
) -> None:
    slow = SlowWriter(database)
    writing = asyncio.create_task(slow.append([draft(n) for n in range(3)] + [draft("else", user="bob")], 100))
    await slow.taken.wait()
    await Messages(database).bury([tombstone("ann", 2, NOW, held=True)], ordered=True)
    slow.awake.set()
    assert [stored.cursor for stored in await writing] == [1, 4, 5, 1]
    assert await texts(store) == ["0", "1", "2"]
    assert await texts(store, "bob") == ["else"]


async def test_the_cap_stops_at_a_hole(store: MongoStore, database: AsyncDatabase[Document]) -> None:
    slow = SlowWriter(database)
    await store.append([draft("a")], 3)
    writing = asyncio.create_task(slow.append([draft("slow")], 3))
    await slow.taken.wait()
    stored = await store.append([draft(text) for text in "bcdef"], 3)
    assert sum(one.dropped for one in stored) == 1  # `a`; what comes next is not known yet
    slow.awake.set()
    assert (await writing)[0].dropped == 3
    assert await texts(store) == ["d", "e", "f"]
    assert (await store.standing("ann", "", NOW)).dropped == 4


# --- Races -----------------------------------------------------------------------------------------------------------


async def test_64_writers_on_two_clients_against_a_reader_that_acks(store: MongoStore, other: MongoStore) -> None:
    seen: list[tuple[int, bytes]] = []
    writers = [
        asyncio.create_task(clients.append([draft(f"{n}.{part}") for part in range(3)], 1000))
        for n, clients in zip(range(64), itertools.cycle([store, other]), strict=False)
    ]
    while len(seen) < 3 * 64:
        last = seen[-1][0] if seen else 0
        page = await other.read("ann", last, 50, NOW)
        cursors = [entry.cursor for entry in page.entries]
        assert cursors == sorted(cursors)
        seen += [(entry.cursor, entry.payload) for entry in page.entries]
        if cursors:
            await store.ack([Ack("ann", "", cursors[-1])], NOW)
    stored = [one for batch in await asyncio.gather(*writers) for one in batch]
    assert [cursor for cursor, _ in seen] == list(range(1, 3 * 64 + 1))
    assert sorted(one.cursor for one in stored) == [cursor for cursor, _ in seen]
    for n in range(64):
        assert [text for _, text in seen if text.startswith(b"%d." % n)] == [b"%d.%d" % (n, part) for part in range(3)]


async def test_one_key_from_many_writers_is_one_message(store: MongoStore, other: MongoStore) -> None:
    calls = [client.append([draft("x"), draft("same", key="k")], 100) for client in (store, other) * 8]
    stored = [batch[1] for batch in await asyncio.gather(*calls)]
    assert sum(one.fresh for one in stored) == 1
    assert len({one.cursor for one in stored}) == 1
    assert sorted(await texts(store)) == ["same", *["x"] * 16]


async def test_what_the_cap_drops_in_a_race_is_counted_once(store: MongoStore, other: MongoStore) -> None:
    calls = [client.append([draft(n), draft(n)], 10) for n, client in enumerate((store, other) * 16)]
    stored = [one for batch in await asyncio.gather(*calls) for one in batch]
    assert len(await texts(store)) == 10
    assert sum(one.dropped for one in stored) == 64 - 10
    assert await store.standing("ann", "", NOW) == await other.standing("ann", "", NOW)
    assert (await store.standing("ann", "", NOW)).dropped == 64 - 10


async def test_a_cancelled_writer_leaves_no_hole_and_is_not_overtaken(store: MongoStore) -> None:
    for number in range(10):
        writing = asyncio.create_task(store.append([draft(f"{number} a"), draft(f"{number} b")], 100))
        for _ in range(number):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
        await store.append([draft(number)], 100)
    kept = await texts(store)  # this asserts that the page is whole
    assert [text for text in kept if " " not in text] == [str(number) for number in range(10)]
    assert kept == sorted(kept, key=lambda text: (int(text.partition(" ")[0]), " " not in text, text))


# --- What stays in the database --------------------------------------------------------------------------------------


async def test_an_acked_key_is_known_until_it_is_forgotten(
    store: MongoStore, database: AsyncDatabase[Document]
) -> None:
    await store.append([draft("a"), draft("b", key="k"), draft("c")], 100)
    await store.ack([Ack("ann", "", 3)], NOW)
    await store.sweep(NOW + FORGET_KEY - 1)
    assert [document["cursor"] async for document in database["hubbub_inbox"].find()] == [2]
    [again] = await store.append([draft("b", key="k")], 100)
    assert (again.cursor, again.fresh) == (2, False)
    await store.sweep(NOW + FORGET_KEY)
    assert await database["hubbub_inbox"].count_documents({}) == 0
    [again] = await store.append([draft("b", key="k")], 100)
    assert (again.cursor, again.fresh) == (4, True)


async def test_a_sweep_leaves_nothing_of_what_expired(store: MongoStore, database: AsyncDatabase[Document]) -> None:
    await store.append([draft(n, until=NOW + n % 2, key="k" if n == 4 else None) for n in range(10)], 100)
    await store.sweep(NOW)
    assert await texts(store) == ["1", "3", "5", "7", "9"]
    await store.sweep(NOW + 1)
    assert await texts(store) == []
    await store.sweep(NOW + FORGET_KEY)
    assert await database["hubbub_inbox"].count_documents({}) == 0


# --- Failures --------------------------------------------------------------------------------------------------------


class Load:
    """Writers that go on whatever happens until it is `over`, and note what was acknowledged."""

    def __init__(self, store: MongoStore) -> None:
        self._store = store
        self._changed = asyncio.Condition()
        self.acknowledged: list[str] = []
        self.failed = 0
        self.over = False

    async def write(self, name: int) -> None:
        for n in itertools.count():
            if self.over:
                return
            text = f"{name}.{n}"
            try:
                await self._store.append([draft(text, user=f"user {name % 2}", key=text)], 10**6)
                self.acknowledged.append(text)
            except StoreUnavailable:
                self.failed += 1
            async with self._changed:
                self._changed.notify_all()

    async def more(self, acknowledged: int, failed: int) -> None:
        """Wait for so many more of each."""
        wanted = (len(self.acknowledged) + acknowledged, self.failed + failed)
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(lambda: len(self.acknowledged) >= wanted[0] and self.failed >= wanted[1])


async def read_all(store: MongoStore, user: str) -> list[str]:
    while not (page := await store.read(user, 0, 10**6, LATER)).whole:
        pass
    cursors = [entry.cursor for entry in page.entries]
    assert cursors == sorted(set(cursors))
    return [entry.payload.decode() for entry in page.entries]


@pytest.mark.timeout(120)
async def test_a_server_that_is_killed_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    with Mongo(tmp_path) as server:
        store = MongoStore(server.url())
        await store.open()
        load = Load(store)
        writers = [asyncio.create_task(load.write(name)) for name in range(16)]
        await load.more(acknowledged=200, failed=0)
        server.kill()
        await load.more(acknowledged=0, failed=16)
        server.start()
        await load.more(acknowledged=100, failed=0)
        load.over = True
        await asyncio.gather(*writers)
        kept = [*await read_all(store, "user 0"), *await read_all(store, "user 1")]
        assert set(load.acknowledged) <= set(kept)
        assert len(set(kept)) == len(kept)
        for name in range(16):
            own = [int(text.partition(".")[2]) for text in kept if text.startswith(f"{name}.")]
            assert own == sorted(own)
        await store.close()


async def test_a_server_that_is_down_is_told_soon_and_found_again(tmp_path: Path) -> None:
    with Mongo(tmp_path) as server:
        server.stop()
        store = MongoStore(server.url("app"))
        start = time.monotonic()
        with pytest.raises(StoreUnavailable, match=f"MongoDB at 127.0.0.1:{server.port}/app does not answer"):
            await store.open()
        assert time.monotonic() - start < 8
        server.start()
        await store.open()
        await store.append([draft("a")], 100)
        await store.close()
        with pytest.raises(StoreUnavailable):
            await store.append([draft("b")], 100)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("mongodb://ann:s3cret@db.example.com:99999/app", "db.example.com:99999/app"),
        ("mongodb://ann:s3/cret@db.example.com/app", "db.example.com/app"),
        ("mongodb://ann:s3?cret@db.example.com/app", "db.example.com/app"),
        ("mongodb://ann:s3@cret@db.example.com/app", "db.example.com/app"),
        ("mongodb://ann:s3cret@db.example.com/a b$c", "db.example.com/a b$c"),
        ("mongodb://ann:s3%zzcret@[::1/app", "[::1/app"),
        ("mongodb://ann:s3cret@/", "/hubbub"),
    ],
    ids=["port", "slash", "question mark", "at", "database", "percent", "no host"],
)
async def test_a_wrong_url_is_told_without_its_password(url: str, place: str) -> None:
    store = MongoStore(url)
    assert store.place == f"MongoDB at {place}"
    with pytest.raises(StoreError) as told:
        await store.open()
    assert "cret" not in str(told.value)
    assert told.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("mongodb://db.example.com:27017/app", "db.example.com:27017/app"),
        ("mongodb://ann:secret@a:1,b:2/app?replicaSet=rs0", "a:1,b:2/app"),
        ("mongodb+srv://ann:secret@cluster.example.com", "cluster.example.com/hubbub"),
        ("mongodb://db.example.com/?appName=x", "db.example.com/hubbub"),
    ],
    ids=["plain", "replica set", "srv", "no database"],
)
def test_a_place_shows_no_user(url: str, place: str) -> None:
    assert MongoStore(url).place == f"MongoDB at {place}"


async def test_a_newer_database_is_left_alone(store: MongoStore, database: AsyncDatabase[Document], url: str) -> None:
    await database["hubbub_meta"].update_one({"_id": "schema"}, {"$set": {"version": 99}})
    with pytest.raises(StoreError, match=r"version 99 by a newer Hubbub.*Update Hubbub"):
        await MongoStore(url).open()


FULL = {"code": 14031, "codeName": "OutOfDiskSpace", "errmsg": "secret"}


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (OperationFailure("secret", 14031, FULL), StorageFull, "no room left"),
        (BulkWriteError({"writeErrors": [FULL], "writeConcernErrors": []}), StorageFull, "no room left"),
        (BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64}]}), StoreUnavailable, "refused"),
        (OperationFailure("secret", 13, {"codeName": "Unauthorized"}), StoreUnavailable, "refused: Unauthorized"),
        (WTimeoutError("secret", 64, {"codeName": "WriteConcernTimeout"}), StoreUnavailable, "WriteConcernTimeout"),
        (NotPrimaryError("stepped down"), StoreUnavailable, "does not answer: stepped down"),
        (AutoReconnect("connection closed"), StoreUnavailable, "does not answer: connection closed"),
    ],
    ids=["full", "full in a batch", "not on a majority", "rights", "majority too slow", "step-down", "cut"],
)
def test_a_driver_error_becomes_ours(error: PyMongoError, kind: type[StoreError], text: str) -> None:
    with pytest.raises(kind, match=text) as told, named("MongoDB at x"):
        raise error
    assert "secret" not in str(told.value)
