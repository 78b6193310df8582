"""`hubbub serve` behind real proxies, each with the configuration that the guide shows and a client that speaks TLS."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.background import Background, background, hubbub_serve, program
from tests.servers.places import certificate, trust
from tests.serving import DEADLINE, REPOSITORY, RawClient, RunningServer, free_port, until

Proxy = Callable[[Path, int, str], AbstractContextManager[Background]]

SHIPPED = REPOSITORY / "examples" / "proxies"
SILENCE = 2.0
"""Seconds that the proxies are told instead of 75; the hub pings after `HEARTBEAT` instead of 30."""
HEARTBEAT = 0.5
ELSEWHERE = "127.0.0.2"
ORIGIN = "https://chat.example.com"


def rendered(name: str, changes: dict[str, str]) -> str:
    """A shipped configuration with what a test must change."""
    text = (SHIPPED / name).read_text("utf-8")
    for old, new in changes.items():
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, new)
    return text


def nginx(here: Path, upstream: int, silence: str) -> AbstractContextManager[Background]:
    """Run nginx in the foreground, with all its files in `here`."""
    files, port = certificate(), free_port()
    places = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    changes = {
        "user www-data;": "daemon off;",
        "worker_processes auto;": "worker_processes 1;",
        "worker_rlimit_nofile 65536;\n": "",
        "worker_connections 32768;": "worker_connections 256;",
        "/run/nginx.pid": f"{here}/pid",
        "/var/log/nginx/error.log": "stderr",
        "/var/log/nginx/access.log": f"{here}/access.log",
        "listen 80;": f"listen 127.0.0.1:{free_port()};",
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "127.0.0.1:8000": f"127.0.0.1:{upstream}",
        "/etc/ssl/chat.example.com/cert.pem": files["ssl_certfile"],
        "/etc/ssl/chat.example.com/key.pem": files["ssl_keyfile"],
        "75s": silence,
        "http {\n": "http {\n" + "".join(f"    {place}_temp_path {here}/{place};\n" for place in places),
    }
    (here / "nginx.conf").write_text(rendered("nginx.conf", changes))
    command = (program("nginx"), "-e", "stderr", "-p", str(here), "-c", str(here / "nginx.conf"))
    return background(here / "nginx.log", port, *command, tls=True)


def haproxy(here: Path, upstream: int, silence: str) -> AbstractContextManager[Background]:
    """Run HAProxy in the foreground."""
    port = free_port()
    both = here / "both.pem"
    both.write_bytes(b"".join(Path(file).read_bytes() for file in certificate().values()))
    changes = {
        "    user haproxy\n    group haproxy\n": "",
        "maxconn 32768": "maxconn 256",
        "log /dev/log local0": "log stdout format raw local0",
        "bind :80\n": f"bind 127.0.0.1:{free_port()}\n",
        "bind :443": f"bind 127.0.0.1:{port}",
        "127.0.0.1:8000": f"127.0.0.1:{upstream}",
        "/etc/ssl/chat.example.com/both.pem": str(both),
        "75s": silence,
    }
    (here / "haproxy.cfg").write_text(rendered("haproxy.cfg", changes))
    command = (program("haproxy"), "-db", "-f", str(here / "haproxy.cfg"))
    return background(here / "haproxy.log", port, *command, tls=True)


def caddy(here: Path, upstream: int, silence: str) -> AbstractContextManager[Background]:
    """Run Caddy in the foreground, without asking anybody for certificates; it has no limit for silence."""
    files, port = certificate(), free_port()
    changes = {
        "\nchat.example.com {\n": (
            "\n{\n\tadmin off\n\tauto_https off\n}\n"
            f"https://localhost:{port}, https://chat.example.com:{port} {{\n"
            f"\tbind 127.0.0.1\n\ttls {files['ssl_certfile']} {files['ssl_keyfile']}\n"
        ),
        "127.0.0.1:8000": f"127.0.0.1:{upstream}",
    }
    (here / "Caddyfile").write_text(rendered("Caddyfile", changes))
    command = (program("caddy"), "run", "--config", str(here / "Caddyfile"), "--adapter", "caddyfile")
    return background(here / "caddy.log", port, *command, tls=True, HOME=str(here), XDG_DATA_HOME=str(here))


PROXIES: dict[str, Proxy] = {"nginx": nginx, "haproxy": haproxy, "caddy": caddy}


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Background]:
    log = tmp_path_factory.mktemp("upstream") / "serve.log"
    environment = {
        "WS_HEARTBEAT_INTERVAL": str(int(HEARTBEAT * 1e3)),
        "HUBBUB_TRUSTED_PROXIES": "127.0.0.1",
        "HUBBUB_ORIGINS": ORIGIN,
    }
    with hubbub_serve(log, **environment) as found:
        yield found


@pytest.fixture(scope="module", params=PROXIES)
def proxy(
    request: pytest.FixtureRequest, upstream: Background, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Background]:
    here = tmp_path_factory.mktemp(request.param)
    with PROXIES[request.param](here, upstream.port, f"{SILENCE:g}s") as found:
        yield found


def test_the_guide_shows_these_files() -> None:
    guide = (REPOSITORY / "docs" / "guides" / "deploy.md").read_text("utf-8")
    assert {file.name for file in SHIPPED.iterdir()} == {"nginx.conf", "haproxy.cfg", "Caddyfile"}
    assert not [file.name for file in SHIPPED.iterdir() if f'--8<-- "examples/proxies/{file.name}"' not in guide]


@asynccontextmanager
async def join(proxy: RunningServer, *headers: tuple[str, str]) -> AsyncIterator[RawClient]:
    """Join as a browser on another machine would."""
    given = [("Host", "chat.example.com:8443"), ("Origin", ORIGIN), *headers]
    async with RawClient.join(proxy, ssl=trust(), headers=given) as client:
        yield client


@asynccontextmanager
async def from_elsewhere(proxy: RunningServer) -> AsyncIterator[RawClient]:
    """Connect from an address that is not the proxy's own."""
    options: dict[str, Any] = {"ssl": trust(), "server_hostname": "localhost", "local_addr": (ELSEWHERE, 0)}
    async with asyncio.timeout(DEADLINE):
        client = RawClient(*await asyncio.open_connection(proxy.host, proxy.port, **options))
    try:
        yield client
    finally:
        client.cut()


