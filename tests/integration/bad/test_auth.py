"""J8, A1-A5, A7, A9-A11: clients that are not who they say, or no longer; through both doors."""

from __future__ import annotations

import hmac
import json
import random
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import jwt
import pytest

from hubbub import CloseCode
from tests.integration.bad.app import AUTH, BIG, PATIENCE
from tests.integration.bad.conftest import Target
from tests.node.tokens import encoded, part, pem, unsigned
from tests.serving import DEADLINE, RawClient, RunningServer, fetch, free_port, process, until

FUZZED = 150
DAY = 86400
UNAUTHORIZED, EXPIRED = CloseCode.UNAUTHORIZED, CloseCode.TOKEN_EXPIRED
SECRET = str(AUTH.secret)
BOTH = pytest.mark.parametrize("door", ["native", "asgi"])


def token(key: str = SECRET, **more: Any) -> str:
    """A token as the issuer makes it; `...` leaves a claim out."""
    claims = {"sub": "ada", "exp": int(time.time()) + DAY, **more}
    return jwt.encode({name: value for name, value in claims.items() if value is not ...}, key, "HS256")


def bearer(text: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {text}")]


async def refused(target: RunningServer, text: str, code: int) -> None:
    """A token is refused by message and at the handshake, where no welcome comes before the close."""
    async with RawClient.join(target, "/auth") as client:
        error = await client.ask("authenticate", {"token": text}, id="7")
        assert (error["type"], error["payload"]["code"], error["id"]) == ("error", "unauthorized", "7"), error
        await client.expect_close(code, error["payload"]["message"])
    async with RawClient.connect(target, "/auth", headers=bearer(text)) as client:
        frame = await client.recv_frame()
        assert (frame.opcode, frame.code) == (8, code), frame
        assert 0 < len(frame.reason) < 100


# --- J8, A1: too early, too late -------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("type", ["echo", "subscribe", "publish", "nonsense", "sign_in"])
async def test_j8_a_request_before_signing_in(target: Target, type: str) -> None:
    async with RawClient.join(target, "/members") as client:
        error = await client.ask(type, {"channel": "x"}, id="7")
        assert (error["payload"]["code"], error["id"]) == ("unauthorized", "7")
        await client.expect_close(UNAUTHORIZED, "Sign in first: send `authenticate`.")


@BOTH
async def test_j8_where_anybody_may_come_a_guarded_type_answers_and_the_connection_stays(target: Target) -> None:
    async with RawClient.join(target, "/auth") as client:
        assert (await client.ask("members", ...))["payload"]["code"] == "unauthorized"
        assert (await client.ask("authenticate", {"token": token()}))["type"] == "authenticated"
        assert (await client.ask("members", ...))["payload"] == "ada"


@BOTH
async def test_j8_a_second_sign_in(target: Target) -> None:
    async with RawClient.join(target, "/auth") as client:
        for _ in range(2):
            assert (await client.ask("authenticate", {"token": token()}))["payload"]["userId"] == "ada"
        error = await client.ask("authenticate", {"token": token(sub="bob")}, id="7")
        assert (error["payload"]["code"], error["id"]) == ("forbidden", "7")
        await client.expect_close(CloseCode.BAD_REQUEST)


@BOTH
async def test_a1_nobody_signs_in(target: Target) -> None:
    started = time.monotonic()
    async with RawClient.join(target, "/members") as silent, RawClient.join(target, "/members") as busy:
        for _ in range(3):
            assert (await busy.ask("ping", ...))["type"] == "pong"
        async with RawClient.join(target, "/members", headers=bearer(token())) as known:
            for client in (silent, busy):
                await client.expect_close(CloseCode.AUTH_TIMEOUT)
            assert PATIENCE - 0.01 <= time.monotonic() - started < PATIENCE + 1
            assert (await known.recv_json())["type"] == "authenticated"
            assert (await known.ask("echo", 1))["payload"] == 1


# --- A2-A5: tokens that are none -------------------------------------------------------------------------------------


def confused() -> str:
    """A3: signed with what everybody knows, a public key."""
    signed = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part({'sub': 'ada', 'exp': 9_999_999_999})}"
    return f"{signed}.{encoded(hmac.digest(pem('RS256').encode(), signed.encode(), sha256))}"


