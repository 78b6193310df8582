"""Every example, run for real: served on a socket, with a WebSocket client that sees what its docstring promises."""

from __future__ import annotations

import asyncio
import json
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module, reload
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jwt
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from hubbub.config import load_settings
from hubbub.node.secret import Secret
from hubbub.node.tokens import sign
from services.nats import Nats
from services.postgres import Postgres
from tests.serving import RunningServer, fetch, process, serving

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette's test client would rather have httpx2
    from examples.testing import test_in_memory

from examples.testing import test_over_a_socket, test_with_the_kit

QUICK = sorted((Path(__file__).parents[1] / "examples" / "quick").glob("*.py"))
QUICK_LINES = 30
SECRET = "a secret of tests that is long enough"

Json = dict[str, Any]


class Client:
    """A client that has its `welcome`; `next` is what follows."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._asked = 0

    async def send(self, type: str, payload: Any = None, *, id: str | None = None) -> None:
        """Send a message."""
        await self._connection.send(json.dumps({"type": type, "payload": payload, "id": id}))

    async def ask(self, type: str, payload: Any = None) -> Json:
        """Send a message with an id; the next one must be its answer."""
        self._asked += 1
        await self.send(type, payload, id=str(self._asked))
        answer = await self.next()
        assert answer["id"] == str(self._asked)
        return answer

    async def next(self) -> Json:
        """The next message, without its time."""
        message: Json = json.loads(await self._connection.recv())
        assert isinstance(message.pop("timestamp"), int)
        return message

    async def upload(self, data: bytes) -> None:
        """Send a binary message."""
        await self._connection.send(data)

    async def closed(self) -> int | None:
        """Wait for the end; the close code."""
        with pytest.raises(ConnectionClosed):
            await self._connection.recv()
        return self._connection.close_code


class Site:
    """One example being served."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server

    @asynccontextmanager
    async def client(self, query: str = "", **headers: str) -> AsyncIterator[Client]:
        """Connect, and take the `welcome`; who brings a cookie is a page of this site, unless it says otherwise."""
        url = f"ws://127.0.0.1:{self._server.port}/ws{query}"
        if "cookie" in headers:
            headers = {"origin": self._server.url, **headers}
        async with connect(url, additional_headers=headers) as connection:
            client = Client(connection)
            assert (await client.next())["type"] == "welcome"
            yield client

    async def http(self, method: str, path: str, status: int = 200, **headers: str) -> str:
        """Make a request of the app's own routes; what it answers."""
        answer = await fetch(self._server, path, method, headers.items())
        assert answer.status == status
        return answer.body.decode()

    async def cookie(self, path: str, payload: Any = None, method: str = "POST") -> str:
        """Sign in to the app; the cookie it sets."""
        body = b"" if payload is None else json.dumps(payload).encode()
        answer = await fetch(self._server, path, method, [("Content-Type", "application/json")], body)
        assert answer.status < 300
        return (answer.header("set-cookie") or "").partition(";")[0]

    async def refused(self, query: str = "", **headers: str) -> int | None:
        """Connect, and be sent away without a word; the close code."""
        url = f"ws://127.0.0.1:{self._server.port}/ws{query}"
        async with connect(url, additional_headers=headers) as connection:
            return await Client(connection).closed()


@asynccontextmanager
async def example(name: str) -> AsyncIterator[Site]:
    """Serve an example's app."""
    async with serving(import_module(f"examples.{name}").app) as server:
        yield Site(server)


@asynccontextmanager
async def django_example(name: str, **environment: Any) -> AsyncIterator[Site]:
    """Django can be configured only once in a process, so each of its examples has a process of its own."""
    command = ("-m", "hubbub.cli", "serve", f"examples.quick.{name}:app", "--port", "0")
    async with process(*command, **environment) as server:
        address = (await server.says("WebSocket")).partition("HTTP")[2].split()[0]
        yield Site(RunningServer(int(address.rpartition(":")[2])))


def token(user: str) -> str:
    """What `hubbub token` prints."""
    secret = Secret(None, load_settings()).need()
    return sign({"sub": user, "exp": int(time.time()) + 60}, secret)


def shown_by(module: Any) -> list[Any]:
    """The tests that an example shows."""
    return [value for name, value in vars(module).items() if name.startswith("test_")]


