from __future__ import annotations

import json
import time
from base64 import urlsafe_b64decode
from typing import Any

import pytest

from hubbub import Auth, CloseCode, ConfigError, RequestError, UsageError
from hubbub.config import load_settings
from hubbub.core.claims import Claims
from hubbub.core.credentials import LONGEST
from hubbub.node.secret import Secret
from hubbub.node.tickets import TYPE, Tickets
from hubbub.node.tokens import Tokens, sign
from tests.node.tokens import SECRET, claims, token


def make(secret: Secret) -> Tickets:
    claims = Claims()

    async def claim(name: str, owner: str, ttl: float) -> bool:
        return claims.claim(name, owner, time.time(), time.time() + ttl)

    return Tickets(secret, claim)


@pytest.fixture
def tickets() -> Tickets:
    return make(Secret(SECRET, load_settings()))


async def close_code(tickets: Tickets, ticket: str) -> int | None:
    with pytest.raises(RequestError) as caught:
        await tickets.redeem(ticket)
    assert caught.value.code == "unauthorized"
    return caught.value.close


def body(ticket: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(urlsafe_b64decode(ticket.split(".")[1] + "=="))
    return found


async def test_a_ticket_says_who_it_is_for(tickets: Tickets) -> None:
    identity = await tickets.redeem(tickets.issue("ada", {"role": "admin", "sub": "eve"}, "phone"))
    assert (identity.user_id, identity.device, identity.expires_at) == ("ada", "phone", None)
    assert identity.claims["role"] == "admin"


async def test_the_connection_may_end_with_the_session(tickets: Tickets) -> None:
    end = time.time() + 100.5
    assert (await tickets.redeem(tickets.issue("ada", expires_at=end))).expires_at == end


async def test_a_ticket_for_a_session_that_has_ended_is_of_no_use(tickets: Tickets) -> None:
    assert await close_code(tickets, tickets.issue("ada", expires_at=time.time() - 0.1)) == CloseCode.TOKEN_EXPIRED


async def test_what_an_app_says_in_a_ticket_restores_nothing(tickets: Tickets) -> None:
    ticket = tickets.issue("ada", {"resume": [["room:1"]], "until": 1, "device": "phone", "claims": {"resume": [1]}})
    identity = await tickets.redeem(ticket)

    assert (identity.resume, identity.expires_at, identity.device) == ((), None, "")


async def test_a_ticket_is_taken_once(tickets: Tickets) -> None:
    ticket = tickets.issue("ada")
    await tickets.redeem(ticket)
    for _ in range(3):
        assert await close_code(tickets, ticket) == CloseCode.UNAUTHORIZED
    await tickets.redeem(tickets.issue("ada"))


async def test_a_ticket_is_short_lived(tickets: Tickets) -> None:
    assert body(tickets.issue("ada"))["exp"] <= time.time() + 31
    now = int(time.time())
    late = sign({"sub": "ada", "aud": TYPE, "iat": now - 60, "exp": now - 6, "jti": "x"}, SECRET.encode(), TYPE)
    assert await close_code(tickets, late) == CloseCode.TOKEN_EXPIRED


async def test_neither_is_the_other(tickets: Tickets) -> None:
    for audience in (None, "us"):
        tokens = Tokens(Auth(secret=SECRET, audience=audience), Secret(SECRET, load_settings()))
        with pytest.raises(RequestError):
            await tokens.verify(tickets.issue("ada"))
    for text in (token(), token(head={"typ": TYPE}), token(aud=[TYPE]), token(aud=["us", TYPE]), token(aud="us")):
        assert await close_code(tickets, text) == CloseCode.UNAUTHORIZED
    assert not tickets.is_ticket(token())
    assert tickets.is_ticket(tickets.issue("ada"))


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "." * 10_000], ids=["nothing", "a word", "three parts", "dots"])
async def test_what_is_no_ticket(tickets: Tickets, text: str) -> None:
    assert await close_code(tickets, text) == CloseCode.UNAUTHORIZED


async def test_a_ticket_of_another_secret_or_without_an_id_is_none(tickets: Tickets) -> None:
    for text in (sign(claims(aud=TYPE), b"x" * 32, TYPE), sign(claims(aud=TYPE, jti=...), SECRET.encode())):
        assert await close_code(tickets, text) == CloseCode.UNAUTHORIZED


def test_what_cannot_be_issued(tickets: Tickets) -> None:
    for ttl in (0, -1, 3601, float("inf"), float("nan")):
        with pytest.raises(UsageError, match="cannot live for"):
            tickets.issue("ada", ttl=ttl)
    with pytest.raises(UsageError, match="expires_at=1700000000000 is not in seconds"):
        tickets.issue("ada", expires_at=1_700_000_000_000)
    with pytest.raises(UsageError, match="give fewer claims"):
        tickets.issue("ada", {"much": "x" * LONGEST})
    with pytest.raises(RequestError, match="A user's id"):
        tickets.issue("")


async def test_in_production_a_secret_is_needed() -> None:
    tickets = make(Secret(None, load_settings(deploy_env="production")))
    with pytest.raises(ConfigError, match="HUBBUB_SECRET"):
        tickets.issue("ada")
    assert await close_code(tickets, "x") == CloseCode.UNAUTHORIZED
