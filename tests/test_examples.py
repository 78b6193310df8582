"""Every example, run for real: served on a socket, with a WebSocket client that sees what its docstring promises."""

from __future__ import annotations

import json
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.serving import RunningServer, fetch, process, serving

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette's test client would rather have httpx2
    from examples.testing import test_in_memory

from examples.testing import test_over_a_socket

QUICK = sorted((Path(__file__).parents[1] / "examples" / "quick").glob("*.py"))
QUICK_LINES = 30

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
    async def client(self, **headers: str) -> AsyncIterator[Client]:
        """Connect, and take the `welcome`."""
        async with connect(f"ws://127.0.0.1:{self._server.port}/ws", additional_headers=headers) as connection:
            client = Client(connection)
            assert (await client.next())["type"] == "welcome"
            yield client

    async def http(self, method: str, path: str) -> str:
        """Make a request of the app's own routes; what it answers."""
        answer = await fetch(self._server, path, method)
        assert answer.status == 200
        return answer.body.decode()


@asynccontextmanager
async def example(name: str) -> AsyncIterator[Site]:
    """Serve an example's app."""
    async with serving(import_module(f"examples.{name}").app) as server:
        yield Site(server)


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
    ours, brian = {"origin": "https://shop.example"}, {"cookie": "session=decade"}
    async with example("quick.sign_in") as site:
        async with site.client(**ours) as stranger, site.client(**brian) as foreign:
            assert (await stranger.closed(), await foreign.closed()) == (4501, 4503)
        async with site.client(**ours, **brian) as client:
            assert await site.http("POST", "/users/brian/notify?text=hi") == "true"
            note = await client.next()
    assert note["payload"] == {"title": "From the shop", "message": "hi", "type": "success"}


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
    # Django can be configured only once in a process, so this one has a process of its own.
    command = ["-m", "hubbub.cli", "serve", "examples.quick.django_app:app", "--port", "0"]
    async with process(*command) as server:
        address = (await server.says("WebSocket")).partition("HTTP")[2].split()[0]
        site = Site(RunningServer(int(address.rpartition(":")[2])))
        async with site.client() as client:
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


@pytest.mark.parametrize("step", ["step1", "step2", "step3", "step4"])
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


@pytest.mark.parametrize("test", shown_by(test_in_memory), ids=lambda test: test.__name__)
def test_testing_in_memory(test: Any) -> None:
    test()


@pytest.mark.parametrize("test", shown_by(test_over_a_socket), ids=lambda test: test.__name__)
async def test_testing_over_a_socket(test: Any) -> None:
    await test()


@pytest.mark.parametrize("path", QUICK, ids=lambda path: path.stem)
def test_a_quick_example_is_short_and_tested(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= QUICK_LINES
    assert path.stem in Path(__file__).read_text("utf-8")
