"""A2-A5, A7, A9: what is a token, and what only looks like one."""

from __future__ import annotations

import hmac
import random
import time
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hubbub import Auth, CloseCode, ConfigError, RequestError
from hubbub.config import load_settings
from hubbub.core.credentials import LONGEST
from hubbub.core.identity import Identity
from hubbub.node import tokens as module
from hubbub.node.secret import Secret
from hubbub.node.tokens import Tokens
from tests.node.tokens import KEYS, SECRET, claims, encoded, part, pem, token, unsigned

HMAC = ("HS256", "HS384", "HS512")
FUZZED = 10_000


def checker(**given: Any) -> Tokens:
    auth = Auth(**{"secret": SECRET, **given})
    return Tokens(auth, Secret(auth.secret, load_settings(deploy_env="production")))


async def close_code(tokens: Tokens, text: str) -> int:
    with pytest.raises(RequestError) as caught:
        await tokens.verify(text)
    assert caught.value.code == "unauthorized"
    assert caught.value.close is not None
    return caught.value.close


# --- Good ones -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", HMAC)
async def test_a_secret_checks_hmac(algorithm: str) -> None:
    identity = await checker(algorithms=HMAC).verify(token(algorithm, role="admin"))
    assert (identity.user_id, identity.claims["role"], identity.device) == ("ada", "admin", "")
    assert identity.expires_at == identity.claims["exp"]


@pytest.mark.parametrize("algorithm", KEYS)
async def test_a_public_key_checks_the_algorithm_it_is_for(algorithm: str) -> None:
    tokens = checker(public_key=pem(algorithm), algorithms=(algorithm,))
    assert (await tokens.verify(token(algorithm))).user_id == "ada"
    assert await close_code(tokens, token("HS256")) == CloseCode.UNAUTHORIZED


async def test_a_secret_and_a_public_key_side_by_side() -> None:
    tokens = checker(public_key=pem("ES256"), algorithms=("HS256", "ES256"))
    assert (await tokens.verify(token("ES256"))).user_id == "ada"
    assert (await tokens.verify(token("HS256"))).user_id == "ada"


GOOD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no iat, no jti": ({}, {"iat": ..., "jti": ...}),
    "a fraction of a second": ({}, {"exp": 5e9 + 0.5}),
    "expires in the year 33658": ({}, {"exp": 10**12}),
    "expired within the leeway": ({"leeway": 10}, {"exp": timedelta(seconds=-5)}),
    "begins within the leeway": ({"leeway": 70}, {"nbf": timedelta(seconds=61)}),
    "the issuer": ({"issuer": "me"}, {"iss": "me"}),
    "the audience": ({"audience": "us"}, {"aud": "us"}),
    "one of the audiences": ({"audience": "us"}, {"aud": ["them", "us"]}),
    "an issuer nobody asks for": ({}, {"iss": "anybody"}),
    "a user's id in any language": ({}, {"sub": "Åse 世界"}),
}


@pytest.mark.parametrize(("given", "more"), GOOD.values(), ids=GOOD)
async def test_what_a_token_may_say(given: dict[str, Any], more: dict[str, Any]) -> None:
    identity = await checker(**given).verify(token(**more))
    assert identity.user_id == more.get("sub", "ada")
    assert 0 < (identity.expires_at or 0) < 10**12


# --- Bad ones --------------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "A4 begins in the future": ({}, {"nbf": timedelta(seconds=60)}),
    "A4 61 s of skew": ({"leeway": 60}, {"nbf": timedelta(seconds=120)}),
    "A4 issued in the future": ({}, {"iat": timedelta(seconds=60)}),
    "A5 no aud": ({"audience": "us"}, {}),
    "A5 wrong aud": ({"audience": "us"}, {"aud": "them"}),
    "A5 wrong auds": ({"audience": "us"}, {"aud": ["them", "others"]}),
    "A5 aud of numbers": ({"audience": "us"}, {"aud": [1]}),
    "A5 aud nobody asked for": ({}, {"aud": "them"}),
    "A5 wrong iss": ({"issuer": "me"}, {"iss": "you"}),
    "A5 iss with more": ({"issuer": "me"}, {"iss": "me2"}),
    "A5 no iss": ({"issuer": "me"}, {}),
    "A5 iss is a list": ({"issuer": "me"}, {"iss": ["me"]}),
    "A5 no sub": ({}, {"sub": ...}),
    "A5 empty sub": ({}, {"sub": ""}),
    "A5 sub is a number": ({}, {"sub": 7}),
    "A5 sub is null": ({}, {"sub": None}),
    "A5 sub of 10 KB": ({}, {"sub": "a" * 10_000}),
    "A5 sub of 256 bytes": ({}, {"sub": "a" * 256}),
    "A5 sub with a control character": ({}, {"sub": "ada\x00"}),
    "no exp": ({}, {"exp": ...}),
    "exp is a word": ({}, {"exp": "tomorrow"}),
    "exp is infinite": ({}, {"exp": float("inf")}),
    "exp is not a number": ({}, {"exp": float("nan")}),
    "exp is null": ({}, {"exp": None}),
    "iat is a word": ({}, {"iat": "today"}),
    "jti is a number": ({}, {"jti": 7}),
}