async def test_the_hub_hears_what_the_client_said(proxy: Background) -> None:
    """The upgrade works, and the origin check and the app see the client and not the proxy."""
    async with join(proxy) as client:
        assert (await client.ask("echo", {"a": 1}))["payload"] == {"a": 1}
        headers = (await client.ask("me"))["payload"]["headers"]
        assert headers["origin"] == ORIGIN
        assert headers["host"] == "chat.example.com:8443"
        assert headers["x-forwarded-proto"] == "https"
        assert headers["upgrade"].lower() == "websocket"
        await client.leave()


async def test_a_foreign_page_is_refused(proxy: Background) -> None:
    foreign = [("Host", "chat.example.com"), ("Origin", "https://chat.example.com.evil.example")]
    async with RawClient.connect(proxy, ssl=trust(), headers=foreign, status=403) as client:
        assert client.answer.body == b"this Origin is not allowed\n"


@pytest.mark.parametrize("lie", ["", "192.0.2.1"], ids=["nothing said", "a lie"])
async def test_the_hub_knows_the_client_and_not_what_it_says_of_itself(proxy: Background, lie: str) -> None:
    """The proxy's word counts, and nobody's before it."""
    headers = [("Host", "chat.example.com"), ("Origin", ORIGIN), ("X-Forwarded-For", lie)]
    headers.append(("X-Forwarded-Proto", "http" if lie else ""))
    async with from_elsewhere(proxy) as client:
        await client.handshake(proxy, "/ws", headers)
        await client.recv_json("welcome")
        you = (await client.ask("me"))["payload"]
        assert (you["client"], you["scheme"]) == (ELSEWHERE, "wss")


