"""What is special to PostgreSQL: a server that goes and comes, locks that others hold; the rest is in the contract."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from hubbub.core.inbox import Ack, Draft
from hubbub.core.records import Record
from hubbub.errors import ConfigError, StorageFull, StoreError, StoreUnavailable
from hubbub.stores import dsn, postgres
from hubbub.stores.postgres import PostgresStore
from services.postgres import Postgres

NOW = 1_700_000_000_000
CAP = 1_000_000
numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture
def url(server: Postgres) -> str:
    return server.url(f"store_{next(numbers)}")


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def other(url: str, store: PostgresStore) -> AsyncIterator[asyncpg.Connection]:
    """Somebody else in the same database."""
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


def draft(user_id: str = "ada", key: str | None = None) -> Draft:
    return Draft(user_id, "chat", b"1", NOW, NOW + 1_000_000, key)


async def put(store: PostgresStore, user_id: str = "ada") -> int:
    return (await store.append([draft(user_id)], CAP))[0].cursor


async def cursors(store: PostgresStore, user_id: str = "ada") -> list[int]:
    return [entry.cursor for entry in (await store.read(user_id, 0, CAP, NOW)).entries]


async def somebody_waits(connection: asyncpg.Connection) -> None:
    while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        pass


# Where it is


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://ada:secret@db.example.com:6432/app", "db.example.com:6432/app"),
        ("postgres://ada:secret@db.example.com/app?sslmode=require&password=secret", "db.example.com:5432/app"),
        ("postgresql://ada:%73ecret%40%2F@[::1]:5433/app", "[::1]:5433/app"),
        ("postgresql://secret@one:1,two/app", "one:1,two:5432/app"),
        ("postgresql:///app?host=/var/run/postgresql&user=secret", "/var/run/postgresql:5432/app"),
        ("postgresql://", "localhost:5432"),
    ],
)
def test_the_place_names_no_user_and_no_password(url: str, place: str) -> None:
    assert PostgresStore(url).place == f"PostgreSQL at {place}"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:sec/ret@db/app",
        "postgresql://ada:sec@ret@db/app",
        "postgresql://ada:sec?ret@db/app",
        "postgresql://ada:sec#ret@db/app",
        "postgresql://ada:secret",
        "mysql://ada:secret@db/app",
    ],
)
def test_a_malformed_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError, match="not well formed") as caught:
        PostgresStore(url)
    assert "sec" not in str(caught.value)
    assert "ret@" not in str(caught.value)


@pytest.mark.parametrize("url", ["postgresql://127.0.0.1:99999/app", "postgresql://db..host/app"])
async def test_an_address_that_there_cannot_be_is_out_of_reach(url: str) -> None:
    store = PostgresStore(url)
    for connect in (store.open, store.pending):
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await connect()


@pytest.mark.parametrize("option", ["?statement_cache_size=0", "?application_name=app&statement_cache_size=0"])
async def test_statements_need_not_be_kept_for_a_pooler(url: str, option: str) -> None:
    store = PostgresStore(url + option)
    await store.open()
    try:
        for _ in range(2):
            await store.append([draft(key="k"), draft()], CAP)
            await store.ack([Ack("ada", "", 1)], NOW)
        assert await cursors(store) == [2, 3]
    finally:
        await store.close()


# At the start


async def test_the_versions_before_and_after_are_known(url: str) -> None:
    store = PostgresStore(url)
    await store.open()
    await store.close()
    assert store.migrated == (0, 3)
    await store.open()
    await store.close()
    assert store.migrated == (3, 3)


async def refusal(url: str) -> str:
    with pytest.raises(StoreError) as caught:
        await PostgresStore(url).open()
    return str(caught.value)


async def test_a_server_that_is_down_is_named() -> None:
    said = await refusal("postgresql://ada:secret@127.0.0.1:1/app")
    assert said == ("PostgreSQL at 127.0.0.1:1/app cannot be reached: connection refused. Start it, or check the URL.")


async def test_a_database_that_is_not_there_is_named(server: Postgres) -> None:
    said = await refusal(server.url("here").replace("/here", "/nowhere"))
    assert said.endswith("/nowhere is not there: create the database, or check its name in the URL.")


async def test_a_user_who_may_not_is_told_so(url: str, server: Postgres) -> None:
    assert "refuses the user or the password" in await refusal(url.replace("postgres@", "secret@"))
    admin = await asyncpg.connect(url)
    await admin.execute("CREATE ROLE guest LOGIN")
    await admin.close()
    assert "does not let this user make tables" in await refusal(url.replace("postgres@", "guest@"))


async def test_an_encoding_that_cannot_keep_every_text_is_refused(url: str) -> None:
    admin = await asyncpg.connect(url)
    await admin.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    await admin.close()
    assert "UTF8" in await refusal(url.rpartition("/")[0] + "/latin")


async def test_a_store_that_is_not_open_says_so(store: PostgresStore) -> None:
    await store.close()
    with pytest.raises(StoreUnavailable, match="is not open"):
        await put(store)


async def test_commits_are_on_the_disk_whatever_the_database_says(
    url: str, store: PostgresStore, other: asyncpg.Connection
) -> None:
    await other.execute(f'ALTER DATABASE "{url.rpartition("/")[2]}" SET synchronous_commit = off')
    await other.execute(
        "CREATE TABLE seen (setting text); CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;"
        " CREATE CONSTRAINT TRIGGER look AFTER INSERT ON hubbub_messages DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION look()"
    )
    await store.close()
    await store.open()
    await store.append([draft()], CAP)
    await store.append([draft(key="k")], CAP)
    assert [row[0] for row in await other.fetch("SELECT setting FROM seen")] == ["on", "on"]


# A server that goes and comes


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_server_that_goes_takes_nothing_along(how: str) -> None:
    with Postgres() as server:
        store = PostgresStore(server.url("app"))
        await store.open()
        acknowledged: dict[str, list[int]] = {f"user-{number}": [] for number in range(8)}
        failures: list[Exception] = []
        half = asyncio.Event()

        async def send(user: str) -> None:
            while not failures or len(acknowledged[user]) < 40:
                try:
                    acknowledged[user].append(await put(store, user))
                except StoreUnavailable as error:
                    failures.append(error)
                    await asyncio.sleep(0.01)
                if len(acknowledged[user]) == 20:
                    half.set()

        sending = [asyncio.create_task(send(user)) for user in acknowledged]
        await half.wait()
        await asyncio.to_thread(getattr(server, how))
        with pytest.raises(StoreUnavailable, match=r"PostgreSQL at 127\.0\.0\.1"):
            await put(store, "nobody")
        with pytest.raises(StoreUnavailable, match=r"PostgreSQL at 127\.0\.0\.1"):
            await cursors(store)
        await asyncio.to_thread(server.start)
        await asyncio.gather(*sending)
        assert failures
        for user, sent in acknowledged.items():
            there = await cursors(store, user)
            assert sent == sorted(sent)
            assert set(sent) <= set(there)
            assert there == sorted(there)
            assert await put(store, user) > there[-1]
        await store.close()


# Others who hold locks


async def test_an_inbox_that_somebody_holds_is_not_waited_for_long(
    url: str, store: PostgresStore, other: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(store)
    monkeypatch.setattr(postgres, "PATIENCE", 0.3)
    monkeypatch.setattr(dsn, "PATIENCE", 0.3)
    await store.close()
    await store.open()
    async with other.transaction():
        await other.execute("SELECT * FROM hubbub_heads FOR UPDATE")
        for drafts in ([draft()], [draft(key="k")]):
            with pytest.raises(StoreUnavailable, match=r"no answer in 0\.3 s"):
                await store.append(drafts, CAP)
        assert await cursors(store) == [1]
        assert await put(store, "bob") == 1
    assert await cursors(store) == [1]
    assert await put(store) == 2


async def test_a_deadlock_is_tried_again(store: PostgresStore, other: asyncpg.Connection) -> None:
    first, second = (Record("news", "e", offset, None, b"", NOW) for offset in (1, 2))
    insert = "INSERT INTO hubbub_archive VALUES ('news', 'e', $1, NULL, '', $2)"
    await other.execute("SET deadlock_timeout = '1min'")  # so that it is the store's transaction that is ended
    async with other.transaction():
        await other.execute(insert, second.offset, NOW)
        archiving = asyncio.create_task(store.archive([first, second], "p"))
        await somebody_waits(other)
        await other.execute(insert, first.offset, NOW)
        assert not archiving.done()
    await archiving
    assert await store.archived("news", 10) == [first, second]
    assert await store.archive_position() == "p"


async def test_a_serialization_error_is_tried_again(url: str, store: PostgresStore, other: asyncpg.Connection) -> None:
    await other.execute(f'ALTER DATABASE "{url.rpartition("/")[2]}" SET default_transaction_isolation = serializable')
    await put(store)
    await store.close()
    await store.open()
    async with other.transaction():
        await other.execute("UPDATE hubbub_heads SET head = head + 1")
        putting = asyncio.create_task(put(store))
        await somebody_waits(other)
    assert await putting == 3  # the statement that waited saw 1, and was ended
    assert await cursors(store) == [1, 3]


async def test_batches_in_any_order_do_not_wait_in_a_circle(url: str, store: PostgresStore) -> None:
    users = [f"user-{number}" for number in range(40)]
    another = PostgresStore(url)
    await another.open()
    try:
        await asyncio.gather(
            *(
                each.append([draft(user, f"{number}" if number % 2 else None) for user in order], 5)
                for number in range(12)
                for each, order in ((store, users), (another, users[::-1]))
            ),
            *(store.ack([Ack(user, "", 3) for user in users[::-1]], NOW) for _ in range(4)),
            *(another.sweep(NOW + 2_000_000) for _ in range(4)),
            *(another.claim(NOW + 1, 50, NOW) for _ in range(4)),
        )
        assert {head for (head,) in await another._read("SELECT head FROM hubbub_heads")} == {18}
    finally:
        await another.close()


async def test_a_full_disk_is_told(store: PostgresStore, other: asyncpg.Connection) -> None:
    await put(store)
    await other.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$;"
        " CREATE TRIGGER refuse BEFORE INSERT ON hubbub_messages FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    for drafts in ([draft()], [draft(key="k")]):
        with pytest.raises(StorageFull, match="no room left"):
            await store.append(drafts, CAP)
    assert await cursors(store) == [1]
    await other.execute("DROP TRIGGER refuse ON hubbub_messages")
    assert await put(store) == 2
