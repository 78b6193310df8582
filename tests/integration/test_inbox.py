"""Inboxes through real servers: two tabs, hostile texts on every store, and a database that goes and comes back."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette

from hubbub import Connection, Hub
from services.postgres import Postgres
from tests.contract.stores import DATABASES
from tests.serving import DEADLINE, Door, Process, RawClient, RunningServer, free_port, process, running

PLACES: dict[str, tuple[str, Door]] = {name: (name, "native") for name in DATABASES} | {
    "plain ASGI": ("sqlite", "asgi")
}
HOSTILE: dict[str, str] = {
    "SQL": "'; DROP TABLE hubbub_messages; --",
    "SQL that is true": "x' OR '1'='1",
    "quotes": "\"'`\\\"\"''",
    "placeholders": "%s %(x)s ? ?1 :user $1 {0} {x}",
    "operator": '{"$gt": ""}',
    "where": "$where",
    "code": "this.user == 'bo' || true",
    "dotted path": "a.b.$c.0",
    "markup": "<script>alert(1)</script>",
    "written escapes": "\\x00 \\u0000 \\ud800",
    "wildcards": "% _ * > ?",
    "emoji": "👩‍👩‍👧‍👦 🏳️‍🌈",
    "right to left": "\u202eשבת مرحبا\u202c",
    "number": "1e3",
    "null": "null",
    "space": " a ",
    "255 bytes": "é" * 127 + "x",
}
VALUES: dict[str, Any] = {
    "an operator": {"$gt": ""},
    "a nested operator": {"a": {"$where": "sleep(1000)"}, "$or": [{}]},
    "dots and dollars in keys": {"a.b": 1, "$set": {"user": "bo"}, "": None},
    "prototypes": {"__proto__": {"x": 1}, "constructor": "y"},
    "large numbers": [2**63, -(2**63), 1e300, 0.1],
    "NUL": "a\0b",
    "empty": "",
}


class Post(msgspec.Struct):
    """A durable message for a user."""

    to: str
    payload: msgspec.Raw
    key: str | None = None


def make(url: str) -> Starlette:
    """An app that lets anybody be anyone."""
    app, hub = Starlette(), Hub(inbox_url=url)
    hub.attach(app)

    @hub.on("sign_in", reply="signed_in")
    def sign_in(conn: Connection, user_id: str) -> bool:
        conn.identify(user_id)
        return True

    @hub.on("post", reply="posted")
    async def post(conn: Connection, payload: Post) -> dict[str, Any]:
        receipt = await hub.send_to_user(payload.to, "mail", payload.payload, durable=True, key=payload.key)
        return {"cursor": receipt.cursor, "connections": receipt.connections}

    return app


@pytest.fixture(scope="module", params=list(PLACES))
def server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    """That app, on a fresh database of each kind."""
    kind, door = PLACES[request.param]
    with DATABASES[kind]() as fresh, running(make(fresh()), door) as server:
        yield server


@asynccontextmanager
async def signed_in(server: RunningServer, user: str) -> AsyncIterator[RawClient]:
    async with RawClient.join(server) as client:
        await ask(client, "sign_in", user)
        yield client


async def ask(client: RawClient, type: str, payload: Any) -> Any:
    """Send a request and wait for its answer, past everything else."""
    client.send_json(type, payload, id="ask")
    while (message := await client.recv_json()).get("id") != "ask":
        pass
    return message["payload"]


async def mail(client: RawClient, count: int) -> list[tuple[int, Any]]:
    """Wait for this many durable messages: cursors and payloads."""
    found = list[tuple[int, Any]]()
    while len(found) < count:
        message = await client.recv_json()
        if message["type"] == "mail":
            found.append((message["cursor"], message.get("payload")))
    return found


async def pending(client: RawClient) -> int:
    return int((await ask(client, "inbox", {}))["pending"])


async def empty(client: RawClient) -> None:
    """Wait until nothing is pending; not asked so often that it would be too much."""
    async with asyncio.timeout(DEADLINE):
        while await pending(client):  # noqa: ASYNC110  # it is the database that we wait for
            await asyncio.sleep(0.02)


# --- Two tabs (L10) --------------------------------------------------------------------------------------------------


async def test_two_tabs_get_each_message_once_and_an_ack_on_one_clears_both(server: RunningServer) -> None:
    async with signed_in(server, "tabs") as one, signed_in(server, "tabs") as two, signed_in(server, "ann") as ann:
        await pending(one)
        await pending(two)
        for n in range(20):
            assert await ask(ann, "post", {"to": "tabs", "payload": n}) == {"cursor": n + 1, "connections": 2}
        expected = [(n + 1, n) for n in range(20)]
        assert await mail(one, 20) == expected
        assert await mail(two, 20) == expected
        one.send_json("ack", {"cursor": 20})
        # It is the next thing the other hears: nothing came twice.
        assert await two.recv_json("acked") == {"cursor": 20}
        assert (await pending(one), await pending(two)) == (0, 0)
    async with signed_in(server, "tabs") as again:
        assert await pending(again) == 0
        again.send_json("ping", ...)
        assert (await again.recv_json())["type"] == "pong"


# --- Hostile texts (J13) ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", list(HOSTILE.values()), ids=list(HOSTILE))
async def test_a_hostile_text_is_an_id_a_key_and_a_payload_like_any_other(server: RunningServer, text: str) -> None:
    async with signed_in(server, "ann") as ann, signed_in(server, "bystander") as bystander:
        before = await pending(bystander)
        key = text if text.isprintable() else ascii(text)
        await ask(ann, "post", {"to": "bystander", "payload": text})
        first = await ask(ann, "post", {"to": text, "payload": text, "key": key})
        assert await ask(ann, "post", {"to": text, "payload": "again", "key": key}) == first
        async with signed_in(server, text) as client:
            assert await mail(client, 1) == [(1, text)]
            client.send_json("ack", {"cursor": 1})
            await empty(client)
        assert await pending(bystander) == before + 1


@pytest.mark.parametrize("value", list(VALUES.values()), ids=list(VALUES))
async def test_a_hostile_value_comes_back_as_it_was(server: RunningServer, value: Any) -> None:
    async with signed_in(server, "ann") as ann, signed_in(server, "values") as client:
        after = (await ask(client, "inbox", {}))["cursor"]
        cursor = (await ask(ann, "post", {"to": "values", "payload": value}))["cursor"]
        assert await mail(client, 1) == [(cursor, value)]
        [*_, last] = (await ask(client, "inbox", {"after": after}))["messages"]
        assert (last["cursor"], last["payload"]) == (cursor, value)
        client.send_json("ack", {"cursor": cursor})
        await empty(client)


@pytest.mark.parametrize(
    ("type", "payload"),
    [("inbox", {"after": {"$gt": 0}}), ("inbox", {"limit": "1; DROP TABLE x"}), ("inbox", {"limit": 10**9}),
     ("ack", {"cursor": {"$gt": 0}}), ("post", {"to": {"$ne": None}, "payload": 1}), ("sign_in", {"$gt": ""}),
     ("sign_in", "a\0b"), ("post", {"to": "a\nb", "payload": 1})],
    ids=str,
)  # fmt: skip
async def test_a_hostile_value_for_a_text_or_a_number_is_refused(
    server: RunningServer, type: str, payload: Any
) -> None:
    async with signed_in(server, "ann") as ann:
        assert (await ask(ann, type, payload))["code"] == "invalid_payload"


# --- A database that is down (X11) -----------------------------------------------------------------------------------

APP = """
from starlette.applications import Starlette
from hubbub import Connection, Hub