async def test_echo() -> None:
    async with example("quick.echo") as site, site.client() as client:
        assert await client.ask("shout", "hello") == {"type": "shout_response", "payload": "HELLO", "id": "1"}


async def test_broadcast() -> None:
    async with example("quick.broadcast") as site, site.client() as ada:
        async with site.client() as brian:
            assert (await brian.ask("say", "hi"))["payload"] == 1
            said = await ada.next()
        left = await ada.next()
    assert said["payload"]["text"] == "hi"
    assert left == {"type": "system_message", "payload": {"message": f"{said['payload']['from']} left"}}


async def test_channels() -> None:
    async with example("quick.channels") as site, site.client() as ada, site.client() as brian:
        for client, room in ((ada, "red"), (brian, "blue"), (brian, "red")):
            await client.send("enter", room)
            assert (await client.next())["payload"]["channel"] == f"room:{room}"
            assert (await client.next())["payload"] == [f"room:{room}"]
        assert (await ada.next())["payload"]["event"] == "entered"


async def test_rooms() -> None:
    async with example("quick.rooms") as site, site.client(**{"x-user": "brian"}) as brian:
        await brian.next()
        place = (await brian.ask("subscribe", {"channel": "room:7"}))["payload"]
        async with site.client(**{"x-user": "ada"}) as ada, site.client(**{"x-user": "eve"}) as eve:
            await ada.next()
            await eve.next()
            assert (await eve.ask("subscribe", {"channel": "room:7"}))["payload"]["code"] == "forbidden"
            await ada.ask("subscribe", {"channel": "room:7"})
            await ada.send("publish", {"channel": "room:7", "data": "hi"})
            said = (await brian.next())["payload"]
            async with site.client(**{"x-user": "brian"}) as again:
                await again.next()
                since = {"offset": place["offset"], "epoch": place["epoch"]}
                answer = await again.ask("subscribe", {"channel": "room:7", "since": since})
                assert answer["payload"]["recovered"] is True
                assert (await again.next())["payload"] == said
            await site.http("DELETE", "/rooms/7/members/brian")
            assert (await brian.next())["payload"] == {"channel": "room:7", "code": "forbidden"}


async def test_publish_from_route() -> None:
    async with example("quick.publish_from_route") as site, site.client() as client:
        for channel in ("prices", "reports"):
            await client.ask("subscribe", {"channel": channel})
        assert await site.http("POST", "/prices/ACME?price=3.5") == "1"
        price = await client.next()
        await site.http("POST", "/alarm")
        alarm = await client.next()
        await site.http("POST", "/report")
        report = await client.next()
    assert price["payload"] == {"channel": "prices", "event": "changed", "data": {"symbol": "ACME", "price": 3.5}}
    assert alarm == {"type": "system_message", "payload": {"message": "The market closes."}}
    assert report["payload"] == {"channel": "reports", "event": "ready", "data": None}


@asynccontextmanager
async def several(**environment: str) -> AsyncIterator[tuple[Site, dict[str, str]]]:
    """Serve the app that other processes publish for; the environment that it shares with them."""
    with Nats() as nats, TemporaryDirectory() as place:
        shared = {"HUBBUB_BROKER_URL": nats.url, "HUBBUB_DATA_DIR": place, **environment}
        command = ("-m", "hubbub.cli", "serve", "examples.quick.anywhere:app", "--port", "0")
        async with process(*command, cwd=None, **shared) as server:
            address = (await server.says("WebSocket", 30)).partition("HTTP")[2].split()[0]
            yield Site(RunningServer(int(address.rpartition(":")[2]))), {**shared, "HUBBUB_API": f"{address}/ws/api"}


async def test_from_cron() -> None:
    async with several() as (site, shared), site.client(**{"x-user": "ann"}) as ann:
        assert (await ann.next())["type"] == "authenticated"
        await ann.ask("subscribe", {"channel": "reports"})
        for _ in range(2):  # cron may start it again: the keys make it one
            async with process("-m", "examples.quick.from_cron", cwd=None, **shared) as script:
                assert (await script.end(30), script.err) == (0, "")
                assert script.out == "published at 1\n"
        ready, note = sorted([await ann.next() for _ in range(2)], key=lambda message: str(message["type"]))
    assert ready["payload"]["data"] == {"month": "2026-10"}
    assert note["payload"]["message"] == "October is ready."


