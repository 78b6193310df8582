"""What may be typed to `hubbub connect`, and what is printed of what came back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hubbub.cli.line import Command, LineError, decode, describe, encode, parse_line, printable


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("ping", {"type": "ping"}),
        ('  echo {"a": 1}  ', {"type": "echo", "payload": {"a": 1}}),
        ('echo "two words"', {"type": "echo", "payload": "two words"}),
        ("echo null", {"type": "echo", "payload": None}),
        ('{"type":"echo","id":"7"}', {"type": "echo", "id": "7"}),
        ("{}", {}),
        ("/quit", Command("/quit", "")),
        ("/raw  {{ ", Command("/raw", " {{")),
    ],
)
def test_a_line_is_read(line: str, meant: Any) -> None:
    assert parse_line(line) == meant


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("echo two words", "the payload is not JSON"),
        ('{"type":', "the message is not JSON"),
        ("echo " + "[" * 100_000, "the payload is not JSON"),
        ("/halp", "unknown command /halp; there are /help, /ping, /quit, /raw"),
    ],
    ids=["a word", "half a message", "too deep", "no command"],
)
def test_a_line_that_says_nothing(line: str, problem: str) -> None:
    with pytest.raises(LineError) as caught:
        parse_line(line)
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize("text", ['{"payload": 1}', "[]", "hello", "", "1", "\xff"])
def test_what_arrives_may_be_no_message(text: str) -> None:
    assert decode(text) is None


def test_a_message_is_read_and_written() -> None:
    assert decode('{"type": "é"}') == {"type": "é"}
    assert encode({"type": "é", "payload": [1]}) == '{"type":"é","payload":[1]}'


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ({"type": "pong", "timestamp": 1}, ("pong", None)),
        ({"type": "echo_response", "payload": {"a": 1}, "timestamp": 1}, ("echo_response", {"a": 1})),
        ({"type": "error", "payload": 1, "id": "7"}, ("error", {"payload": 1, "id": "7"})),
    ],
    ids=["bare", "payload", "with an id"],
)
def test_what_is_shown_of_a_message(message: dict[str, Any], shown: tuple[str, Any]) -> None:
    assert describe(message) == shown


def test_nothing_printed_can_steer_the_terminal() -> None:
    text = '{"a": "\x1b[2J\x7f\x9b31m\u0085é",\n "b": 1}'
    shown = printable(text)
    assert shown.isprintable()
    assert shown == '{"a": "\\u001b[2J\\u007f\\u009b31m\\u0085é",  "b": 1}'
    assert json.loads(shown) == {"a": "\x1b[2J\x7f\x9b31m\x85é", "b": 1}