BAD: dict[str, tuple[str, int]] = {
    "A2 alg none": (unsigned({"alg": "none"}), UNAUTHORIZED),
    "A2 alg None": (unsigned({"alg": "None"}), UNAUTHORIZED),
    "A2 alg is an object": (unsigned({"alg": {}}), UNAUTHORIZED),
    "A2 empty signature": (unsigned({"alg": "HS256"}), UNAUTHORIZED),
    "A3 a public key as secret": (confused(), UNAUTHORIZED),
    "A4 expired": (token(exp=int(time.time()) - 61), EXPIRED),
    "A4 nbf in the future": (token(nbf=int(time.time()) + DAY), UNAUTHORIZED),
    "A4 issued in the future": (token(iat=int(time.time()) + DAY), UNAUTHORIZED),
    "A5 an aud nobody asked for": (token(aud="them"), UNAUTHORIZED),
    "A5 auds nobody asked for": (token(aud=["them", "us"]), UNAUTHORIZED),
    "A5 no sub": (token(sub=...), UNAUTHORIZED),
    "A5 sub of 5 KB": (token(sub="a" * 5_000), UNAUTHORIZED),
    "no exp": (token(exp=...), UNAUTHORIZED),
    "another secret": (token("another secret, as long as the first"), UNAUTHORIZED),
}


@BOTH
@pytest.mark.parametrize(("text", "code"), BAD.values(), ids=BAD)
async def test_a_bad_token(target: Target, text: str, code: int) -> None:
    await refused(target, text, code)


@BOTH
async def test_a5_sub_of_10_kb_in_a_message(target: Target) -> None:
    async with RawClient.join(target, "/auth") as client:
        assert (await client.ask("authenticate", {"token": token(sub="a" * 10_000)}))["type"] == "error"
        await client.expect_close(UNAUTHORIZED, "The token is empty or too long.")


# --- A7: a weak secret -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [("serve", "tests.integration.bad.app:app", "--port", "0"), ("token", "--user", "ada")]
)
async def test_a7_a_weak_secret_stops_the_start(command: tuple[str, ...], tmp_path: Path) -> None:
    place = str(tmp_path)
    async with process("-m", "hubbub.cli", *command, HUBBUB_SECRET="hunter2", HUBBUB_DATA_DIR=place) as running:
        assert await running.end() == 1
        assert "HUBBUB_SECRET is not allowed: give 32 characters or more." in running.err
        assert "hunter2" not in running.err + running.out


# --- A9: junk --------------------------------------------------------------------------------------------------------


def broken(chance: random.Random) -> str:
    """A good token with some of its letters changed, cut, moved or added, and never another good one."""
    good = token()
    text = list(good)
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(max(1, len(text) - 1))
        if chance.random() < 0.3:
            text = text[: at + 1]
        else:
            text[at] = chance.choice("abcXYZ0189-_.{}!~")
    found = "".join(text)
    return "x" + found if good.startswith(found[:-1]) else found


@BOTH
async def test_a9_broken_tokens_at_the_handshake(target: Target) -> None:
    chance = random.Random(9)
    for _ in range(FUZZED):
        async with RawClient.connect(target, "/auth", headers=bearer(broken(chance))) as client:
            assert (await client.recv_frame()).code == UNAUTHORIZED


@BOTH
async def test_a9_broken_tokens_in_messages(target: Target) -> None:
    chance = random.Random(10)
    for _ in range(FUZZED):
        async with RawClient.join(target, "/auth") as client:
            client.send_json("authenticate", {"token": broken(chance) + chance.choice(["", "\x00", "🙂", "=" * 9])})
            await client.expect_close(UNAUTHORIZED)


@BOTH
async def test_a9_a_token_of_1_mb(target: Target) -> None:
    assert BIG.message_size > 1_000_000
    async with RawClient.join(target, "/big") as client:
        assert (await client.ask("authenticate", {"token": "a" * 1_000_000}))["payload"]["code"] == "unauthorized"
        await client.expect_close(UNAUTHORIZED)
    async with RawClient.join(target, "/auth") as client:  # where no message may be that long
        client.send_json("authenticate", {"token": "a" * 1_000_000})
        await client.expect_close(CloseCode.MESSAGE_TOO_BIG)


async def test_a9_a_header_of_1_mb_is_refused_by_http(target: Target) -> None:
    async with RawClient.connect(target, "/auth", headers=bearer("a" * 1_000_000), status=431) as client:
        assert await client.expect_end() == b""