async def test_from_wsgi() -> None:
    serve = """
from wsgiref.simple_server import make_server
from examples.quick.from_wsgi import app
with make_server("127.0.0.1", 0, app) as server:
    print(f"on {server.server_port}.")
    server.handle_request()
"""
    async with several() as (site, shared), site.client() as client:
        await client.ask("subscribe", {"channel": "prices"})
        async with process("-c", serve, cwd=None, **shared) as flask:
            port = int((await flask.says(".", 30)).partition("on ")[2].partition(".")[0])
            assert (await fetch(RunningServer(port), "/ACME/3.5", "POST")).status == 204
            assert await flask.end(30) == 0
        assert (await client.next())["payload"]["data"] == {"symbol": "ACME", "price": 3.5}


async def test_http_api() -> None:
    async with several(HUBBUB_API_KEY="a key of tests that is long enough") as (site, shared), site.client() as client:
        await client.ask("subscribe", {"channel": "prices"})
        async with process("-m", "examples.quick.http_api", cwd=None, **shared) as script:
            assert (await script.end(30), script.err) == (0, "")
            assert script.out == "{'connections': 1}\n{'connections': []}\n"
        assert (await client.next())["payload"]["data"] == {"symbol": "ACME", "price": 3.5}


async def test_typed_errors() -> None:
    bids = {(1, 20): "no_such_lot", (7, 0): "invalid_payload", (7, 13): "internal"}
    async with example("quick.typed_errors") as site, site.client() as client:
        for (lot, amount), code in bids.items():
            answer = await client.ask("bid", {"lotNumber": lot, "amount": amount})
            assert (answer["type"], answer["payload"]["code"]) == ("error", code)
        leading = await client.ask("bid", {"lotNumber": 7, "amount": 20})
    assert leading["payload"] == {"status": "leading"}


@pytest.mark.parametrize(("sure", "end"), [(True, "deleted"), (False, "kept")])
async def test_ask_the_client(sure: bool, end: str) -> None:
    async with example("quick.ask_the_client") as site, site.client() as client:
        await client.send("delete_account", id="1")
        question = await client.next()
        assert question["payload"] == {"type": "confirm", "payload": {"question": "Delete everything?"}}
        await client.send("response", sure, id=question["id"])
        assert (await client.next())["payload"] == end


async def test_sign_in() -> None:
    ours = "https://shop.example"
    async with example("quick.sign_in") as site:
        brian = {"cookie": await site.cookie("/sign-in?user=brian")}
        with pytest.raises(InvalidStatus, match="HTTP 403"):
            await site.refused(origin="https://evil.example", **brian)
        async with site.client(origin=ours) as stranger, site.client(origin=ours, **brian) as client:
            assert (await client.next())["payload"]["userId"] == "brian"
            assert await site.http("POST", "/users/brian/notify?text=hi") == "true"
            note = await client.next()
            assert (await stranger.ask("ping"))["type"] == "pong"
    assert note["payload"] == {"title": "From the shop", "message": "hi", "type": "success"}


async def test_starlette_sign_in() -> None:
    async with example("quick.starlette_sign_in") as site, site.client(**{"X-API-Key": "c0ffee"}) as ada:
        assert (await ada.next())["payload"]["userId"] == "ada"


async def test_litestar_sign_in() -> None:
    async with example("quick.litestar_sign_in") as site:
        cookie = await site.cookie("/sign-in/ada")
        async with site.client(cookie=cookie) as ada, site.client() as stranger:
            assert (await ada.next())["payload"]["userId"] == "ada"
            assert (await stranger.ask("ping"))["type"] == "pong"


async def test_django_sign_in() -> None:
    async with django_example("django_sign_in") as site:
        cookie = await site.cookie("/sign-in/ada", method="GET")
        async with site.client(cookie=cookie) as ada:
            assert (await ada.next())["payload"]["userId"] == "ada"


