from __future__ import annotations

import logging
from typing import Any

import pytest

from hubbub.servers.redaction import LOGGERS, HideCredentials, hide_credentials
from hubbub.servers.server import LOGGING


@pytest.mark.parametrize(
    ("message", "args", "expected"),
    [
        ("GET /ws?token=SECRET", (), "GET /ws?token=[hidden]"),
        (
            '%s - "%s %s" %d',
            ("1.2.3.4", "GET", "/ws?a=b&ticket=SECRET", 200),
            '1.2.3.4 - "GET /ws?a=b&ticket=[hidden]" 200',
        ),
        ("%s: %r", ("x", {"query_string": b"token=SECRET"}), "x: \"{'query_string': b'token=[hidden]\""),
        ("%(a)s", ({"a": "b"},), "b"),
        (ValueError("x"), (), "x"),
    ],
    ids=["in the text", "in an argument", "in a scope", "by name", "an error"],
)
def test_a_record_is_written_without_credentials(message: Any, args: Any, expected: str) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, message, args, None)
    assert HideCredentials().filter(record)
    assert record.getMessage() == expected


def test_the_servers_loggers_hide_them_once() -> None:
    for _ in range(3):
        hide_credentials()
    for name in LOGGERS:
        assert sum(isinstance(each, HideCredentials) for each in logging.getLogger(name).filters) == 1


def test_all_that_hubbub_serve_writes_is_looked_at() -> None:
    assert LOGGING["handlers"]["stderr"]["filters"] == ["credentials"]
