"""Who is in a channel, as subscribers, those who ask and the server see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any

import pytest

from hubbub import CloseCode, Connection, Hub, RequestError, Timeouts
from hubbub.core.recovery import Past
from hubbub.node.access import Access
from hubbub.node.presence import BEATS, COST, MOST_SHOWN, MOST_STATE, PORTION, Present
from tests.fakes import RecordingTransport, open_connection, say, tick

SOON = 6  # turns of the loop after which everything in memory is done
PUSHES = ("presence_leave", "presence_update", "presence_join")

Json = dict[str, Any]


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    """A hub with rooms, halls that remember, and others."""
    hub = Hub(timeouts=Timeouts(shutdown=0.05))
    hub.namespace("room", presence=True)
    hub.namespace("hall", presence=True, history=10)
    hub.namespace("hidden", presence="hidden")
    hub.namespace("ticker", presence=True, slow="latest_per_key")
    hub.namespace("lobby")
    async with hub.running():
        hub.node._timer.cancel()  # type: ignore[union-attr]  # the tests say when it beats
        yield hub


@pytest.fixture
def beats() -> Iterator[int]:
    """The beats of the tests' clock, later than any that the node has had."""
    return count(1 << 40)


async def beat(hub: Hub, beats: Iterator[int]) -> None:
    """Let a quarter of a second pass."""
    hub.node.beat(next(beats) / BEATS)
    await tick()
    while hub.node.presence._due or hub.node.presence._pushes:
        await tick()


async def join(hub: Hub, user: str | None, channel: str = "room:1") -> tuple[Connection, RecordingTransport]:
    """Connect and subscribe."""
    connection, transport = open_connection(hub, user)
    await ask(connection, transport, "subscribe", channel)
    return connection, transport


async def ask(connection: Connection, transport: RecordingTransport, type: str, channel: str, **more: Any) -> Json:
    """Send a request about a channel; the answer's payload, or the error's."""
    say(connection, type, {"channel": channel, **more}, id="ask")
    await tick(SOON)
    return dict([message for message in transport.messages if message.get("id") == "ask"][-1]["payload"])


def pushes(transport: RecordingTransport) -> list[tuple[str, list[Json], int]]:
    """What a client was told: the kind, the members, and how many there are."""
    return [
        (message["type"], message["payload"]["members"], message["payload"]["count"])
        for message in transport.messages
        if message["type"] in PUSHES
    ]


def member(user: str, connections: int = 1, **more: Any) -> Json:
    return {"userId": user, "connections": connections, **more}


@pytest.mark.parametrize("channel", ["room:1", "hall:1", "ticker:1"])
async def test_a_subscriber_is_shown_all_and_the_others_are_told(hub: Hub, beats: Iterator[int], channel: str) -> None:
    _, ann = await join(hub, "ann", channel)
    assert ann.payloads("subscribed")[0]["presence"] == {"members": [member("ann")], "count": 1}
    await beat(hub, beats)
    ann.forget()
    ben_connection, ben = await join(hub, "ben", channel)
    assert ben.payloads("subscribed")[0]["presence"] == {"members": [member("ann"), member("ben")], "count": 2}
    assert pushes(ann) == []
    await beat(hub, beats)
    assert pushes(ann) == [("presence_join", [member("ben")], 2)]
    ann.forget()
    await ask(ben_connection, ben, "unsubscribe", channel)
    await beat(hub, beats)
    assert pushes(ann) == [("presence_leave", [{"userId": "ben"}], 1)]
    assert hub.node.presence.count(channel) == 1


@pytest.mark.parametrize("channel", ["room:1", "hall:1"])
async def test_nothing_is_told_before_the_answer(hub: Hub, beats: Iterator[int], channel: str) -> None:
    await join(hub, "ann", channel)
    connection, transport = open_connection(hub, "ben")
    say(connection, "subscribe", {"channel": channel})
    for _ in range(SOON):
        await join(hub, None, channel)
        await beat(hub, beats)
    told = [type for type in transport.types if type != "authenticated"]
    assert told[0] == "subscribed"
    assert set(told[1:]) == {"presence_join"}