async def test_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUBBUB_SECRET", SECRET)
    claims = {"sub": "ada", "exp": time.time() + 60, "iss": "https://login.example", "aud": "chat", "role": "admin"}
    good, forged = (jwt.encode(claims, key, "HS256") for key in (SECRET, "x" * 32))
    module = reload(import_module("examples.quick.tokens"))
    async with serving(module.app) as server:
        site = Site(server)
        assert await site.refused(authorization=f"Bearer {forged}") == 4501
        async with site.client(authorization=f"Bearer {good}") as ada, site.client() as late:
            assert (await ada.next())["payload"]["userId"] == "ada"
            assert (await ada.ask("me"))["payload"] == {"user": "ada", "role": "admin"}
            assert (await late.ask("authenticate", {"token": good}))["payload"]["userId"] == "ada"
            assert await site.http("POST", "/users/ada/sign-out") == "2"
            assert await ada.closed() == 4501
        async with site.client() as stranger:
            assert (await stranger.ask("me"))["payload"]["code"] == "unauthorized"
            assert await stranger.closed() == 4501


async def test_tickets() -> None:
    async with example("quick.tickets") as site:
        ticket = json.loads(await site.http("POST", "/ticket", cookie="session=c0ffee"))
        async with site.client(f"?ticket={ticket}") as ada:
            assert (await ada.next())["payload"]["userId"] == "ada"
        assert await site.refused(f"?ticket={ticket}") == 4501


async def test_durable() -> None:
    async with example("quick.durable") as site:
        first = json.loads(await site.http("POST", "/orders/7/ship?user_id=ada"))
        again = json.loads(await site.http("POST", "/orders/7/ship?user_id=ada"))
        async with asyncio.timeout(10):
            while not (mail := json.loads(await site.http("GET", "/mail"))):
                pass
    assert first == again == {"delivered": False, "stored": True, "cursor": 1}
    assert mail == ["to ada: shipped 7"]


async def test_outbox_fastapi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_FILE", str(tmp_path / "shop.db"))
    async with example("quick.outbox_fastapi") as site:
        async with site.client() as client:
            await client.ask("subscribe", {"channel": "orders"})
            await site.http("POST", "/orders/moon?user_id=ada", status=409)
            await site.http("POST", "/orders/pen?user_id=ada")
            placed = await client.next()
        async with site.client(authorization=f"Bearer {token('ada')}") as ada:
            while (thanks := await ada.next())["type"] != "thanks":
                pass
    await import_module("examples.quick.outbox_fastapi").engine.dispose()
    assert placed["payload"] == {"channel": "orders", "event": "placed", "data": {"item": "pen"}}
    assert thanks["payload"] == {"item": "pen"}


async def test_outbox_django(tmp_path: Path) -> None:
    async with (
        django_example("outbox_django", SHOP_FILE=str(tmp_path / "shop.db")) as site,
        site.client() as client,
    ):
        await client.ask("subscribe", {"channel": "orders"})
        await site.http("GET", "/orders/moon")
        await site.http("GET", "/orders/pen")
        assert (await client.next())["payload"]["data"] == {"item": "pen"}


async def test_outbox_asyncpg(monkeypatch: pytest.MonkeyPatch) -> None:
    with Postgres() as server:
        monkeypatch.setenv("SHOP_URL", server.url("shop"))
        async with example("quick.outbox_asyncpg") as site, site.client() as client:
            await client.ask("subscribe", {"channel": "prices"})
            await site.http("POST", "/prices/pen?price=0", status=422)
            await site.http("POST", "/prices/pen?price=3")
            assert (await client.next())["payload"]["data"] == {"item": "pen", "price": 3}


async def test_chat() -> None:
    async with example("quick.chat") as site:
        async with site.client(authorization=f"Bearer {token('ada')}") as ada:
            assert (await ada.next())["type"] == "authenticated"
            answer = await ada.ask("chat", {"recipientId": "brian", "message": "hi"})
        assert (answer["payload"]["delivered"], answer["payload"]["stored"]) == (False, True)
        async with site.client(authorization=f"Bearer {token('brian')}") as brian:
            assert [(await brian.next())["type"] for _ in range(2)] == ["authenticated", "inbox"]
            chat = await brian.next()
    assert (chat["type"], chat["cursor"]) == ("chat", 1)
    assert (chat["payload"]["from"], chat["payload"]["message"]) == ("ada", "hi")