@pytest.mark.parametrize(("given", "more"), BAD.values(), ids=BAD)
async def test_what_a_token_may_not_say(given: dict[str, Any], more: dict[str, Any]) -> None:
    text = token(key=SECRET, **{k: v for k, v in more.items() if k not in ("iss", "iat", "jti", "sub")})
    head, _, _ = text.split(".")
    text = resign(head, claims(**more))  # as PyJWT would not write it
    assert await close_code(checker(**given), text) == CloseCode.UNAUTHORIZED


def resign(head: str, body: Any) -> str:
    signed = f"{head}.{part(body)}"
    signature = hmac.digest(SECRET.encode(), signed.encode(), sha256)
    return f"{signed}.{encoded(signature)}"


@pytest.mark.parametrize("ago", [6, 60, 1_700_000_000], ids=["just now", "a minute ago", "in 1972"])
async def test_a4_an_expired_token_may_be_refreshed(ago: int) -> None:
    assert await close_code(checker(), token(exp=timedelta(seconds=-ago))) == CloseCode.TOKEN_EXPIRED


async def test_a_forged_token_is_not_called_expired() -> None:
    assert await close_code(checker(), token(key="x" * 32, exp=1)) == CloseCode.UNAUTHORIZED


HEADS: dict[str, Callable[[], str]] = {
    "A2 alg none": lambda: unsigned({"alg": "none"}),
    "A2 alg None": lambda: unsigned({"alg": "None"}),
    "A2 alg nOnE with a signature": lambda: unsigned({"alg": "nOnE"}, "AAAA"),
    "A2 alg null": lambda: unsigned({"alg": None}),
    "A2 no alg": lambda: unsigned({"typ": "JWT"}),
    "A2 alg is a list": lambda: unsigned({"alg": ["HS256"]}),
    "A2 alg is an object": lambda: unsigned({"alg": {}}),
    "A2 empty signature": lambda: unsigned({"alg": "HS256"}),
    "A2 another token's signature": lambda: unsigned({"alg": "HS256"}, token().rpartition(".")[2]),
    "A2 an algorithm that is not allowed": lambda: token("HS512"),
    "A2 an algorithm without a key": lambda: token("RS256"),
    "another secret": lambda: token(key="another secret" * 4),
    "crit": lambda: token(head={"crit": ["b64"], "b64": True}),
    "kid is a list": lambda: resign(part({"alg": "HS256", "kid": ["a"]}), claims()),
    "head is a list": lambda: resign(part([]), claims()),
    "body is a list": lambda: resign(part({"alg": "HS256"}), []),
    "body is nested": lambda: resign(part({"alg": "HS256"}), "").replace(".IiI", "." + encoded(b"[" * 5000)),
    "head is nested": lambda: f"{encoded(b'[' * 5000)}.{part(claims())}.AAAA",
    "two parts": lambda: token().rpartition(".")[0],
    "four parts": lambda: token() + ".AAAA",
    "encrypted": lambda: "a.b.c.d.e",
    "a word": lambda: "tester",
    "dots": lambda: "..",
    "nothing": lambda: "",
    "no ASCII": lambda: "Grüße.世界.🙂",
    "a lone surrogate": lambda: "\ud800.\udfff.a",
    "a line break": lambda: token() + "\n",
    "one letter too long": lambda: "a" * (LONGEST + 1),
    "1 MB": lambda: "a" * 1_000_000,
}


@pytest.mark.parametrize("make", HEADS.values(), ids=HEADS)
async def test_what_is_no_token(make: Callable[[], str]) -> None:
    assert await close_code(checker(), make()) == CloseCode.UNAUTHORIZED


@pytest.mark.parametrize("algorithm", KEYS)
async def test_a3_a_public_key_is_no_secret(algorithm: str) -> None:
    tokens = checker(public_key=pem(algorithm), algorithms=("HS256", algorithm))
    for known in (pem(algorithm), pem(algorithm).strip(), pem(algorithm).replace("\n", "")):
        for kid in ({}, {"kid": "1"}):
            head = part({"alg": "HS256", "typ": "JWT"} | kid)
            signed = f"{head}.{part(claims())}"
            signature = encoded(hmac.digest(known.encode(), signed.encode(), sha256))
            assert await close_code(tokens, f"{signed}.{signature}") == CloseCode.UNAUTHORIZED


