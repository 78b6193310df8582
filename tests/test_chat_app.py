"""The reference app on its databases: what many people do at once, what waits for whom, and a database that goes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect

from services.mongo import Mongo
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

    def said(self, room: str = "room:lobby") -> list[Json]:
        """What was said in a room, as it came."""
        return [each["payload"] for each in self.got("message") if each["payload"]["channel"] == room]

    async def join(self, room: str = "room:lobby", since: Json | None = None) -> Json:
        """Subscribe; where the room is."""
        answer = await self.ask("subscribe", {"channel": room, "since": since})
        assert answer["type"] == "subscribed", answer
        return answer

    async def say(self, text: str, room: str = "room:lobby", key: str | None = None) -> Json:
        """Publish; the answer."""
        return await self.ask("publish", {"channel": room, "data": text, "key": key})

    async def acks(self, message: Json, pending: int) -> None:
        """Ack a message, and wait until the inbox has taken note."""
        await self.tell("ack", {"cursor": message["cursor"]})
        async with asyncio.timeout(20):
            while (await self.ask("inbox", {}))["pending"] != pending:  # noqa: ASYNC110  # the database takes its time
                await asyncio.sleep(0.02)

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
        """Post to one of its routes."""
        return await self.ask("POST", path, cookie, body)

    async def ask(self, method: str, path: str, cookie: str = "", body: Json | None = None) -> httpx.Response:
        """Make a request of one of its routes."""
        async with httpx.AsyncClient(base_url=self.url, timeout=30) as client:
            headers = {"cookie": cookie} if cookie else {}
            return await client.request(method, f"/api/{path}", json=body, headers=headers)

    async def sign(self, way: str, name: str) -> str:
        """Sign up or in; the session's cookie."""
        answer = await self.post(f"sign-{way}", {"name": name, "password": PASSWORD})
        assert answer.is_success, answer.text
        return answer.headers["set-cookie"].partition(";")[0]

    @asynccontextmanager
    async def person(self, cookie: str) -> AsyncIterator[Person]:
        """Connect and enter."""
        address = f"{self.url.replace('http', 'ws')}/ws"
        headers = {"Cookie": cookie, "Origin": self.url}
        async with connect(address, additional_headers=headers) as socket:
            person = Person(socket)
            assert (await person.ask("enter"))["type"] == "entered"
            yield person

    async def room(self, cookie: str, name: str, *members: str) -> str:
        """Make a room and let people in; its channel."""
        assert (await self.post("rooms", {"name": name}, cookie)).status_code == 201
        for member in members:
            assert (await self.post(f"rooms/{name}/members", {"name": member}, cookie)).status_code == 204
        return f"room:{name}"

    async def history(self, cookie: str, **query: Any) -> list[Json]:
        """Messages over HTTP."""
        async with httpx.AsyncClient(base_url=self.url, headers={"cookie": cookie}) as client:
            found: list[Json] = (await client.get("/api/messages", params=query)).json()
            return found


@asynccontextmanager
async def served(data: Path, *options: str, **environment: str) -> AsyncIterator[Site]:
    async with process(*SERVE, *options, cwd=None, HUBBUB_DATA_DIR=str(data), **environment) as server:
        address = re.search(r"HTTP +(\S+)", await server.says("Stop with"))
        assert address is not None
        yield Site(address[1])


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as server:
        yield server


