"""Whose pages may connect, and every trick that must not change the answer."""

from __future__ import annotations

import pytest

from hubbub.core.arrival import Arrival
from hubbub.core.origins import Origin, Origins, is_loopback, parse_origin
from hubbub.errors import ConfigError

LIST = ("https://example.com", "http://localhost:5173", "https://[2001:db8::1]:8443", "capacitor://localhost")


def arrival(
    *origins: str, host: str | None = "example.com", address: str | None = "203.0.113.9", **more: bool
) -> Arrival:
    return Arrival(host, origins, address, **more)


def local(origin: str, host: str, address: str | None = "127.0.0.1", *, secure: bool = False) -> Arrival:
    return Arrival(host, (origin,), address, secure)


# --- Reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://example.com", Origin("https", "example.com", 443)),
        ("https://example.com:443", Origin("https", "example.com", 443)),
        ("http://example.com", Origin("http", "example.com", 80)),
        ("http://localhost:5173", Origin("http", "localhost", 5173)),
        ("http://127.0.0.1:5000", Origin("http", "127.0.0.1", 5000)),
        ("http://[::1]:5000", Origin("http", "[::1]", 5000)),
        ("http://[0:0::1]", Origin("http", "[::1]", 80)),
        ("https://xn--bcher-kva.example", Origin("https", "xn--bcher-kva.example", 443)),
        ("chrome-extension://abcdef", Origin("chrome-extension", "abcdef", None)),
        ("https://my_app.example", Origin("https", "my_app.example", 443)),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_an_origin_is_a_scheme_a_host_and_a_port(text: str, expected: Origin) -> None:
    assert parse_origin(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "*",
        "example.com",
        "//example.com",
        "https:example.com",
        "https://",
        "https:///",
        "file://",
        "https://example.com/",
        "https://example.com/ws",
        "https://example.com?x",
        "https://example.com#x",
        "https://example.com.",
        "https://.example.com",
        "https://example..com",
        "HTTPS://example.com",
        "https://EXAMPLE.com",
        "https://user@example.com",
        "https://user:word@example.com",
        "https://evil.example\\@example.com",
        "https://example.com:",
        "https://example.com:0",
        "https://example.com:0443",
        "https://example.com:65536",
        "https://example.com:99999999",
        "https://example.com:٤٤٣",
        "https://example.com:+443",
        " https://example.com",
        "https://example.com ",
        "https://example.com\n",
        "https://example.com\x00",
        "https://example.com, https://evil.example",
        "https://example.com https://evil.example",
        "https://bücher.example",
        "https://example。com",
        "https://example%2ecom",
        "https://[::1",
        "https://::1",
        "https://[]",
        "https://[::1%25lo]",
        "https://[1.2.3.4]",
        "https://[:::]",
        f"https://{'a.' * 300}com",
    ],
    ids=ascii,
)
def test_what_no_browser_writes_is_no_origin(text: str) -> None:
    assert parse_origin(text) is None


@pytest.mark.parametrize("text", LIST)
def test_an_origin_is_written_as_it_was_read(text: str) -> None:
    assert str(parse_origin(text)) == text


# --- A list ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", [*LIST, "https://example.com:443", "https://[2001:db8:0::1]:8443"])
def test_the_list_lets_in_what_is_on_it(origin: str) -> None:
    assert Origins(LIST).judge(arrival(origin)) is None


BYPASSES = {
    "another site": "https://evil.example",
    "subdomain": "https://evil.example.com",
    "superdomain": "https://com",
    "suffix": "https://notexample.com",
    "name as a label": "https://example.com.evil.example",
    "name as a prefix": "https://example.comevil.example",
    "scheme down": "http://example.com",
    "scheme up": "https://localhost:5173",
    "scheme of the socket": "wss://example.com",
    "other scheme": "ftp://example.com",
    "port": "https://example.com:8443",
    "usual port of another scheme": "https://example.com:80",
    "no port": "http://localhost",
    "other name of the host": "http://127.0.0.1:5173",
    "null": "null",
    "empty": "",
    "star": "*",
    "upper case host": "https://EXAMPLE.COM",
    "upper case scheme": "HTTPS://example.com",
    "trailing dot": "https://example.com.",
    "userinfo": "https://example.com@evil.example",
    "userinfo before": "https://evil.example@example.com",
    "path": "https://example.com/",
    "path with the name": "https://evil.example/https://example.com",
    "query with the name": "https://evil.example?https://example.com",
    "backslash": "https://evil.example\\.example.com",
    "tab": "https://example.com\t",
    "two in one header": "https://example.com https://evil.example",
    "a list in one header": "https://example.com,https://evil.example",
    "other IPv6": "https://[2001:db8::2]:8443",
    "IPv6 without its port": "https://[2001:db8::1]",
    "IDN that looks the same": "https://xn--xample-9uf.com",
    "IDN not in punycode": "https://\u0435xample.com".encode().decode("latin-1"),
    "full width": "https://\uff45xample.com",
}


@pytest.mark.parametrize("origin", BYPASSES.values(), ids=BYPASSES.keys())
def test_no_trick_gets_past_the_list(origin: str) -> None:
    assert Origins(LIST).judge(arrival(origin)) is not None


@pytest.mark.parametrize("allowed", [LIST, None, ["*"]], ids=["list", "none", "any"])
def test_two_origin_headers_are_refused(allowed: list[str] | None) -> None:
    assert Origins(allowed).judge(arrival(LIST[0], LIST[0], host="localhost", address="127.0.0.1")) is not None


def test_a_list_is_exact_on_loopback_too() -> None:
    assert Origins(LIST).judge(local("http://localhost:5000", "localhost:5000")) is not None


