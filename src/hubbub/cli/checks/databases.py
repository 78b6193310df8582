"""Can the databases be reached and written to, and are they up to date?"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from hubbub.cli.checks.finding import Deployment, Finding, Level
from hubbub.errors import ConfigError, StoreError
from hubbub.node.database import Database

__all__ = ["check_databases", "check_directories", "file_system"]

MOUNTS = Path("/proc/mounts")
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "lustre", "afs", "fuse.sshfs", "fuse.s3fs"}
DIRECTORY = "HUBBUB_DATA_DIR=/var/lib/app"
DATABASE = "HUBBUB_INBOX_URL=postgresql://host/database"


async def check_databases(deployment: Deployment) -> AsyncIterator[Finding]:
    """Connect to each database, and ask it for its version; nothing is changed."""
    for database, name in _databases(deployment).items():
        try:
            store = database.store
            if database.empty:
                yield Finding(Level.OK, "database", f"{name}: {database}")
                continue
            async with asyncio.timeout(deployment.timeout):
                pending = await store.pending()
        except TimeoutError:
            what = f"{name}: {store.place} did not answer in {deployment.timeout:g} s"
            yield Finding(Level.ERROR, "database", what, "start it, or give another URL")
        except (ConfigError, StoreError) as error:
            yield Finding(Level.ERROR, "database", f"{name}: {error}")
        else:
            if pending:
                what = (
                    f"{name}: {store.place} is {pending} step{'s' * (pending > 1)} behind: the first start takes longer"
                )
                yield Finding(Level.WARNING, "database", what, "hubbub migrate")
            else:
                yield Finding(Level.OK, "database", f"{name}: {store.place} is up to date")
            if deployment.shared and _file(database) is not None:
                what = f"{name}: {store.place} with several nodes: those of other machines have another one"
                yield Finding(Level.WARNING, "database", what, DATABASE)


def check_directories(deployment: Deployment) -> Iterator[Finding]:
    """Look where SQLite files and the secret for development are, or will be."""
    secrets = [hub.node.gate.secret.file for hub in deployment.hubs]
    files = [*map(_file, _databases(deployment)), *secrets]
    mounts = MOUNTS.read_text("utf-8", "replace") if MOUNTS.exists() else ""
    for directory in sorted({file.parent for file in files if file is not None}):
        if reason := _unwritable(directory):
            yield Finding(Level.ERROR, "directory", f"{directory} cannot be written to: {reason}", DIRECTORY)
        elif (kind := file_system(directory.resolve(), mounts)) in NETWORK:
            what = f"{directory} is on a network ({kind}), where SQLite's log and locks do not hold"
            yield Finding(Level.ERROR, "directory", what, DIRECTORY)
        else:
            yield Finding(Level.OK, "directory", f"{directory} can be written to")


def file_system(path: Path, mounts: str) -> str:
    """The kind of the file system that a path is on; empty where nobody knows.

    Args:
        path: absolute.
        mounts: what /proc/mounts says.
    """
    found, kind = Path(), ""
    for line in mounts.splitlines():
        _, place, name, *_ = line.split()
        mount = Path(place.replace("\\040", " "))
        if path.is_relative_to(mount) and len(mount.parts) >= len(found.parts):
            found, kind = mount, name
    return kind


def _databases(deployment: Deployment) -> dict[Database, str]:
    """Each database with what it is for."""
    names: dict[Database, str] = {}
    for hub in deployment.hubs:
        for role, database in hub.node.databases.items():
            names[database] = f"{names[database]} and {role}" if database in names else f"{hub.path}: {role}"
    return names


def _file(database: Database) -> Path | None:
    scheme, _, name = database.url.partition("://")
    return Path(name.removeprefix("/")) if scheme == "sqlite" else None


def _unwritable(directory: Path) -> str:
    """Why nothing can be written there; a directory that is not there is made later, if that can be."""
    there = next(each for each in (directory.absolute(), *directory.absolute().parents) if each.exists())
    if not there.is_dir():
        return f"{there} is no directory"
    if there == directory.absolute():
        try:
            tempfile.TemporaryFile(dir=there).close()
        except OSError as error:
            return error.strerror or str(error)
        return ""
    return "" if os.access(there, os.W_OK | os.X_OK) else f"{there} may not be written to"
