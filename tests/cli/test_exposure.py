"""What `hubbub serve` says before others can reach it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubbub import Hub
from hubbub.cli.exposure import check_lists, check_origins
from hubbub.config import load_settings
from hubbub.errors import ConfigError
from tests.serving import RawClient, RunningServer, fetch, free_port, process

WAY = "set HUBBUB_ORIGINS to where your pages come from, like HUBBUB_ORIGINS=https://example.com"
APP = """
from hubbub import Hub

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
    print(scope["client"][0], scope["scheme"], flush=True)

app = Hub().wrap(app)
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APP)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"hubbub_broker_url": "nats://one?replica=3"}, r"HUBBUB_BROKER_URL: NATS has no option 'replica'"),
        ({"hubbub_broker_url": "redis://one:x"}, r"HUBBUB_BROKER_URL: 'one:x' in the URL of Redis"),
        ({"hubbub_outbox_url": "postgresql://one:x/app"}, r"HUBBUB_OUTBOX_URL: The URL of PostgreSQL is not well"),
        ({"hubbub_origins": "example.com"}, r"HUBBUB_ORIGINS: 'example.com' is not an origin: give scheme, host"),
        ({"hubbub_origins": "https://a.example,null"}, r"HUBBUB_ORIGINS: 'null' is not an origin"),
        ({"hubbub_trusted_proxies": "nginx"}, r"HUBBUB_TRUSTED_PROXIES: 'nginx' is no proxy's address"),
    ],
)
def test_a_list_that_is_none_is_named(given: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_lists(load_settings(**given))


def test_the_trusted_proxies_are_read() -> None:
    proxies = check_lists(load_settings(hubbub_trusted_proxies="10.0.0.0/8, unix"))
    assert (proxies.trusts("10.1.2.3"), proxies.trusts(None), proxies.trusts("127.0.0.1")) == (True, True, False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_on_loopback_nothing_is_said(host: str) -> None:
    assert check_origins([Hub()], host, "development") is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.5"])
def test_where_others_can_reach_it_a_hub_without_a_list_is_told_about(host: str) -> None:
    hubs = [Hub("/b"), Hub("/a"), Hub("/listed", origins=["https://a.example"])]
    assert check_origins(hubs, host, "staging") == (
        f"no origins are set for /a, /b, so on {host} every browser is refused: {WAY}."
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_in_production_a_hub_without_a_list_does_not_start(host: str) -> None:
    with pytest.raises(ConfigError, match=f"No origins are set for /ws, and this is production: {WAY}"):
        check_origins([Hub()], host, "production")


@pytest.mark.parametrize("origins", [["https://a.example"], ["*"], []], ids=str)
def test_a_list_in_code_counts(origins: list[str]) -> None:
    assert check_origins([Hub(origins=origins)], "0.0.0.0", "production") is None


# --- The command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"DEPLOY_ENV": "production"}, f"hubbub: No origins are set for /ws, and this is production: {WAY}.\n"),
        ({"HUBBUB_TRUSTED_PROXIES": "*"}, "hubbub: HUBBUB_TRUSTED_PROXIES: '*' is no proxy's address: give"),
        ({"HUBBUB_ORIGINS": "a.example"}, "hubbub: HUBBUB_ORIGINS: 'a.example' is not an origin: give"),
    ],
    ids=["production", "proxies", "origins"],
)
async def test_serve_stops_with_one_line(here: Path, environment: dict[str, str], said: str) -> None:
    async with process("-m", "hubbub.cli", "serve", "main:app", "--port", "0", cwd=here, **environment) as running:
        assert await running.end() == 1
        assert running.err.startswith(said)
        assert (running.out, running.err.count("\n")) == ("", 1)


async def test_serve_warns_where_it_listens_for_others(here: Path) -> None:
    command = ("-m", "hubbub.cli", "serve", "main:app", "--host", "0.0.0.0", "--port", "0")
    async with process(*command, cwd=here) as running:
        await running.says("Stop with Ctrl+C")
        assert running.err == f"hubbub: no origins are set for /ws, so on 0.0.0.0 every browser is refused: {WAY}.\n"


async def test_serve_takes_both_lists_from_the_environment(here: Path) -> None:
    port = free_port()
    server = RunningServer(port)
    ours = {"HUBBUB_ORIGINS": "https://a.example", "HUBBUB_TRUSTED_PROXIES": "127.0.0.1", "DEPLOY_ENV": "production"}
    command = ("-m", "hubbub.cli", "serve", "main:app", "--host", "0.0.0.0", "--port", str(port))
    async with process(*command, cwd=here, **ours) as running:
        await running.says("Stop with Ctrl+C")
        async with RawClient.join(server, headers=[("Origin", "https://a.example")]):
            pass
        async with RawClient.connect(server, headers=[("Origin", server.url)], status=403):
            pass
        await fetch(server, "/", headers=[("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "https")])
        await running.says("203.0.113.9 https")