@pytest.fixture(scope="module")
def mongo() -> Iterator[Mongo]:
    with Mongo() as server:
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
    async with site.person(cookies[0]) as ann, site.person(cookies[1]) as bob:

        async def send(person: Person, other: str, key: str) -> list[int]:
            asked = {"recipientId": other, "message": f"as {key}", "key": key}
            answers = await asyncio.gather(*(person.ask("chat", asked) for _ in range(2)))
            return [answer["number"] for answer in answers]

        keys = [f"key-{index}" for index in range(MESSAGES)]
        pairs = await asyncio.gather(*(send(*each, key) for each in ((ann, "bob"), (bob, "ann")) for key in keys))
        expected = list(range(1, 2 * MESSAGES + 1))
        assert sorted(first for first, _ in pairs) == expected
        assert all(first == second for first, second in pairs)
    found = await site.history(cookies[0], conversation="user:bob", limit=100)
    assert [each["number"] for each in found] == expected
    assert await site.history(cookies[0], conversation="user:bob", after=5, limit=3) == found[5:8]
    assert await site.history(cookies[1], conversation="user:ann", before=5, limit=3) == found[1:4]
    assert await site.history(cookies[2], conversation="user:ann", limit=3) == []


# Rooms


async def test_everybody_in_a_room_sees_the_same_once_and_in_order(site: Site) -> None:
    cookies = [await site.sign("up", name) for name in ("ann", "bob", "eve")]
    async with site.person(cookies[0]) as ann, site.person(cookies[1]) as bob, site.person(cookies[2]) as eve:
        await asyncio.gather(*(person.join() for person in (ann, bob, eve)))
        both = [(person, f"key-{index}") for person in (ann, bob) for index in range(MESSAGES)]
        places = await asyncio.gather(*(person.say("hi", key=key) for person, key in both for _ in range(2)))
        assert places[::2] == places[1::2]  # the same key is the same message
        await until(lambda: all(len(person.said()) >= 2 * MESSAGES for person in (ann, bob, eve)))
        assert ann.said() == bob.said() == eve.said()
        assert sorted(each["offset"] for each in places[::2]) == [each["offset"] for each in eve.said()]
        assert [each["data"]["from"] for each in eve.said()].count("ann") == MESSAGES


async def test_two_workers_are_one_app(tmp_path: Path) -> None:
    async with served(tmp_path, "--workers", "2") as site, AsyncExitStack() as stack:
        cookies = {name: await site.sign("up", name) for name in ("ann", "bob", "eve", "joe")}
        people = [await stack.enter_async_context(site.person(cookie)) for cookie in cookies.values()]
        await asyncio.gather(*(person.join() for person in people))
        await asyncio.gather(*(person.say(str(number), key="one") for number, person in enumerate(people)))
        await until(lambda: all(len(person.said()) == len(people) for person in people))
        assert all(person.said() == people[0].said() for person in people)
        for person in people:
            page = await person.ask("history", {"channel": "room:lobby", "archive": True, "limit": 9})
            assert [each["data"] for each in page["publications"]] == [each["data"] for each in person.said()]
        for name in cookies:
            await people[0].ask("chat", {"recipientId": name, "message": "hi", "key": name})
        await until(lambda: all(person.got("chat") for person in people[1:]))


async def test_the_server_says_who_said_it(site: Site) -> None:
    cookie = await site.sign("up", "ann")
    async with site.person(cookie) as ann:
        await ann.join()
        forged = {"channel": "room:lobby", "data": "hi", "from": "bob", "event": "left", "tags": {"from": "bob"}}
        assert (await ann.ask("publish", forged))["type"] == "published"
        await until(ann.said)
        [message] = ann.said()
        assert (message["event"], message["data"]["from"], "tags" in message) == ("said", "ann", False)
        assert (await ann.ask("publish", {**forged, "data": {"from": "bob"}}))["code"] == "invalid_payload"


async def test_who_was_away_gets_what_was_missed_once(site: Site) -> None:
    ann_, bob_ = [await site.sign("up", name) for name in ("ann", "bob")]
    async with site.person(ann_) as ann:
        await ann.join()
        async with site.person(bob_) as bob:
            await bob.join()
            await ann.say("0")
            await until(bob.said)
            since = {
                "offset": bob.said()[-1]["offset"],
                "epoch": (await bob.ask("enter"))["rooms"]["room:lobby"]["epoch"],
            }
        for text in ("1", "2"):
            await ann.say(text)
        async with site.person(bob_) as bob:
            assert (await bob.join(since=since))["recovered"] is True
            await ann.say("3")
            await until(lambda: len(bob.said()) == 3)
            assert [each["data"]["message"] for each in bob.said()] == ["1", "2", "3"]


