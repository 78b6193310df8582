"""The wire as data: each vector of `tests/vectors/*.json` is played against a hub in memory."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from hubbub import Auth, Connection, Handshake, Hub, Limits, RequestError
from hubbub.errors import ERROR_CODES, StorageFull, StoreUnavailable
from hubbub.limits import Rate, Rates
from tests.fakes import SCOPE, RecordingTransport, make_hub, open_connection, read_messages, say, tick

FILES = sorted((Path(__file__).parents[1] / "vectors").glob("*.json"))
VECTORS = {f"{path.stem}: {each['name']}": each for path in FILES for each in json.loads(path.read_bytes())["vectors"]}
HUB_METHODS = {
    "broadcast",
    "broadcast_system",
    "disconnect_user",
    "drain",
    "notify",
    "publish",
    "send_to_user",
    "shutdown",
}
CONNECTION_METHODS = {"close", "identify"}
SECRET = "the secret of these vectors, which is none"
SETTLED = 10  # turns of the loop after which everything in memory is done; for a database one has to wait
PATIENCE = 5.0
RATES = Rates(types={"rare": Rate(1, 60.0)})

Json = dict[str, Any]


class Item(msgspec.Struct):
    """A part of `Order`."""

    unit_price: Annotated[float, msgspec.Meta(gt=0)]


class Order(msgspec.Struct):
    """The payload of `order`."""

    order_id: str
    items: list[Item]


class Ordered(msgspec.Struct):
    """The reply to `order`."""

    order_id: str
    total: float


def build_hub() -> Hub:
    """The server that the vectors are written for; a file of SQLite is made with the first durable message."""
    hub = make_hub(limits=Limits(channels=2, inbox=3), auth=Auth(secret=SECRET), chat=True, rates=RATES)
    hub.namespace("room", history=3)
    hub.namespace("log", history=1, archive=True)
    hub.namespace("table", max_subscribers=1)
    hub.namespace("price", slow="latest_per_key")
    hub.namespace("lounge", presence=True)

    @hub.on("order", reply="ordered")
    def order(conn: Connection, payload: Order) -> Ordered:
        return Ordered(payload.order_id, sum(item.unit_price for item in payload.items))

    @hub.on("members_only", auth=True)
    def members_only(conn: Connection) -> str | None:
        return conn.user_id

    @hub.on("refuses")
    def refuses(conn: Connection) -> None:
        raise RequestError("out_of_stock", "There is none left.", "items[0]")

    @hub.on("fails")
    def fails(conn: Connection) -> None:
        raise ValueError("on purpose")

    @hub.on("needs_the_database")
    def needs_the_database(conn: Connection) -> None:
        raise StoreUnavailable("The database is out of reach.")

    @hub.on("fills_the_database")
    def fills_the_database(conn: Connection) -> None:
        raise StorageFull("The database has no room left.")

    @hub.on("rare")
    def rare(conn: Connection) -> str:
        return "done"

    @hub.on("hangs")
    async def hangs(conn: Connection) -> None:
        await asyncio.Event().wait()

    @hub.on("asks")
    async def asks(conn: Connection) -> Any:
        return await conn.request("confirm")

    return hub


class Play:
    """One vector being played.

    Args:
        hub: the server.
        varies: the examples in the vector that stand for another string or number.
    """

    def __init__(self, hub: Hub, varies: list[str | int]) -> None:
        self.hub = hub
        self.started = time.monotonic()
        self._connect()
        self.read = len(self.messages)
        self._varies = varies
        self._real: dict[str | int, Any] = {}
        self._question: asyncio.Task[Any] | None = None
        self._says: asyncio.Queue[Json] = asyncio.Queue()
        self._producer: asyncio.Task[None] | None = None

    async def step(self, step: Json) -> None:
        """Play one step and let everything settle."""
        match step:
            case {"client": message}:
                text = json.dumps(message)
                for example, real in self._real.items():
                    text = text.replace(json.dumps(example), json.dumps(real))
                self.connection.receive_text(text.encode())
            case {"text": text}:
                self.connection.receive_text(text.encode())
            case {"binary": data}:
                self.connection.receive_binary(bytes.fromhex(data))
            case {"server": expected}:
                self._compare(expected, await self.next())
            case {"closed": code}:
                await _until(lambda: bool(self.transport.closes))
                assert [closed for closed, _ in self.transport.closes] == [code]
            case {"app": name}:
                await self._app(name, step.get("with", {}))
            case _:
                raise AssertionError(f"an unknown step: {step}")
        await tick(SETTLED)

    @property
    def messages(self) -> list[Json]:
        """All that the server has sent."""
        return [message for data in self.transport.writes for message in read_messages(data)]

    async def next(self) -> Json:
        """Wait for the next message from the server."""
        await _until(lambda: len(self.messages) > self.read)
        self.read += 1
        return self.messages[self.read - 1]

    async def _app(self, name: str, given: Json) -> None:
        if name in HUB_METHODS:
            await getattr(self.hub, name)(**given)
        elif name in CONNECTION_METHODS:
            getattr(self.connection, name)(**given)
        elif name == "connect":
            self._connect()
            self.read = 0
        else:
            await getattr(self, f"_{name}")(**given)

    def _connect(self) -> None:
        self.transport = RecordingTransport()
        self.connection = self.transport.receiver = Connection(self.hub.node)
        self.connection.accept(self.transport, Handshake(SCOPE))

    async def _request(self, type: str, payload: Any) -> None:
        self._question = asyncio.create_task(self.connection.request(type, payload))

    async def _answered(self, value: Any) -> None:
        assert self._question is not None
        assert await self._question == value

    async def _refused(self) -> None:
        assert self._question is not None
        with pytest.raises(RequestError):
            await self._question

    async def _stream(self, channel: str) -> None:
        self._producer = asyncio.create_task(self._produce(channel))

    async def _say(self, **says: Any) -> None:
        self._says.put_nowait(says)

    async def _produce(self, channel: str) -> None:
        with suppress(ZeroDivisionError):
            async with self.hub.stream(channel) as stream:
                while not (says := await self._says.get()).get("end"):
                    for text in says.get("append", ()):
                        await stream.append(text)
                    if "update" in says:
                        await stream.update(says["update"])
                    if "fail" in says:
                        raise ZeroDivisionError

    async def _wait(self, seconds: float) -> None:
        self.hub.node.beat(self.started + seconds)

    async def _stall(self) -> None:
        self.transport.pause()

    async def _read(self) -> None:
        self.transport.take()

    async def _acked_elsewhere(self, cursor: int) -> None:
        connection, transport = open_connection(self.hub, self.connection.user_id)
        await _until(lambda: cursor in [message.get("cursor") for message in transport.messages])
        say(connection, "ack", {"cursor": cursor})

    async def _flood(self, bytes: int) -> None:
        await self.hub.broadcast("flood", "x" * bytes)

    def _compare(self, expected: Any, real: Any, *path: str) -> None:
        """Compare a message; what varies is learned at its first place."""
        if isinstance(expected, dict) and isinstance(real, dict):
            sentence = {"message"} if path == ("payload",) and "code" in expected else set()
            assert expected.keys() | sentence == real.keys()
            for key in expected:
                self._compare(expected[key], real[key], *path, key)
        elif isinstance(expected, str | int) and expected in self._varies:
            assert self._real.setdefault(expected, real) == real
        elif isinstance(expected, list) and isinstance(real, list):
            assert len(expected) == len(real)
            for one, other in zip(expected, real, strict=True):
                self._compare(one, other, *path, "[]")
        else:
            assert expected == real


async def _until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():
            await tick()


@pytest.fixture(params=VECTORS.values(), ids=list(VECTORS))
def vector(request: pytest.FixtureRequest) -> Json:
    """One vector."""
    found: Json = request.param
    return found


async def test_the_hub_speaks_as_the_vector_says(vector: Json) -> None:
    async with (hub := build_hub()).running():
        play = Play(hub, vector.get("varies", []))
        for step in vector["steps"]:
            await play.step(step)
        if "closed" not in vector["steps"][-1]:
            say(play.connection, "ping", id="the end")
            assert await play.next() == {"type": "pong", "id": "the end"}
        assert len(play.messages) == play.read


def test_every_error_code_has_a_vector() -> None:
    codes = {message["payload"]["code"] for message in messages("server") if message["type"] == "error"}
    assert ERROR_CODES.keys() <= codes


def test_every_built_in_type_has_a_vector() -> None:
    dispatcher = make_hub(chat=True).node.dispatcher
    assert dispatcher.routes.keys() | dispatcher.urgent.keys() <= {
        message.get("type") for message in messages("client")
    }


def messages(side: str) -> Iterator[Json]:
    """All messages of one side, in all vectors."""
    return (step[side] for vector in VECTORS.values() for step in vector["steps"] if side in step)
