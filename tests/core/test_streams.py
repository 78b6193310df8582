"""What a stream has said, and what is told of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hubbub.core.streams import Aggregate, StreamMessage
from hubbub.errors import UsageError


def plain(messages: list[StreamMessage]) -> list[dict[str, Any]]:
    """Messages as they are on the wire, without where they come from."""
    found = [msgspec.json.decode(msgspec.json.encode(message)) for message in messages]
    assert all((each.pop("channel"), each.pop("id")) == ("run:1", "a") for each in found)
    return found


def aggregate(limit: int = 1000) -> Aggregate:
    return Aggregate("run:1", "a", limit)


def test_what_was_said_since_is_told_as_one() -> None:
    said = aggregate()
    for word in ("to ", "be ", "or"):
        said.append(word)
        said.update(b"%d" % len(word))
    assert plain(said.take()) == [
        {"event": "append", "position": 1, "text": "to be or"},
        {"event": "update", "position": 2, "data": 2},
    ]
    assert said.take() == []


def test_who_comes_late_is_told_the_whole() -> None:
    said = aggregate()
    assert plain(said.whole()) == [{"event": "start", "position": 0}]
    for word in ("to ", "be "):
        said.append(word)
        said.take()
    assert plain(said.whole()) == [{"event": "start", "position": 2, "text": "to be "}]
    said.update(b"[3]")
    said.take()
    assert plain(said.whole()) == [{"event": "start", "position": 3, "text": "to be ", "data": [3]}]


def test_the_end_tells_what_was_not_told_yet() -> None:
    said = aggregate()
    said.append("bye")
    assert plain(said.finish("end", "done")) == [
        {"event": "append", "position": 1, "text": "bye"},
        {"event": "end", "position": 2, "reason": "done"},
    ]
    assert plain(said.whole()) == [
        {"event": "start", "position": 1, "text": "bye"},
        {"event": "end", "position": 2, "reason": "done"},
    ]


def test_an_error_has_no_reason() -> None:
    assert plain(aggregate().finish("error")) == [{"event": "error", "position": 1}]


def test_empty_text_is_nothing() -> None:
    said = aggregate()
    said.append("")
    assert said.take() == []


@pytest.mark.parametrize(
    ("text", "size"),
    [("abc", 3), ("äöü", 6), ("\n\n", 4), ("\x00", 6), ("🙂", 4)],
    ids=["ascii", "umlauts", "escapes", "control", "emoji"],
)
def test_the_limit_counts_bytes_of_json(text: str, size: int) -> None:
    aggregate(size).append(text)
    with pytest.raises(UsageError, match=f"'run:1' would have more than {size - 1} bytes"):
        aggregate(size - 1).append(text)


def test_what_is_too_much_is_not_said() -> None:
    said = aggregate(10)
    said.append("12345")
    said.update(b"12345")
    with pytest.raises(UsageError):
        said.append("6")
    with pytest.raises(UsageError):
        said.update(b"123456")
    said.update(b"1")
    said.append("6789")
    assert [message.get("text", message.get("data")) for message in plain(said.take())] == ["123456789", 1]
