"""The HTTP API over real servers: who may ask, what it does, how it says no."""

from __future__ import annotations

import json
import logging
import re
import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from hubbub import ConfigError, Hub, Timeouts
from hubbub.servers import api
from hubbub.servers.api.calls import CALLS
from hubbub.servers.api.failures import STATUSES
from hubbub.servers.api.requests import MOST_PUBLICATIONS
from tests.serving import RawClient, RunningServer, fetch, process, serving, until

KEY = "0123456789abcdef0123456789abcdef"
BEARER = ("Authorization", f"Bearer {KEY}")
JSON = ("Content-Type", "application/json")
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "http-api.md"

Json = dict[str, Any]


def make_hub(**options: Any) -> Hub:
    """A hub whose API is on; who connects is who it says."""
    chosen = {"api_key": KEY, "authenticator": lambda handshake: handshake.header("x-user"), **options}
    hub = Hub(timeouts=Timeouts(shutdown=0.05), **chosen)
    hub.namespace("room", history=10, presence=True)
    hub.namespace("news")
    return hub


def behind(hub: Hub) -> Any:
    """The hub in front of an app that knows nothing."""
    return hub.wrap(Starlette())


def attached(hub: Hub) -> Starlette:
    """The hub inside a Starlette app with a route for everything."""

    async def any_page(request: Any) -> PlainTextResponse:
        return PlainTextResponse("the app's", 404)

    app = Starlette(routes=[Route("/{path:path}", any_page, methods=["GET", "POST"])])
    hub.attach(app)
    return app


def in_litestar(hub: Hub) -> Litestar:
    """The hub inside a Litestar app."""
    app = Litestar(openapi_config=None)
    hub.attach(app)
    return app


def mounted(hub: Hub) -> Starlette:
    """The hub inside an app inside an app."""
    inner = Starlette()
    hub.attach(inner)
    return Starlette(routes=[Mount("/in", inner)])


async def call(server: RunningServer, name: str, body: Any = None, *, path: str = "/ws/api") -> tuple[int, Json]:
    """Ask for something; status and answer."""
    answer = await fetch(server, f"{path}/{name}", "POST", [BEARER, JSON], json.dumps(body or {}).encode())
    assert answer.header("content-type") == "application/json"
    return answer.status, json.loads(answer.body)


async def done(server: RunningServer, name: str, body: Any = None) -> Json:
    """Ask for something that must be done; the answer."""
    status, answer = await call(server, name, body)
    assert status == 200, answer
    return answer


@asynccontextmanager
async def site(**options: Any) -> AsyncIterator[tuple[Hub, RunningServer]]:
    """A hub behind the native door."""
    hub = make_hub(**options)
    async with serving(behind(hub)) as server:
        yield hub, server


# Where it is


@pytest.mark.parametrize("door", ["native", "asgi", "hypercorn"])
@pytest.mark.parametrize("place", [behind, attached, in_litestar])
async def test_it_publishes_through_every_door(place: Callable[[Hub], Any], door: Any) -> None:
    async with serving(place(make_hub()), door) as server, RawClient.join(server) as client:
        await client.ask("subscribe", {"channel": "room:1"})
        assert (await done(server, "publish", {"channel": "room:1", "event": "x", "data": [1]}))["connections"] == 1
        while (message := await client.recv_json())["type"] != "message":
            pass
        assert message["payload"]["data"] == [1]
        assert (await fetch(server, "/ws/api/nothing", "POST", [BEARER, JSON], b"{}")).status == 404
        assert (await fetch(server, "/ws/api/openapi.json")).status == 200


async def test_it_is_below_where_the_app_is_mounted() -> None:
    hub = make_hub()
    async with hub.running(), serving(mounted(hub), lifespan="off") as server:
        pass
    hub = make_hub()
    async with serving(mounted(hub)) as server:
        assert (await call(server, "publish", {"channel": "news"}, path="/in/ws/api"))[0] == 200
        document = json.loads((await fetch(server, "/in/ws/api/openapi.json")).body)
        await server.run(hub.shutdown())
    assert document["servers"] == [{"url": "/in/ws/api"}]


@pytest.mark.parametrize("place", [behind, attached, in_litestar])
async def test_without_a_key_there_is_none(place: Callable[[Hub], Any]) -> None:
    async with serving(place(make_hub(api_key=None))) as server:
        for name in ("publish", "openapi.json", ""):
            assert (await fetch(server, f"/ws/api/{name}", "POST", [BEARER, JSON], b"{}")).status == 404


