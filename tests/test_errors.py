from __future__ import annotations

import re
from pathlib import Path

import pytest

import hubbub.errors as errors
from hubbub.core.frames import build_close
from hubbub.errors import CLOSE_CODES, ERROR_CODES, CloseCode, HandshakeError, ProtocolError, RequestError

SOURCE = Path(errors.__file__).parent
CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
NEVER_SENT = {CloseCode.NO_STATUS, CloseCode.ABNORMAL}


def test_the_tree_is_the_one_in_the_docstring() -> None:
    parents: list[str] = ["Exception"]
    drawn = {}
    for branch, name in re.findall(
        r"^([│├└─ ]*)((?:[A-Z][a-z]+)+Error|ConnectionClosed|RequestTimeout|Stor\w+)\b", errors.__doc__ or "", re.M
    ):
        level = len(branch) // 4
        drawn[name] = parents[level]
        parents[level + 1 :] = [name]
    assert drawn == {each.__name__: each.__base__.__name__ for each in CLASSES if each.__base__}
    assert max(len(each.__mro__) for each in CLASSES) - len(Exception.__mro__) <= 3


def test_the_table_of_close_codes_is_whole() -> None:
    assert set(CLOSE_CODES) == set(CloseCode)
    assert len({row.meaning for row in CLOSE_CODES.values()}) == len(CLOSE_CODES)


@pytest.mark.parametrize("code", [code for code in CloseCode if code >= 4000])
def test_the_range_says_whether_to_come_back(code: CloseCode) -> None:
    assert CLOSE_CODES[code].reconnect == (code < 4500)
    assert code < 5000


@pytest.mark.parametrize("code", [code for code in CloseCode if code not in NEVER_SENT])
def test_a_close_code_may_travel(code: CloseCode) -> None:
    assert len(build_close(code)) == 4


@pytest.mark.parametrize("code", NEVER_SENT)
def test_a_code_that_is_never_sent_says_so(code: CloseCode) -> None:
    assert "never sent" in CLOSE_CODES[code].meaning


def test_every_error_code_that_is_sent_is_in_the_table() -> None:
    used = {
        code
        for path in (*SOURCE.glob("core/*.py"), *SOURCE.glob("node/*.py"))
        for code in re.findall(r'RequestError\(\s*"(\w+)"', path.read_text("utf-8"))
    }
    used |= {errors.StoreUnavailable.code, errors.StorageFull.code}
    assert used == set(ERROR_CODES)


def test_errors_carry_what_is_answered() -> None:
    refused = HandshakeError(426, "upgrade", ((b"upgrade", b"websocket"),))
    assert (str(refused), refused.status, refused.headers) == ("426 upgrade", 426, ((b"upgrade", b"websocket"),))
    broken = ProtocolError(CloseCode.INVALID_DATA, "not UTF-8")
    assert (str(broken), broken.code, broken.reason) == ("1007 not UTF-8", 1007, "not UTF-8")
    no = RequestError("sold_out", "None left.", "items[2]")
    assert (str(no), no.code, no.message, no.field) == ("sold_out: None left.", "sold_out", "None left.", "items[2]")