async def test_a9_ten_thousand_broken_tokens_cost_little_and_none_is_taken() -> None:
    tokens, chance = checker(algorithms=("HS256", "ES256"), public_key=pem("ES256")), random.Random(9)
    good = [token(), token("ES256")]
    letters = "abcXYZ019-_.={}\"'\\ \x00é🙂"
    started = time.process_time()
    for number in range(FUZZED):
        text = list(chance.choice(good))
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(text))
            match chance.randrange(4):
                case 0:
                    text = text[:at] or ["a"]
                case 1:
                    text[at] = chance.choice(letters)
                case 2:
                    text[at:at] = chance.choices(letters, k=chance.randint(1, 50))
                case _:
                    text = [*text[at:], *text[:at]]
        broken = "".join(text)
        if broken.rstrip("=") in good or same_bits(broken, good):
            continue
        assert await close_code(tokens, broken) in (CloseCode.UNAUTHORIZED, CloseCode.TOKEN_EXPIRED), number
    assert (time.process_time() - started) / FUZZED < 0.002
    assert not tokens._good


def same_bits(text: str, good: list[str]) -> bool:
    """Whether only the unused bits of a last letter differ: the same token, written in another way."""
    return any(text[:-1] == each[:-1] for each in good)


async def test_a9_work_on_a_long_one_does_not_grow() -> None:
    tokens = checker()
    for text in ("a" * 1_000_000, "." * 1_000_000, token() + "a" * 1_000_000):
        started = time.perf_counter()
        await close_code(tokens, text)
        assert time.perf_counter() - started < 0.005


# --- What is remembered ----------------------------------------------------------------------------------------------


async def test_a_token_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, calls = checker(), list[str]()
    check = module.verify

    def counted(text: str, *rest: Any) -> Identity:
        calls.append(text)
        return check(text, *rest)

    monkeypatch.setattr(module, "verify", counted)
    text = token()
    assert await tokens.verify(text) == await tokens.verify(text)
    assert calls == [text]


async def test_a_token_is_not_remembered_longer_than_it_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, text = checker(leeway=0), token()
    await tokens.verify(text)
    (known,) = tokens._good.values()
    tokens._good[sha256(text.encode()).digest()] = (Identity("eve"), time.time() - 1)
    assert (await tokens.verify(text)).user_id == "ada"
    assert known[1] == known[0].expires_at


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    tokens = checker()
    for number in range(5):
        await tokens.verify(token(jti=f"{number}"))
    assert [identity.claims["jti"] for identity, _ in tokens._good.values()] == ["2", "3", "4"]


# --- Settings --------------------------------------------------------------------------------------------------------


def weak_rsa() -> str:
    key = rsa.generate_private_key(65537, 1024).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def other_curve() -> str:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown algorithm": ({"algorithms": ("HS257",)}, r"algorithms=\('HS257',\) is not allowed: a tuple of some of HS"),
    "none": ({"algorithms": ("HS256", "none")}, "is not allowed"),
    "no algorithm": ({"algorithms": ()}, "is not allowed"),
    "algorithm without a key": ({"algorithms": ("RS256",)}, "needs Auth.public_key or Auth.jwks_url"),
    "key without an algorithm": ({"public_key": pem("RS256")}, "makes no use of the public key: name one of RS256"),
    "keys without an algorithm": ({"jwks_url": "https://x/"}, "makes no use of the public key"),
    "key for another algorithm": ({"public_key": pem("RS256"), "algorithms": ("ES256",)}, "is for RS256, which"),
    "no key": ({"public_key": "hello", "algorithms": ("ES256",)}, "is no public key in PEM"),
    "weak key": ({"public_key": weak_rsa(), "algorithms": ("RS256",)}, "is not RSA of 2048 bits or more, P-256"),
    "another curve": ({"public_key": other_curve(), "algorithms": ("ES256",)}, "is not RSA of 2048 bits"),
    "a key as a secret": ({"secret": pem("RS256")}, "belongs into Auth.public_key"),
    "no URL": ({"jwks_url": "file:///etc/passwd", "algorithms": ("RS256",)}, "give a URL like https"),
}


def test_public_keys_need_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwt.algorithms, "has_crypto", False)
    with pytest.raises(ConfigError, match=r"needs cryptography: pip install \"hubbub\[jwt\]\""):
        checker(public_key=pem("ES256"), algorithms=("ES256",))
    checker()


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG)
def test_settings_that_cannot_work_are_refused_at_start(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checker(**given)


async def test_without_a_key_the_developer_is_told_what_to_set(tmp_path: Path) -> None:
    tokens = Tokens(Auth(), Secret(None, load_settings(deploy_env="production", hubbub_data_dir=tmp_path)))
    for text in (token(), "tester"):
        with pytest.raises(RequestError, match="set HUBBUB_SECRET, or give Hub") as caught:
            await tokens.verify(text)
        assert caught.value.close == CloseCode.UNAUTHORIZED


async def test_hmac_needs_the_secret_where_there_is_a_public_key_too() -> None:
    auth = Auth(public_key=pem("ES256"), algorithms=("ES256", "HS256"))
    tokens = Tokens(auth, Secret(None, load_settings(deploy_env="production")))
    assert await close_code(tokens, token()) == CloseCode.UNAUTHORIZED
    assert (await tokens.verify(token("ES256"))).user_id == "ada"