async def test_two_tabs_are_one_member_until_the_last_is_gone(hub: Hub, beats: Iterator[int]) -> None:
    _, watcher = await join(hub, None)
    first, _ = await join(hub, "ann")
    await beat(hub, beats)
    second, _ = await join(hub, "ann")
    await beat(hub, beats)
    first.lost(CloseCode.ABNORMAL, "")
    await beat(hub, beats)
    second.lost(CloseCode.ABNORMAL, "")
    second.lost(CloseCode.ABNORMAL, "")
    await beat(hub, beats)
    assert pushes(watcher)[1:] == [
        ("presence_update", [member("ann", 2)], 2),
        ("presence_update", [member("ann", 1)], 2),
        ("presence_leave", [{"userId": "ann"}], 1),
    ]


async def test_a_connection_that_dies_while_it_reads_the_past_leaves_once(
    hub: Hub, beats: Iterator[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, watcher = await join(hub, "ann", "hall:1")
    await beat(hub, beats)
    watcher.forget()
    monkeypatch.setattr(hub.node.subscriptions.replays, "_open", lambda *_: None)
    connection, transport = await join(hub, "ben", "hall:1")
    await join(hub, "cat", "hall:1")
    await beat(hub, beats)
    assert pushes(transport) == [("presence_join", [member("ben"), member("cat")], 3)]
    connection.lost(CloseCode.ABNORMAL, "")
    await beat(hub, beats)
    assert pushes(watcher)[-1] == ("presence_leave", [{"userId": "ben"}], 2)
    assert len(pushes(watcher)) == 2


async def test_who_unsubscribes_while_it_reads_the_past_is_gone(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.node.subscriptions.replays, "_open", lambda *_: None)
    connection, transport = await join(hub, "ben", "hall:1")
    assert hub.node.presence.count("hall:1") == 1
    await ask(connection, transport, "unsubscribe", "hall:1")
    assert hub.node.presence.count("hall:1") == 0


@pytest.fixture
def answered(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """When the broker answers what it is asked about the past."""
    event, past = asyncio.Event(), hub.node.broker.past

    async def wait(*args: Any, **options: Any) -> Past:
        await event.wait()
        return await past(*args, **options)

    monkeypatch.setattr(hub.node.broker, "past", wait)
    return event


async def test_who_dies_while_the_broker_is_asked_was_never_there(hub: Hub, answered: asyncio.Event) -> None:
    connection, _ = open_connection(hub, "ben")
    given = asyncio.create_task(hub.subscribe(connection, "hall:1"))
    await tick(SOON)
    connection.lost(CloseCode.ABNORMAL, "")
    answered.set()
    await given
    assert await hub.presence("hall:1") == []


async def test_who_waits_for_the_broker_is_told_nothing_yet(
    hub: Hub, beats: Iterator[int], answered: asyncio.Event
) -> None:
    connection, transport = open_connection(hub, "ben")
    say(connection, "subscribe", {"channel": "hall:1"})
    await tick(SOON)
    other, _ = open_connection(hub, "ann")
    other.subscribe("hall:1")
    hub.node.presence.beat(next(beats) / BEATS)  # the node's own beat would end the handler, which is overdue by then
    await tick()
    assert "presence_join" not in transport.types
    answered.set()
    await tick(SOON)
    assert transport.payloads("subscribed")[0]["presence"]["count"] == 2


@pytest.mark.parametrize("channel", ["room:1", "hall:1"])
async def test_who_comes_and_goes_in_one_beat_is_not_told(hub: Hub, beats: Iterator[int], channel: str) -> None:
    _, watcher = await join(hub, "ann", channel)
    await beat(hub, beats)
    watcher.forget()
    connection, transport = await join(hub, "ben", channel)
    await ask(connection, transport, "unsubscribe", channel)
    gone, _ = await join(hub, "cat", channel)
    gone.lost(CloseCode.ABNORMAL, "")
    await beat(hub, beats)
    assert pushes(watcher) == []


async def test_who_was_shown_somebody_is_told_of_the_end(hub: Hub, beats: Iterator[int]) -> None:
    ann, _ = await join(hub, "ann")
    _, ben = await join(hub, "ben")
    ann.close()
    await beat(hub, beats)
    assert pushes(ben) == [("presence_leave", [{"userId": "ann"}], 1), ("presence_join", [member("ben")], 1)]


async def test_who_was_shown_itself_is_told_what_became_of_it(hub: Hub, beats: Iterator[int]) -> None:
    await join(hub, "ann")
    await beat(hub, beats)
    connection, guest = await join(hub, None)
    connection.identify("ann")
    await beat(hub, beats)
    left = ("presence_leave", [{"connectionId": connection.id}], 1)
    assert pushes(guest) == [left, ("presence_update", [member("ann", 2)], 1)]


async def test_a_tab_that_was_counted_and_closed_in_one_beat_is_told(hub: Hub, beats: Iterator[int]) -> None:
    first, _ = await join(hub, "ann")
    await beat(hub, beats)
    _, second = await join(hub, "ann")  # is shown two tabs
    first.close()
    await beat(hub, beats)
    assert pushes(second) == [("presence_update", [member("ann")], 1)]


async def test_who_asked_of_somebody_is_told_of_the_end(hub: Hub, beats: Iterator[int]) -> None:
    connection, ben = await join(hub, "ben")
    await beat(hub, beats)
    ann, _ = open_connection(hub, "ann")
    ann.subscribe("room:1")
    assert (await ask(connection, ben, "presence", "room:1"))["count"] == 2
    ann.unsubscribe("room:1")
    await beat(hub, beats)
    assert pushes(ben)[1:] == [("presence_leave", [{"userId": "ann"}], 1)]


@pytest.mark.parametrize("channel", ["room:1", "ticker:1"])
async def test_pushes_and_publications_come_in_order(hub: Hub, beats: Iterator[int], channel: str) -> None:
    _, transport = await join(hub, "ann", channel)
    transport.forget()
    await hub.publish(channel, "before", 1)
    hub.node.beat(next(beats) / BEATS)
    await hub.publish(channel, "after", 2)
    await tick()
    assert transport.types == ["message", "presence_join", "message"]


async def test_one_beat_is_one_push_of_each_kind(hub: Hub, beats: Iterator[int]) -> None:
    _, watcher = await join(hub, None)
    ann, _ = await join(hub, "ann")
    await beat(hub, beats)
    watcher.forget()
    ann.close()
    for number in range(5):
        await join(hub, f"user {number}")
    passing, _ = open_connection(hub, "passing")
    passing.subscribe("room:1")
    passing.unsubscribe("room:1")
    now = next(beats) / BEATS
    hub.node.beat(now)
    await join(hub, "next")
    for moment in (now + 0.01, now + 0.2):
        hub.node.beat(moment)
    await tick()
    joined = [member(f"user {number}") for number in range(5)]
    assert pushes(watcher) == [("presence_leave", [{"userId": "ann"}], 6), ("presence_join", joined, 6)]


async def test_a_storm_is_pushed_in_part_and_counted_in_full(hub: Hub, beats: Iterator[int]) -> None:
    _, watcher = await join(hub, "ann")
    await beat(hub, beats)
    watcher.forget()
    crowd = [open_connection(hub)[0] for _ in range(3 * MOST_SHOWN)]
    for connection in crowd:
        await hub.subscribe(connection, "room:1")
    _, late = await join(hub, "late")
    shown = late.payloads("subscribed")[0]["presence"]
    assert (len(shown["members"]), shown["count"]) == (MOST_SHOWN, len(crowd) + 2)
    await beat(hub, beats)
    ((kind, members, number),) = pushes(watcher)
    assert (kind, len(members), number) == ("presence_join", MOST_SHOWN, len(crowd) + 2)
    for connection in crowd:
        connection.close()
    await beat(hub, beats)
    assert pushes(watcher)[-1][2] == 2
    assert [each.user_id for each in await hub.presence("room:1")] == ["ann", "late"]


async def test_many_channels_are_told_a_few_at_a_time(hub: Hub, beats: Iterator[int]) -> None:
    each = PORTION // (COST + 1)  # with one subscriber
    transports = [(await join(hub, "ann", f"room:{number}"))[1] for number in range(2 * each + 5)]
    hub.node.beat(next(beats) / BEATS)
    hub.node.beat(next(beats) / BEATS)
    waiting = [len(hub.node.presence._due)]
    while hub.node.presence._due:
        await tick()
        waiting.append(len(hub.node.presence._due))
    await tick()
    assert waiting == [each + 4, 3, 0]
    assert all(len(pushes(transport)) == 1 for transport in transports)


async def test_many_subscribers_are_told_in_portions(hub: Hub, beats: Iterator[int]) -> None:
    crowd = [await join(hub, f"user-{number}") for number in range(2 * PORTION + 5)]
    await beat(hub, beats)
    for _, transport in crowd:
        transport.forget()
    await join(hub, "late")
    hub.node.beat(next(beats) / BEATS)
    told = [sum(bool(pushes(transport)) for _, transport in crowd)]
    crowd[-1][0].unsubscribe("room:1")
    while hub.node.presence._pushes:
        await tick()
        told.append(sum(bool(pushes(transport)) for _, transport in crowd))
    assert told[0] < PORTION < told[1] <= 2 * PORTION
    assert sum(bool(pushes(transport)) for _, transport in crowd) == len(crowd) - 1
    assert pushes(crowd[-1][1]) == []  # it has left
    assert {kind for _, transport in crowd for kind, _, _ in pushes(transport)} == {"presence_join"}
    await beat(hub, beats)
    assert [kind for kind, _, _ in pushes(crowd[0][1])] == ["presence_join", "presence_leave"]


# What a member says of itself


async def test_a_state_is_part_of_the_member(hub: Hub, beats: Iterator[int]) -> None:
    _, watcher = await join(hub, None)
    connection, transport = await join(hub, "ann")
    await beat(hub, beats)
    watcher.forget()
    answer = await ask(connection, transport, "presence", "room:1", state={"typing": True})
    assert answer == {"channel": "room:1", "state": {"typing": True}}
    await beat(hub, beats)
    await ask(connection, transport, "presence", "room:1", state=None)
    await beat(hub, beats)
    await ask(connection, transport, "presence", "room:1", state=1)
    await ask(connection, transport, "presence", "room:1", state=None)
    await beat(hub, beats)
    assert pushes(watcher) == [
        ("presence_update", [member("ann", state={"typing": True})], 2),
        ("presence_update", [member("ann")], 2),
    ]


async def test_a_state_goes_with_its_connection_and_its_user(hub: Hub) -> None:
    first, transport = await join(hub, "ann")
    second, _ = await join(hub, "ann")
    await ask(first, transport, "presence", "room:1", state="away")
    ids = (first.id, second.id)
    assert await hub.presence("room:1") == [Present("ann", ids, "away")]
    first.identify("ben")
    assert await hub.presence("room:1") == [Present("ann", ids[1:]), Present("ben", ids[:1])]
    second.identify(None)
    assert [each.user_id for each in await hub.presence("room:1")] == ["ben", None]


@pytest.mark.parametrize(
    ("channel", "more", "code"),
    [
        pytest.param("room:1", {"state": "x" * MOST_STATE}, "invalid_payload", id="a state too big"),
        pytest.param("room:2", {"state": 1}, "forbidden", id="a state where it is not subscribed"),
        pytest.param("lobby", {}, "forbidden", id="a channel without presence"),
        pytest.param("lobby", {"state": 1}, "forbidden", id="a state there"),
        pytest.param("nowhere:1", {}, "bad_channel", id="no such channel"),
        pytest.param("room:*", {}, "bad_channel", id="a pattern"),
        pytest.param("room:1", {"limit": 0}, "invalid_payload", id="no members"),
        pytest.param("room:1", {"limit": 100_000}, "invalid_payload", id="too many members"),
    ],
)
async def test_what_cannot_be_is_refused(hub: Hub, channel: str, more: Json, code: str) -> None:
    connection, transport = await join(hub, "ann")
    assert (await ask(connection, transport, "presence", channel, **more))["code"] == code


# Asking


async def test_whoever_may_asks_for_the_list_or_the_count(hub: Hub) -> None:
    await join(hub, "ann")
    await join(hub, "ben")
    connection, transport = open_connection(hub)
    whole = {"channel": "room:1", "members": [member("ann"), member("ben")], "count": 2}
    assert await ask(connection, transport, "presence", "room:1") == whole
    assert await ask(connection, transport, "presence", "room:1", count=True) == {"channel": "room:1", "count": 2}
    part = await ask(connection, transport, "presence", "room:1", limit=1)
    assert part == whole | {"members": [member("ann")]}
    assert await ask(connection, transport, "presence", "room:2") == {"channel": "room:2", "members": [], "count": 0}


async def test_hidden_presence_is_only_for_who_asks(hub: Hub, beats: Iterator[int]) -> None:
    ann_connection, ann = await join(hub, "ann", "hidden:1")
    await join(hub, "ben", "hidden:1")
    await beat(hub, beats)
    assert ann.payloads("subscribed") == [{"channel": "hidden:1"}]
    assert pushes(ann) == []
    assert hub.node.presence._blind == {}
    assert (await ask(ann_connection, ann, "presence", "hidden:1"))["count"] == 2
    assert [each.user_id for each in await hub.presence("hidden:1")] == ["ann", "ben"]
    assert hub.node.presence.leases.rosters.get("hidden:1").settled


async def test_a_channel_without_presence_says_nothing(hub: Hub, beats: Iterator[int]) -> None:
    _, transport = await join(hub, "ann", "lobby")
    await beat(hub, beats)
    assert transport.payloads("subscribed") == [{"channel": "lobby"}]
    assert pushes(transport) == []
    with pytest.raises(RequestError, match="keeps no presence"):
        await hub.presence("lobby")


async def test_the_server_is_told_no_channel_that_is_none(hub: Hub) -> None:
    with pytest.raises(RequestError, match="no channels of this kind"):
        await hub.presence("nowhere:1")


# Who may see it


@pytest.mark.parametrize("channel", ["room:1", "hall:1"])
async def test_one_door_for_the_list_the_pushes_and_the_question(hub: Hub, beats: Iterator[int], channel: str) -> None:
    curious = {"ben": False}

    @hub.channel(channel)
    def rule(access: Access) -> bool:
        return access.action != "presence" or curious.get(access.user_id or "", True)

    ben_connection, ben = await join(hub, "ben", channel)
    _, ann = await join(hub, "ann", channel)
    await beat(hub, beats)
    await join(hub, "cat", channel)
    await beat(hub, beats)
    assert "presence" not in ben.payloads("subscribed")[0]
    assert pushes(ben) == []
    assert pushes(ann)[-1] == ("presence_join", [member("cat")], 3)
    assert (await ask(ben_connection, ben, "presence", channel))["code"] == "forbidden"

    curious["ben"] = True
    await hub.recheck(channel=channel)
    assert [len(each["members"]) for each in ben.payloads("presence")] == [3]
    await join(hub, "dan", channel)
    await beat(hub, beats)
    assert pushes(ben) == [("presence_join", [member("dan")], 4)]

    curious["ben"] = False
    await hub.recheck(user_id="ben")
    await join(hub, "eve", channel)
    await beat(hub, beats)
    assert len(pushes(ben)) == 1
    ben_connection.close()
    assert hub.node.presence._blind == {}


async def test_who_may_not_see_is_told_nothing_while_it_reads_the_past(
    hub: Hub, beats: Iterator[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.channel("hall:{number}")(lambda access, number: access.action != "presence")
    monkeypatch.setattr(hub.node.subscriptions.replays, "_open", lambda *_: None)
    _, transport = await join(hub, "ann", "hall:1")
    await join(hub, "ben", "hall:1")
    await beat(hub, beats)
    assert pushes(transport) == []


async def test_who_goes_while_the_app_is_asked_is_forgotten(hub: Hub) -> None:
    @hub.channel("room:1")
    def rule(access: Access) -> bool:
        if access.action == "presence" and access.user_id == "ben":
            access.connection.unsubscribe("room:1")
        return access.action != "presence"

    connection, _ = await join(hub, "ben")
    await hub.recheck(channel="room:1")
    assert not connection.channels
    assert hub.node.presence._blind == {}


async def test_a_users_own_channel_is_nobody_elses(hub: Hub) -> None:
    hub.namespace("me", presence=True, personal=True)
    connection, transport = open_connection(hub, "ann")
    await tick(SOON)
    assert transport.payloads("subscribed")[0]["presence"] == {"members": [member("ann")], "count": 1}
    assert (await ask(connection, transport, "presence", "me:ben"))["code"] == "forbidden"


# Clients that do not keep up


@pytest.mark.parametrize("channel", ["room:1", "ticker:1"])
async def test_what_waits_for_a_slow_client_is_not_dropped(hub: Hub, beats: Iterator[int], channel: str) -> None:
    _, slow = await join(hub, "ann", channel)
    await beat(hub, beats)
    slow.forget()
    slow.pause()
    for user in ("ben", "cat"):
        await join(hub, user, channel)
        await beat(hub, beats)
    slow.take()
    assert [members[0]["userId"] for _, members, _ in pushes(slow)] == ["ben", "cat"]


@pytest.mark.parametrize("channel", ["room:1", "hall:1"])
async def test_who_overflows_when_it_joins_is_not_there(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, channel: str
) -> None:
    connection, _ = open_connection(hub, "ann")
    seen = []

    def overflow(outbox: Any) -> None:
        if hub.node.presence.count(channel):
            seen.append(outbox.connection)
            monkeypatch.undo()
            outbox.connection.close(CloseCode.SLOW_CONSUMER, "read too slowly")

    monkeypatch.setattr(hub.node.delivery, "drain", overflow)
    await hub.subscribe(connection, channel)
    await tick(SOON)
    assert seen == [connection]
    assert not connection.is_open
    assert await hub.presence(channel) == []


@pytest.mark.parametrize("channel", ["room:1", "hall:1"])
async def test_who_overflows_when_it_signs_in_is_gone(
    hub: Hub, beats: Iterator[int], monkeypatch: pytest.MonkeyPatch, channel: str
) -> None:
    connection, _ = await join(hub, "ann", channel)
    other, told = await join(hub, "ben", channel)
    await beat(hub, beats)
    told.forget()

    def overflow(outbox: Any) -> None:
        monkeypatch.undo()
        connection.close(CloseCode.SLOW_CONSUMER, "read too slowly")

    monkeypatch.setattr(hub.node.inbox, "join", overflow)
    connection.identify("cat")
    assert not connection.is_open
    await beat(hub, beats)
    assert pushes(told) == [("presence_leave", [{"userId": "ann"}], 1)]
    assert await hub.presence(channel) == [Present("ben", (other.id,))]


async def test_of_a_few_subscribers_that_are_quiet_nothing_is_kept(hub: Hub, beats: Iterator[int]) -> None:
    clients = [await join(hub, user, channel) for user in ("ann", None) for channel in ("room:1", "hall:2")]
    await beat(hub, beats)
    presence = hub.node.presence
    assert (len(presence.leases.rosters), presence.here._noted) == (0, {})
    for (connection, transport), state in zip(clients, (1, 2, None, None), strict=True):
        await ask(connection, transport, "presence", connection.channels[0], state=state)
    await beat(hub, beats)
    assert len(presence.leases.rosters) == 0
    assert [present.state for present in await hub.presence("room:1")] == [1, None]
    assert presence.leases.snapshot().channels.keys() == {"room:1", "hall:2"}


async def test_nothing_is_left_of_those_who_left(hub: Hub, beats: Iterator[int]) -> None:
    connections = [(await join(hub, user, channel))[0] for user in ("ann", None) for channel in ("room:1", "hall:2")]
    await beat(hub, beats)
    for connection in connections:
        connection.close()
    await beat(hub, beats)
    presence = hub.node.presence
    assert len(presence.leases.rosters) == 0
    assert presence.leases.snapshot().channels == {}
    assert not presence._due