async def test_it_takes_nothing_else_from_the_app() -> None:
    async with serving(attached(make_hub())) as server:
        assert (await fetch(server, "/ws/apiary")).body == b"the app's"


async def test_a_hub_of_a_process_has_it_by_its_environment(tmp_path: Path) -> None:
    environment = {"HUBBUB_API_KEY": KEY, "HUBBUB_DATA_DIR": str(tmp_path)}
    command = ("-m", "hubbub.cli", "serve", "examples.quick.durable:app", "--port", "0")
    async with process(*command, cwd=None, **environment) as running:
        address = (await running.says("WebSocket")).partition("HTTP")[2].split()[0]
        server = RunningServer(int(address.rpartition(":")[2]))
        sent = await done(server, "send_to_user", {"userId": "ann", "type": "hi", "durable": True, "key": "1"})
        again = await done(server, "send_to_user", {"userId": "ann", "type": "hi", "durable": True, "key": "1"})
        assert (await fetch(server, "/ws/api/stats", "POST", [JSON], b"{}")).status == 401
        said = running.said
    assert sent == again == {"connections": 0, "stored": True, "cursor": 1}
    assert KEY not in said


# Who may ask


@pytest.mark.parametrize(
    "header",
    [BEARER, ("authorization", f"bearer  {KEY}"), ("X-API-Key", KEY)],
    ids=["bearer", "bearer in small letters", "header of its own"],
)
async def test_who_has_the_key_may_ask(header: tuple[str, str]) -> None:
    async with site() as (_, server):
        assert (await fetch(server, "/ws/api/stats", "POST", [header, JSON], b"{}")).status == 200


STRANGERS = {
    "no key": [],
    "another key": [("Authorization", f"Bearer {KEY[::-1]}")],
    "a part of it": [("X-API-Key", KEY[:-1])],
    "none of it": [("X-API-Key", "")],
    "another scheme": [("Authorization", f"Basic {KEY}")],
    "the scheme alone": [("Authorization", "Bearer")],
    "no ASCII": [("X-API-Key", "ü" * 32)],
    "a cookie": [("Cookie", f"X-API-Key={KEY}")],
}


@pytest.mark.parametrize("headers", STRANGERS.values(), ids=STRANGERS.keys())
async def test_nobody_else_may(headers: list[tuple[str, str]], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with site() as (hub, server):
        answer = await fetch(server, f"/ws/api/publish?key={KEY}", "POST", [*headers, JSON], b'{"channel": "news"}')
        shown = repr(hub.api_key) + repr(vars(hub))
    assert (answer.status, json.loads(answer.body)["code"]) == (401, "unauthorized")
    assert answer.header("www-authenticate") == "Bearer"
    assert KEY not in shown
    assert KEY[:-1] not in caplog.text


@pytest.mark.parametrize("key", ["", "short", "x" * 31])
def test_a_weak_key_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=r"^HUBBUB_API_KEY is not allowed: give 32 characters or more\.$"):
        Hub(api_key=key)


async def test_a_page_of_another_origin_is_told_nothing() -> None:
    async with site() as (_, server):
        headers = [("Origin", "https://evil.example"), ("Access-Control-Request-Method", "POST")]
        asked = await fetch(server, "/ws/api/publish", "OPTIONS", headers)
        answer = await fetch(server, "/ws/api/stats", "POST", [*headers, BEARER, JSON], b"{}")
    assert asked.status == 405
    assert not [name for name, _ in (*asked.headers, *answer.headers) if name.startswith("access-control")]


# What it does


async def test_it_sends_to_a_user_durably_and_not() -> None:
    async with site() as (_, server), RawClient.join(server, headers=[("X-User", "ann")]) as client:
        await client.recv_json("authenticated")
        sent = await done(server, "send_to_user", {"userId": "ann", "type": "hi", "payload": {"n": 1e2}})
        assert (sent, await client.recv_json("hi")) == ({"connections": 1}, {"n": 100})
        durable = {"userId": "ann", "type": "kept", "durable": True, "key": "k", "ttl": 60}
        kept = [await done(server, "send_to_user", durable) for _ in range(2)]
        assert kept == [{"connections": 1, "stored": True, "cursor": 1}] * 2
        assert (await client.recv_json())["cursor"] == 1
        note = {"userId": "ann", "title": "T", "message": "M", "type": "error"}
        await done(server, "notify", note)
        del note["userId"]
        assert await client.recv_json("notification") == note
        await done(server, "broadcast", {"type": "all", "payload": "x"})
        assert await client.recv_json("all") == "x"
        assert await done(server, "broadcast", {"type": "all", "exclude": client.id}) == {"connections": 0}