async def test_handlers() -> None:
    async with example("quick.handlers") as site, site.client() as client:
        assert (await client.ask("quick"))["payload"] == 1
        await client.send("patient", 0)
        assert [(await client.next())["payload"] for _ in range(2)] == ["started", "done"]
        assert (await client.ask("blocking", 0))["payload"] == "slept"


async def test_hooks() -> None:
    async with example("quick.hooks") as site, site.client() as client:
        noted = await client.ask("whatever")
        await client.send("fail")
        failed = await client.next()
        await client.upload(b"12345")
        uploaded = await client.next()
    assert noted["payload"] == {"type": "whatever", "messages": 1}
    assert failed["payload"]["code"] == "internal"
    assert uploaded["payload"] == {"bytes": 5}


async def test_pydantic_payload() -> None:
    async with example("quick.pydantic_payload") as site, site.client() as client:
        ordered = await client.ask("order", {"orderId": "abc"})
        refused = await client.ask("order", {"orderId": "a"})
    assert (ordered["type"], ordered["payload"]) == ("ordered", {"orderId": "abc", "unitCount": 2})
    assert refused["payload"]["field"] == "orderId"


async def test_camel_case() -> None:
    async with example("quick.camel_case") as site, site.client() as client:
        assert (await client.ask("draw", {"lineColor": "red"}))["payload"] == {"lineColor": "red"}
        assert (await client.ask("draw", {"line_color": "red"}))["payload"]["field"] == "lineColor"
        assert (await client.ask("find", {"max_price": 3}))["payload"] == {"max_price": 3}


async def test_from_typescript() -> None:
    async with example("quick.from_typescript") as site, site.client() as client:
        assert (await client.next())["type"] == "hello"
        assert (await client.ask("order", {"pens": 2, "ink": 1}))["payload"] == {"items": 3}


@pytest.mark.parametrize(
    ("name", "path", "answer"),
    [
        ("starlette_app", "/count", '{"connections":1}'),
        ("litestar_app", "/count", '{"connections":1}'),
        ("bare_asgi", "/", "1 connected\n"),
    ],
)
async def test_attached(name: str, path: str, answer: str) -> None:
    async with example(f"quick.{name}") as site, site.client() as client:
        assert await client.ask("ping") == {"type": "pong", "id": "1"}
        assert await site.http("GET", path) == answer


async def test_django_app() -> None:
    async with django_example("django_app") as site, site.client() as client:
        assert json.loads(await site.http("GET", "/ring")) == {"connections": 1}
        assert await client.next() == {"type": "system_message", "payload": {"message": "Ring!"}}


async def test_shop() -> None:
    async with example("shop") as site, site.client(cookie="session=c0ffee") as ada, site.client() as stranger:
        refused = await stranger.ask("chat", {"recipientId": "ada", "message": "hi"})
        await stranger.ask("subscribe", {"channel": "order:7"})
        await site.http("POST", "/orders/7/ship")
        shipped = await stranger.next()
        answer = await ada.ask("chat", {"recipientId": "brian", "message": "hi"})
    assert refused["payload"]["code"] == "unauthorized"
    assert shipped["payload"] == {"channel": "order:7", "event": "shipped", "data": {"orderId": "7"}}
    assert (answer["type"], answer["payload"]) == ("chat_received", {"delivered": False})


async def test_streaming() -> None:
    async with example("streaming") as site, site.client() as ada:
        assert "<title>Streaming</title>" in await site.http("GET", "/")
        await ada.ask("subscribe", {"channel": "run:7"})
        await site.http("POST", "/runs/7?question=why&words=3", status=202)
        events: list[Json] = []
        while not events or events[-1]["event"] != "end":
            events.append((await ada.next())["payload"])
        async with site.client() as brian:
            await brian.ask("subscribe", {"channel": "run:7"})
            start, end = [(await brian.next())["payload"] for _ in range(2)]
    assert "".join(event.get("text", "") for event in events) == start["text"] == "The sea keeps "
    assert start["data"] == {"done": 3, "of": 3}
    assert events[-1] == end
    assert end["reason"] == "done"


@pytest.mark.parametrize("step", ["step1", "step2", "step3", "step4", "step5"])
async def test_the_tutorial_serves_its_page(step: str) -> None:
    async with example(f"tutorial.{step}") as site:
        assert "<title>Chat</title>" in await site.http("GET", "/")