# --- A10: the end of a token -----------------------------------------------------------------------------------------


@BOTH
async def test_a10_a_token_expires(target: Target) -> None:
    end = int(time.time()) + 2
    async with (
        RawClient.join(target, "/auth", headers=bearer(token(exp=end))) as leaves,
        RawClient.join(target, "/auth", headers=bearer(token(exp=end))) as stays,
    ):
        assert (await leaves.recv_json("authenticated"))["expiresAt"] == end * 1000
        await stays.recv_json("authenticated")
        assert (await stays.ask("authenticate", {"token": token()}))["type"] == "authenticated"
        await leaves.expect_close(EXPIRED)
        assert end <= time.time() < end + 2
        assert (await stays.ask("echo", 1))["payload"] == 1


@BOTH
@pytest.mark.parametrize("what", [{"jti": "{name}-jti"}, {"user_id": "{name}"}], ids=["token", "user"])
async def test_a10_a_token_is_revoked(target: Target, door: str, what: dict[str, str]) -> None:
    name = f"{door}-{next(iter(what))}"  # the server outlives this test
    text = token(sub=name, jti=f"{name}-jti", iat=int(time.time()))
    (key, value), *_ = what.items()
    async with (
        RawClient.join(target, "/auth", headers=bearer(text)) as one,
        RawClient.join(target, "/auth", headers=bearer(text)) as two,
        RawClient.join(target, "/auth", headers=bearer(token(sub="admin"))) as admin,
    ):
        for client in (one, two, admin):
            await client.recv_json("authenticated")
        assert (await admin.ask("revoke", {key: value.format(name=name)}))["payload"] == 2
        for client in (one, two):
            await client.expect_close(UNAUTHORIZED, "the token was revoked")
        assert (await admin.ask("echo", 1))["payload"] == 1
    await refused(target, text, UNAUTHORIZED)


# --- A11: what is written down ---------------------------------------------------------------------------------------

LOUD = {
    "hubbub serve": ("-m", "hubbub.cli", "serve", "tests.integration.bad.app:app", "--access-log", "--port"),
    "uvicorn": ("-m", "uvicorn", "tests.integration.bad.app:app", "--log-level", "trace", "--port"),
}


@asynccontextmanager
async def loud(command: tuple[str, ...], place: Path) -> AsyncIterator[tuple[Any, RunningServer]]:
    server = RunningServer(free_port())
    async with process(*command, str(server.port), HUBBUB_DATA_DIR=str(place)) as running:
        await until(
            lambda: re.search("Stop with Ctrl|Uvicorn running", running.said), 4 * DEADLINE, lambda: running.said
        )
        yield running, server


@pytest.mark.parametrize("command", LOUD.values(), ids=LOUD)
async def test_a11_a_credential_in_the_url_is_found_nowhere(command: tuple[str, ...], tmp_path: Path) -> None:
    good, bad = token(jti="SECRET"), "SECRET-junk"
    seen: list[str] = []
    async with loud(command, tmp_path) as (running, server):
        for name, text in (("token", good), ("token", bad), ("ticket", bad), ("ticket", good)):
            path = f"/auth?a=b&{name}={text}"
            async with RawClient.connect(server, path) as client:
                first = await client.recv_frame()
                seen.append(first.payload.decode("utf-8", "replace"))
                if first.opcode == 1:
                    assert json.loads(first.payload)["type"] == "welcome"
                    client.send_json("fail", 1)
                    seen += [await client.recv_text() for _ in range(2)]
            for where in (path, f"/auth/client?{name}={text}", f"/nowhere?{name}={text}"):
                seen.append(repr(await fetch(server, where)))
            async with RawClient.connect(server, f"/nowhere?{name}={text}", status=403) as client:
                seen.append(repr(client.answer))
            async with RawClient.connect(server, path, headers=[("Sec-WebSocket-Key", "x")], status=400) as client:
                seen.append(repr(client.answer))
        seen.append(repr(await fetch(server, "/state")))
        running.child.terminate()
        await running.end()
        seen += [running.out, running.err]
    assert "[hidden]" in running.said
    assert "fail" in running.err
    for text in seen:
        for secret in ("SECRET", good, good.partition(".")[2]):
            assert secret not in text