async def test_it_says_what_there_is() -> None:
    async with site() as (_, server), RawClient.join(server, headers=[("X-User", "ann")]) as client:
        await client.recv_json("authenticated")
        await client.ask("subscribe", {"channel": "room:1"})
        places = [
            await done(server, "publish", {"channel": "room:1", "data": n, "tags": {"n": str(n)}}) for n in (1, 2)
        ]
        del places[0]["connections"]
        past = await done(server, "history", {"channel": "room:1", "since": places[0]})
        assert [(each["data"], each["tags"]) for each in past["publications"]] == [(2, {"n": "2"})]
        assert (past["complete"], past["offset"]) == (True, places[1]["offset"])
        latest = await done(server, "history", {"channel": "room:1", "limit": 1})
        assert [each["data"] for each in latest["publications"]] == [2]
        there = await done(server, "presence", {"channel": "room:1"})
        assert there == {"count": 1, "members": [{"userId": "ann", "connectionIds": [client.id]}]}
        found = (await done(server, "connections", {"userId": "ann"}))["connections"]
        assert [(each["id"], each["channels"]) for each in found] == [(client.id, ["room:1"])]
        stats = await done(server, "stats")
        assert (stats["connections"], stats["nodes"], stats["node"]["users"]) == (1, 1, 1)


async def test_it_closes_and_revokes_and_rechecks() -> None:
    async with site() as (hub, server):
        allowed = True
        hub.channel("room:{id}")(lambda access, id: allowed)
        async with RawClient.join(server, headers=[("X-User", "ann")]) as client:
            await client.recv_json("authenticated")
            await client.ask("subscribe", {"channel": "room:1"})
            allowed = False
            assert await done(server, "recheck", {"channel": "room:1"}) == {}
            assert (await client.recv_json("unsubscribed"))["code"] == "forbidden"
            assert await done(server, "disconnect", {"userId": "ann", "code": 4500, "reason": "bye"}) == {
                "connections": 1
            }
            assert (await client.recv_close()).code == 4500
        async with RawClient.join(server, headers=[("X-User", "bo")]) as client:
            await client.recv_json("authenticated")
            assert await done(server, "revoke", {"userId": "bo"}) == {"connections": 1}
            assert (await client.recv_close()).code == 4501
        assert await done(server, "revoke", {"jti": "1", "until": 4e9}) == {"connections": 0}


async def test_many_are_published_in_order_each_with_its_result() -> None:
    publications = [{"channel": f"room:{n % 3}", "data": n} for n in range(30)]
    publications[4] = {"channel": "nowhere"}
    publications[7] = {"channel": "room:1", "key": "\n"}
    async with site() as (_, server):
        results = (await done(server, "publish_batch", {"publications": publications}))["results"]
        past = [await done(server, "history", {"channel": f"room:{n}"}) for n in range(3)]
    assert [index for index, each in enumerate(results) if "error" in each] == [4, 7]
    assert results[4]["error"]["code"] == "bad_channel"
    for n in range(3):
        expected = [number for number in range(n, 30, 3) if number not in (4, 7)]
        assert [each["data"] for each in past[n]["publications"]] == expected[-10:]
        assert past[n]["publications"][-1]["offset"] == results[expected[-1]]["sent"]["offset"]


# How it says no

