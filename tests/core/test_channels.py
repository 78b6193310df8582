from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubbub.core.channels import FEW, Channel, Channels, check_name
from hubbub.errors import RequestError


class Member:
    def __init__(self) -> None:
        self.channels: tuple[Channel[Any], ...] = ()


def members(channels: Channels[Any], name: str) -> list[Any]:
    channel = channels.get(name)
    return [] if channel is None else list(channel.members)


def test_both_sides_know() -> None:
    channels, ann, bob = Channels[Member](), Member(), Member()
    assert channels.subscribe(ann, "news")
    assert channels.subscribe(bob, "news")
    assert channels.subscribe(ann, "sport")
    assert members(channels, "news") == [ann, bob]
    assert [channel.name for channel in ann.channels] == ["news", "sport"]
    assert len(channels) == 2


def test_twice_is_once() -> None:
    channels, ann = Channels[Member](), Member()
    assert channels.subscribe(ann, "news")
    assert not channels.subscribe(ann, "news")
    assert len(ann.channels) == 1
    assert channels.unsubscribe(ann, "news")
    assert not channels.unsubscribe(ann, "news")


def test_a_channel_without_members_does_not_exist() -> None:
    channels, ann = Channels[Member](), Member()
    assert channels.get("news") is None
    assert not channels.unsubscribe(ann, "news")
    channels.subscribe(ann, "news")
    channels.unsubscribe(ann, "news")
    assert channels.get("news") is None
    assert len(channels) == 0
    assert ann.channels == ()


def test_to_leave_a_channel_one_is_not_in_changes_nothing() -> None:
    channels, ann, bob = Channels[Member](), Member(), Member()
    channels.subscribe(ann, "news")
    assert not channels.unsubscribe(bob, "news")
    assert members(channels, "news") == [ann]


def test_a_few_and_many_are_kept_in_the_order_in_which_they_came() -> None:
    channels, crowd = Channels[Member](), [Member() for _ in range(3 * FEW)]
    for count, member in enumerate(crowd, 1):
        assert channels.subscribe(member, "news")
        assert not channels.subscribe(member, "news")
        assert members(channels, "news") == crowd[:count]
    while len(crowd) > 1:
        assert channels.unsubscribe(crowd.pop(1), "news")
        assert members(channels, "news") == crowd
    assert channels.leave_all(crowd[0]) == ["news"]
    assert len(channels) == 0


def test_leave_all_says_which_they_were() -> None:
    channels, ann, bob = Channels[Member](), Member(), Member()
    channels.subscribe(bob, "news")
    for name in ("sport", "news"):
        channels.subscribe(ann, name)
    assert channels.leave_all(ann) == ["sport", "news"]
    assert channels.leave_all(ann) == []
    assert members(channels, "news") == [bob]
    assert len(channels) == 1


STEPS = st.tuples(st.sampled_from(["subscribe", "unsubscribe", "leave_all"]), st.integers(0, 2), st.sampled_from("abc"))


@given(st.lists(STEPS))
def test_both_sides_agree(steps: list[tuple[str, int, str]]) -> None:
    channels, people = Channels[Member](), [Member() for _ in range(3)]
    model: dict[str, dict[Member, None]] = {}
    for step, number, name in steps:
        member = people[number]
        if step == "subscribe":
            assert channels.subscribe(member, name) == (member not in model.get(name, ()))
            model.setdefault(name, {})[member] = None
        elif step == "unsubscribe":
            assert channels.unsubscribe(member, name) == (member in model.get(name, ()))
            model.get(name, {}).pop(member, None)
        else:
            channels.leave_all(member)
            for inside in model.values():
                inside.pop(member, None)
        for each in "abc":
            assert members(channels, each) == list(model.get(each, ()))
            assert len(channels) == sum(map(bool, model.values()))
        assert all({c.name for c in m.channels} == {n for n, inside in model.items() if m in inside} for m in people)


@pytest.mark.parametrize(
    "name",
    ["a", "order:17", "room/1.2-3_4", "with space", "grün", "日本語", "🙂", "x" * 255, "é" * 127, "~"],
    ids=ascii,
)
def test_a_name_that_is_fit_to_use(name: str) -> None:
    assert check_name(name, 255) is name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("", "1 to 255 bytes", id="empty"),
        pytest.param("x" * 256, "1 to 255 bytes", id="too long"),
        pytest.param("é" * 128, "1 to 255 bytes", id="too long in bytes"),
        pytest.param("a*", "`*`", id="star"),
        pytest.param("a.>", "`>`", id="greater than"),
        pytest.param("ü>", "`>`", id="greater than, not ASCII"),
        pytest.param("a\nb", "control", id="newline"),
        pytest.param("a\0", "control", id="NUL"),
        pytest.param("a\x7f", "control", id="DEL"),
        pytest.param("a\x85b", "control", id="C1 control"),
        pytest.param("pay\u202epal", "control", id="right-to-left override"),
        pytest.param("a\u200bb", "control", id="zero width space"),
        pytest.param("a\ud800", "control", id="lone surrogate"),
        pytest.param("e\u0301", "NFC", id="two letters that make one"),
        pytest.param("\u212b", "NFC", id="Angstrom sign"),
    ],
)
def test_a_name_that_is_not(name: str, reason: str) -> None:
    with pytest.raises(RequestError, match=reason) as caught:
        check_name(name, 255)
    assert (caught.value.code, caught.value.field) == ("bad_channel", "channel")


@given(st.text(st.characters(), max_size=20))
def test_what_is_wrong_with_a_name_is_said_without_repeating_it(name: str) -> None:
    marked = f"s3cret{name}\0"
    with pytest.raises(RequestError) as caught:
        check_name(marked, 255)
    assert "s3cret" not in str(caught.value)
