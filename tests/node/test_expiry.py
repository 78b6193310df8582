"""A10: a connection ends with its token, by a wall clock that may jump; a stranger ends in time."""

from __future__ import annotations

import time

import pytest

from hubbub import CloseCode, Hub, Identity, Timeouts
from hubbub.node.expiry import ROUND
from tests.fakes import RecordingTransport, open_connection

EXPIRED = [(CloseCode.TOKEN_EXPIRED, "the token has expired")]


@pytest.fixture
def wall() -> float:
    return time.time()


def signed_in(hub: Hub, end: float | None) -> RecordingTransport:
    connection, socket = open_connection(hub)
    connection.identify(Identity("ada", end))
    return socket


def pass_time(hub: Hub, start: float, seconds: float) -> None:
    """Beat as the node does, but faster."""
    steps = int(seconds / 0.25) + 1
    for step in range(steps + 1):
        hub.node.expiry.beat(1e6 + step * 0.25, start + step * seconds / steps)


async def test_it_is_closed_in_time_and_not_before(hub: Hub, wall: float) -> None:
    sockets = {end: signed_in(hub, wall + end) for end in (1, 29, 31, 3600)}
    passed = 0.0
    for end, socket in sockets.items():
        pass_time(hub, wall + passed, end - passed - 0.1)
        assert not socket.closes
        pass_time(hub, wall + end - 0.1, 0.6)
        assert socket.closes == EXPIRED
        passed = end + 0.5


async def test_without_an_end_it_stays(hub: Hub, wall: float) -> None:
    socket = signed_in(hub, None)
    anonymous = open_connection(hub)[1]
    pass_time(hub, wall, 1000)
    assert not socket.closes
    assert not anonymous.closes


async def test_a_refresh_moves_the_end(hub: Hub, wall: float) -> None:
    connection, socket = open_connection(hub)
    connection.identify(Identity("ada", wall + 10))
    connection.identify(Identity("ada", wall + 100))
    pass_time(hub, wall, 99)
    assert not socket.closes
    connection.identify(Identity("ada", wall + 101))
    pass_time(hub, wall + 99, 1.5)
    assert not socket.closes
    pass_time(hub, wall + 100.5, 1)
    assert socket.closes == EXPIRED


async def test_an_earlier_end_counts_too(hub: Hub, wall: float) -> None:
    connection, socket = open_connection(hub)
    connection.identify(Identity("ada", wall + 1000))
    connection.identify(Identity("ada", wall + 2))
    pass_time(hub, wall, 3)
    assert socket.closes == EXPIRED


async def test_signing_out_ends_the_watch(hub: Hub, wall: float) -> None:
    connection, socket = open_connection(hub)
    connection.identify(Identity("ada", wall + 2))
    connection.identify(None)
    pass_time(hub, wall, 10)
    assert not socket.closes


async def test_one_that_has_expired_already_is_closed_with_the_next_beat(hub: Hub, wall: float) -> None:
    hub.node.expiry.beat(1e6, wall)
    socket = signed_in(hub, wall - 100)
    hub.node.expiry.beat(1e6 + 1, wall + 0.5)
    assert socket.closes == EXPIRED


async def test_a_clock_that_is_set_forward_or_back(hub: Hub, wall: float) -> None:
    first, second, third = (signed_in(hub, wall + end) for end in (10, 5000, 9000))
    pass_time(hub, wall, 1)
    hub.node.expiry.beat(2e6, wall + 4000)
    assert first.closes == EXPIRED
    assert not second.closes
    hub.node.expiry.beat(2e6 + 1, wall - 4000)
    pass_time(hub, wall - 4000, 100)
    assert not second.closes
    pass_time(hub, wall + 4900, 101)
    assert second.closes == EXPIRED
    assert not third.closes


async def test_refreshing_again_and_again_costs_nothing(hub: Hub, wall: float) -> None:
    connection, _ = open_connection(hub)
    for end in range(1000):
        connection.identify(Identity("ada", wall + 1000 + end))
    expiry = hub.node.expiry
    assert sum(map(len, expiry._wheel._buckets.values())) == len(expiry._looks) == 1


async def test_connections_that_are_gone_are_soon_forgotten(hub: Hub, wall: float) -> None:
    for _ in range(10):
        connection, _ = open_connection(hub)
        connection.identify(Identity("ada", wall + 1e6))
        connection.lost(1006, "")
    pass_time(hub, wall, ROUND + 1)
    expiry = hub.node.expiry
    assert not expiry._looks
    assert not expiry._wheel._buckets


async def test_a1_a_stranger_has_its_seconds() -> None:
    async with Hub(require_auth=True, timeouts=Timeouts(shutdown=0.05)).running() as hub:
        stays, stranger = open_connection(hub)
        other, known = open_connection(hub)
        other.identify("ada")
        now = stays.heard
        hub.node.expiry.beat(now + 9.7, time.time())
        assert not stranger.closes
        hub.node.expiry.beat(now + 10.6, time.time())
        assert stranger.closes == [(CloseCode.AUTH_TIMEOUT, "nobody signed in")]
        assert not known.closes
        other.identify(None)
        hub.node.expiry.beat(now + 12, time.time())
        assert [code for code, _ in known.closes] == [CloseCode.AUTH_TIMEOUT]