async def test_a_room_is_paged_back(site: Site) -> None:
    cookie = await site.sign("up", "ann")
    async with site.person(cookie) as ann:
        await asyncio.gather(*(ann.say(str(index)) for index in range(7)))
        found: list[Json] = []
        more: Json = {}
        while True:
            asked = {"channel": "room:lobby", "archive": True, "back": True, "limit": 3, **more}
            if not (page := (await ann.ask("history", asked))["publications"]):
                break
            found = [*page, *found]
            more = {"since": {"offset": page[0]["offset"], "epoch": page[0]["epoch"]}}
        assert [each["data"]["message"] for each in found] == [str(index) for index in range(7)]


@pytest.mark.parametrize(
    ("type", "more"),
    [
        ("subscribe", {}),
        ("subscribe", {"since": {"offset": 0, "epoch": "x"}}),
        ("publish", {"data": "hi"}),
        ("history", {}),
        ("history", {"archive": True}),
        ("presence", {}),
        ("presence", {"count": True}),
        ("presence", {"state": 1}),
    ],
)
async def test_a_stranger_is_refused(site: Site, type: str, more: Json) -> None:
    ann_, eve_ = [await site.sign("up", name) for name in ("ann", "eve")]
    room = await site.room(ann_, "plans")
    async with site.person(eve_) as eve:
        assert (await eve.ask(type, {"channel": room, **more}))["code"] == "forbidden"
    assert (await site.ask("GET", "rooms/plans/members", eve_)).status_code == 404
    assert (await site.post("rooms/plans/members", {"name": "eve"}, eve_)).status_code == 404
    assert (await site.ask("DELETE", "rooms/plans/members/ann", eve_)).status_code == 404


async def test_who_is_removed_sees_no_more_at_once(site: Site) -> None:
    ann_, bob_ = [await site.sign("up", name) for name in ("ann", "bob")]
    room = await site.room(ann_, "plans")
    async with site.person(ann_) as ann, site.person(bob_) as bob:
        await ann.join(room)
        assert (await site.post("rooms/plans/members", {"name": "bob"}, ann_)).status_code == 204
        await until(lambda: bob.got("subscribed"))
        await ann.say("for bob", room)
        await until(lambda: bob.said(room))
        assert (await site.ask("DELETE", "rooms/plans/members/ann", bob_)).status_code == 403
        assert (await site.ask("DELETE", "rooms/plans/members/bob", ann_)).status_code == 204
        assert [each["payload"] for each in bob.got("unsubscribed")] == [{"channel": room, "code": "forbidden"}]
        await ann.say("without bob", room)
        for type, more in (("subscribe", {}), ("publish", {"data": "x"}), ("history", {}), ("presence", {})):
            assert (await bob.ask(type, {"channel": room, **more}))["code"] == "forbidden"
        assert [each["data"]["message"] for each in bob.said(room)] == ["for bob"]
        assert [each["userId"] for each in (await ann.ask("presence", {"channel": room}))["members"]] == ["ann"]
    assert (await site.ask("DELETE", "rooms/lobby/members/bob", ann_)).status_code == 403


async def test_only_members_are_told_of_a_mention(site: Site) -> None:
    ann_, bob_, eve_ = [await site.sign("up", name) for name in ("ann", "bob", "eve")]
    room = await site.room(ann_, "plans", "bob")
    async with site.person(ann_) as ann, site.person(bob_) as bob, site.person(eve_) as eve:
        for _ in range(2):
            await ann.say("ask @bob and @eve", room, key="one")
        await until(lambda: len(bob.got("notification")) == 2)  # the welcome, and this once
        assert "mentioned you in plans" in bob.got("notification")[-1]["payload"]["title"]
        assert (await eve.ask("inbox", {}))["pending"] == 1


