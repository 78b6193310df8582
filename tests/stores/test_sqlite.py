"""What is special to SQLite: its file, its locks and its disk; the rest is in the contract."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from hubbub.core.inbox import Draft
from hubbub.errors import ConfigError, StorageFull, StoreError, StoreUnavailable
from hubbub.stores import sqlite
from hubbub.stores.sqlite import SqliteStore

NOW = 1_700_000_000_000
REPOSITORY = Path(__file__).parents[2]
MEGABYTE = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hubbub.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(f"sqlite:///{path}")
    await store.open()
    yield store
    await store.close()


def draft(user_id: str = "ada", size: int = 10) -> Draft:
    return Draft(user_id, "chat", b"x" * size, NOW, NOW + 1_000_000)


async def put(store: SqliteStore, user_id: str = "ada", size: int = 10) -> int:
    return (await store.append([draft(user_id, size)], 1_000_000))[0].cursor


async def cursors(store: SqliteStore) -> list[int]:
    return [entry.cursor for entry in (await store.read("ada", 0, 1_000_000, NOW)).entries]


async def fill(path: Path) -> None:
    """Make a file with some data in it, in order."""
    store = SqliteStore(f"sqlite:///{path}")
    await store.open()
    await store.append([draft(size=1000) for _ in range(200)], 1000)
    await store.close()


# The file


@pytest.mark.parametrize("name", ["new.db", "a/directory/new.db"])
async def test_the_file_and_its_directory_are_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqliteStore(f"sqlite:///{name}")
    assert (store.exists, store.place) == (False, f"SQLite at {name}")
    await store.open()
    await store.close()
    assert store.exists
    assert (tmp_path / name).is_file()


async def test_an_absolute_path_has_four_slashes(path: Path) -> None:
    store = SqliteStore(f"sqlite:///{path}")
    assert store.place == f"SQLite at {path}"
    await store.open()
    await store.close()
    assert store.exists


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///"])
def test_a_url_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="names no file"):
        SqliteStore(url)


async def test_the_versions_before_and_after_are_known(path: Path) -> None:
    store = SqliteStore(f"sqlite:///{path}")
    await store.open()
    await store.close()
    assert store.migrated == (0, 3)
    await store.open()
    await store.close()
    assert store.migrated == (3, 3)


async def test_a_store_that_is_not_open_says_so(store: SqliteStore) -> None:
    await store.close()
    with pytest.raises(StoreUnavailable, match="is not open"):
        await put(store)
    with pytest.raises(StoreUnavailable, match="is not open"):
        await cursors(store)


async def test_commits_are_on_the_disk(store: SqliteStore) -> None:
    def settings(db: sqlite3.Connection) -> list[object]:
        return [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]

    assert await store._writer.run(settings) == ["wal", 2]


def change(path: Path, how: Callable[[bytes], bytes]) -> bytes:
    changed = how(path.read_bytes())
    path.write_bytes(changed)
    return changed


def garbage(data: bytes) -> bytes:
    return b"This is no database. " * 500


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def cut_within_a_page(data: bytes) -> bytes:
    return data[:-1000]


def only_a_header(data: bytes) -> bytes:
    return data[:100]


def torn(data: bytes) -> bytes:
    half = len(data) // 2 // 4096 * 4096
    return data[:half] + b"\xa5" * 8192 + data[half + 8192 :]


@pytest.mark.parametrize("checked", [MEGABYTE, 0], ids=["small", "large"])
@pytest.mark.parametrize("harm", [garbage, cut, cut_within_a_page, only_a_header])
async def test_a_file_that_is_no_whole_database_is_refused_by_name(
    path: Path, monkeypatch: pytest.MonkeyPatch, harm: Callable[[bytes], bytes], checked: int
) -> None:
    monkeypatch.setattr(sqlite, "CHECKED", checked)
    await fill(path)
    harmed = change(path, harm)
    store = SqliteStore(f"sqlite:///{path}")
    with pytest.raises(StoreError, match=r"hubbub\.db .*restore a copy"):
        await store.open()
    assert change(path, bytes) == harmed


async def test_a_torn_file_is_refused_by_name(path: Path) -> None:
    await fill(path)
    change(path, torn)
    with pytest.raises(StoreError, match=r"hubbub\.db .*restore a copy"):
        await SqliteStore(f"sqlite:///{path}").open()


async def test_a_file_whose_log_holds_the_rest_is_whole(path: Path) -> None:
    store = SqliteStore(f"sqlite:///{path}")
    await store.open()
    await put(store)
    copies = [path.with_name(f"copy.db{suffix}") for suffix in ("", "-wal")]
    for copy, suffix in zip(copies, ("", "-wal"), strict=True):
        copy.write_bytes(path.with_name(f"{path.name}{suffix}").read_bytes())
    await store.close()
    copied = SqliteStore(f"sqlite:///{copies[0]}")
    await copied.open()
    try:
        assert await cursors(copied) == [1]
    finally:
        await copied.close()


@pytest.mark.parametrize("name", ["file/hubbub.db", ".", "/proc/hubbub.db", "/proc/hubbub/hubbub.db"])
async def test_a_place_that_cannot_be_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"SQLite at .* cannot be opened"):
        await SqliteStore(f"sqlite:///{tmp_path / name}").open()


# Locks


async def test_a_locked_file_is_waited_for_and_then_not(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await put(store)
    monkeypatch.setattr(sqlite, "BUSY", 0.2)
    await store.close()
    await store.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"hubbub\.db is locked"):
        await put(store)
    assert time.monotonic() - started < 5
    assert await cursors(store) == [first]
    with pytest.raises(StoreUnavailable, match=r"hubbub\.db is locked"):
        await SqliteStore(f"sqlite:///{path}").open()
    other.execute("ROLLBACK")
    other.close()
    second = await put(store)
    assert await cursors(store) == [first, second]


async def test_the_lock_of_a_moment_is_waited_for(store: SqliteStore, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(put(store))
    await cursors(store)  # the reader is not held up
    assert not waiting.done()
    other.execute("ROLLBACK")
    other.close()
    assert await waiting == 1


# The disk


@pytest.fixture
def scarce(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A directory on a disk of 3 MB, of which a file takes one until it is asked to go; on our own disk otherwise."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(directory)]
    mounted = os.geteuid() == 0 and not subprocess.run(mount, capture_output=True, check=False).returncode
    (directory / "filler").write_bytes(b"x" * MEGABYTE)
    yield directory, (directory / "filler").unlink
    if mounted:
        subprocess.run(["umount", "-l", str(directory)], check=True)


async def test_a_full_disk_is_told_and_recovers(scarce: tuple[Path, Callable[[], None]]) -> None:
    directory, make_room = scarce
    store = SqliteStore(f"sqlite:///{directory}/hubbub.db")
    await store.open()
    kept: list[int] = []

    async def limit(pages: int) -> None:
        """Where no small disk can be had, SQLite's own limit of pages stands in."""
        if not directory.is_mount():
            await store._writer.run(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchone())

    async def fill() -> None:
        while len(kept) < 10_000:
            kept.append(await put(store, size=20_000))

    try:
        await limit(200)
        with pytest.raises(StorageFull, match=r"hubbub\.db has no room left"):
            await fill()
        assert kept
        assert await cursors(store) == kept
        with pytest.raises(StorageFull):
            await store.append([draft(size=20_000) for _ in range(10)], 1000)
        make_room()
        await limit(100_000)
        kept.append(await put(store, size=20_000))
        assert await cursors(store) == kept
    finally:
        await store.close()