app = Starlette()
hub = Hub(chat=True, authenticator=lambda handshake: handshake.header("x-user"))
hub.attach(app)


@hub.on("shout")
async def shout(conn: Connection, text: str) -> None:
    await hub.broadcast("shouted", text)
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


def serve(here: Path, url: str, *arguments: str, **environment: str) -> Any:
    (here / "main.py").write_text(APP)
    command = ("-m", "hubbub.cli", "serve", "main:app", *arguments)
    return process(*command, cwd=here, HUBBUB_INBOX_URL=url, HUBBUB_DATA_DIR=str(here / "data"), **environment)


async def test_a_database_that_is_down_at_the_start_is_one_clear_line(tmp_path: Path) -> None:
    port = free_port()
    url = f"postgresql://someone:hidden@127.0.0.1:{port}/app"
    async with serve(tmp_path, url, "--port", "0") as failed:
        assert await failed.end() == 1
        line = f"PostgreSQL at 127.0.0.1:{port}/app cannot be reached: connection refused. Start it, or check the URL."
        assert (failed.out, failed.err) == ("", f"hubbub: {line}\n")


async def test_with_reload_a_database_that_is_down_is_named_as_well(tmp_path: Path) -> None:
    port = free_port()
    async with serve(
        tmp_path, f"postgresql://someone:hidden@127.0.0.1:{port}/app", "--reload", "--port", "0"
    ) as failed:
        said = await failed.says(f"PostgreSQL at 127.0.0.1:{port}/app cannot be reached")
        assert "hidden" not in said


