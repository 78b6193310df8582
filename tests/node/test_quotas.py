"""How much clients may send, and how many of them there may be."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from hubbub import Connection, Handshake, Hub, Limits, RequestError
from hubbub.core.arrival import Arrival
from hubbub.core.rates import Rate, Rates
from hubbub.node.quotas import network_of
from hubbub.node.throttle import ANSWERS, PATIENCE
from tests.fakes import SCOPE, ManualClock, RecordingTransport, make_hub, open_connection, say, tick

OFF = Rates(messages=None, bytes=None, subscribes=None, publishes=None, attempts=None)
SLOW = Rate(1, burst=5)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    return ManualClock.install(monkeypatch)


def rated(**rates: Any) -> Hub:
    """A hub with these rates and no others."""
    names = ("messages", "bytes", "subscribes", "publishes", "attempts")
    return make_hub(rates=Rates(**{**dict.fromkeys(names), **rates}))


def open_from(hub: Hub, address: str | None) -> tuple[Connection, RecordingTransport]:
    """Connect a client from an address."""
    transport = RecordingTransport()
    connection = transport.receiver = Connection(hub.node)
    connection.accept(transport, Handshake({**SCOPE, "client": address and (address, 1)}))
    return connection, transport


def errors(transport: RecordingTransport) -> list[dict[str, Any]]:
    return [message for message in transport.messages if message["type"] == "error"]


async def until_limited(hub: Hub, user: str | None = None, address: str = "192.0.2.1") -> int:
    """How many pings of a new connection are answered."""
    connection, transport = open_from(hub, address)
    if user is not None:
        connection.identify(user)
    while not errors(transport):
        say(connection, "ping")
    connection.close()
    await tick(3)
    return transport.types.count("pong")


# --- Messages --------------------------------------------------------------------------------------------------------


async def test_a_message_too_many_is_answered_with_when_to_come_back(clock: ManualClock) -> None:
    async with (hub := rated(messages=SLOW)).running():
        connection, transport = open_connection(hub)
        for number in range(6):
            say(connection, "echo", number, id=str(number))
        (error,) = errors(transport)
        assert error["id"] == "5"
        assert (error["payload"]["code"], error["payload"]["retryAfter"]) == ("rate_limited", 1000)
        assert transport.payloads("echo_response") == [0, 1, 2, 3, 4]
        clock.now += 1
        say(connection, "echo", 6)
        say(connection, "echo", 7)
        assert transport.payloads("echo_response") == [0, 1, 2, 3, 4, 6]
        assert (await hub.stats())["rateLimited"] == 2


async def test_what_is_refused_does_not_make_the_wait_longer(clock: ManualClock) -> None:
    async with (hub := rated(messages=SLOW)).running():
        connection, transport = open_connection(hub)
        for _ in range(50):
            say(connection, "ping")
        clock.now += 1
        say(connection, "ping")
        assert transport.types.count("pong") == 6


async def test_who_goes_on_gets_few_errors_and_is_closed_with_4005(caplog: pytest.LogCaptureFixture) -> None:
    async with (hub := rated(messages=SLOW)).running():
        for _ in range(3):
            connection, transport = open_connection(hub)
            for _ in range(5 + int(PATIENCE.most)):
                say(connection, "ping")
            assert not transport.closes
            say(connection, "ping")
            assert [code for code, _ in transport.closes] == [4005]
            assert len(errors(transport)) == ANSWERS.most
            await tick(2)
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


async def test_bytes_count_and_so_does_what_is_larger_than_any_burst(clock: ManualClock) -> None:
    async with (hub := rated(bytes=Rate(1000, burst=1600))).running():
        connection, transport = open_connection(hub)
        say(connection, "echo", "x" * 5000)
        say(connection, "echo", "y" * 200)
        assert (len(transport.payloads("echo_response")), len(errors(transport))) == (1, 1)
        clock.now += 6
        say(connection, "echo", "y")
        assert len(transport.payloads("echo_response")) == 2


async def test_binary_messages_pings_and_pongs_are_messages() -> None:
    async with (hub := rated(messages=Rate(1, burst=6))).running():
        heard: list[bytes] = []
        hub.on_binary(lambda conn, data: heard.append(data))
        connection, transport = open_connection(hub)
        for _ in range(2):
            connection.receive_binary(b"x")
            connection.receive_control()
        for _ in range(2):
            say(connection, "ping")
        connection.receive_binary(b"y")
        assert (heard, transport.types) == ([b"x", b"x"], ["pong", "pong", "error"])
        for _ in range(int(PATIENCE.most)):
            connection.receive_control()
        assert [code for code, _ in transport.closes] == [4005]


@pytest.mark.parametrize(
    ("user", "address", "most"),
    [("ann", "192.0.2.1", 40), (None, "192.0.2.1", 500), (None, "2001:db8::1", 500)],
    ids=["of a user", "of an address", "of a network"],
)
async def test_a_limit_holds_across_connections(user: str | None, address: str, most: int) -> None:
    async with (hub := rated(messages=Rate(0.001, burst=10))).running():
        passed = [await until_limited(hub, user, address) for _ in range(100)]
        assert (sum(passed), passed[0], passed[-1]) == (most, 10, 0)
        assert await until_limited(hub, "somebody else", "198.51.100.1") == 10


async def test_users_and_addresses_can_be_left_alone() -> None:
    async with (hub := rated(messages=Rate(0.001, burst=10), per_user=None, per_address=None)).running():
        assert {await until_limited(hub, "ann") for _ in range(60)} == {10}


async def test_what_was_on_credit_is_paid_for_by_the_next_connection() -> None:
    async with (hub := rated(messages=Rate(0.001, burst=160), per_user=1)).running():
        for _ in range(40):
            connection, _ = open_connection(hub, "ann")
            for _ in range(8):
                say(connection, "ping")
            connection.close()
            await tick(3)
        assert hub.node.dispatcher.throttle.refused == 40 * 8 - 160


# --- Types -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rates", "type", "payload"),
    [
        ({"subscribes": SLOW}, "subscribe", {"channel": "news"}),
        ({"publishes": SLOW}, "publish", {"channel": "news", "data": 1}),
        ({"publishes": SLOW}, "chat", {"recipientId": "ben", "message": "hi"}),
        ({"types": {"echo": SLOW}}, "echo", 1),
        ({"types": {"ping": SLOW}}, "ping", None),
    ],
    ids=["subscribes", "publishes", "chats", "a type", "an urgent type"],
)
async def test_some_types_have_a_rate_of_their_own(rates: dict[str, Any], type: str, payload: Any) -> None:
    async with (hub := rated(**rates)).running():
        connection, transport = open_connection(hub)
        for number in range(6):
            say(connection, type, payload, id=str(number))
        say(connection, "unheard_of", id="other")
        limited = [each["id"] for each in errors(transport) if each["payload"]["code"] == "rate_limited"]
        assert limited == ["5"]


async def test_a_user_has_the_rate_of_a_type_once() -> None:
    async with (hub := rated(types={"echo": SLOW})).running():
        one, first = open_connection(hub, "ann")
        other, second = open_connection(hub, "ann")
        for connection in (one, other, one, other, one, other):
            say(connection, "echo", 1)
        assert (len(errors(first)), len(errors(second))) == (0, 1)
        stranger, third = open_connection(hub)
        say(stranger, "echo", 1)
        assert third.types == ["echo_response"]


async def test_a_handler_may_say_so_itself() -> None:
    async with (hub := make_hub()).running():

        @hub.on("busy")
        def busy(conn: Connection) -> None:
            raise RequestError("rate_limited", "Later.", retry_after=1.5)

        connection, transport = open_connection(hub)
        say(connection, "busy")
        assert transport.payloads("error") == [{"code": "rate_limited", "message": "Later.", "retryAfter": 1500}]


async def test_the_defaults_let_people_work_and_stop_floods() -> None:
    async with (hub := make_hub(limits=Limits(connections_per_address=2000))).running():
        crowd = [open_connection(hub) for _ in range(2000)]
        for connection, transport in crowd:
            for channel in range(5):
                say(connection, "subscribe", {"channel": f"room:{channel}"})
            for number in range(10):
                say(connection, "echo", number)
            assert not errors(transport)
        await tick(50)
        assert hub.node.dispatcher.throttle.refused == 0
    async with (hub := make_hub()).running():
        connection, transport = open_connection(hub)
        for _ in range(500):
            say(connection, "echo", 1)
        assert not errors(transport)
        for _ in range(2000):
            say(connection, "echo", 1)
        assert [code for code, _ in transport.closes] == [4005]


async def test_nothing_is_kept_of_those_who_left(clock: ManualClock) -> None:
    async with (hub := make_hub()).running():
        for number in range(300):
            connection, _ = open_from(hub, f"198.51.100.{number}")
            connection.identify(f"user {number}")
            say(connection, "subscribe", {"channel": "news"})
            connection.close()
            await tick(2)
        clock.now += 60
        hub.node.beat(clock.now)
        throttle, quotas = hub.node.dispatcher.throttle, hub.node.entrance.quotas
        levels = [throttle._messages, throttle._bytes, *(each for every in throttle.types.values() for each in every)]
        kept = [buckets for each in levels for buckets in (each._own, each._users, each._networks)]
        assert not [buckets for buckets in (*kept, quotas._arrivals, quotas._sign_ins) if buckets]
        assert not quotas._by_network


# --- Connections -----------------------------------------------------------------------------------------------------


def arrival(address: str | None = "192.0.2.1") -> Arrival:
    return Arrival(host="localhost", address=address)


async def test_an_address_that_asks_too_often_gets_429(clock: ManualClock) -> None:
    async with (hub := rated(attempts=Rate(0.5, burst=3))).running():
        entrance = hub.node.entrance
        assert [entrance.check(arrival()) for _ in range(3)] == [None] * 3
        refusal = entrance.check(arrival())
        assert refusal is not None
        assert (refusal.status, refusal.headers) == (429, ((b"Retry-After", b"2"),))
        assert entrance.check(arrival("192.0.2.2")) is None
        assert entrance.check(arrival(None)) is None
        clock.now += 2
        assert entrance.check(arrival()) is None
        assert (await hub.stats())["refused"] == 1


async def test_caps_are_kept_before_the_upgrade_and_for_those_who_slip_through(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limits = Limits(connections=4, connections_per_address=2)
    async with (hub := make_hub(limits=limits, rates=OFF)).running():
        entrance = hub.node.entrance
        first = open_from(hub, "192.0.2.1")[0]
        open_from(hub, "192.0.2.1")
        refusal = entrance.check(arrival())
        assert refusal is not None
        assert (refusal.status, [name for name, _ in refusal.headers]) == (429, [b"Retry-After"])
        _, transport = open_from(hub, "192.0.2.1")
        assert [code for code, _ in transport.closes] == [4504]
        await tick(2)
        open_from(hub, None)
        open_from(hub, "192.0.2.2")
        refusal = entrance.check(arrival("192.0.2.3"))
        assert refusal is not None
        assert (refusal.status, [name for name, _ in refusal.headers]) == (503, [b"Retry-After"])
        _, transport = open_from(hub, "192.0.2.3")
        assert [code for code, _ in transport.closes] == [1013]
        first.close()
        await tick(2)
        assert entrance.check(arrival()) is None
        assert (await hub.stats())["refused"] == 4
    assert len(caplog.records) == 1


async def test_a_users_connection_too_many_is_closed_with_4504() -> None:
    async with (hub := make_hub(limits=Limits(connections_per_user=2))).running():
        kept = [open_connection(hub, "ann") for _ in range(2)]
        _, surplus = open_connection(hub, "ann")
        assert [code for code, _ in surplus.closes] == [4504]
        _, other = open_connection(hub, "ben")
        assert not any(transport.closes for transport in (other, *(each for _, each in kept)))
        kept[0][0].identify("ann")
        assert not kept[0][1].closes
        assert hub.local.user_connection_count("ann") == 2


@pytest.mark.parametrize("signed_in", ["before", "later"])
async def test_or_the_oldest_makes_room_with_4506(signed_in: str) -> None:
    async with (hub := make_hub(limits=Limits(connections_per_user=2), when_full="replace_oldest")).running():
        crowd = []
        for _ in range(4):
            transport = RecordingTransport()
            connection = transport.receiver = Connection(hub.node)
            if signed_in == "before":
                connection.identify("ann")
            connection.accept(transport, Handshake(SCOPE))
            connection.identify("ann")
            crowd.append(transport)
        assert [[code for code, _ in transport.closes] for transport in crowd] == [[4506], [4506], [], []]


async def test_a_user_who_comes_back_too_often_is_closed_with_4005() -> None:
    async with (hub := rated(attempts=Rate(0.001, burst=3))).running():
        closes = []
        for _ in range(4):
            connection, transport = open_connection(hub, "ann")
            connection.close()
            await tick(2)
            closes.append(transport.closes[0][0])
        assert closes == [1000, 1000, 1000, 4005]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("not:an:address", "not:an:address"),
        ("x" * 100, "x" * 64),
        ("", None),
        (None, None),
    ],
    ids=str,
)
def test_an_address_is_counted_as_its_network(address: str | None, network: str | None) -> None:
    assert network_of(address) == network
