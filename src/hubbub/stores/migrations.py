"""Numbered SQL files that bring the tables of a database up to date, and the check that nobody changed the past.

A store keeps what was applied in `hubbub_migrations` and does the applying, in one transaction that holds a lock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files

from hubbub.errors import StoreError

__all__ = ["Migration", "find_migrations", "find_pending"]


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of SQL.

    Args:
        version: its number, 1 or more, without gaps.
        name: the file's name without number and suffix.
        sql: its statements.
    """

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """What tells this text from a changed one."""
        return sha256(self.sql.encode()).hexdigest()

    @property
    def statements(self) -> list[str]:
        """Its statements one by one, for a driver that takes no more."""
        return [statement for part in self.sql.split(";\n") if (statement := part.strip())]


def find_migrations(dialect: str, package: str = "hubbub.stores") -> list[Migration]:
    """All migrations of a dialect, `sqlite` or `postgres`, in order; of the tables of a package."""
    found = []
    for file in files(package).joinpath("sql", dialect).iterdir():
        stem, _, suffix = file.name.rpartition(".")
        if suffix == "sql":
            number, _, name = stem.partition("_")
            found.append(Migration(int(number), name, file.read_text("utf-8")))
    return sorted(found, key=lambda migration: migration.version)


def find_pending(migrations: list[Migration], applied: Mapping[int, str], place: str) -> list[Migration]:
    """What is still to do.

    Args:
        migrations: all there are, in order.
        applied: the checksums of those the database has, by version.
        place: the database, for the message.

    Raises:
        StoreError: the database is newer than this program, or has another history.
    """
    known = {migration.version: migration for migration in migrations}
    if strange := set(applied) - set(known):
        raise StoreError(
            f"{place} has tables of version {max(strange)}, and this hubbub knows version {max(known)}: "
            "install the newer hubbub, or give another database."
        )
    for version, checksum in applied.items():
        if checksum != known[version].checksum:
            raise StoreError(
                f"{place} got migration {version} ({known[version].name}) with another text than this hubbub has: "
                "install the version of hubbub that made it, or give another database."
            )
    return [migration for migration in migrations if migration.version not in applied]
