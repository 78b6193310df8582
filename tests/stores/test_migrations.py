"""The SQL files, and what a database says that did not come from them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from hubbub.errors import StoreError
from hubbub.stores.migrations import Migration, find_migrations, find_pending
from hubbub.stores.sqlite import SqliteStore
from tests.serving import process

FIRST, SECOND = Migration(1, "inbox", "CREATE TABLE a (b);\n"), Migration(2, "archive", "CREATE TABLE c (d);\n")
BOTH = [FIRST, SECOND]
PLACE = "SQLite at here.db"


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_the_files_are_numbered_without_a_gap(dialect: str) -> None:
    found = find_migrations(dialect)
    assert [migration.version for migration in found] == list(range(1, len(found) + 1))
    assert all(migration.name and migration.statements for migration in found)


def test_every_dialect_has_the_same_steps() -> None:
    names = [
        [(migration.version, migration.name) for migration in find_migrations(each)] for each in ("sqlite", "postgres")
    ]
    assert names[0] == names[1]


def test_statements_come_one_by_one() -> None:
    sql = "-- A comment; with a semicolon.\nCREATE TABLE a (\n    b TEXT\n) STRICT;\n\nCREATE INDEX c ON a (b);\n"
    assert len(Migration(1, "x", sql).statements) == 2


@pytest.mark.parametrize(
    ("applied", "pending"),
    [({}, [1, 2]), ({1: FIRST.checksum}, [2]), ({1: FIRST.checksum, 2: SECOND.checksum}, [])],
    ids=["new", "old", "up to date"],
)
def test_what_is_missing_is_done(applied: dict[int, str], pending: list[int]) -> None:
    assert [migration.version for migration in find_pending(BOTH, applied, PLACE)] == pending


def test_a_newer_database_is_refused() -> None:
    with pytest.raises(StoreError, match=r"here\.db has tables of version 7, and this hubbub knows version 2"):
        find_pending(BOTH, {1: FIRST.checksum, 2: SECOND.checksum, 7: "?"}, PLACE)


def test_a_changed_history_is_refused() -> None:
    with pytest.raises(StoreError, match=r"here\.db got migration 2 \(archive\) with another text"):
        find_pending(BOTH, {1: FIRST.checksum, 2: "?"}, PLACE)


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    store = SqliteStore(f"sqlite:///{tmp_path}/hubbub.db")
    await store.open()
    await store.close()
    return tmp_path / "hubbub.db"


def change(path: Path, statement: str) -> None:
    db = sqlite3.connect(path)
    with db:
        db.execute(statement)
    db.close()


async def test_a_failed_migration_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "hubbub.db"
    change(path, "CREATE TABLE hubbub_archive_position (theirs TEXT)")
    with pytest.raises(StoreError, match=r"hubbub\.db .*already exists"):
        await SqliteStore(f"sqlite:///{path}").open()
    db = sqlite3.connect(path)
    tables = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    db.close()
    assert tables == [("hubbub_archive_position",)]


# The command

LATEST = find_migrations("sqlite")[-1].version


async def migrate(**environment: Any) -> tuple[str, str, int]:
    async with process("-m", "hubbub.cli", "migrate", **environment) as command:
        code = await command.end()
        return command.out, command.err, code


async def test_the_command_says_where_and_from_which_version(tmp_path: Path) -> None:
    urls = {"HUBBUB_INBOX_URL": f"sqlite:///{tmp_path}/a.db", "HUBBUB_ARCHIVE_URL": f"sqlite:///{tmp_path}/b.db"}
    out, err, code = await migrate(**urls)
    lines = [f"{role}: SQLite at {tmp_path}/{name}.db, " for role, name in (("inbox", "a"), ("archive", "b"))]
    assert (out.splitlines(), err, code) == ([f"{line}from version 0 to {LATEST}" for line in lines], "", 0)
    out, err, code = await migrate(**urls)
    assert (out.splitlines(), err, code) == ([f"{line}version {LATEST} already" for line in lines], "", 0)


async def test_the_command_opens_a_shared_database_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    out, _, code = await migrate(HUBBUB_INBOX_URL=url, HUBBUB_ARCHIVE_URL=url)
    assert (out, code) == (f"inbox and archive: SQLite at {tmp_path}/a.db, from version 0 to {LATEST}\n", 0)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("INSERT INTO hubbub_migrations VALUES (99, 'future', '?')", "has tables of version 99"),
        ("UPDATE hubbub_migrations SET checksum = '?' WHERE version = 1", "got migration 1 (inbox) with another text"),
    ],
    ids=["newer", "changed"],
)
async def test_the_command_fails_in_one_line(path: Path, statement: str, said: str) -> None:
    change(path, statement)
    url = f"sqlite:///{path}"
    out, err, code = await migrate(HUBBUB_INBOX_URL=url, HUBBUB_ARCHIVE_URL=url)
    assert (out, code) == ("", 1)
    assert err.startswith(f"hubbub: SQLite at {path} {said}")
    assert err.count("\n") == 1


async def test_the_command_names_a_server_that_is_down(tmp_path: Path) -> None:
    url = "postgresql://ada:secret@127.0.0.1:1/app"
    out, err, code = await migrate(HUBBUB_INBOX_URL=url, HUBBUB_ARCHIVE_URL=url)
    assert (out, code) == ("", 1)
    assert err.startswith("hubbub: PostgreSQL at 127.0.0.1:1/app cannot be reached: connection refused.")
    assert "secret" not in err
