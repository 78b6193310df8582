"""Signing in: at the handshake, by message, again, too late, and not at all."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from hubbub import Auth, CloseCode, ConfigError, Connection, Handshake, Hub, Identity, RequestError, Timeouts
from hubbub.errors import StoreUnavailable
from hubbub.node.auth import Authenticator
from tests.fakes import SCOPE, RecordingTransport, open_connection, say, tick
from tests.node.tokens import SECRET, token

AUTH = Auth(secret=SECRET)
SOON = Timeouts(shutdown=0.05, authenticate=0.05)
UNAUTHORIZED, EXPIRED = CloseCode.UNAUTHORIZED, CloseCode.TOKEN_EXPIRED

Json = dict[str, Any]


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    place = f"sqlite:///{tmp_path / 'inbox.db'}"
    async with Hub(auth=AUTH, timeouts=Timeouts(shutdown=0.05), inbox_url=place).running() as hub:
        yield hub


@pytest.fixture
async def strict() -> AsyncIterator[Hub]:
    async with Hub(auth=AUTH, timeouts=Timeouts(shutdown=0.05), require_auth=True).running() as hub:
        yield hub


def handshake(headers: dict[str, str] | None = None, query: str = "", **scope: Any) -> Handshake:
    lines = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return Handshake({**SCOPE, "headers": lines, "query_string": query.encode(), **scope})


async def come(hub: Hub, shaken: Handshake) -> tuple[Connection, RecordingTransport]:
    """Connect as a door does."""
    connection, transport = Connection(hub.node), RecordingTransport()
    transport.receiver = connection
    connection.identity = await hub.node.gate.admit(shaken)
    connection.accept(transport, shaken)
    return connection, transport


async def authenticate(client: tuple[Connection, RecordingTransport], text: str, **more: Any) -> Json:
    connection, transport = client
    count = len(transport.messages)
    say(connection, "authenticate", {"token": text, **more}, id="7")
    async with asyncio.timeout(2):
        while len(transport.messages) == count:
            await tick()
    answer = transport.messages[-1]
    assert answer["id"] == "7"
    return answer


# --- At the handshake ------------------------------------------------------------------------------------------------

WAYS: dict[str, Callable[[str], Handshake]] = {
    "header": lambda text: handshake({"authorization": f"Bearer {text}"}),
    "cookie": lambda text: handshake({"cookie": f"a=b; hubbub_token={text}"}),
    "subprotocol": lambda text: handshake(subprotocols=["hubbub.v1", f"bearer.{text}"]),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_a_token_of_the_handshake_signs_in(hub: Hub, way: Callable[[str], Handshake]) -> None:
    seen: list[tuple[str | None, str]] = []

    @hub.on_connect
    def connected(conn: Connection) -> None:
        seen.append((conn.user_id, conn.claims["jti"]))

    connection, transport = await come(hub, way(token(exp=2_000_000_000)))
    assert seen == [("ada", "token-1")]
    assert transport.messages == [
        {
            "type": "authenticated",
            "payload": {"userId": "ada", "connectionId": connection.id, "expiresAt": 2_000_000_000_000},
        }
    ]
    assert hub.local.connections("ada") == [connection]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_a_bad_token_of_the_handshake_is_refused(hub: Hub, way: Callable[[str], Handshake]) -> None:
    for text, code in ((token(exp=1), EXPIRED), (token(key="x" * 32), UNAUTHORIZED), ("junk", UNAUTHORIZED)):
        with pytest.raises(RequestError) as caught:
            await hub.node.gate.admit(way(text))
        assert (caught.value.code, caught.value.close) == ("unauthorized", code)
        assert text not in str(caught.value)


async def test_a_ticket_of_the_handshake_signs_in_once(hub: Hub) -> None:
    ticket = hub.tickets.issue("ada", {"role": "admin"}, "phone")
    connection, transport = await come(hub, handshake(query=f"ticket={ticket}"))
    assert connection.identity is not None
    assert (connection.user_id, connection.claims["role"], connection.identity.device) == ("ada", "admin", "phone")
    assert transport.payloads("authenticated")[0]["expiresAt"] is None
    with pytest.raises(RequestError, match="used before"):
        await hub.node.gate.admit(handshake(query=f"ticket={ticket}"))


async def test_a_token_is_no_ticket(hub: Hub) -> None:
    with pytest.raises(RequestError):
        await hub.node.gate.admit(handshake(query=f"ticket={token()}"))


async def test_without_a_credential_one_is_nobody(hub: Hub) -> None:
    connection, transport = await come(hub, handshake({"authorization": "Basic dTpw", "cookie": "a=b"}, "x=y"))
    assert connection.identity is None
    assert transport.messages == []
    assert dict(connection.claims) == {}


async def test_a_token_in_the_url_counts_only_where_it_may_and_is_warned_about_once(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    text = token()
    assert await hub.node.gate.admit(handshake(query=f"token={text}")) is None
    allowed = Hub(auth=Auth(secret=SECRET, query=True)).node.gate
    for _ in range(3):
        identity = await allowed.admit(handshake(query=f"token={text}"))
        assert identity is not None
        assert identity.user_id == "ada"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert text not in caplog.text


async def test_a_refused_credential_is_one_line_without_the_credential(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "hubbub")
    with pytest.raises(RequestError):
        await hub.node.gate.admit(handshake({"authorization": "Bearer SECRET"}))
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    assert "SECRET" not in caplog.text


async def test_revoked_while_the_handshake_was_answered(hub: Hub) -> None:
    shaken = handshake({"authorization": f"Bearer {token()}"})
    connection, transport = Connection(hub.node), RecordingTransport()
    transport.receiver = connection
    connection.identity = await hub.node.gate.admit(shaken)
    hub.node.gate.revocations._found = (await _revoked(hub)).node.gate.revocations._found
    connection.accept(transport, shaken)
    assert [code for code, _ in transport.closes] == [UNAUTHORIZED]
    assert not transport.writes
    assert hub.connection_count == 0


async def _revoked(hub: Hub) -> Hub:
    await hub.revoke(jti="token-1")
    return hub


# --- By message ------------------------------------------------------------------------------------------------------


async def test_a_token_in_a_message_signs_in(hub: Hub) -> None:
    client = open_connection(hub)
    answer = await authenticate(client, token(exp=2_000_000_000))
    expected = {"userId": "ada", "connectionId": client[0].id, "expiresAt": 2_000_000_000_000}
    assert answer == {"type": "authenticated", "payload": expected, "id": "7"}
    assert client[0].user_id == "ada"


async def test_a_ticket_in_a_message_signs_in(hub: Hub) -> None:
    client = open_connection(hub)
    answer = await authenticate(client, hub.tickets.issue("ada"), device="laptop")
    assert (answer["type"], answer["payload"]["expiresAt"]) == ("authenticated", None)
    assert client[0].identity is not None
    assert client[0].identity.device == "laptop"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (token(exp=1), EXPIRED),
        (token(key="x" * 32), UNAUTHORIZED),
        ("", UNAUTHORIZED),
        ("x" * 9000, UNAUTHORIZED),
    ],
    ids=["expired", "forged", "empty", "too long"],
)
async def test_a_bad_token_in_a_message_ends_the_connection(hub: Hub, text: str, code: int) -> None:
    connection, transport = client = open_connection(hub)
    answer = await authenticate(client, text)
    assert (answer["type"], answer["payload"]["code"]) == ("error", "unauthorized")
    assert transport.closes == [(code, answer["payload"]["message"])]
    assert connection.user_id is None


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (..., "payload"),
        (None, None),
        ({}, "token"),
        ({"token": 7}, "token"),
        ({"token": "x", "device": "a\nb"}, "device"),
        ({"token": "x", "device": "a" * 65}, "device"),
    ],
    ids=["no payload", "null", "no token", "a number", "a line break", "too long"],
)
async def test_what_is_no_request_to_sign_in_is_said_so(hub: Hub, payload: Any, field: str | None) -> None:
    connection, transport = open_connection(hub)
    say(connection, "authenticate", payload)
    error = (await transport.heard("error"))["payload"]
    assert (error["code"], error.get("field")) == ("invalid_payload", field)
    assert not transport.closes


async def test_j8_a_second_sign_in_of_the_same_user_is_a_refresh(hub: Hub) -> None:
    now = int(time.time())
    client = open_connection(hub)
    await authenticate(client, token(exp=now + 10), device="laptop")
    answer = await authenticate(client, token(exp=now + 1000, jti="2"), device="phone")
    assert answer["payload"]["expiresAt"] == (now + 1000) * 1000
    assert client[0].identity is not None
    assert client[0].identity.device == "laptop"
    hub.node.expiry.beat(1e9, now + 500)
    assert not client[1].closes
    hub.node.expiry.beat(1e9, now + 1001)
    assert [code for code, _ in client[1].closes] == [EXPIRED]


async def test_j8_a_second_sign_in_of_another_user_ends_the_connection(hub: Hub) -> None:
    client = open_connection(hub)
    await authenticate(client, token())
    answer = await authenticate(client, token(sub="bob"))
    assert answer["payload"]["code"] == "forbidden"
    assert [code for code, _ in client[1].closes] == [CloseCode.BAD_REQUEST]
    assert client[0].user_id == "ada"


async def test_several_connections_of_one_user(hub: Hub) -> None:
    clients = [open_connection(hub) for _ in range(3)]
    for client in clients:
        await authenticate(client, token())
    assert await hub.user_connection_count("ada") == 3
    assert (await hub.send_to_user("ada", "note")).connections == 3


async def test_messages_behind_it_wait_for_it(hub: Hub) -> None:
    hub.on("who", auth=True)(lambda conn: conn.user_id)
    connection, transport = open_connection(hub)
    say(connection, "who")
    say(connection, "authenticate", {"token": token()})
    say(connection, "who")
    await transport.heard("who_response")
    assert transport.types == ["error", "authenticated", "who_response"]


async def test_messages_behind_a_refused_one_are_dropped(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    for type in ("authenticate", "echo", "echo"):
        say(connection, type, {"token": "junk"})
    await transport.heard("error")
    await tick(5)
    assert transport.types == ["error"]


async def test_an_apps_own_handler_replaces_it(hub: Hub) -> None:
    @hub.on("authenticate", reply="authenticated")
    def own(conn: Connection, payload: str) -> Json:
        conn.identify(payload)
        return {"userId": payload}

    connection, transport = open_connection(hub)
    say(connection, "authenticate", "ada")
    assert transport.payloads("authenticated") == [{"userId": "ada"}]


async def test_an_apps_error_may_end_the_connection_too(hub: Hub) -> None:
    @hub.on("authenticate")
    def own(conn: Connection) -> None:
        raise RequestError("unauthorized", "Not you.", close=CloseCode.FORBIDDEN)

    connection, transport = open_connection(hub)
    say(connection, "authenticate", id="7")
    assert transport.messages == [
        {"type": "error", "payload": {"code": "unauthorized", "message": "Not you."}, "id": "7"}
    ]
    assert transport.closes == [(CloseCode.FORBIDDEN, "Not you.")]


async def test_without_a_secret_the_developer_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOY_ENV", "production")
    async with Hub().running() as hub:
        client = open_connection(hub)
        answer = await authenticate(client, token())
        assert "set HUBBUB_SECRET" in answer["payload"]["message"]
        assert [code for code, _ in client[1].closes] == [UNAUTHORIZED]


# --- Where it is required --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type", ["echo", "subscribe", "publish", "unknown", "guarded", "inbox", "ack"])
async def test_j8_a_stranger_may_do_nothing(strict: Hub, type: str) -> None:
    strict.on("guarded", auth=True)(lambda conn: 1)
    strict.on_message(lambda conn, message: conn.send("heard"))
    connection, transport = open_connection(strict)
    say(connection, type, {"channel": "x", "data": 1}, id="7")
    answer = transport.messages[-1]
    assert (answer["type"], answer["payload"]["code"], answer["id"]) == ("error", "unauthorized", "7")
    assert [code for code, _ in transport.closes] == [UNAUTHORIZED]


async def test_a_stranger_may_send_nothing_binary(strict: Hub) -> None:
    heard: list[bytes] = []
    strict.on_binary(lambda conn, data: heard.append(data))
    connection, transport = open_connection(strict)
    connection.receive_binary(b"x")
    assert transport.types == ["error"]
    assert [code for code, _ in transport.closes] == [UNAUTHORIZED]
    other, _ = open_connection(strict, "ada")
    other.receive_binary(b"y")
    assert heard == [b"y"]


async def test_a_stranger_may_ping_and_sign_in(strict: Hub) -> None:
    connection, transport = client = open_connection(strict)
    say(connection, "ping")
    assert transport.types == ["pong"]
    await authenticate(client, token())
    say(connection, "echo", 1)
    assert transport.types == ["pong", "authenticated", "echo_response"]


async def test_an_apps_own_handlers_of_these_work_too(strict: Hub) -> None:
    strict.on("authenticate", reply="authenticated")(lambda conn: conn.identify("ada"))
    strict.on("ping", reply="my pong")(lambda conn: 1)
    connection, transport = open_connection(strict)
    say(connection, "ping")
    say(connection, "authenticate")
    say(connection, "echo", 1)
    assert transport.types == ["my pong", "echo_response"]


async def test_a_stranger_hears_nothing_that_is_meant_for_all(strict: Hub) -> None:
    connection, transport = client = open_connection(strict)
    _, known = open_connection(strict, "bob")
    assert (await strict.broadcast("news", 1)).connections == 1
    await authenticate(client, token())
    await tick()
    assert (await strict.broadcast("news", 2)).connections == 2
    await tick()
    assert transport.payloads("news") == [2]
    assert known.payloads("news") == [1, 2]
    connection.identify(None)
    assert (await strict.broadcast("news", 3)).connections == 1


# --- The app's own way -----------------------------------------------------------------------------------------------


async def admit(authenticator: Authenticator, shaken: Handshake | None = None, **options: Any) -> Identity | None:
    return await Hub(authenticator=authenticator, **options).node.gate.admit(shaken or handshake())


async def coroutine(handshake: Handshake) -> Identity:
    await asyncio.sleep(0)
    return Identity(handshake.scope["session"]["user"], 5e9, {"role": "admin"}, "phone")


class Object:
    """An authenticator that is an object."""

    async def __call__(self, handshake: Handshake) -> str:
        return handshake.cookies["name"]


ANSWERS: dict[str, tuple[Authenticator, Identity | None]] = {
    "a plain function": (lambda shaken: shaken.header("X-User"), Identity("bob")),
    "a coroutine": (coroutine, Identity("ada", 5e9, {"role": "admin"}, "phone")),
    "an object": (Object(), Identity("cookie monster")),
    "nobody": (lambda shaken: None, None),
}


@pytest.mark.parametrize(("authenticator", "expected"), ANSWERS.values(), ids=ANSWERS)
async def test_an_authenticator_says_who_it_is(authenticator: Authenticator, expected: Identity | None) -> None:
    shaken = handshake({"x-user": "bob", "cookie": "name=cookie monster"}, session={"user": "ada"})
    assert await admit(authenticator, shaken) == expected


async def test_an_authenticator_replaces_tokens_at_the_handshake() -> None:
    shaken = handshake({"authorization": f"Bearer {token()}"})
    assert await admit(lambda shaken: None, shaken, auth=AUTH) is None


async def hangs(handshake: Handshake) -> None:
    await asyncio.Event().wait()


def fails(handshake: Handshake) -> str:
    return str(handshake.scope["session"]["user"])


FAILURES: dict[str, Any] = {
    "raises": fails,
    "hangs": hangs,
    "returns a number": lambda shaken: 7,
    "returns an empty id": lambda shaken: "",
    "returns milliseconds": lambda shaken: Identity("ada", 1_700_000_000_000),
    "returns for ever": lambda shaken: Identity("ada", float("inf")),
    "returns an id with a control character": lambda shaken: Identity("a\x00"),
}


@pytest.mark.parametrize("authenticator", FAILURES.values(), ids=FAILURES)
async def test_an_authenticator_that_fails_is_logged(
    authenticator: Authenticator, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RequestError) as caught:
        await admit(authenticator, timeouts=SOON)
    assert caught.value.close == CloseCode.INTERNAL_ERROR
    assert caught.value.message == "The server failed to find out who this is."
    assert [record.message for record in caplog.records] == ["the authenticator failed"]


@pytest.mark.parametrize(
    ("error", "close"),
    [
        (RequestError("forbidden", "Banned."), CloseCode.FORBIDDEN),
        (RequestError("unauthorized", "Sign in on the site."), UNAUTHORIZED),
        (RequestError("unauthorized", "Your session ended.", close=EXPIRED), EXPIRED),
        (RequestError("out_of_office", "Come back on Monday."), UNAUTHORIZED),
    ],
    ids=["forbidden", "unauthorized", "its own code", "another"],
)
async def test_an_authenticator_may_say_no(error: RequestError, close: int, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(handshake: Handshake) -> None:
        raise error

    with pytest.raises(RequestError) as caught:
        await admit(refuse)
    assert (caught.value.message, caught.value.close) == (error.message, close)
    assert not caplog.records


async def test_an_authenticator_that_passes_the_claims_of_a_token_on_has_revocations_too(hub: Hub) -> None:
    now = time.time()
    hub.node.gate._authenticator = lambda shaken: Identity("ada", claims=shaken.scope["session"])
    await hub.revoke(user_id="ada")
    await hub.revoke(jti="1")
    for claims, good in (
        ({"iat": now - 1}, False),
        ({"jti": "1"}, False),
        ({"iat": now + 1, "jti": "2"}, True),
        ({}, True),
    ):
        if good:
            assert await hub.node.gate.admit(handshake(session=claims)) is not None
        else:
            with pytest.raises(RequestError, match="revoked"):
                await hub.node.gate.admit(handshake(session=claims))


async def test_revocations_out_of_reach_keep_everybody_out(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down() -> None:
        raise StoreUnavailable("down")

    gate = hub.node.gate
    gate._authenticator = lambda shaken: Identity("ada", claims={"iat": 1})
    gate.revocations.forget()
    monkeypatch.setattr(gate.revocations, "ready", down)
    with pytest.raises(RequestError) as caught:
        await gate.admit(handshake())
    assert caught.value.close == CloseCode.TRY_AGAIN_LATER


# --- Settings --------------------------------------------------------------------------------------------------------


def test_a7_a_weak_secret_is_refused_when_the_hub_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    for auth in (Auth(secret="x" * 31), Auth(secret="x" * 63, algorithms=("HS256", "HS512"))):
        with pytest.raises(ConfigError, match=r"^Auth.secret has \d\d bytes, \d\d are needed"):
            Hub(auth=auth)
    monkeypatch.setenv("HUBBUB_SECRET", "hunter2")
    with pytest.raises(ConfigError, match="HUBBUB_SECRET is not allowed: give 32 characters"):
        Hub()


def test_a_secret_does_not_show_itself() -> None:
    hub = Hub(auth=AUTH)
    for each in (AUTH, hub, hub.node, hub.node.gate, hub.tickets, handshake({"authorization": "Bearer SECRET"})):
        assert SECRET not in repr(each)
        assert "SECRET" not in repr(each)
