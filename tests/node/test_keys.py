"""Keys that an issuer publishes, fetched from a real server that counts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from hubbub import Auth, CloseCode, ConfigError, RequestError
from hubbub.config import load_settings
from hubbub.node import keys as module
from hubbub.node.keys import COOL_DOWN, KEEP, PublishedKeys
from hubbub.node.secret import Secret
from hubbub.node.tokens import Tokens
from tests.fakes import ManualClock
from tests.node.tokens import KEYS, SECRET, part, published, token


class Issuer(ThreadingHTTPServer):
    """Publishes keys, and counts who asks."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.keys: list[Any] = [published("RS256", "one"), published("ES256", "two")]
        self.body: bytes | None = None
        self.status = 200
        self.asked = 0
        self.open = threading.Event()
        self.open.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/jwks.json"


class Handler(BaseHTTPRequestHandler):
    """Answers every GET with the issuer's keys, once it is open."""

    server: Issuer

    def do_GET(self) -> None:
        self.server.asked += 1
        self.server.open.wait(5)
        body = json.dumps({"keys": self.server.keys}).encode() if self.server.body is None else self.server.body
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # it was too much
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        thread = threading.Thread(target=issuer.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield issuer
        issuer.open.set()
        issuer.shutdown()
        thread.join()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    return ManualClock.install(monkeypatch)


def checker(issuer: Issuer) -> Tokens:
    auth = Auth(jwks_url=issuer.url, algorithms=("RS256", "ES256", "EdDSA"))
    return Tokens(auth, Secret(SECRET, load_settings()))


async def test_tokens_are_checked_with_the_key_they_name(issuer: Issuer) -> None:
    tokens = checker(issuer)
    assert (await tokens.verify(token("RS256", head={"kid": "one"}))).user_id == "ada"
    assert (await tokens.verify(token("ES256", head={"kid": "two"}))).user_id == "ada"
    assert issuer.asked == 1


@pytest.mark.parametrize(
    ("algorithm", "kid"),
    [("ES256", "one"), ("RS256", "two"), ("EdDSA", "one"), ("HS256", "one"), ("RS256", "three"), ("EdDSA", None)],
    ids=["RSA key for ES256", "EC key for RS256", "RSA key for EdDSA", "secret", "unknown", "none for EdDSA"],
)
async def test_a_key_is_bound_to_its_algorithm(issuer: Issuer, algorithm: str, kid: str | None) -> None:
    with pytest.raises(RequestError) as caught:
        await checker(issuer).verify(token(algorithm, head=None if kid is None else {"kid": kid}))
    assert caught.value.close == CloseCode.UNAUTHORIZED


async def test_without_a_key_id_the_only_key_for_the_algorithm_counts(issuer: Issuer, clock: ManualClock) -> None:
    keys = PublishedKeys(issuer.url)
    assert await keys.find(None, "RS256") is not None
    issuer.keys.append(published("RS256", "three"))
    clock.now += KEEP
    assert await keys.find(None, "RS256") is None


async def test_many_who_come_at_once_wait_for_one_fetch(issuer: Issuer) -> None:
    tokens = checker(issuer)
    issuer.open.clear()
    checks = [asyncio.create_task(tokens.verify(token("RS256", head={"kid": "one"}))) for _ in range(100)]
    leaves = checks.pop()
    await asyncio.sleep(0)
    leaves.cancel()  # the first to come was not this one, but it would not matter
    checks[0].cancel()
    issuer.open.set()
    found = await asyncio.gather(*checks, leaves, return_exceptions=True)
    assert sum(isinstance(each, asyncio.CancelledError) for each in found) == 2
    assert sum(getattr(each, "user_id", None) == "ada" for each in found) == 98
    assert issuer.asked == 1


async def test_unknown_key_ids_do_not_make_us_ask_again_and_again(issuer: Issuer, clock: ManualClock) -> None:
    keys = PublishedKeys(issuer.url)
    for number in range(50):
        assert await keys.find(f"unknown {number}", "RS256") is None
    assert issuer.asked == 1
    clock.now += COOL_DOWN
    issuer.keys = [published("RS256", "new")]
    assert await keys.find("new", "RS256") is not None
    assert await keys.find("one", "RS256") is None
    assert issuer.asked == 2


async def test_keys_are_fetched_again_after_a_while_and_those_taken_back_are_gone(
    issuer: Issuer, clock: ManualClock
) -> None:
    keys = PublishedKeys(issuer.url)
    assert await keys.find("one", "RS256") is not None
    clock.now += KEEP - 1
    assert await keys.find("one", "RS256") is not None
    assert issuer.asked == 1
    clock.now += 1
    issuer.keys = [published("ES256", "two")]
    assert await keys.find("one", "RS256") is None
    assert issuer.asked == 2


FAILURES: dict[str, tuple[int, bytes]] = {
    "an error": (500, b"{}"),
    "no JSON": (200, b"<html>"),
    "no keys": (200, b"{}"),
    "a list": (200, b"[]"),
    "nested": (200, b"[" * 100_000),
    "too much": (200, b" " * (module.MOST_BYTES + 1)),
}


@pytest.mark.parametrize(("status", "body"), FAILURES.values(), ids=FAILURES)
async def test_keys_stay_when_they_cannot_be_fetched(
    issuer: Issuer, clock: ManualClock, caplog: pytest.LogCaptureFixture, status: int, body: bytes
) -> None:
    keys = PublishedKeys(issuer.url)
    await keys.find("one", "RS256")
    issuer.status, issuer.body = status, body
    clock.now += KEEP
    for _ in range(5):
        assert await keys.find("one", "RS256") is not None
    assert issuer.asked == 2
    assert "those fetched before stay" in caplog.text
    assert len(caplog.records) == 1
    issuer.status, issuer.body, issuer.keys = 200, None, [published("RS256", "new")]
    clock.now += COOL_DOWN
    assert await keys.find("one", "RS256") is None
    assert await keys.find("new", "RS256") is not None


async def test_an_issuer_that_was_never_reached_means_try_again(
    issuer: Issuer, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = checker(issuer)
    issuer.status = 503
    for _ in range(3):
        with pytest.raises(RequestError) as caught:
            await tokens.verify(token("RS256", head={"kid": "one"}))
        assert (caught.value.code, caught.value.close) == ("unavailable", CloseCode.TRY_AGAIN_LATER)
    assert issuer.asked == 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    issuer.status = 200
    clock.now += COOL_DOWN
    assert (await tokens.verify(token("RS256", head={"kid": "one"}))).user_id == "ada"


async def test_an_issuer_that_does_not_answer_is_not_waited_for(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    issuer.open.clear()
    with pytest.raises(RequestError, match="cannot be fetched now"):
        await PublishedKeys(issuer.url).find("one", "RS256")
    issuer.open.set()


async def test_keys_of_no_use_are_left_out(issuer: Issuer) -> None:
    good = published("RS256", "good")
    issuer.keys = [
        "no object",
        {},
        {"kty": "oct", "kid": "good", "k": part("secret"), "alg": "HS256"},
        {**good, "kid": "encrypts", "use": "enc"},
        {**good, "kid": "another", "alg": "RSA-OAEP"},
        {**good, "kid": "none", "alg": "none"},
        {**good, "kid": "weak", "n": "AQAB"},
        {**good, "kid": "broken", "n": "!"},
        {"kty": "EC", "crv": "P-999", "kid": "curve"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "short"},
        {**good, "use": "sig", "alg": "RS256"},
    ]
    keys = PublishedKeys(issuer.url)
    assert await keys.find(None, "RS256") is not None
    for kid in ("encrypts", "another", "none", "weak", "broken", "curve", "short"):
        for algorithm in (*KEYS, "HS256", "none"):
            assert await keys.find(kid, algorithm) is None
    assert await keys.find("good", "HS256") is None


async def test_a_token_is_remembered_no_longer_than_its_key_may_be(issuer: Issuer) -> None:
    tokens = checker(issuer)
    text = token("RS256", head={"kid": "one"}, exp=10**10)
    identity = await tokens.verify(text)
    ((_, until),) = tokens._good.values()
    assert until < 10**10 - KEEP
    assert identity.expires_at == 10**10


def test_only_http_is_asked() -> None:
    for url in ("file:///etc/passwd", "ftp://x/", "jwks.json", ""):
        with pytest.raises(ConfigError, match="give a URL like https"):
            PublishedKeys(url)
