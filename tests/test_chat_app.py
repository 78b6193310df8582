"""The reference app on its databases: what many people do at once, what waits for whom, and a database that goes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect

from services.postgres import Postgres
from tests.serving import process, until

PASSWORD = "correct horse"
SERVE = ("-m", "hubbub.cli", "serve", "examples.chat.app:app", "--port", "0")
MESSAGES = 20  # of each sender

Json = dict[str, Any]


class Person:
    """Somebody who is signed in, with one connection."""

    def __init__(self, socket: ClientConnection) -> None:
        self.pushed: list[Json] = []
        self._socket = socket
        self._answers: dict[str, asyncio.Future[Json]] = {}
        self._reader = asyncio.create_task(self._read())

    async def ask(self, type: str, payload: Any = None) -> Json:
        """Send a request; the answer's type and payload."""
        id = str(len(self._answers))
        self._answers[id] = asyncio.get_running_loop().create_future()
        await self.tell(type, payload, id=id)
        return await asyncio.wait_for(self._answers[id], 20)

    async def tell(self, type: str, payload: Any, **more: Any) -> None:
        """Send a message."""
        await self._socket.send(json.dumps({"type": type, "payload": payload, **more}))

    def got(self, type: str) -> list[Json]:
        """What the server sent by itself."""
        return [message for message in self.pushed if message["type"] == type]

    def said(self) -> dict[int, Json]:
        """What was said in rooms, by number; what was sent twice may come twice, and is the same."""
        data = [each["payload"]["data"] for each in self.got("message") if each["payload"]["event"] == "said"]
        found = {each["number"]: each for each in data}
        assert all(found[each["number"]] == each for each in data)
        return found

    async def acks(self, message: Json, pending: int) -> None:
        """Ack a message, and wait until the inbox has taken note."""
        await self.tell("ack", {"cursor": message["cursor"]})
        async with asyncio.timeout(20):
            while (await self.ask("inbox", {}))["pending"] != pending:
                pass

    async def _read(self) -> None:
        async for text in self._socket:
            message = json.loads(text)
            if (id := message.get("id")) is not None:
                self._answers[id].set_result({"type": message["type"], **(message.get("payload") or {})})
            else:
                self.pushed.append(message)


class Site:
    """The app being served."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def post(self, path: str, body: Json, cookie: str = "") -> httpx.Response:
        """Make a request of one of its routes."""
        async with httpx.AsyncClient(base_url=self.url, timeout=30) as client:
            return await client.post(f"/api/{path}", json=body, headers={"cookie": cookie} if cookie else {})

    async def sign(self, way: str, name: str) -> str:
        """Sign up or in; the session's cookie."""
        answer = await self.post(f"sign-{way}", {"name": name, "password": PASSWORD})
        assert answer.is_success, answer.text
        return answer.headers["set-cookie"].partition(";")[0]

    @asynccontextmanager
    async def person(self, cookie: str) -> AsyncIterator[Person]:
        """Connect and enter."""
        address = f"{self.url.replace('http', 'ws')}/ws"
        async with connect(address, additional_headers={"Cookie": cookie}) as socket:
            person = Person(socket)
            assert (await person.ask("enter"))["type"] == "entered"
            yield person

    async def history(self, cookie: str, **query: Any) -> list[Json]:
        """Messages over HTTP."""
        async with httpx.AsyncClient(base_url=self.url, headers={"cookie": cookie}) as client:
            found: list[Json] = (await client.get("/api/messages", params=query)).json()
            return found