def test_an_empty_list_lets_no_page_in() -> None:
    rule = Origins([])
    assert rule.given
    assert rule.judge(local("http://localhost:5000", "localhost:5000")) is not None
    assert rule.judge(arrival()) is None


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "whatever"])
def test_a_star_lets_every_page_in(origin: str) -> None:
    assert Origins(["*"]).judge(arrival(origin)) is None


@pytest.mark.parametrize(
    "text",
    [
        "example.com",
        "https://example.com/",
        "https://*.example.com",
        "null",
        "https://bücher.example",
        "https://a b",
        "",
    ],
)
def test_the_list_is_read_when_it_is_given(text: str) -> None:
    with pytest.raises(ConfigError, match="is not an origin: give scheme, host and the port"):
        Origins([text])


def test_the_list_may_have_upper_case() -> None:
    assert Origins(["HTTPS://Example.COM"]).judge(arrival("https://example.com")) is None


# --- Loopback --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "host", "address"),
    [
        ("http://localhost:5000", "localhost:5000", "127.0.0.1"),
        ("http://localhost:5000", "LocalHost:5000", "::1"),
        ("http://localhost", "localhost", "127.0.0.1"),
        ("http://localhost", "localhost:80", "127.0.0.1"),
        ("http://127.0.0.1:5000", "127.0.0.1:5000", "127.0.0.1"),
        ("http://127.1.2.3:5000", "127.1.2.3:5000", "127.1.2.3"),
        ("http://[::1]:5000", "[::1]:5000", "::1"),
        ("http://app.localhost:5000", "app.localhost:5000", "::ffff:127.0.0.1"),
    ],
)
def test_on_loopback_the_page_of_the_same_host_and_port_may_come(origin: str, host: str, address: str) -> None:
    assert Origins(None).judge(local(origin, host, address)) is None


def test_on_loopback_with_tls_the_usual_port_is_another() -> None:
    assert Origins(None).judge(local("https://localhost", "localhost", secure=True)) is None
    assert Origins(None).judge(local("http://localhost", "localhost", secure=True)) is not None


@pytest.mark.parametrize(
    ("origin", "host", "address"),
    [
        pytest.param("http://localhost:5173", "localhost:5000", "127.0.0.1", id="another port"),
        pytest.param("http://127.0.0.1:5000", "localhost:5000", "127.0.0.1", id="another name"),
        pytest.param("http://app.localhost:5000", "localhost:5000", "127.0.0.1", id="a subdomain"),
        pytest.param("https://evil.example", "localhost:5000", "127.0.0.1", id="another site"),
        pytest.param("ftp://localhost:5000", "localhost:5000", "127.0.0.1", id="another scheme"),
        pytest.param("https://localhost", "localhost", "127.0.0.1", id="another scheme's port"),
        pytest.param("http://evil.example:5000", "evil.example:5000", "127.0.0.1", id="DNS rebinding"),
        pytest.param("http://127.0.0.1.evil.example", "127.0.0.1.evil.example", "127.0.0.1", id="looks like loopback"),
        pytest.param("http://notlocalhost", "notlocalhost", "127.0.0.1", id="ends like localhost"),
        pytest.param("http://192.168.0.5:5000", "192.168.0.5:5000", "192.168.0.9", id="a private network"),
        pytest.param("http://localhost:5000", "localhost:5000", "192.168.0.9", id="a stranger who says localhost"),
        pytest.param("http://localhost:5000", "localhost:5000", None, id="a Unix socket"),
        pytest.param("http://localhost:5000", "localhost:5000", "testclient", id="no address"),
        pytest.param("http://localhost:5000", "", "127.0.0.1", id="an empty Host"),
        pytest.param("http://localhost:5000", "user@localhost:5000", "127.0.0.1", id="a Host with a user"),
        pytest.param("http://localhost:99999", "localhost:99999", "127.0.0.1", id="no such port"),
        pytest.param("null", "localhost:5000", "127.0.0.1", id="null"),
    ],
)
def test_without_a_list_nobody_else_may_come(origin: str, host: str, address: str | None) -> None:
    assert Origins(None).judge(local(origin, host, address)) is not None


def test_a_request_without_a_host_is_nowhere() -> None:
    assert Origins(None).judge(arrival("http://localhost", host=None, address="127.0.0.1")) is not None


def test_the_verdict_names_what_could_be_on_a_list() -> None:
    verdict = Origins(None).judge(arrival("http://localhost:5173"))
    assert verdict is not None
    assert verdict.origin == Origin("http", "localhost", 5173)
    malformed = Origins(None).judge(arrival("null"))
    assert malformed is not None
    assert malformed.origin is None


# --- No Origin -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [LIST, None, [], ["*"]], ids=["list", "none", "empty", "any"])
def test_what_is_no_page_may_come_without_a_cookie(allowed: list[str] | None) -> None:
    assert Origins(allowed).judge(arrival()) is None


@pytest.mark.parametrize("allowed", [LIST, None, []], ids=["list", "none", "empty"])
def test_what_brings_a_cookie_says_where_it_comes_from(allowed: list[str] | None) -> None:
    assert Origins(allowed).judge(arrival(has_cookie=True)) is not None


def test_a_listed_page_may_bring_a_cookie() -> None:
    assert Origins(LIST).judge(arrival(LIST[0], has_cookie=True)) is None


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("128.0.0.1", False),
        ("10.0.0.1", False),
        ("::2", False),
        ("0.0.0.0", False),
        ("0177.0.0.1", False),
        ("localhost", False),
        ("", False),
        (None, False),
    ],
)
def test_loopback_is_this_machine(address: str | None, expected: bool) -> None:
    assert is_loopback(address) is expected
