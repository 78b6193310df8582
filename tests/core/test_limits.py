from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from hubbub.core.limits import FrameLimits, Limits, Timeouts
from hubbub.errors import ConfigError

GROUPS = [FrameLimits, Limits, Timeouts]
FIELDS = [(group, field.name) for group in GROUPS for field in fields(group)]


def test_the_defaults_are_those_of_the_design() -> None:
    limits, times = Limits(), Timeouts()
    assert (limits.message_size, limits.parts, limits.depth) == (64 * 1024, 1024, 32)
    assert (limits.send_queue, limits.channel_name, limits.channels) == (1024 * 1024, 255, 128)
    assert (times.ping, times.pong, times.handler, times.shutdown) == (30, 10, 30, 10)


@pytest.mark.parametrize(("group", "name"), FIELDS)
def test_every_bound_is_finite(group: Any, name: str) -> None:
    assert 0 < getattr(group(), name) < 1e9


@pytest.mark.parametrize(("group", "name"), FIELDS)
def test_zero_is_refused_by_the_name_of_the_bound(group: Any, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{group.__name__}\.{name} is 0: give a number above 0"):
        group(**{name: 0})


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "64k", None], ids=repr)
def test_what_is_no_bound_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"Timeouts\.pong is {value!r}: give a number above 0"):
        Timeouts(pong=value)


@pytest.mark.parametrize("group", GROUPS)
def test_bounds_do_not_change(group: Any) -> None:
    limits = group()
    with pytest.raises(FrozenInstanceError):
        setattr(limits, fields(group)[0].name, 5)


def test_the_frame_parser_gets_its_part() -> None:
    assert Limits(message_size=10, parts=3).frames == FrameLimits(10, 3)