@asynccontextmanager
async def user(server: RunningServer, name: str) -> AsyncIterator[RawClient]:
    async with RawClient.join(server, headers=[("X-User", name)]) as client:
        assert (await client.recv_json("authenticated"))["userId"] == name
        yield client


async def heard(client: RawClient, type: str) -> Any:
    """Wait for a message of this type, past everything else."""
    while (message := await client.recv_json())["type"] != type:
        pass
    return message


async def test_while_the_database_is_away_live_messages_go_on_and_then_all_is_well(
    tmp_path: Path, postgres: Postgres
) -> None:
    url = postgres.url("away").replace("postgres@", "postgres:hidden@")
    port = free_port()
    async with serve(tmp_path, url, "--port", str(port)) as served:
        await served.says("Stop with")
        server = RunningServer(port)
        async with user(server, "ann") as ann, user(server, "bo") as bo:
            chat = {"recipientId": "bo", "message": "before"}
            assert (await ask(ann, "chat", chat))["stored"]
            assert (await heard(bo, "chat"))["payload"]["message"] == "before"
            postgres.kill()
            await an_outage(server, ann, bo)
            postgres.start()
            await it_is_over(served, server, ann, bo)
            postgres.kill()
            await an_outage(server, ann, bo)
            os.kill(served.pid, signal.SIGTERM)
            for client in (ann, bo):
                await client.expect_close(1001)
            assert await served.end() == 0
        postgres.start()
        assert "hidden" not in served.said
        assert "Traceback" not in served.said
        assert len(re.findall("Live messages go on", served.err)) == 2


async def an_outage(server: RunningServer, ann: RawClient, bo: RawClient) -> None:
    """A durable message fails soon and says so; what is live goes on, for those who come now as well."""
    for _ in range(3):
        error = await ask(ann, "chat", {"recipientId": "bo", "message": "during"})
        assert error["code"] == "unavailable"
        assert "127.0.0.1" not in error["message"]
    async with user(server, "cy") as cy:
        ann.send_json("shout", "live")
        for client in (bo, cy):
            assert (await heard(client, "shouted"))["payload"] == "live"


async def it_is_over(served: Process, server: RunningServer, ann: RawClient, bo: RawClient) -> None:
    """The same process stores again, soon and by itself, and those who stayed get it."""
    async with asyncio.timeout(2 * DEADLINE):
        while "code" in await ask(ann, "chat", {"recipientId": "bo", "message": "after"}):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    while (message := await heard(bo, "chat"))["payload"]["message"] != "after":
        assert message["payload"]["message"] == "during"  # one that failed may be there all the same
    bo.send_json("ack", {"cursor": message["cursor"]})
    await empty(bo)
    await served.says("is back")
    async with user(server, "bo") as again:
        assert await pending(again) == 0
