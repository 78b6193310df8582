"""What a request's headers say of a client, and the answer to one that is turned away."""

from __future__ import annotations

import pytest

from hubbub.core.arrival import Arrival, Refusal


def test_an_arrival_is_read_from_the_headers() -> None:
    headers = [(b"host", b"a.example"), (b"origin", b"https://a.example"), (b"cookie", b"one=1; hubbub_token=x")]
    expected = Arrival("a.example", ("https://a.example",), "192.0.2.1", True, True)
    assert Arrival.read(headers, "192.0.2.1", True, "hubbub_token") == expected


def test_every_origin_is_kept_and_of_two_hosts_none() -> None:
    headers = [(b"origin", b"a"), (b"host", b"a"), (b"origin", b"\xff"), (b"host", b"b")]
    found = Arrival.read(headers, None, False, "hubbub_token")
    assert (found.origins, found.host) == (("a", "\xff"), None)


@pytest.mark.parametrize(
    ("cookies", "name", "expected"),
    [
        ([], "token", False),
        ([], None, False),
        ([b"other=1"], "token", False),
        ([b"token2=1; xtoken=2"], "token", False),
        ([b"token=1"], "token", True),
        ([b"token="], "token", True),
        ([b"other=1", b"token=1"], "token", True),
        ([b"other=1"], None, True),
        ([b"rubbish"], None, True),
    ],
)
def test_a_cookie_counts_if_it_may_sign_in(cookies: list[bytes], name: str | None, expected: bool) -> None:
    assert Arrival.read([(b"cookie", each) for each in cookies], None, False, name).has_cookie is expected


def test_a_refusal_is_one_line() -> None:
    assert Refusal(403, "not you").body == b"not you\n"