BAD: dict[str, tuple[str, bytes, int, str, str | None]] = {
    "no JSON": ("publish", b"{", 400, "bad_json", None),
    "no UTF-8": ("publish", b'{"channel": "news", "data": "\xff"}', 400, "bad_json", None),
    "too deep": ("publish", b'{"channel": "news", "data": ' + b"[" * 100_000, 400, "bad_json", None),
    "a list": ("publish", b"[]", 400, "invalid_payload", None),
    "a field is missing": ("publish", b"{}", 400, "invalid_payload", "channel"),
    "a field of another type": ("publish", b'{"channel": 1}', 400, "invalid_payload", "channel"),
    "an unknown field": ("publish", b'{"channel": "news", "evnt": 1}', 400, "invalid_payload", "evnt"),
    "a name in snake_case": ("connections", b'{"user_id": "a"}', 400, "invalid_payload", "user_id"),
    "an unknown field inside": (
        "publish_batch",
        b'{"publications": [{"channel": "news"}, {"channel": "news", "x": 1}]}',
        400,
        "invalid_payload",
        "publications[1].x",
    ),
    "an unknown channel": ("publish", b'{"channel": "nowhere"}', 400, "bad_channel", "channel"),
    "no channel": ("history", b'{"channel": "a*"}', 400, "bad_channel", "channel"),
    "no user": ("disconnect", b'{"userId": "a\\n"}', 400, "invalid_payload", "userId"),
    "no close code": ("disconnect", b'{"userId": "a", "code": 1006}', 400, "invalid_payload", "code"),
    "nobody to revoke": ("revoke", b"{}", 400, "invalid_payload", None),
    "two to revoke": ("revoke", b'{"userId": "a", "jti": "1"}', 400, "invalid_payload", None),
    "nothing to recheck": ("recheck", b"{}", 400, "invalid_payload", None),
    "a key for nothing": ("send_to_user", b'{"userId": "a", "type": "t", "key": "k"}', 400, "invalid_payload", None),
    "another notification": (
        "notify",
        b'{"userId": "a", "title": "", "message": "", "type": "x"}',
        400,
        "invalid_payload",
        "type",
    ),
    "too many": (
        "publish_batch",
        json.dumps({"publications": [{"channel": "news"}] * (MOST_PUBLICATIONS + 1)}).encode(),
        400,
        "invalid_payload",
        "publications",
    ),
    "too large": ("publish", b" " * (api.BODY_BYTES + 1), 413, "too_large", None),
    "no such call": ("publsh", b"{}", 404, "not_found", None),
}


async def test_what_is_wrong_is_named() -> None:
    async with site() as (_, server):
        for what, (name, body, status, code, field) in BAD.items():
            answer = await fetch(server, f"/ws/api/{name}", "POST", [BEARER, JSON], body)
            found = json.loads(answer.body)
            assert (answer.status, found["code"], found.get("field")) == (status, code, field), (what, found)
            assert found["message"].endswith("."), what
            assert STATUSES[code] == status


async def test_a_body_without_a_length_is_limited_as_well() -> None:
    async with site() as (_, server), RawClient.open(server) as client:
        head = f"POST /ws/api/publish HTTP/1.1\r\nHost: x\r\n{BEARER[0]}: {BEARER[1]}\r\n{JSON[0]}: {JSON[1]}\r\n"
        client.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(17):
            client.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        client.write(b"0\r\n\r\n")
        assert (await client.recv_answer()).status == 413


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_only_json_is_read(media: str) -> None:
    async with site() as (_, server):
        headers = [BEARER, *([("Content-Type", media)] if media else [])]
        answer = await fetch(server, "/ws/api/stats", "POST", headers, b"{}")
        fine = await fetch(server, "/ws/api/stats", "POST", [BEARER, (JSON[0], f"{JSON[1]}; charset=utf-8")], b"{}")
    assert (answer.status, json.loads(answer.body)["code"], fine.status) == (415, "unsupported_media_type", 200)


@pytest.mark.parametrize(("method", "name", "allowed"), [("GET", "publish", "POST"), ("POST", "openapi.json", "GET")])
async def test_another_method_is_refused(method: str, name: str, allowed: str) -> None:
    async with site() as (_, server):
        answer = await fetch(server, f"/ws/api/{name}", method, [BEARER, JSON])
    assert (answer.status, answer.header("allow")) == (405, allowed)


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "BODY_SECONDS", 0.05)
    async with site() as (_, server):
        answer = await fetch(server, "/ws/api/stats", "POST", [BEARER, JSON, ("Content-Length", "10")])
    assert (answer.status, json.loads(answer.body)["code"]) == (408, "timeout")


async def test_who_goes_away_while_it_asks_is_let_go() -> None:
    async with site() as (_, server):
        async with RawClient.open(server) as client:
            head = f"POST /ws/api/stats HTTP/1.1\r\nHost: x\r\n{BEARER[0]}: {BEARER[1]}\r\n{JSON[0]}: {JSON[1]}\r\n"
            client.write(f"{head}Content-Length: 10\r\n\r\n{{".encode())
            await client.drain()
        await until(lambda: not server.server.server_state.tasks)
        assert (await call(server, "stats"))[0] == 200


