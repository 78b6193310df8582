"""What was revoked stays revoked: kept in a real SQLite file, and known after a restart."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from hubbub import Auth, CloseCode, Connection, Handshake, Hub, Identity, RequestError, UsageError
from hubbub.errors import StoreUnavailable
from tests.fakes import SCOPE, RecordingTransport, open_connection
from tests.node.tokens import SECRET, token

AUTH = Auth(secret=SECRET)
MONTH = 30 * 86400


def make(place: Path) -> Hub:
    return Hub(auth=AUTH, inbox_url=f"sqlite:///{place / 'inbox.db'}")


async def is_good(hub: Hub, text: str) -> bool:
    try:
        await hub.node.gate.verify(text)
    except RequestError as error:
        return error.close != CloseCode.UNAUTHORIZED
    return True


async def test_a_revoked_token_is_refused_also_when_it_is_remembered(tmp_path: Path) -> None:
    async with make(tmp_path).running() as hub:
        one, two = token(jti="1"), token(jti="2")
        assert await is_good(hub, one)
        await hub.revoke(jti="1")
        assert not await is_good(hub, one)
        assert await is_good(hub, two)


async def test_a_users_tokens_so_far_are_refused_and_later_ones_good(tmp_path: Path) -> None:
    now = int(time.time())
    async with make(tmp_path).running() as hub:
        await hub.revoke(user_id="ada")
        assert not await is_good(hub, token(iat=now))
        assert not await is_good(hub, token(iat=...))
        assert not await is_good(hub, token(iat=0))
        assert await is_good(hub, token(iat=now + 2))
        assert await is_good(hub, token(sub="bob"))


async def test_a_ticket_is_revoked_with_its_user(tmp_path: Path) -> None:
    async with make(tmp_path).running() as hub:
        before = hub.tickets.issue("ada")
        await hub.revoke(user_id="ada")
        assert not await is_good(hub, before)
        assert await is_good(hub, hub.tickets.issue("bob"))


@pytest.mark.parametrize("until", [time.time() * 1000, 1e18, float("inf"), float("nan"), -1])
async def test_a_time_that_there_cannot_be_is_refused(tmp_path: Path, until: float) -> None:
    async with make(tmp_path).running() as hub:
        with pytest.raises(UsageError, match="give seconds since 1970"):
            await hub.revoke(jti="1", until=until)


@pytest.mark.parametrize("subject", [{"jti": "token-1"}, {"user_id": "ada"}], ids=["token", "user"])
async def test_a_revocation_survives_a_restart(tmp_path: Path, subject: dict[str, Any]) -> None:
    text = token()
    async with make(tmp_path).running() as hub:
        assert await is_good(hub, text)
        await hub.revoke(**subject)
    async with make(tmp_path).running() as hub:
        assert not await is_good(hub, text)
        await hub.shutdown()
        hub.start()  # the next life of the same hub reads the database before it lets anybody in
        assert not await is_good(hub, text)


async def test_one_that_expired_is_forgotten(tmp_path: Path) -> None:
    async with make(tmp_path).running() as hub:
        await hub.revoke(jti="token-1", until=time.time() - 1)
        assert await is_good(hub, token())
        await hub.revoke(user_id="ada", until=time.time() - 1)
        assert await is_good(hub, token())
        await hub.revoke(jti="other")
        assert list(hub.node.gate.revocations._found) == ["jti:other"]
    async with make(tmp_path).running() as hub:
        assert list(hub.node.gate.revocations._found) == ["jti:other"]


async def test_it_is_kept_for_a_month_unless_somebody_says(tmp_path: Path) -> None:
    async with make(tmp_path).running() as hub:
        await hub.revoke(jti="1")
        await hub.revoke(jti="2", until=5e9)
        found = hub.node.gate.revocations._found
        assert found["jti:1"].until - found["jti:1"].at == MONTH * 1000
        assert found["jti:2"].until == 5_000_000_000_000


async def test_the_connections_it_concerns_are_closed_at_once(tmp_path: Path) -> None:
    async with make(tmp_path).running() as hub:
        ada, bob = Identity("ada", claims={"jti": "1"}), Identity("bob", claims={"jti": "2"})
        sockets = {}
        for name, identity in {"ada": ada, "ada's app": Identity("ada"), "bob": bob, "bob again": bob}.items():
            connection, sockets[name] = open_connection(hub)
            connection.identify(identity)
        assert await hub.revoke(jti="2") == 2
        assert await hub.revoke(user_id="ada") == 2
        assert await hub.revoke(user_id="nobody") == 0
        for socket in sockets.values():
            assert socket.closes == [(CloseCode.UNAUTHORIZED, "the token was revoked")]


@pytest.mark.parametrize("claims", [{"iat": 1}, {}], ids=["with iat", "without iat"])
async def test_it_concerns_a_connection_whose_handshake_is_underway(tmp_path: Path, claims: dict[str, Any]) -> None:
    async with make(tmp_path).running() as hub:
        transport = RecordingTransport()
        connection = transport.receiver = Connection(hub.node)
        connection.identity = Identity("ada", claims=claims)
        await hub.revoke(user_id="ada")
        connection.accept(transport, Handshake(SCOPE))
        assert transport.closes == [(CloseCode.UNAUTHORIZED, "the token was revoked")]
        _, later = open_connection(hub, "ada")
        assert later.closes == []


async def test_a_database_that_nobody_chose_is_made_for_a_revocation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBBUB_DATA_DIR", str(tmp_path / "data"))
    async with Hub(auth=AUTH).running() as hub:
        assert await is_good(hub, token())
        assert not (tmp_path / "data").exists()
        await hub.revoke(jti="token-1")
        assert not await is_good(hub, token())
    async with Hub(auth=AUTH).running() as hub:
        assert not await is_good(hub, token())


async def test_while_revocations_cannot_be_read_nobody_signs_in(tmp_path: Path) -> None:
    hub = make(tmp_path)
    hub.start()
    (tmp_path / "inbox.db").mkdir()
    try:
        with pytest.raises(RequestError) as caught:
            await hub.node.gate.verify(token())
        assert (caught.value.code, caught.value.close) == ("unavailable", CloseCode.TRY_AGAIN_LATER)
    finally:
        await hub.shutdown()


async def test_what_cannot_be_kept_is_not_revoked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with make(tmp_path).running() as hub:
        socket = open_connection(hub, "ada")[1]

        async def down(*args: object) -> None:
            raise StoreUnavailable("The database is down.")

        monkeypatch.setattr(hub.node.databases["inbox"].store, "revoke", down)
        with pytest.raises(StoreUnavailable):
            await hub.revoke(user_id="ada")
        assert not socket.closes
        assert await is_good(hub, token())


@pytest.mark.parametrize("what", [{}, {"user_id": "ada", "jti": "1"}], ids=["neither", "both"])
async def test_one_thing_is_revoked_at_a_time(hub: Hub, what: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="either a user's tokens"):
        await hub.revoke(**what)


def test_what_claims_say_in_a_wrong_way_concerns_nobody(hub: Hub) -> None:
    revocations = hub.node.gate.revocations
    assert not revocations.concern(Identity("ada", claims={"iat": "today", "jti": ["x"]}))
