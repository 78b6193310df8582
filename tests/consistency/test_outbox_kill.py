"""`kill -9` of the relay while an application commits and rolls back: what was committed is there once, in its order.

Writers publish on channels and send to users in transactions that overlap, one in five of which is rolled back. What a
transaction has put into the outbox it also notes in a table of the application, behind a row that it holds until its
end: so the notes of a channel or a user are in the order of the commits. In the end they are compared with what the hub
has in its database.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.orm import Session

from hubbub import outbox
from hubbub.outbox.tables import find_table
from tests.consistency.site import Site
from tests.contract.stores import make

WRITERS = 4
CHANNELS = [f"room:{number}" for number in range(4)]
USERS = [f"user-{number}" for number in range(4)]
ENTRIES = 2_000
"""Committed, in the everyday run; `make consistency` commits 10,000."""
KILLS = 5
PATIENCE = 400.0

Lines = dict[str, list[Any]]


class Shop:
    """An application with an outbox in its database.

    Args:
        url: where it is.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.committed = self.rolled_back = 0
        self._engine = _engine(url)

    def open(self) -> None:
        """Make its tables, beside those of the outbox."""
        with self._engine.begin() as db:
            db.execute(text("CREATE TABLE counters (target varchar(50) PRIMARY KEY, n integer NOT NULL)"))
            db.execute(text("CREATE TABLE notes (target varchar(50), n integer, what varchar(50))"))
            for target in (*CHANNELS, *USERS):
                db.execute(text("INSERT INTO counters VALUES (:target, 0)"), {"target": target})

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def write(self, writer: int, count: int) -> None:
        """Be a writer until so much is committed."""
        random, number = Random(writer), 0
        while count > 0:
            number += 1
            targets = sorted(random.sample((*CHANNELS, *USERS), random.randint(1, 3)))
            good = random.random() > 0.2
            with Session(self._engine) as db:
                for target in targets:
                    self._put(db, target, [writer, number])
                for target in targets:
                    self._note(db, target, [writer, number])
                db.commit() if good else db.rollback()
            count -= len(targets) * good
            self.committed += len(targets) * good
            self.rolled_back += len(targets) * (not good)

    def notes(self) -> Lines:
        """What was committed, by channel or user, in the order of the commits."""
        found: Lines = defaultdict(list)
        with self._engine.connect() as db:
            for target, what in db.execute(text("SELECT target, what FROM notes ORDER BY target, n")):
                found[target].append(json.loads(what))
        return dict(found)

    def _put(self, db: Session, target: str, what: Any) -> None:
        if target in USERS:
            outbox.send_to_user(db, target, "said", what)
        else:
            outbox.publish(db, target, "said", what)

    def _note(self, db: Session, target: str, what: Any) -> None:
        values = {"target": target, "what": json.dumps(what)}
        db.execute(text("UPDATE counters SET n = n + 1 WHERE target = :target"), values)
        db.execute(
            text("INSERT INTO notes SELECT target, n, CAST(:what AS varchar) FROM counters WHERE target = :target"),
            values,
        )


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    engine = create_engine(url, connect_args={"timeout": 30})

    def set_up(connection: Any, record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")

    event.listen(engine, "connect", set_up)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


async def sent(url: str) -> Lines:
    """What the hub has in its database, by channel or user, in its order."""
    found: Lines = defaultdict(list)
    store = make(url)
    await store.open()
    behind = 0
    while kept := await store.kept(behind, 1000):
        for each in kept:
            found[each.channel].append(json.loads(each.publication.data))
        behind = kept[-1].publication.offset
    for user in USERS:
        entries = (await store.read(user, 0, 100_000, 0)).entries
        found[user] = [json.loads(entry.payload) for entry in entries]
    await store.close()
    return dict(found)


async def kill_and_check(site: Site, shop: Shop, kept: str, entries: int) -> dict[str, int]:
    """Run the whole thing; the report."""
    random = Random(entries)
    await outbox.create(shop.url)
    shop.open()
    await site.start()
    table = find_table(shop.url)
    await table.open()
    writers = [asyncio.create_task(asyncio.to_thread(shop.write, each, entries // WRITERS)) for each in range(WRITERS)]
    waited = []
    async with asyncio.timeout(PATIENCE):
        for kill in range(1, KILLS + 1):
            enough = entries * kill / (KILLS + 1)
            while shop.committed - (waiting := (await table.counts()).waiting) < enough:  # noqa: ASYNC110  # as above
                await asyncio.sleep(0.005)
            waited.append(waiting)
            await asyncio.sleep(random.random() / 10)  # at any moment of what it does with a batch
            await site.kill()
            await site.start()
        await asyncio.gather(*writers)
        while (await table.counts()).waiting:  # noqa: ASYNC110  # the relay is at work, in another process
            await asyncio.sleep(0.05)
    failed = (await table.counts()).failed
    await table.close()
    await site.kill()
    notes, found = await asyncio.to_thread(shop.notes), await sent(kept)
    shop.close()
    return {
        "committed": shop.committed,
        "rolled back": shop.rolled_back,
        "waited at kills": sum(waited),
        "failed": failed,
        **compare(notes, found),
    }


def compare(notes: Lines, found: Lines) -> dict[str, int]:
    """What is missing, what is too much, and how many lines have another order."""
    report = {"lost": 0, "duplicated": 0, "invented": 0, "reordered": 0}
    for target in notes.keys() | found.keys():
        noted, all = ([tuple(what) for what in lines.get(target, [])] for lines in (notes, found))
        report["lost"] += len(set(noted) - set(all))
        report["invented"] += len(set(all) - set(noted))
        report["duplicated"] += len(all) - len(set(all))
        report["reordered"] += list(dict.fromkeys(all)) != [what for what in noted if what in set(all)]
    return report


@pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)
@pytest.mark.parametrize("entries", [pytest.param(ENTRIES), pytest.param(10_000, marks=pytest.mark.full)])
@pytest.mark.timeout(500)
async def test_what_was_committed_is_sent(url: str, tmp_path: Path, entries: int) -> None:
    # With SQLite the application has a file of its own; with PostgreSQL all is in one database.
    own = f"sqlite:///{tmp_path}/shop.db" if url.startswith("sqlite") else url
    site = Site(url, tmp_path, "tests.consistency.outbox_app:app", HUBBUB_OUTBOX_URL=own)
    found = await kill_and_check(site, Shop(own), url, entries)
    print(url.partition(":")[0], found)
    assert found["committed"] >= entries
    assert found["rolled back"] > entries / 10
    assert (found["lost"], found["duplicated"], found["invented"], found["reordered"]) == (0, 0, 0, 0)
    assert found["failed"] == 0


def test_the_comparison_finds_what_is_wrong() -> None:
    noted: Lines = {"room:1": [[0, 1], [0, 2], [1, 1]]}
    assert set(compare(noted, noted).values()) == {0}
    assert compare(noted, {"room:1": [[0, 1], [1, 1]]})["lost"] == 1
    assert compare(noted, {"room:1": [[0, 2], [0, 1], [1, 1]]})["reordered"] == 1
    assert compare(noted, {"room:1": [*noted["room:1"], [0, 2]]})["duplicated"] == 1
    assert compare(noted, {"room:1": [*noted["room:1"], [9, 9]]})["invented"] == 1
