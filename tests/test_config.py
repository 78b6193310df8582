from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hubbub import ConfigError, Hub, UsageError
from hubbub.config import ATTACH, DOOR, Settings, load_settings

NAMES = [name.upper() for name in Settings.model_fields]


@pytest.fixture(autouse=True)
def directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty working directory, and none of our variables."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_defaults_are_those_of_the_original() -> None:
    assert load_settings().model_dump() == {
        "ws_path": "/ws",
        "ws_heartbeat_interval": 30_000,
        "ws_shutdown_timeout": 10_000,
        "port": 5000,
        "deploy_env": "development",
        "hubbub_secret": None,
        "hubbub_data_dir": Path(".hubbub"),
        "hubbub_inbox_url": None,
        "hubbub_archive_url": None,
        "hubbub_outbox_url": None,
        "hubbub_broker_url": "memory://",
        "hubbub_api_key": None,
        "hubbub_origins": None,
        "hubbub_trusted_proxies": None,
        "postgres_database_url": None,
        "mongo_db_uri": None,
    }


POSTGRES, MONGO = "postgresql://ann:secret@db/app", "mongodb://db/app"


@pytest.mark.parametrize(
    ("given", "inbox", "archive"),
    [
        ({}, "sqlite:///.hubbub/inbox.db", "sqlite:///.hubbub/archive.db"),
        ({"HUBBUB_DATA_DIR": "/data"}, "sqlite:////data/inbox.db", "sqlite:////data/archive.db"),
        ({"POSTGRES_DATABASE_URL": POSTGRES}, POSTGRES, POSTGRES),
        ({"MONGO_DB_URI": MONGO}, MONGO, MONGO),
        ({"POSTGRES_DATABASE_URL": POSTGRES, "MONGO_DB_URI": MONGO}, POSTGRES, MONGO),
        ({"HUBBUB_INBOX_URL": MONGO, "POSTGRES_DATABASE_URL": POSTGRES}, MONGO, POSTGRES),
    ],
    ids=["neither", "another directory", "PostgreSQL", "MongoDB", "both", "ours first"],
)
def test_each_role_finds_its_database(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], inbox: str, archive: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert (settings.inbox_url, settings.archive_url) == (inbox, archive)
    chosen = any(name != "HUBBUB_DATA_DIR" for name in given)
    assert settings.inbox_given == settings.archive_given == chosen


@pytest.mark.parametrize(
    ("name", "value"), [("HUBBUB_SECRET", "hunter2"), ("HUBBUB_INBOX_URL", "mysql://ann:hunter2@db/app")]
)
def test_a_secret_that_is_not_allowed_is_not_shown(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=name) as failure:
        load_settings()
    assert "hunter2" not in str(failure.value)


GIVEN = [
    ("WS_PATH", "/live/socket", "ws_path", "/live/socket"),
    ("WS_HEARTBEAT_INTERVAL", "15000", "ws_heartbeat_interval", 15_000),
    ("WS_SHUTDOWN_TIMEOUT", "0", "ws_shutdown_timeout", 0),
    ("PORT", "8080", "port", 8080),
    ("DEPLOY_ENV", "production", "deploy_env", "production"),
]


@pytest.mark.parametrize(("name", "value", "field", "expected"), GIVEN)
def test_the_environment_is_read(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, field: str, expected: Any
) -> None:
    monkeypatch.setenv(name, value)
    assert getattr(load_settings(), field) == expected


@pytest.mark.parametrize(("name", "value", "field", "expected"), GIVEN)
def test_an_env_file_is_read(directory: Path, name: str, value: str, field: str, expected: Any) -> None:
    (directory / ".env").write_text(f'# ours\nSOMETHING_ELSE=grün\n\n{name}="{value}"\n', "utf-8")
    assert getattr(load_settings(), field) == expected


def test_an_argument_wins_over_the_environment_and_that_over_the_file(
    monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    (directory / ".env").write_text("PORT=1\nWS_PATH=/file\nDEPLOY_ENV=test\n", "utf-8")
    monkeypatch.setenv("PORT", "2")
    monkeypatch.setenv("WS_PATH", "/environment")
    settings = load_settings(ws_path="/argument")
    assert (settings.ws_path, settings.port, settings.deploy_env) == ("/argument", 2, "test")


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_variable_counts_as_none(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "")
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("WS_PATH", "ws", "a path that starts with `/`"),
        ("WS_PATH", "/ws?x=1", "without `?`"),
        ("WS_PATH", "/a b", "spaces"),
        ("WS_HEARTBEAT_INTERVAL", "30s", "milliseconds, from 100 to 3600000"),
        ("WS_HEARTBEAT_INTERVAL", "30", "milliseconds, from 100 to 3600000"),
        ("WS_SHUTDOWN_TIMEOUT", "-1", "milliseconds, from 0 to 600000"),
        ("WS_SHUTDOWN_TIMEOUT", "1.5", "milliseconds, from 0 to 600000"),
        ("PORT", "http", "a number from 0 to 65535"),
        ("PORT", "65536", "a number from 0 to 65535"),
        ("DEPLOY_ENV", "prod", "`development`, `test`, `staging` or `production`"),
    ],
)
def test_a_bad_value_names_the_variable_and_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, directory: Path, name: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert str(caught.value).startswith(f"{name}={value!r} is not allowed: give ")
    assert allowed in str(caught.value)
    monkeypatch.delenv(name)
    (directory / ".env").write_text(f"{name.lower()}='{value}'", "utf-8")
    with pytest.raises(ConfigError, match=name):
        load_settings()


def test_a_file_in_another_encoding_says_so(directory: Path) -> None:
    (directory / ".env").write_text("WS_PATH=/grün\n", "utf-16")
    with pytest.raises(ConfigError, match=r"\.env cannot be read: save it as UTF-8"):
        load_settings()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().port = 1


def test_a_hub_takes_its_defaults_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WS_PATH", "/live")
    monkeypatch.setenv("WS_HEARTBEAT_INTERVAL", "2500")
    monkeypatch.setenv("WS_SHUTDOWN_TIMEOUT", "0")
    hub = Hub()
    assert (hub.path, hub.node.timeouts.ping) == ("/live", 2.5)
    assert 0 < hub.node.timeouts.shutdown < 0.01
    assert (Hub("/mine").path, Hub(heartbeat_interval=5).node.timeouts.ping) == ("/mine", 5)


def test_a_bad_value_stops_a_hub_from_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="WS_PATH='chat' is not allowed"):
        Hub("chat")
    monkeypatch.setenv("WS_HEARTBEAT_INTERVAL", "soon")
    with pytest.raises(ConfigError, match="WS_HEARTBEAT_INTERVAL='soon'"):
        Hub()


@pytest.mark.parametrize("target", [ATTACH, DOOR])
def test_the_parts_that_are_found_by_name_are_there(target: str) -> None:
    from importlib import import_module

    module, _, name = target.partition(":")
    assert callable(getattr(import_module(module), name))
