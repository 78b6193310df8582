"""The app's functions that decide about channels: which one is asked, with what, and what its answers mean."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any, Literal
from uuid import UUID

import pytest

from hubbub import Hub
from hubbub.errors import ConfigError, RequestError, UsageError
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


async def test_a_rule_for_channels_that_there_are_not_stops_the_start() -> None:
    hub = Hub()
    hub.namespace("room")
    hub.channel("rooms:{id}")(lambda access, id: False)  # so room:7 would be open to all
    with pytest.raises(ConfigError, match=r"'rooms', and there is no hub\.namespace"):
        hub.start()


@pytest.mark.parametrize("pattern", ["room:*", "", "room:>"])
def test_a_pattern_that_fits_no_channel_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="fits no channel"):
        Hub().channel(pattern)(lambda access: True)


@pytest.mark.parametrize("name", ["on", "channel", "listen"])
def test_a_decorator_without_its_text_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=rf"as in @hub\.{name}\(.* is a text, and this is of type function"):
        getattr(Hub(), name)(lambda conn: None)


def test_a_listener_is_a_plain_function_of_two() -> None:
    async def coroutine(channel: str, data: object) -> None:
        raise AssertionError

    with pytest.raises(ConfigError, match="is `async def`"):
        Hub().listen("room:*")(coroutine)
    with pytest.raises(ConfigError, match=r"must take \(channel, data\)"):
        Hub().listen("room:*")(lambda data: None)


Act = Callable[[Hub], Coroutine[Any, Any, Any]]
NOWHERE: dict[str, Act] = {
    "recheck": lambda hub: hub.recheck(channel="rooom:1"),
    "purge": lambda hub: hub.purge("rooom:1"),
    "subscribe nobody": lambda hub: hub.subscribe("ann", "rooom:1"),
    "presence that is not kept": lambda hub: hub.presence("room:1"),
}


@pytest.mark.parametrize("act", NOWHERE.values(), ids=NOWHERE)
async def test_what_is_done_to_no_channel_is_refused(act: Act) -> None:
    hub = Hub()
    hub.namespace("room")
    async with hub.running():
        with pytest.raises(RequestError, match="bad_channel"):
            await act(hub)
        with pytest.raises(UsageError, match="Recheck either"):
            await hub.recheck()