async def test_the_tutorial_attaches_a_hub() -> None:
    async with example("tutorial.step2") as site, site.client() as client:
        assert (await client.ask("ping"))["type"] == "pong"


@pytest.mark.parametrize("step", ["step3", "step4"])
async def test_the_tutorial_chats(step: str) -> None:
    async with example(f"tutorial.{step}") as site, site.client() as ada, site.client() as brian:
        assert (await ada.ask("say", {"text": "hi"}))["payload"]["code"] == "unauthorized"
        await ada.send("join", {"name": "ada"})
        assert [(await each.next())["payload"] for each in (ada, brian)] == [{"message": "ada is here."}] * 2
        await ada.send("say", {"text": "hi"})
        assert [(await each.next())["payload"] for each in (ada, brian)] == [{"from": "ada", "text": "hi"}] * 2


async def test_the_tutorial_whispers_and_announces() -> None:
    async with example("tutorial.step4") as site, site.client() as ada:
        async with site.client() as brian:
            await ada.send("join", {"name": "ada"})
            assert [(await each.next())["payload"] for each in (ada, brian)] == [{"message": "ada is here."}] * 2
            await brian.send("join", {"name": "brian"})
            assert [(await each.next())["payload"] for each in (ada, brian)] == [{"message": "brian is here."}] * 2
            await brian.send("say", {"text": "@ada psst"})
            assert (await ada.next())["payload"] == {"from": "brian, only to you", "text": "psst"}
            assert (await brian.ask("say", {"text": "@zed psst"}))["payload"]["code"] == "not_here"
        assert (await ada.next())["payload"] == {"message": "brian has left."}
        assert await site.http("POST", "/announce?message=Tea") == '{"connections":1}'
        assert (await ada.next())["payload"] == {"message": "Tea"}


async def test_the_tutorial_keeps_what_is_said_to_who_is_away() -> None:
    async with example("tutorial.step5") as site:
        assert await site.refused() == 4501
        ada = {"cookie": await site.cookie("/sign-in", {"name": "ada", "password": "1815"})}
        brian = {"cookie": await site.cookie("/sign-in", {"name": "brian", "password": "1942"})}
        async with site.client(**ada) as client:
            assert [(await client.next())["type"] for _ in range(2)] == ["authenticated", "system_message"]
            await client.send("say", {"text": "@brian psst"})
            assert (await client.next())["payload"]["message"] == "brian will see it later."
            assert (await client.ask("say", {"text": "@zed psst"}))["payload"]["code"] == "no_such_user"
        for acked in (False, True):
            async with site.client(**brian) as client:
                assert (await client.next())["type"] == "authenticated"
                messages = [await client.next() for _ in range(3)]
                assert {"type": "inbox", "payload": {"cursor": 0, "pending": 1}} in messages
                said = next(message for message in messages if message["type"] == "said")
                assert said == {"type": "said", "payload": {"from": "ada, only to you", "text": "psst"}, "cursor": 1}
                if acked:
                    await client.send("ack", {"cursor": 1})
                    while (await client.ask("inbox"))["payload"]["pending"]:
                        pass  # until it is written
        async with site.client(**brian) as client:
            assert [(await client.next())["type"] for _ in range(2)] == ["authenticated", "system_message"]
            assert (await client.ask("inbox"))["payload"] == {"cursor": 1, "pending": 0, "messages": []}


@pytest.mark.parametrize("test", shown_by(test_in_memory), ids=lambda test: test.__name__)
def test_testing_in_memory(test: Any) -> None:
    test()


@pytest.mark.parametrize("test", shown_by(test_over_a_socket), ids=lambda test: test.__name__)
async def test_testing_over_a_socket(test: Any) -> None:
    await test()


@pytest.mark.parametrize("test", shown_by(test_with_the_kit), ids=lambda test: test.__name__)
async def test_testing_with_the_kit(test: Any) -> None:
    await test()


@pytest.mark.parametrize("path", QUICK, ids=lambda path: path.stem)
def test_a_quick_example_is_short_and_tested(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= QUICK_LINES
    assert path.stem in Path(__file__).read_text("utf-8")
