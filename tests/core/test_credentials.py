from __future__ import annotations

import pytest

from hubbub.core.credentials import Credential, find_credential, read_cookies, redact

Headers = list[tuple[bytes, bytes]]

FOUND: dict[str, tuple[Headers, list[str], bytes, Credential | None]] = {
    "nothing": ([], [], b"", None),
    "an ordinary browser": ([(b"host", b"x"), (b"cookie", b"a=b")], ["hubbub.v1"], b"a=b", None),
    "header": ([(b"authorization", b"Bearer abc.d-e_f")], [], b"", Credential("abc.d-e_f", "header")),
    "header in another case": ([(b"authorization", b"bEARER  abc ")], [], b"", Credential("abc", "header")),
    "header without a token": ([(b"authorization", b"Bearer ")], [], b"", Credential("", "header")),
    "header of another kind": ([(b"authorization", b"Basic dTpw")], [], b"", None),
    "subprotocol": ([], ["hubbub.v1", "bearer.abc.def"], b"", Credential("abc.def", "subprotocol")),
    "ticket": ([], [], b"a=b&ticket=x%2Ey", Credential("x.y", "ticket")),
    "cookie": ([(b"cookie", b"a=b; hubbub_token=abc; c=d")], [], b"", Credential("abc", "cookie")),
    "another cookie": ([(b"cookie", b"xhubbub_token=abc")], [], b"", None),
    "another parameter": ([], [], b"xticket=1&tickets=2&ticket", None),
    "an escaped parameter": ([], [], b"%74icket=1", None),
    "header before cookie": (
        [(b"cookie", b"hubbub_token=old"), (b"authorization", b"Bearer new")],
        [],
        b"ticket=t",
        Credential("new", "header"),
    ),
    "ticket before cookie": ([(b"cookie", b"hubbub_token=old")], [], b"ticket=t", Credential("t", "ticket")),
}


@pytest.mark.parametrize(("headers", "offered", "query", "expected"), FOUND.values(), ids=FOUND)
def test_where_a_credential_is_found(
    headers: Headers, offered: list[str], query: bytes, expected: Credential | None
) -> None:
    assert find_credential(headers, offered, query, "hubbub_token", False) == expected


def test_a_token_in_the_query_counts_only_where_it_may() -> None:
    assert find_credential([], [], b"token=abc", "c", False) is None
    assert find_credential([], [], b"token=abc", "c", True) == Credential("abc", "query")
    assert find_credential([], [], b"token=abc&ticket=t", "c", True) == Credential("t", "ticket")


def test_a_credential_does_not_show_itself() -> None:
    assert repr(Credential("SECRET", "header")) == "Credential(source='header')"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"a=b; c=d"], {"a": "b", "c": "d"}),
        ([b"a=1; a=2", b"a=3; b=4"], {"a": "1", "b": "4"}),
        ([b'a="quoted"; b==; c'], {"a": "quoted", "b": "="}),
        ([b"; ;=; \xff=\xff"], {"": "", "\xff": "\xff"}),
    ],
    ids=["two", "one name thrice", "quotes and equals signs", "junk"],
)
def test_cookies_are_read(lines: list[bytes], expected: dict[str, str]) -> None:
    assert read_cookies([(b"host", b"x"), *((b"cookie", line) for line in lines)]) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("token=SECRET", "token=[hidden]"),
        ("/ws?token=SECRET", "/ws?token=[hidden]"),
        ("/ws?a=b&ticket=SECRET&c=d", "/ws?a=b&ticket=[hidden]&c=d"),
        ('"GET /ws?token=SECRET HTTP/1.1" 101', '"GET /ws?token=[hidden] HTTP/1.1" 101'),
        ("ws://host/ws?ticket=SEC%20RET'\"#;SECRET", "ws://host/ws?ticket=[hidden]"),
        ("/ws?token=SECRET&token=SECRET", "/ws?token=[hidden]&token=[hidden]"),
        ("/ws?csrf_token=shown&tokens=shown&x=token", "/ws?csrf_token=shown&tokens=shown&x=token"),
        ("nothing to hide", "nothing to hide"),
    ],
    ids=range(8),
)
def test_what_is_written_to_a_log_has_no_credential(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert "SECRET" not in redact(text)
