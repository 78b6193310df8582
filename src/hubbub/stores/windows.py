"""The journal of durable channels, and the archive, in SQL: the statements and rows that SQL stores share.

Values are numbered `?1`; where a driver wants `$1`, the store puts it there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hubbub.core.records import Kept, Record
from hubbub.core.recovery import Publication

__all__ = ["CLEAR", "FORGET", "HEAD", "HOLD", "INSERT", "JOURNAL", "KEPT", "TAKE", "UNDO"]
__all__ += ["archived", "read_kept", "read_record", "record_row", "row_of"]

TAKE = """
    INSERT INTO hubbub_journal (id, epoch, head, watermark, owner, until) VALUES (1, ?2, 0, 0, ?1, ?4)
    ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, until = excluded.until
    WHERE hubbub_journal.owner = ?1 OR hubbub_journal.owner = ?5 OR hubbub_journal.until <= ?3"""
JOURNAL = "SELECT epoch, head, watermark, owner, until FROM hubbub_journal"
HEAD = "UPDATE hubbub_journal SET head = ?2 WHERE owner = ?1 RETURNING id"
UNDO = 'DELETE FROM hubbub_windows WHERE "offset" > ?1'
INSERT = """
    INSERT INTO hubbub_windows ("offset", channel, previous, published_at, event, data, tags, ttl, key, archive)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"""
HOLD = "UPDATE hubbub_journal SET until = ?2, watermark = ?3 WHERE owner = ?1 RETURNING id"
FORGET = 'UPDATE hubbub_windows SET gone = 1 WHERE channel = ?1 AND "offset" <= ?2 AND gone = 0'
CLEAR = """
    DELETE FROM hubbub_windows WHERE gone = 1
    AND (archive = 0 OR "offset" <= ?1) AND (key IS NULL OR published_at <= ?2)"""
KEPT = """
    SELECT "offset", channel, previous, published_at, event, data, tags, ttl, key, archive, gone FROM hubbub_windows
    WHERE "offset" > ?1 AND archive >= ?2 ORDER BY "offset" LIMIT ?3"""

MARK = '(SELECT published_at FROM hubbub_archive WHERE channel = ?1 AND epoch = ?4 AND "offset" = ?5)'


def archived(*, after: bool, back: bool) -> str:
    """A page of a channel's archive: channel, first time, limit, and epoch and offset of the record to go on behind."""
    way, beyond = ("DESC", "<") if back else ("ASC", ">")
    # The plus keeps the index for the second condition, which begins where the page does.
    rest = f'+published_at >= ?2 AND (published_at, epoch, "offset") {beyond} ({MARK}, ?4, ?5)'
    return f"""
        SELECT * FROM hubbub_archive WHERE channel = ?1 AND {rest if after else "published_at >= ?2"}
        ORDER BY published_at {way}, epoch {way}, "offset" {way} LIMIT ?3"""


def row_of(entry: Kept) -> tuple[Any, ...]:
    """The values of `INSERT`."""
    each = entry.publication
    place = (each.offset, entry.channel, each.previous, each.published_at)
    return (*place, each.event, each.data, _write_tags(each.tags), entry.ttl, entry.key, int(entry.archive))


def read_kept(row: Sequence[Any]) -> Kept:
    """A row of `KEPT`."""
    offset, channel, previous, at, event, data, tags, ttl, key, archive, gone = row
    publication = Publication(offset, previous, at, event, data, _read_tags(tags))
    return Kept(channel, publication, ttl, key, bool(archive), bool(gone))


def record_row(record: Record) -> tuple[Any, ...]:
    """The values of a record, in the order of the archive's columns."""
    tags = _write_tags(record.tags)
    return (record.channel, record.epoch, record.offset, record.event, record.data, record.published_at, tags)


def read_record(row: Sequence[Any]) -> Record:
    """A row of the archive."""
    channel, epoch, offset, event, data, published_at, tags = row
    return Record(channel, epoch, offset, event, data, published_at, _read_tags(tags))


def _write_tags(tags: Mapping[str, str] | None) -> str | None:
    return None if tags is None else json.dumps(dict(tags))


def _read_tags(text: str | None) -> dict[str, str] | None:
    return None if text is None else json.loads(text)
