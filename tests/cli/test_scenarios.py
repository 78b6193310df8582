"""Each scenario of `hubbub check` finds the fault it is there for, and tells a fault from a missing feature."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from hubbub.cli.peer import Failed, NotOffered, Target
from hubbub.cli.scenarios import RAPID_FIRE, SCENARIOS
from tests.cli.standin import Handler, reply, stand_in
from tests.cli.standin import echo as good_echo

Message = dict[str, Any]


def answer(type: str, payload: Any = None) -> Handler:
    """A handler that always gives the same answer."""

    async def handler(socket: ServerConnection, message: Message) -> None:
        await reply(socket, type, payload, message)

    return handler


def error(code: str) -> Handler:
    return answer("error", {"code": code, "message": "because"})


def close(code: int) -> Handler:
    async def handler(socket: ServerConnection, message: Message) -> None:
        await socket.close(code)

    return handler


def say(text: str | bytes) -> Handler:
    async def handler(socket: ServerConnection, message: Message) -> None:
        await socket.send(text)

    return handler


async def silence(socket: ServerConnection, message: Message) -> None:
    """Not a word."""


async def late(socket: ServerConnection, message: Message) -> None:
    """Every other message is answered after the one behind it."""
    number = message["payload"]
    if number in range(0, RAPID_FIRE, 2):
        asyncio.get_running_loop().call_later(0.01, lambda: asyncio.ensure_future(good_echo(socket, message)))
    else:
        await good_echo(socket, message)


async def ascii_only(socket: ServerConnection, message: Message) -> None:
    payload = json.loads(json.dumps(message["payload"], ensure_ascii=False).encode("ascii", "replace"))
    await reply(socket, "echo_response", payload, message)


async def sign_in(socket: ServerConnection, message: Message) -> None:
    await reply(socket, "authenticated", {"userId": message["payload"]["token"]}, message)


FAULTS: list[tuple[str, str, dict[str, Any], str]] = [
    ("silent", "ping / pong", {"ping": silence}, "waited 0.5 s for an answer to `ping`"),
    ("another reply", "ping / pong", {"ping": answer("gnop")}, "`ping` was answered by `gnop`, not `pong`"),
    ("own error", "ping / pong", {"ping": error("internal")}, "`ping` was answered by error internal: because"),
    ("not JSON", "ping / pong", {"ping": say("}{")}, "the server sent what is not JSON: '}{'"),
    ("not a message", "ping / pong", {"ping": say("[1]")}, "the server sent what is not a message: '[1]'"),
    ("binary", "ping / pong", {"ping": say(b"\0")}, "the server sent a binary message"),
    ("closes", "echo", {"echo": close(1011)}, "closed while waiting for an answer to `echo`, 1011: the server failed"),
    ("changes it", "echo", {"echo": answer("echo_response", {})}, "the payload came back changed"),
    ("no user id", "authentication", {"authenticate": answer("authenticated", {})}, "`authenticated` has no userId"),
    ("accepts it", "invalid type", {"otherwise": answer("ok")}, "answered by `ok` , not by error unknown_type"),
    ("other code", "invalid type", {"otherwise": error("oops")}, "answered by `error` oops, not by error unknown_type"),
    ("closes on it", "invalid type", {"otherwise": close(1002)}, "1002: a frame broke the WebSocket protocol"),
    (
        "does not deliver",
        "chat",
        {"authenticate": sign_in, "chat": answer("chat_received", {"delivered": False, "reason": "gone"})},
        "not delivered: gone",
    ),
    (
        "only says so",
        "chat",
        {"authenticate": sign_in, "chat": answer("chat_received", {"delivered": True})},
        "waited 0.5 s for `chat`",
    ),
    ("out of order", "rapid fire", {"echo": late}, "is out of order"),
    ("no limit kept", "large payload", {"limit": None}, "waited 0.5 s for a close frame"),
    ("limit too low", "large payload", {"limit": 2000}, "1009: a message over the size or part limit"),
    ("ASCII only", "unicode and special characters", {"echo": ascii_only}, "came back changed: scripts"),
]
MISSING: list[tuple[str, str, dict[str, Any], str]] = [
    ("no handler", "authentication", {}, "no handler for `authenticate`"),
    ("no echo", "rapid fire", {"echo": error("unknown_type")}, "no handler for `echo`"),
    ("no echo of large ones", "large payload", {"echo": error("unknown_type")}, "no handler for `echo`"),
    ("wants a token", "authentication", {"authenticate": error("unauthorized")}, "without a valid --token"),
    ("closes on a bad token", "chat", {"authenticate": close(4501)}, "4501: the credentials are not accepted"),
    ("no chat", "chat", {"authenticate": sign_in}, "no handler for `chat`"),
    ("not for this user", "echo", {"echo": error("forbidden")}, "`echo` is forbidden for this user"),
]


def cases(table: list[tuple[str, str, dict[str, Any], str]]) -> list[Any]:
    return [pytest.param(*row[1:], id=f"{row[1]}: {row[0]}") for row in table]


@pytest.mark.parametrize(("scenario", "fault", "detail"), cases(FAULTS))
async def test_a_fault_is_found(scenario: str, fault: dict[str, Any], detail: str) -> None:
    patience = 0.5 if "waited" in detail else 5.0
    async with stand_in(**fault) as url:
        with pytest.raises(Failed) as caught:
            await SCENARIOS[scenario](Target(url, patience, None))
    assert detail in str(caught.value)


@pytest.mark.parametrize(("scenario", "server", "detail"), cases(MISSING))
async def test_what_is_not_offered_is_no_fault(scenario: str, server: dict[str, Any], detail: str) -> None:
    async with stand_in(**server) as url:
        with pytest.raises(NotOffered) as caught:
            await SCENARIOS[scenario](Target(url, 5.0, None))
    assert detail in str(caught.value)


@pytest.mark.parametrize("scenario", ["authentication", "echo"])
async def test_a_token_that_is_given_has_to_be_accepted(scenario: str) -> None:
    async with stand_in(authenticate=error("unauthorized")) as url:
        with pytest.raises(Failed, match="`authenticate` is refused without a valid --token"):
            await SCENARIOS[scenario](Target(url, 5.0, "stale"))


async def test_every_connection_signs_in_with_the_token() -> None:
    tokens: list[str] = []

    async def note(socket: ServerConnection, message: Message) -> None:
        tokens.append(message["payload"]["token"])
        await sign_in(socket, message)

    async with stand_in(authenticate=note) as url:
        for name in ("echo", "authentication", "large payload"):
            await SCENARIOS[name](Target(url, 5.0, "ann"))
    assert tokens == ["ann"] * 4


@pytest.mark.parametrize(
    ("limit", "detail"), [(None, "1,048,576 bytes pass; the limit, none, was not tried"), (1 << 40, "was not tried")]
)
async def test_a_limit_out_of_reach_is_not_tried(limit: int | None, detail: str) -> None:
    welcome = json.dumps({"type": "welcome", "payload": {"maxMessage": limit}})
    async with stand_in(welcome=welcome, limit=None) as url:
        assert detail in await SCENARIOS["large payload"](Target(url, 5.0, None))


async def test_pushes_in_between_do_not_disturb() -> None:
    async def chatty(socket: ServerConnection, message: Message) -> None:
        await socket.send(json.dumps({"type": "notification", "payload": {"title": "hello"}}))
        await good_echo(socket, message)

    async with stand_in(echo=chatty) as url:
        assert "in order" in await SCENARIOS["rapid fire"](Target(url, 5.0, None))
