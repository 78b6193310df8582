"""The app's functions that decide about channels: which one is asked, with what, and what its answers mean."""

from __future__ import annotations

import logging
from typing import Any, Literal
from uuid import UUID

import pytest

from hubbub import Hub
from hubbub.errors import ConfigError, RequestError
from hubbub.node.access import Access, Lease, Rule, Rules
from tests.fakes import open_connection

ANSWERS: dict[str, Any] = {"no": False, "none": None, "one": 1, "text": "yes", "list": []}


def take(access: Access, id: str) -> bool:
    """A rule that says yes."""
    return True


def access(hub: Hub, channel: str, user: str | None = None) -> Access:
    """Somebody who wants to subscribe."""
    return Access("subscribe", channel, open_connection(hub, user)[0])


@pytest.mark.parametrize(
    ("pattern", "channel", "parameters"),
    [
        ("doc:{id}", "doc:7", {"id": "7"}),
        ("doc:{id}", "xdoc:7", None),
        ("a.b:{id}", "a.b:7", {"id": "7"}),
        ("a.b:{id}", "axb:7", None),
        ("doc:v{id}!", "doc:v7!", {"id": "7"}),
    ],
)
def test_a_pattern_fits_whole_names(pattern: str, channel: str, parameters: dict[str, str] | None) -> None:
    rules = Rules()
    rules.add(pattern, take)
    assert rules.find(channel) == (None if parameters is None else (take, parameters))


@pytest.mark.parametrize("channel", ["doc", "doc:", "doc:7:draft", "doc::"])
def test_nobody_gets_past_the_patterns_of_a_namespace(channel: str) -> None:
    rules = Rules()
    rules.add("doc:{id}", take)
    with pytest.raises(RequestError, match="bad_channel"):
        rules.find(channel)


def test_the_first_that_fits_decides() -> None:
    rules = Rules()
    rules.add("doc:{id}", take)
    rules.add("doc:special", lambda access: False)
    assert rules.find("doc:special") == (take, {"id": "special"})


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int, "42", 42),
        (int, "x", None),
        (int, "4.5", None),
        (float, "0.5", 0.5),
        (UUID, "6ba7b810-9dad-11d1-80b4-00c04fd430c8", UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")),
        (UUID, "6ba7", None),
        (Literal["en", "de"], "de", "de"),
        (Literal["en", "de"], "fr", None),
    ],
)
def test_parameters_have_their_types(kind: Any, text: str, value: Any) -> None:
    def rule(access: Access, id: Any) -> bool:
        return True

    rule.__annotations__["id"] = kind
    rules = Rules()
    rules.add("doc:{id}", rule)
    if value is None:
        with pytest.raises(RequestError, match="bad_channel"):
            rules.find(f"doc:{text}")
    else:
        assert rules.find(f"doc:{text}") == (rule, {"id": value})


def test_a_function_that_takes_something_else() -> None:
    with pytest.raises(ConfigError, match=r"take must take \(access, name\)"):
        Rules().add("doc:{name}", take)


async def test_who_asks_for_what(hub: Hub) -> None:
    asked: list[Access] = []
    rules = Rules()

    def rule(access: Access, id: str) -> bool:
        asked.append(access)
        return True

    rules.add("doc:{id}", rule)
    await rules.ask(access(hub, "doc:1", "ann"))
    await rules.ask(access(hub, "doc:2"))
    assert [(each.action, each.channel, each.user_id) for each in asked] == [
        ("subscribe", "doc:1", "ann"),
        ("subscribe", "doc:2", None),
    ]


async def test_a_channel_without_a_rule_is_free(hub: Hub) -> None:
    assert await Rules().ask(access(hub, "doc:1")) is None


@pytest.mark.parametrize("plain", [True, False], ids=["def", "async def"])
@pytest.mark.parametrize("answer", [True, Lease(recheck=5)], ids=["yes", "lease"])
async def test_yes(hub: Hub, answer: bool | Lease, plain: bool) -> None:
    async def later(access: Access) -> bool | Lease:
        return answer

    rules = Rules()
    rules.add("doc", (lambda access: answer) if plain else later)
    assert await rules.ask(access(hub, "doc")) == (answer if isinstance(answer, Lease) else None)


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_everything_else_is_no(hub: Hub, answer: Any) -> None:
    rules = Rules()
    rules.add("doc", lambda access: answer)
    with pytest.raises(RequestError, match="forbidden"):
        await rules.ask(access(hub, "doc"))


async def test_what_it_raises(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    def raising(error: Exception) -> Rule:
        def rule(access: Access) -> bool:
            raise error

        return rule

    rules = Rules()
    rules.add("busy", raising(RequestError("busy", "Come back later.")))
    rules.add("broken", raising(KeyError("on purpose")))
    with pytest.raises(RequestError, match="busy"):
        await rules.ask(access(hub, "busy"))
    assert not caplog.records
    with caplog.at_level(logging.ERROR), pytest.raises(RequestError, match="forbidden"):
        await rules.ask(access(hub, "broken"))
    assert "on purpose" in caplog.text