@asynccontextmanager
async def served(data: Path, **environment: str) -> AsyncIterator[Site]:
    async with process(*SERVE, cwd=None, HUBBUB_DATA_DIR=str(data), **environment) as server:
        address = re.search(r"HTTP +(\S+)", await server.says("Stop with"))
        assert address is not None
        yield Site(address[1])


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest_asyncio.fixture(params=["SQLite", "PostgreSQL"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    """The app with nobody in it, on each of its databases."""
    environment = {}
    if request.param == "PostgreSQL":
        server: Postgres = request.getfixturevalue("postgres")
        environment["POSTGRES_DATABASE_URL"] = server.url(tmp_path.name)
    async with served(tmp_path, **environment) as site:
        yield site


async def test_one_name_is_one_account(site: Site) -> None:
    given = {"name": "ann", "password": PASSWORD}
    answers = await asyncio.gather(*(site.post("sign-up", given) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]
    assert [answer.json()["admin"] for answer in answers if answer.is_success] == [True]
    second = await site.post("sign-up", {"name": "bob", "password": PASSWORD})
    assert second.json() == {"name": "bob", "admin": False}


async def test_numbers_have_no_hole_and_no_double(site: Site) -> None:
    cookies = [await site.sign("up", name) for name in ("ann", "bob", "eve")]
    async with site.person(cookies[0]) as ann, site.person(cookies[1]) as bob, site.person(cookies[2]) as eve:

        async def send(person: Person, key: str) -> list[int]:
            asked = {"channel": "room:lobby", "data": f"as {key}", "key": key}
            answers = await asyncio.gather(*(person.ask("publish", asked) for _ in range(2)))
            return [answer["number"] for answer in answers]

        keys = [f"key-{index}" for index in range(MESSAGES)]
        pairs = await asyncio.gather(*(send(person, key) for person in (ann, bob) for key in keys))
        expected = list(range(1, 2 * MESSAGES + 1))
        assert sorted(first for first, _ in pairs) == expected
        assert all(first == second for first, second in pairs)
        await until(lambda: len(eve.said()) == 2 * MESSAGES)
    found = await site.history(cookies[2], conversation="room:lobby", limit=100)
    assert found == [eve.said()[number] for number in expected]
    assert await site.history(cookies[2], conversation="room:lobby", after=5, limit=3) == found[5:8]
    assert await site.history(cookies[2], conversation="room:lobby", before=5, limit=3) == found[1:4]


async def test_a_direct_message_waits_until_it_is_acked(site: Site) -> None:
    ann_, bob_ = [await site.sign("up", name) for name in ("ann", "bob")]
    async with site.person(bob_) as bob:
        await until(lambda: bob.got("notification"))  # the welcome
        await bob.acks(bob.got("notification")[-1], pending=0)
    async with site.person(ann_) as ann:
        for index in range(3):
            asked = {"recipientId": "bob", "message": str(index), "key": f"key-{index}"}
            for _ in range(2):
                answer = await ann.ask("chat", asked)
                assert (answer["number"], answer["delivered"], answer["stored"]) == (index + 1, False, True)
    for waiting, acked in ((3, 0), (3, 2), (1, 1), (0, 0)):  # how many come, how many of them are acked
        async with site.person(bob_) as bob:
            await until(lambda bob=bob, waiting=waiting: len(bob.got("chat")) >= waiting)  # type: ignore[misc]
            assert (await bob.ask("inbox", {}))["pending"] == waiting
            got = bob.got("chat")
            assert [each["payload"]["message"] for each in got] == ["0", "1", "2"][3 - waiting :]
            if acked:
                await bob.acks(got[acked - 1], pending=waiting - acked)


@pytest.mark.parametrize("name", ["n\0l", "'; DROP TABLE chat_users; --", "x" * 100, '{"$gt": ""}', ""])
async def test_no_name_hurts_a_database(site: Site, name: str) -> None:
    cookie = await site.sign("up", "ann")
    wrong = await site.post("sign-in", {"name": name, "password": PASSWORD})
    assert wrong.status_code == 401
    async with site.person(cookie) as ann:
        assert (await ann.ask("chat", {"recipientId": name, "message": "hi"}))["code"] == "no_such_user"
        for place in (f"room:{name}", f"user:{name}", name):
            assert await site.history(cookie, conversation=place[:100]) == []
            await ann.tell("typing", {"conversation": place})
            await ann.tell("read", {"conversation": place, "number": 1})
        assert (await ann.ask("ping"))["type"] == "pong"
        assert not ann.got("error")


async def test_who_came_by_token_may_sign_up_later(tmp_path: Path) -> None:
    command = ("-m", "hubbub.cli", "token", "--user", "zed")
    async with process(*command, HUBBUB_DATA_DIR=str(tmp_path)) as made:
        await made.end()
    async with served(tmp_path) as site:
        async with connect(f"{site.url.replace('http', 'ws')}/ws") as socket:
            zed = Person(socket)
            assert (await zed.ask("authenticate", {"token": made.out.strip()}))["userId"] == "zed"
            assert (await zed.ask("enter"))["type"] == "entered"
            assert (await zed.ask("publish", {"channel": "room:lobby", "data": "hi"}))["number"] == 1
        cookie = await site.sign("up", "zed")
        async with site.person(cookie) as zed:
            found = (await zed.ask("enter"))["conversations"]
    assert found == {"room:lobby": {"last": 1, "read": 1}}


async def test_a_database_that_goes_and_comes_back(tmp_path: Path, postgres: Postgres) -> None:
    said = {"channel": "room:lobby", "data": "hello", "key": "one"}
    async with served(tmp_path, POSTGRES_DATABASE_URL=postgres.url("outage")) as site:
        ann_, bob_ = [await site.sign("up", name) for name in ("ann", "bob")]
        async with site.person(ann_) as ann, site.person(bob_) as bob:
            await asyncio.to_thread(postgres.kill)
            assert (await ann.ask("publish", said))["code"] == "unavailable"
            assert (await site.post("sign-in", {"name": "ann", "password": PASSWORD})).status_code == 503
            await ann.tell("typing", {"conversation": "room:lobby"})  # needs no database
            await until(lambda: any(each["payload"]["event"] == "typing" for each in bob.got("message")))
            await asyncio.to_thread(postgres.start)
            for _ in range(2):
                assert (await ann.ask("publish", said))["number"] == 1
            await until(bob.said)
        await site.sign("in", "ann")
