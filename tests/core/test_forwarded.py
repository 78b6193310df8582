"""For whom a proxy speaks, and what nobody gets by writing the headers himself."""

from __future__ import annotations

import pytest

from hubbub.core.forwarded import Peer, Proxies, is_near
from hubbub.errors import ConfigError

TRUSTED = ("127.0.0.1", "10.0.0.0/8", "2001:db8::/32")
PEER = Peer("127.0.0.1", secure=False)


def address(*chain: str, peer: str | None = "127.0.0.1", trusted: tuple[str, ...] = TRUSTED) -> str | None:
    headers = [(b"x-forwarded-for", each.encode("latin-1")) for each in chain]
    return Proxies(trusted).client(Peer(peer, secure=False), headers).address


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        pytest.param(["203.0.113.9"], "203.0.113.9", id="one"),
        pytest.param(["6.6.6.6, 203.0.113.9"], "203.0.113.9", id="what the client wrote itself is left of it"),
        pytest.param(["127.0.0.1, 203.0.113.9"], "203.0.113.9", id="a client that says it is local"),
        pytest.param(["6.6.6.6, 203.0.113.9, 10.1.2.3"], "203.0.113.9", id="a chain of proxies"),
        pytest.param(["6.6.6.6", "203.0.113.9,10.1.2.3"], "203.0.113.9", id="two headers are one list"),
        pytest.param(["garbage, 203.0.113.9"], "203.0.113.9", id="garbage left of it is not read"),
        pytest.param(["10.0.0.1, 10.0.0.2"], "10.0.0.1", id="nobody but proxies"),
        pytest.param(["\t203.0.113.9 "], "203.0.113.9", id="spaces"),
        pytest.param(["203.0.113.9:4711"], "203.0.113.9", id="a port"),
        pytest.param(["2a00::9"], "2a00::9", id="IPv6"),
        pytest.param(["[2a00::9]"], "2a00::9", id="IPv6 in brackets"),
        pytest.param(["[2A00:0::9]:4711"], "2a00::9", id="IPv6 with a port"),
        pytest.param(["2a00::9, 2001:db8::5"], "2a00::9", id="an IPv6 proxy"),
        pytest.param(["::ffff:203.0.113.9"], "203.0.113.9", id="IPv4 written as IPv6"),
        pytest.param(["203.0.113.9, ::ffff:10.0.0.1"], "203.0.113.9", id="a proxy written as IPv6"),
    ],
)
def test_the_client_is_the_last_who_is_not_trusted(chain: list[str], expected: str) -> None:
    assert address(*chain) == expected


@pytest.mark.parametrize(
    "chain",
    [
        [],
        [""],
        [","],
        ["unknown"],
        ["_hidden"],
        ["203.0.113.9,"],
        ["203.0.113.9, unknown"],
        ["203.0.113.9, garbage, 10.0.0.1"],
        ["203.0.113.999"],
        ["0313.0.113.9"],
        ["203.0.113.9:x"],
        ["203.0.113.9:٣"],
        ["203.0.113.9 10.0.0.1"],
        ["[2a00::9"],
        ["[2a00::9]x"],
        ["fe80::9%eth0"],
        ["example.com"],
        ["2" * 5000],
        ["\xff"],
        ["203.0.113.9\r"],
    ],
    ids=lambda chain: ascii(chain)[:40],
)
def test_what_cannot_be_read_leaves_the_peer(chain: list[str]) -> None:
    chain = [each.encode().decode("latin-1") for each in chain]
    assert address(*chain) == "127.0.0.1"


def test_a_chain_is_read_no_further_than_it_can_be_long() -> None:
    assert address("203.0.113.9," + "10.0.0.1," * 30 + "10.0.0.2") == "203.0.113.9"
    assert address("203.0.113.9," + "10.0.0.1," * 4000 + "10.0.0.2") == "10.0.0.1"


@pytest.mark.parametrize("peer", ["192.0.2.1", "127.0.0.2", None, "testclient"])
def test_a_peer_that_is_not_trusted_is_the_client(peer: str | None) -> None:
    assert address("203.0.113.9", peer=peer) == peer


def test_nobody_is_trusted_by_default() -> None:
    assert not Proxies().trusts("127.0.0.1")
    assert not Proxies().trusts(None)


def test_a_unix_socket_is_trusted_by_its_name() -> None:
    assert address("203.0.113.9, 10.0.0.1", peer=None, trusted=("unix", "10.0.0.1")) == "203.0.113.9"
    assert address("203.0.113.9", trusted=("unix",)) == "127.0.0.1"


def test_a_proxy_that_comes_as_ipv6_is_the_same() -> None:
    assert address("203.0.113.9", peer="::ffff:127.0.0.1") == "203.0.113.9"


@pytest.mark.parametrize(
    ("headers", "secure", "expected"),
    [
        ([], False, False),
        ([], True, True),
        ([b"https"], False, True),
        ([b"HTTPS"], False, True),
        ([b"wss"], False, True),
        ([b"http"], True, False),
        ([b"http, https"], False, True),
        ([b"https, http"], False, False),
        ([b"https", b"http"], False, False),
        ([b"gopher"], True, True),
        ([b""], False, False),
    ],
)
def test_the_scheme_is_what_the_last_proxy_says(headers: list[bytes], secure: bool, expected: bool) -> None:
    pairs = [(b"x-forwarded-proto", each) for each in headers]
    assert Proxies(TRUSTED).client(Peer("127.0.0.1", secure), pairs).secure is expected
    assert Proxies().client(Peer("127.0.0.1", secure), pairs).secure is secure


@pytest.mark.parametrize("text", ["", "localhost", "10.0.0.0/33", "10.0.0.1/8", "*", "10.0.0.1-5", "unix:/run/x"])
def test_the_list_is_read_when_it_is_given(text: str) -> None:
    with pytest.raises(ConfigError, match="is no proxy's address: give addresses like"):
        Proxies([text])


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("::1", True),
        ("fd00::1", True),
        (None, True),
        ("8.8.8.8", False),
        ("testclient", False),
    ],
)
def test_a_proxy_of_ours_is_near(address: str | None, expected: bool) -> None:
    assert is_near(address) is expected
