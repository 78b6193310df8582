"""The app that every door serves for `test_door.py`: what a test wants done inside it, it asks for by a message."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from typing import Any

import msgspec
from starlette.applications import Starlette

from hubbub import Auth, Connection, Handshake, Hub, Limits, Message, RequestError, RequestTimeout, Timeouts
from tests.fakes import PLENTY

__all__ = ["AUTH", "LIMITS", "TIMEOUTS", "app", "make"]

LIMITS = Limits(message_size=4096, in_flight=4, channels=3)
AUTH = Auth(secret="the secret of every door, known to all tests")
TIMEOUTS = Timeouts(handler=1, request=0.1, pong=0.1)  # what is overdue is looked for as often as a pong is


class Order(msgspec.Struct):
    """What the typed handlers take."""

    item_name: str
    count: int = 1


class Made(msgspec.Struct):
    """What they answer."""

    by: str
    order: Order


class Log(logging.Handler):
    """Keeps what the hub logs, for the test to ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record, its traceback too."""
        self.lines.append(self.format(record))


LOG = Log()


def make() -> Starlette:
    """Build an app with two hubs: `/ws` with handlers of all kinds, `/hooks` with nothing but hooks."""
    logging.getLogger("hubbub").addHandler(LOG)
    app = Starlette()
    for hub, fill in (
        (Hub("/ws", limits=LIMITS, timeouts=TIMEOUTS, auth=AUTH, rates=PLENTY), _handlers),
        (Hub("/hooks", limits=LIMITS, timeouts=TIMEOUTS, rates=PLENTY), _hooks),
    ):
        hub.attach(app)
        hub.namespace("*")
        fill(hub)
    return app


def _handlers(hub: Hub) -> None:
    _typed(hub)
    _failing(hub)
    _sending(hub)

    @hub.on("ask", reply="asked")
    async def ask(conn: Connection, payload: msgspec.Raw) -> Any:
        try:
            return await conn.request("question", msgspec.json.decode(payload), returns=Order)
        except RequestTimeout:
            return "no answer"

    @hub.on("close me")
    def close_me(conn: Connection, payload: dict[str, Any]) -> None:
        conn.send("before", None)
        conn.close(payload["code"], payload["reason"])
        conn.send("after", None)

    @hub.on("count", reply="counted")
    def count(conn: Connection) -> int:
        conn.metadata["n"] = conn.metadata.get("n", 0) + 1
        return int(conn.metadata["n"])

    @hub.on("log", reply="log")
    def log(conn: Connection, reference: str) -> list[str]:
        return [line for line in LOG.lines if reference in line]

    @hub.on_close
    async def tell(conn: Connection, code: int, reason: str) -> None:
        await hub.publish("closes", "closed", {"id": conn.id, "code": code, "reason": reason, "state": conn.state})


def _typed(hub: Hub) -> None:
    @hub.on("plain", reply="made")
    def plain(conn: Connection, payload: Order) -> Made:
        return Made("plain", payload)

    @hub.on("coroutine", reply="made")
    async def coroutine(conn: Connection, payload: Order) -> Made:
        await asyncio.sleep(0)
        return Made("coroutine", payload)

    @hub.on("threaded", reply="made", thread=True)
    def threaded(conn: Connection, payload: Order) -> Made:
        elsewhere = threading.get_ident() != hub.node.thread
        return Made("threaded" if elsewhere else "the loop", payload)

    @hub.on("members", auth=True)
    def members(conn: Connection) -> str | None:
        return conn.user_id


def _failing(hub: Hub) -> None:
    @hub.on("break")
    def broken(conn: Connection) -> None:
        raise ValueError("a secret of the server")

    @hub.on("break later")
    async def broken_later(conn: Connection) -> None:
        await asyncio.sleep(0)
        raise ValueError("a secret of the server")

    @hub.on("refuse")
    def refuse(conn: Connection) -> None:
        raise RequestError("teapot", "No coffee here.", "drink")

    @hub.on("hang")
    async def hang(conn: Connection) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


def _sending(hub: Hub) -> None:
    @hub.on("sign in", reply="signed in")
    def sign_in(conn: Connection, user: str) -> str:
        conn.identify(user)
        return user

    @hub.on("to user", reply="receipt")
    async def to_user(conn: Connection, user: str) -> dict[str, Any]:
        receipt = await hub.send_to_user(user, "note", {"to": user})
        return {"delivered": receipt.delivered, "connections": receipt.connections}

    @hub.on("to connection", reply="receipt")
    async def to_connection(conn: Connection, id: str) -> dict[str, Any]:
        return {"delivered": (await hub.send_to_connection(id, "note", "directly")).delivered}

    @hub.on("to others", reply="receipt")
    async def to_others(conn: Connection, payload: Any) -> dict[str, Any]:
        return {"connections": (await hub.broadcast("news", payload, exclude=conn)).connections}

    @hub.on("from a thread", reply="receipt", thread=True)
    def from_a_thread(conn: Connection, channel: str) -> dict[str, Any]:
        return {"connections": hub.sync.publish(channel, "sync", None).connections}

    @hub.on("sign out everywhere", reply="gone")
    async def sign_out(conn: Connection, user: str) -> int:
        return await hub.disconnect_user(user, 4501, "signed out")


def _hooks(hub: Hub) -> None:
    @hub.on_connect
    def first(conn: Connection, handshake: Handshake) -> None:
        conn.metadata["agent"] = handshake.header("User-Agent")
        conn.send("first", conn.metadata)

    @hub.on_connect
    async def second(conn: Connection, handshake: Handshake) -> None:
        await asyncio.sleep(0.02)
        conn.send("second", {"client": handshake.client, "path": handshake.scope["path"]})

    @hub.on_connect
    async def third(conn: Connection) -> None:
        conn.send("third", {"open": conn.is_open, "state": conn.state, "id": conn.id})

    @hub.on_message
    async def anything(conn: Connection, message: Message) -> None:
        await asyncio.sleep(0)
        if message.type == "break":
            raise KeyError("a secret")
        conn.send("you said", {"type": message.type, "payload": message.payload, "id": message.id})

    @hub.on_binary
    async def binary(conn: Connection, data: bytes) -> None:
        await asyncio.sleep(0)
        conn.send("bytes", list(data))

    @hub.on_error
    def error(conn: Connection, error: Exception) -> None:
        conn.send("oops", type(error).__name__)


app = make()