@pytest.mark.parametrize("place", ["SQLite", "PostgreSQL and MongoDB"])
async def test_a_room_outlives_a_killed_server(request: pytest.FixtureRequest, tmp_path: Path, place: str) -> None:
    environment = {}
    if place != "SQLite":
        postgres, mongo = request.getfixturevalue("postgres"), request.getfixturevalue("mongo")
        environment = {"POSTGRES_DATABASE_URL": postgres.url("rooms"), "MONGO_DB_URI": mongo.url("rooms")}
    async with served(tmp_path, **environment) as site:
        cookie = await site.sign("up", "ann")
        room = await site.room(cookie, "plans")
        async with site.person(cookie) as ann:
            start = await ann.join(room)
            places = [await ann.say(str(index), room, key=f"key-{index}") for index in range(3)]
    async with served(tmp_path, **environment) as site, site.person(cookie) as ann:  # the first was killed
        back = await ann.join(room, {"offset": places[0]["offset"], "epoch": start["epoch"]})
        assert (back["recovered"], back["offset"]) == (True, places[-1]["offset"])
        assert (await ann.say("2", room, key="key-2")) == places[-1]
        await until(lambda: len(ann.said(room)) == 2)
        page = await ann.ask("history", {"channel": room, "archive": True})
        assert [each["data"]["message"] for each in page["publications"]] == ["0", "1", "2"]
        assert [each["data"]["message"] for each in ann.said(room)] == ["1", "2"]


# Direct messages


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
            await ann.tell("seen", {"channel": place, "offset": 1, "epoch": name[:64]})
            for type, payload in (("subscribe", {}), ("publish", {"data": "hi"}), ("history", {}), ("presence", {})):
                assert (await ann.ask(type, {"channel": place, **payload}))["code"] in ("forbidden", "bad_channel")
        for method in ("GET", "POST", "DELETE"):
            where = f"rooms/{quote(name, safe='')}/members" + (f"/{quote(name, safe='')}" if method == "DELETE" else "")
            assert (await site.ask(method, where, cookie, {"name": name})).status_code in (404, 405)
        removed = await site.ask("DELETE", f"rooms/lobby/members/{quote(name, safe='')}", cookie)
        assert removed.status_code in (403, 404) or not name  # then it is another place, one `/` too long
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
            place = await zed.say("hi")
            seen = {"offset": place["offset"], "epoch": place["epoch"]}
            await zed.tell("seen", {"channel": "room:lobby", **seen})
            await until(lambda: zed.got("seen"))
        cookie = await site.sign("up", "zed")
        async with site.person(cookie) as zed:
            assert (await zed.ask("enter"))["rooms"] == {"room:lobby": seen}


async def test_a_database_that_goes_and_comes_back(tmp_path: Path, postgres: Postgres) -> None:
    async with served(tmp_path, POSTGRES_DATABASE_URL=postgres.url("outage")) as site:
        ann_, bob_ = [await site.sign("up", name) for name in ("ann", "bob")]
        async with site.person(ann_) as ann, site.person(bob_) as bob:
            await asyncio.gather(ann.join(), bob.join())
            await asyncio.to_thread(postgres.kill)
            assert (await ann.say("hello", key="one"))["code"] == "unavailable"
            assert (await ann.ask("subscribe", {"channel": "room:plans"}))["code"] == "unavailable"
            assert (await site.post("sign-in", {"name": "ann", "password": PASSWORD})).status_code == 503
            await ann.tell("typing", {"conversation": "user:bob"})  # needs no database
            await until(lambda: bob.got("typing"))
            await asyncio.to_thread(postgres.start)
            async with asyncio.timeout(30):
                while (first := await ann.say("hello", key="one")).get("code") == "unavailable":
                    pass
            assert (await ann.say("hello", key="one")) == first
            await until(bob.said)
            assert [each["data"]["message"] for each in bob.said()] == ["hello"]
        await site.sign("in", "ann")