@pytest.mark.parametrize("kind", PROXIES)
async def test_without_trust_the_proxy_is_the_client(tmp_path: Path, kind: str) -> None:
    """One line in the log says what to set."""
    with (
        hubbub_serve(tmp_path / "serve.log", HUBBUB_ORIGINS=ORIGIN) as distrustful,
        PROXIES[kind](tmp_path, distrustful.port, f"{SILENCE:g}s") as found,
    ):
        async with from_elsewhere(found) as client:
            await client.handshake(found, "/ws", [("Host", "chat.example.com"), ("Origin", ORIGIN)])
            await client.recv_json("welcome")
            you = (await client.ask("me"))["payload"]
            assert (you["client"], you["scheme"]) == ("127.0.0.1", "ws")
        assert "set HUBBUB_TRUSTED_PROXIES=127.0.0.1" in distrustful.said


async def test_a_big_message_passes(proxy: Background) -> None:
    async with join(proxy) as client:
        assert (await client.ask("echo", "x" * 60_000))["payload"] == "x" * 60_000


@pytest.mark.parametrize("code", [1000, 4001, 4321, 4999])
async def test_close_codes_pass(proxy: Background, code: int) -> None:
    async with join(proxy) as client:
        client.send_json("leave", code)
        await client.expect_close(code, "as you wish")
    async with join(proxy) as client:
        client.send_close(code, "bye")
        await client.expect_close(code, "bye")


async def test_pings_keep_a_silent_connection_open(proxy: Background) -> None:
    """It says nothing for longer than the proxy bears."""
    async with join(proxy) as client:
        end = time.monotonic() + 1.5 * SILENCE
        while time.monotonic() < end:
            frame = await client.recv_frame()
            assert frame.opcode == 9
            client.send_frame(10, frame.payload)
        assert (await client.ask("echo", 1))["payload"] == 1


@pytest.mark.parametrize("proxy", ["nginx", "haproxy"], indirect=True)
async def test_without_pings_it_is_cut(proxy: Background) -> None:
    """This is what the pings are for; Caddy sets no limit."""
    headers = [("Host", "chat.example.com"), ("Origin", ORIGIN)]
    async with RawClient.join(proxy, "/silent", ssl=trust(), headers=headers) as client:
        before = time.monotonic()
        assert await client.expect_end(3 * SILENCE) == b""
        assert time.monotonic() - before > SILENCE / 2


async def test_messages_pass_in_both_directions_at_once(proxy: Background) -> None:
    async with join(proxy) as client:
        for number in range(200):
            client.send_json("echo", [number, "x" * 1000])
        for number in range(200):
            assert (await client.recv_json("echo_response"))[0] == number


async def test_tickets_stay_out_of_the_logs(proxy: Background) -> None:
    headers = [("Host", "chat.example.com"), ("Origin", ORIGIN)]
    async with RawClient.connect(proxy, "/ws?ticket=opensesame", ssl=trust(), headers=headers) as client:
        await client.leave()

    def logged() -> str:
        return "".join(log.read_text() for log in proxy.log.parent.glob("*.log"))

    if "caddy" not in proxy.log.name:  # it logs no requests unless it is told to
        await until(lambda: re.search(r"GET /ws\W+101\b", logged()), otherwise=logged)
    assert "opensesame" not in logged()


async def test_an_ordinary_request_passes(proxy: Background) -> None:
    async with RawClient.open(proxy, trust()) as client:
        client.write(b"GET / HTTP/1.1\r\nHost: chat.example.com\r\nConnection: close\r\n\r\n")
        answer = await client.recv_answer()
        assert answer.status == 200
        assert json.loads(answer.body)["scheme"] == "https"
