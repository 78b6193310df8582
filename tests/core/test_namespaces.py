"""What kinds of channels there are, and which kind a channel is."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.core.namespaces import Namespace, NamespaceOptions, Namespaces
from hubbub.errors import ConfigError, RequestError

SIZE = 255


def declared(*names: str, **options: Any) -> Namespaces:
    """Namespaces of these names."""
    namespaces = Namespaces()
    for name in names:
        namespaces.declare(Namespace(name, **options))
    return namespaces


@pytest.mark.parametrize(
    ("channel", "name"),
    [("room:42", "room"), ("room", "room"), ("room:a:b", "room"), ("room:", "room"), ("rooms", "*"), (":42", "*")],
)
def test_a_channel_belongs_to_what_stands_before_its_colon(channel: str, name: str) -> None:
    assert declared("*", "room").find(channel, SIZE).name == name


@pytest.mark.parametrize(
    "channel", ["rooms", ":42", "", "room*", "room:>", "room:\n", "room:e\u0301", "room:" + "x" * 251]
)
def test_others_are_refused(channel: str) -> None:
    with pytest.raises(RequestError, match="bad_channel"):
        declared("room").find(channel, SIZE)


@given(st.text(max_size=300))
def test_any_text_is_found_or_refused(channel: str) -> None:
    try:
        name = declared("room").find(channel, SIZE).name
    except RequestError:
        return
    assert name == channel.partition(":")[0]


def test_a_name_is_declared_once() -> None:
    with pytest.raises(ConfigError, match="twice"):
        declared("room", "room")


def test_those_that_are_users_own() -> None:
    namespaces = declared("room")
    namespaces.declare(mine := Namespace("user", personal=True))
    assert namespaces.personal() == [mine]
    assert [namespace.name for namespace in namespaces] == ["room", "user"]


@pytest.mark.parametrize("name", ["", "a:b", "a b", "raum-ü", "**", "a.b"])
def test_names_are_plain(name: str) -> None:
    with pytest.raises(ConfigError, match="named by"):
        Namespace(name)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"history": -1}, "above 0"),
        ({"history_ttl": 0}, "above 0"),
        ({"max_subscribers": 0}, "above 0"),
        ({"publish": "nobody"}, "publish is one of"),
        ({"slow": "later"}, "slow one of"),
        ({"presence": "shown"}, "presence is"),
        ({"latest": True}, "need a history"),
        ({"durable": True}, "need a history"),
        ({"archive": True}, "need a history"),
        ({"archive": True, "history": 1, "durable": False}, "archive=True is durable"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_options_that_cannot_be(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Namespace("room", **options)


@pytest.mark.parametrize(
    ("options", "chosen", "outlives"),
    [
        ({}, True, False),
        ({"history": 1}, True, True),
        ({"history": 1}, False, False),
        ({"history": 1, "durable": True}, False, True),
        ({"history": 1, "durable": False}, True, False),
        ({"history": 1, "archive": True}, False, True),
    ],
    ids=["no history", "database", "no database", "durable", "not durable", "archive"],
)
def test_whose_history_outlives_the_process(options: dict[str, Any], chosen: bool, outlives: bool) -> None:
    assert Namespace("room", **options).outlives(chosen) is outlives


def test_the_options_are_the_fields() -> None:
    fields = get_type_hints(Namespace)
    del fields["name"]
    assert get_type_hints(NamespaceOptions) == fields