WRITE_ERROR = """
    import asyncio, os, resource, sys
    from hubbub.core.inbox import Draft
    from hubbub.errors import StorageFull, StoreUnavailable
    from hubbub.stores.sqlite import SqliteStore

    async def main(path):
        store = SqliteStore(f"sqlite:///{path}")
        await store.open()
        kept = []

        async def put():
            [stored] = await store.append([Draft("ada", "chat", b"x" * 9000, 1, 10**15)], 10**6)
            kept.append(stored.cursor)

        await put()
        connection = store._writer._db
        # The kernel now refuses to let a file of this process grow: a write fails in the middle.
        limit = os.stat(f"{path}-wal").st_size + 70_000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        failures = []
        while len(failures) < 3:
            try:
                await put()
            except StoreUnavailable as error:
                failures.append(str(error))
        entries = (await store.read("ada", 0, 1000, 1)).entries
        assert [entry.cursor for entry in entries] == kept, (entries, kept)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await put()
        assert store._writer._db is not connection
        entries = (await store.read("ada", 0, 1000, 1)).entries
        assert [entry.cursor for entry in entries] == kept
        await store.close()
        print(len(kept), failures[0])

    asyncio.run(main(sys.argv[1]))
"""
FOREVER = """
    import asyncio, sys
    from hubbub.core.inbox import Draft
    from hubbub.stores.sqlite import SqliteStore

    async def main(path):
        store = SqliteStore(f"sqlite:///{path}")
        await store.open()
        while True:
            drafts = [Draft("ada", "chat", b"x" * 500, 1, 10**15) for _ in range(8)]
            print(*[stored.cursor for stored in await store.append(drafts, 10**6)], flush=True)

    asyncio.run(main(sys.argv[1]))
"""


def script(source: str, path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(source), str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)


def test_after_a_write_error_the_connection_is_not_used_again(path: Path) -> None:
    process = script(WRITE_ERROR, path)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    kept, _, failure = out.partition(" ")
    assert int(kept) > 1
    assert "hubbub.db failed: disk I/O error" in failure


async def test_what_was_acknowledged_outlives_a_killed_process(path: Path) -> None:
    process = script(FOREVER, path)
    with process:
        assert process.stdout is not None
        acknowledged = [int(cursor) for _ in range(50) for cursor in process.stdout.readline().split()]
        process.kill()
        acknowledged += [int(cursor) for cursor in process.stdout.read().rpartition("\n")[0].split()]
    store = SqliteStore(f"sqlite:///{path}")
    await store.open()
    try:
        there = await cursors(store)
        assert there[: len(acknowledged)] == acknowledged == list(range(1, len(acknowledged) + 1))
        assert len(there) in (len(acknowledged), len(acknowledged) + 8)
        assert await put(store) == len(there) + 1
    finally:
        await store.close()
