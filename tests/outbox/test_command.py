"""What the command line says of an outbox: `hubbub migrate` and `hubbub doctor`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import typer
from sqlalchemy import create_engine, text

from hubbub import Hub, outbox
from hubbub.cli.checks.finding import Deployment, Finding, Level
from hubbub.cli.checks.outbox import check_outbox
from hubbub.cli.migrate import migrate
from hubbub.config import load_settings
from services.postgres import Postgres
from tests.outbox.test_relay import put


async def found(url: str) -> Finding:
    """What the doctor finds."""
    deployment = Deployment(settings=load_settings(), hubs=[Hub(), Hub(outbox_url=url)])
    [finding] = [finding async for finding in check_outbox(deployment)]
    return finding


def test_migrate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    migrate(url)
    assert capsys.readouterr().out == f"outbox: SQLite at {tmp_path}/app.db, from version 0 to 1\n"
    monkeypatch.setenv("HUBBUB_OUTBOX_URL", url)
    monkeypatch.setenv("HUBBUB_INBOX_URL", f"sqlite:///{tmp_path}/inbox.db")
    migrate()
    assert f"outbox: SQLite at {tmp_path}/app.db, version 1 already\n" in capsys.readouterr().out


@pytest.mark.parametrize("url", ["mysql://host/app", "postgresql://nobody@127.0.0.1:1/app"])
def test_what_cannot_be_migrated(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        migrate(url)
    assert capsys.readouterr().err.startswith("hubbub: ")


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_the_doctor_counts_and_changes_nothing(kind: str, server: Postgres, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/app.db" if kind == "sqlite" else server.url("doctor")
    for _ in range(2):
        missing = await found(url)
        assert (missing.level, missing.mend) == (Level.WARNING, "hubbub migrate")
    assert not (tmp_path / "app.db").exists()
    await outbox.create(url)
    await asyncio.to_thread(put, url, ("room:1", 1), ("room:1", 2))
    waiting = await found(url)
    assert (waiting.level, waiting.what.rpartition(": ")[2]) == (Level.OK, "2 waiting")
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE hubbub_outbox SET failed_at = 1"))
    engine.dispose()
    assert "2 could not be sent" in (await found(url)).what


async def test_the_doctor_says_what_is_out_of_reach(tmp_path: Path) -> None:
    assert (await found("postgresql://nobody@127.0.0.1:1/app")).level is Level.ERROR
    (tmp_path / "app.db").write_bytes(b"no database at all" * 100)
    assert (await found(f"sqlite:///{tmp_path}/app.db")).level is Level.ERROR
