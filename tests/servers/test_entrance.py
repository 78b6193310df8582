"""The entrance in front of both doors: asked once, before the app and any sign-in, with the client's own address."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from hubbub import Connection, Handshake, Hub
from hubbub.core.arrival import Arrival, Refusal
from hubbub.core.forwarded import Proxies
from hubbub.node.entrance import Entrance
from hubbub.servers.asgi import App, Endpoint
from tests.serving import Door, RawClient, RunningServer, fetch, serving

BOTH = pytest.mark.parametrize("door", ["native", "asgi", "hypercorn"])
EVIL = ("Origin", "https://evil.example")
BEHIND = [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "https")]


class Inner:
    """An app that keeps the scopes it got."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    def around(self, app: App) -> App:
        """The same in front of another app."""

        async def keep(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "lifespan":
                self.scopes.append(dict(scope))
            await app(scope, receive, send)

        return keep


@pytest.fixture
def seen() -> Inner:
    return Inner()


@asynccontextmanager
async def refusing(door: Door, hub: Hub, seen: Inner, **options: Any) -> AsyncIterator[RunningServer]:
    async with serving(seen.around(hub.wrap(Starlette())), door, **options) as server:
        yield server


@BOTH
async def test_a_foreign_page_gets_a_403_before_anybody_asks_who_it_is(door: Door, seen: Inner) -> None:
    asked: list[Handshake] = []
    hub = Hub(authenticator=asked.append)
    async with refusing(door, hub, seen) as server:
        async with RawClient.connect(server, headers=[EVIL, ("Cookie", "session=ann")], status=403) as client:
            if door == "native":
                assert client.answer.body == b"this Origin is not allowed\n"
                assert client.answer.header("content-type") == "text/plain; charset=utf-8"
            await client.expect_end()
        async with RawClient.join(server, headers=[("Origin", server.url), ("Cookie", "session=ann")]):
            assert len(asked) == 1
        assert (await server.run(hub.stats()))["refused"] == 1
    assert len(seen.scopes) == (1 if door == "native" else 2), "the native door asks before the app"


@BOTH
async def test_a_client_is_looked_at_once(door: Door, seen: Inner, monkeypatch: pytest.MonkeyPatch) -> None:
    arrivals: list[Arrival] = []
    hub = Hub()
    monkeypatch.setattr(hub.node.entrance, "check", arrivals.append)
    async with refusing(door, hub, seen) as server, RawClient.join(server, headers=[("Origin", "http://a")]):
        assert arrivals == [Arrival(f"127.0.0.1:{server.port}", ("http://a",), "127.0.0.1")]


@BOTH
async def test_a_refusal_has_its_own_status_and_headers(
    door: Door, seen: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, busy = Hub(), Refusal(503, "come back later", ((b"Retry-After", b"7"),))
    monkeypatch.setattr(hub.node.entrance, "check", lambda arrival: busy)
    async with refusing(door, hub, seen) as server, RawClient.connect(server, status=503) as client:
        assert (client.answer.header("retry-after"), client.answer.body) == ("7", b"come back later\n")


async def test_the_test_page_is_for_all(seen: Inner) -> None:
    async with refusing("native", Hub(origins=[]), seen) as server:
        assert (await fetch(server, "/ws/client")).status == 200


async def test_a_mounted_hub_is_asked_by_its_endpoint() -> None:
    hub = Hub()
    async with serving(Starlette(routes=[Mount("/live", hub.wrap(Starlette()))])) as server:
        async with RawClient.connect(server, "/live/ws", headers=[EVIL], status=403):
            pass
        async with RawClient.join(server, "/live/ws", headers=[("Origin", server.url)]):
            pass


async def test_a_hub_below_a_root_path_is_found(seen: Inner) -> None:
    async with refusing("native", Hub(), seen, root_path="/shop") as server:
        async with RawClient.connect(server, headers=[EVIL], status=403):
            pass
        assert seen.scopes == []


async def test_of_two_hubs_with_one_path_the_endpoint_knows_which() -> None:
    first, second = Hub(origins=["https://a.example"]), Hub(origins=["https://b.example"])
    async with first.running(), serving(second.wrap(Starlette())) as server:
        async with RawClient.join(server, headers=[("Origin", "https://b.example")]):
            pass
        async with RawClient.connect(server, headers=[("Origin", "https://a.example")], status=403):
            pass


async def test_a_socket_of_the_apps_own_is_the_apps_own_affair(seen: Inner) -> None:
    async with refusing("native", Hub(), seen) as server:
        async with RawClient.connect(server, "/other", headers=[EVIL], status=403):
            pass
        assert [scope["path"] for scope in seen.scopes] == ["/other"]


async def ask(*headers: tuple[bytes, bytes], **more: Any) -> list[str]:
    """What a hub answers a test client, which has no address and sends the messages of ASGI itself."""
    sent: list[Any] = []
    scope = {"type": "websocket", "path": "/ws", "client": ("testclient", 50000), "query_string": b"", **more}
    events = iter(["websocket.connect", "websocket.disconnect"])

    async def receive() -> Any:
        return {"type": next(events)}

    async def send(message: Any) -> None:
        sent.append(message)

    async with Hub().running() as hub:
        await Endpoint(hub)({**scope, "headers": [(b"host", b"testserver"), *headers]}, receive, send)
    return [message["type"].removeprefix("websocket.") for message in sent]


async def test_a_test_client_is_no_page() -> None:
    assert (await ask())[0] == "accept"


@pytest.mark.parametrize("more", [{}, {"extensions": None}, {"client": None}], ids=str)
async def test_a_test_client_that_says_it_is_a_page_is_refused(more: dict[str, Any]) -> None:
    assert await ask((b"origin", b"http://testserver"), **more) == ["close"]


@pytest.mark.parametrize(
    ("extensions", "answer"),
    [({}, ["close"]), ({"websocket.http.response": {}}, ["http.response.start", "http.response.body"])],
    ids=["close", "answer"],
)
async def test_a_status_of_our_own_where_the_server_can(
    extensions: dict[str, Any], answer: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Entrance, "check", lambda entrance, arrival: Refusal(429, "too many"))
    assert await ask(extensions=extensions) == answer


# --- Proxies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("proxies", "client", "secure"),
    [((), "127.0.0.1", False), (("127.0.0.1",), "203.0.113.9", True), (("10.0.0.1",), "127.0.0.1", False)],
    ids=["nobody trusted", "trusted", "another one trusted"],
)
async def test_only_a_trusted_proxy_says_who_comes(
    proxies: tuple[str, ...], client: str, secure: bool, seen: Inner, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrivals: list[Arrival] = []
    clients: list[str | None] = []
    hub = Hub()
    monkeypatch.setattr(hub.node.entrance, "check", arrivals.append)

    @hub.on_connect
    def connected(conn: Connection, handshake: Handshake) -> None:
        clients.append(handshake.client)

    async with refusing("native", hub, seen, proxies=Proxies(proxies)) as server:
        async with RawClient.join(server, headers=BEHIND) as socket:
            assert (await socket.ask("echo", 1))["payload"] == 1
        await fetch(server, "/page", headers=BEHIND)
        async with RawClient.connect(server, "/other", headers=BEHIND, status=403):
            pass
    assert [(each.address, each.secure) for each in arrivals] == [(client, secure)]
    assert clients == [client]
    found = [(scope["path"], scope["client"][0], scope["scheme"]) for scope in seen.scopes]
    ws, http = ("wss", "https") if secure else ("ws", "http")
    assert found == [("/ws", client, ws), ("/page", client, http), ("/other", client, ws)]


async def test_a_proxy_that_nobody_named_is_told_about_once(seen: Inner, caplog: pytest.LogCaptureFixture) -> None:
    async with refusing("native", Hub(), seen) as server:
        for _ in range(2):
            await fetch(server, "/page", headers=BEHIND)
            async with RawClient.join(server, headers=BEHIND):
                pass
    why = "to believe it, if that is a proxy of yours, set HUBBUB_TRUSTED_PROXIES=127.0.0.1"
    line = f"X-Forwarded-For from 127.0.0.1 is ignored: {why}"
    told = [each for each in caplog.record_tuples if each[0].startswith("hubbub")]
    assert told == [("hubbub.proxies", logging.WARNING, line)]


async def test_behind_a_trusted_proxy_nobody_is_local(seen: Inner) -> None:
    """A stranger who comes through a proxy on this machine, with the Host that the proxy was told to ask."""
    async with refusing("native", Hub(), seen, proxies=Proxies(["127.0.0.1"])) as server:
        headers = [("Origin", server.url), ("X-Forwarded-For", "127.0.0.1, 203.0.113.9")]
        async with RawClient.connect(server, headers=headers, status=403):
            pass