async def test_too_many_at_once_are_told_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MOST_AT_ONCE", 0)
    async with site() as (_, server):
        answer = await fetch(server, "/ws/api/stats", "POST", [BEARER, JSON], b"{}")
    found = json.loads(answer.body)
    assert (answer.status, found["code"], found["retryAfter"]) == (429, "rate_limited", 1000)
    assert answer.header("retry-after") == "1"


async def test_a_database_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "inbox.db").mkdir()
    hub = make_hub(inbox_url=f"sqlite:///{tmp_path}/new.db")
    async with serving(behind(hub)) as server:
        hub.node.databases["inbox"].url = f"sqlite:///{tmp_path}/inbox.db"
        hub.node.databases["inbox"].forget()
        message = {"userId": "a", "type": "t", "durable": True}
        answer = await fetch(server, "/ws/api/send_to_user", "POST", [BEARER, JSON], json.dumps(message).encode())
        assert (await call(server, "publish", {"channel": "news"}))[0] == 200
    found = json.loads(answer.body)
    assert (answer.status, found["code"], answer.header("retry-after")) == (503, "unavailable", "1")
    assert "inbox.db" not in found["message"]


async def test_what_nobody_foresaw_is_in_the_log_by_a_reference(caplog: pytest.LogCaptureFixture) -> None:
    async with site() as (hub, server):

        async def stats() -> Json:
            raise ZeroDivisionError("a secret")

        hub.stats = stats  # type: ignore[method-assign]
        status, found = await call(server, "stats")
    reference = found["message"].partition("reference ")[2].rstrip(".")
    assert (status, found["code"]) == (500, "internal")
    assert "secret" not in found["message"]
    assert [record.exc_info is not None for record in caplog.records if reference in record.getMessage()] == [True]


async def test_a_node_that_goes_says_so() -> None:
    async with site() as (hub, server):
        await server.run(hub.shutdown())
        status, found = await call(server, "stats")
    assert (status, found["code"]) == (503, "unavailable")


# Its description


async def test_its_description_names_every_call() -> None:
    async with site() as (_, server):
        answer = await fetch(server, "/ws/api/openapi.json")
    document = json.loads(answer.body)
    schemas = document["components"]["schemas"]
    assert document["openapi"].startswith("3.1.")
    assert document["servers"] == [{"url": "/ws/api"}]
    assert document["paths"].keys() == {f"/{name}" for name in CALLS}
    for path, item in document["paths"].items():
        operation = item["post"]
        assert operation["operationId"] == path[1:]
        assert operation["summary"]
        name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert schemas[name]["additionalProperties"] is False
        assert set(operation["responses"]) == {"200", "default"}
    for reference in re.findall(r'"\$ref":"#/([^"]+)"', answer.body.decode()):
        part = document
        for step in reference.split("/"):
            part = part[step]
    assert set(document["security"][0]) | set(document["security"][1]) == set(document["components"]["securitySchemes"])


# Its page


def examples() -> list[tuple[list[str], Json | None]]:
    """The curl lines of the page, each with the answer below it."""
    found = re.findall(r"```bash\n(curl .+)\n```\n(?:\n```json\n(.+)\n```)?", PAGE.read_text("utf-8"))
    return [(shlex.split(line), json.loads(answer) if answer else None) for line, answer in found]


def shape(value: Any) -> Any:
    """What kinds of things there are, by which names."""
    if isinstance(value, dict):
        return {name: shape(part) for name, part in value.items()}
    return [shape(part) for part in value] if isinstance(value, list) else type(value)


async def test_the_lines_of_its_page_do_what_it_says() -> None:
    shown = examples()
    async with site() as (_, server), RawClient.join(server, headers=[("X-User", "ann")]) as client:
        await client.recv_json("authenticated")
        await client.ask("subscribe", {"channel": "room:1"})
        for words, expected in shown:
            place, name = words[1].split("/")
            assert (words[0], place, words[2:5]) == ("curl", "$API", ["-H", "X-API-Key: $HUBBUB_API_KEY", "--json"])
            answer = await done(server, name, json.loads(words[5]))
            assert expected is None or shape(answer) == shape(expected), name
            if name == "publish_batch":
                assert expected is not None
                assert answer["results"][1] == expected["results"][1]
    assert {words[1].partition("/")[2] for words, _ in shown} == CALLS.keys()
