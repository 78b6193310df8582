"""Channels with namespaces, rules, a past, and clients that come back to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hubbub import Hub, RequestError, Timeouts
from hubbub.brokers.memory import MemoryBroker
from hubbub.core.namespaces import Namespace
from hubbub.node.access import Access, Lease
from tests.fakes import RecordingTransport, open_connection, say, tick

SOON = 6  # turns of the loop after which everything in memory is done

Json = dict[str, Any]


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    """A hub with rooms that remember, tickers that give the last value, and a lobby that forgets."""
    hub = Hub(timeouts=Timeouts(shutdown=0.05))
    hub.namespace("room", history=5, history_ttl=60)
    hub.namespace("ticker", history=1, latest=True, recover=False)
    hub.namespace("lobby")
    async with hub.running():
        yield hub


@pytest.fixture
def broker(hub: Hub) -> MemoryBroker:
    """Its broker, which skips offsets by chance from here on."""
    broker = hub.node.broker
    assert isinstance(broker, MemoryBroker)
    broker.memory._step = MemoryBroker(skip=True).memory._step
    return broker


async def subscribe(connection: Any, transport: RecordingTransport, channel: str, since: Json | None = None) -> Json:
    """Ask to subscribe; the answer's payload, or the error's."""
    say(connection, "subscribe", {"channel": channel} | ({} if since is None else {"since": since}), id="s")
    await tick(SOON)
    answers = [message for message in transport.messages if message.get("id") == "s"]
    return dict(answers[-1]["payload"])


def place(answer: Json) -> Json:
    """The position in an answer."""
    return {"offset": answer["offset"], "epoch": answer["epoch"]}


def data(transport: RecordingTransport) -> list[Any]:
    """What was published, as a client got it."""
    return [payload["data"] for payload in transport.payloads("message")]


async def test_who_comes_back_misses_nothing(hub: Hub, broker: MemoryBroker) -> None:
    first, before = open_connection(hub)
    answer = await subscribe(first, before, "room:1")
    assert answer["recovered"] is False
    await hub.publish("room:1", "said", 1)
    await tick()
    seen = before.payloads("message")[-1]["offset"]
    first.close()
    for number in (2, 3, 4):
        await hub.publish("room:1", "said", number)
    again, after = open_connection(hub)
    answer = await subscribe(again, after, "room:1", {"offset": seen, "epoch": answer["epoch"]})
    await hub.publish("room:1", "said", 5)
    await tick()
    assert answer["recovered"] is True
    assert data(after) == [2, 3, 4, 5]
    assert after.types.index("subscribed") < after.types.index("message")
    offsets = [payload["offset"] for payload in after.payloads("message")]
    assert offsets == sorted(set(offsets))
    assert answer["offset"] == offsets[2]


async def test_a_new_subscriber_gets_nothing_of_the_past(hub: Hub) -> None:
    await hub.publish("room:1", "said", 1)
    connection, transport = open_connection(hub)
    answer = await subscribe(connection, transport, "room:1")
    assert (answer["recovered"], data(transport)) == (False, [])


@pytest.mark.parametrize("loss", ["expired", "purged", "flushed", "reborn", "pushed out", "made up", "of another life"])
async def test_what_is_not_there_is_not_recovered(hub: Hub, broker: MemoryBroker, loss: str) -> None:
    place_of = await hub.publish("room:1", "said", 0)
    since: Json = {"offset": place_of.offset, "epoch": place_of.epoch}
    now = 2_000_000_000_000
    if loss != "pushed out":
        await hub.publish("room:1", "said", 1)
    match loss:
        case "expired":
            broker.sweep(now)
            broker.sweep(now + 3_600_000)
        case "purged":
            await hub.purge("room:1")
        case "flushed":
            await broker.flush()
        case "reborn":
            broker.sweep(now)
            broker.sweep(now + 3_600_000)
            await hub.publish("room:1", "said", 2)
        case "pushed out":
            for number in range(6):
                await hub.publish("room:1", "said", number)
        case "made up":
            since["offset"] = 2**40
        case _:
            since["epoch"] = "another"
    connection, transport = open_connection(hub)
    answer = await subscribe(connection, transport, "room:1", since)
    assert answer["recovered"] is False
    assert data(transport) == []
    await hub.publish("room:1", "said", "live")
    await tick()
    assert data(transport) == ["live"]


async def test_the_last_value_comes_with_the_subscription(hub: Hub) -> None:
    await hub.publish("ticker:eur", None, 1.1)
    await hub.publish("ticker:eur", None, 1.2)
    connection, transport = open_connection(hub)
    await subscribe(connection, transport, "ticker:eur")
    assert data(transport) == [1.2]


async def test_what_is_published_while_the_past_is_read_comes_behind_it(hub: Hub, monkeypatch: Any) -> None:
    place_of = await hub.publish("room:1", "said", 0)
    await hub.publish("room:1", "said", 1)
    read = hub.node.broker.past

    async def slow(*args: Any) -> Any:
        past = await read(*args)
        await hub.publish("room:1", "said", 2)
        await hub.publish("room:1", "said", 3)
        return past

    monkeypatch.setattr(hub.node.broker, "past", slow)
    connection, transport = open_connection(hub)
    answer = await subscribe(connection, transport, "room:1", {"offset": place_of.offset, "epoch": place_of.epoch})
    await hub.publish("room:1", "said", 4)
    await tick()
    assert answer["recovered"] is True
    assert data(transport) == [1, 2, 3, 4]


async def test_another_life_does_not_replay_the_last_one(hub: Hub) -> None:
    for life in ("one", "two"):
        places = [await hub.publish("room:1", "said", [life, number]) for number in range(3)]
        connection, transport = open_connection(hub)
        await subscribe(connection, transport, "room:1", {"offset": places[0].offset, "epoch": places[0].epoch})
        assert data(transport) == [[life, 1], [life, 2]]
        assert isinstance(hub.node.broker, MemoryBroker)
        await hub.node.broker.flush()


async def test_what_is_too_much_to_hold_is_left_out_as_the_answer_says(hub: Hub, monkeypatch: Any) -> None:
    monkeypatch.setattr("hubbub.node.replay.MOST_HELD", 2)
    since = await hub.publish("room:1", "said", 0)
    read = hub.node.broker.past

    async def slow(*args: Any) -> Any:
        past = await read(*args)
        for number in range(1, 5):
            await hub.publish("room:1", "said", number)
        return past

    monkeypatch.setattr(hub.node.broker, "past", slow)
    connection, transport = open_connection(hub)
    answer = await subscribe(connection, transport, "room:1", {"offset": since.offset, "epoch": since.epoch})
    monkeypatch.undo()
    past = await hub.history("room:1")
    assert (answer["recovered"], data(transport)) == (False, [3, 4])
    assert answer["offset"] == past.publications[2].offset


@pytest.mark.parametrize("recover", [False, True], ids=["without recovery", "with recovery"])
async def test_the_last_value_comes_also_to_who_was_away_too_long(hub: Hub, recover: bool) -> None:
    hub.namespace("price", history=1, latest=True, recover=recover)
    place_of = await hub.publish("price:eur", None, 1)
    for price in (2, 3, 4):
        await hub.publish("price:eur", None, price)
    connection, transport = open_connection(hub)
    since = {"offset": place_of.offset, "epoch": place_of.epoch}
    answer = await subscribe(connection, transport, "price:eur", since)
    assert (answer["recovered"], data(transport)) == (False, [4])


async def test_who_is_sent_away_while_the_past_is_read_is_told_no(hub: Hub, monkeypatch: Any) -> None:
    read = hub.node.broker.past

    async def slow(*args: Any) -> Any:
        await hub.unsubscribe(connection, "room:1")
        return await read(*args)

    monkeypatch.setattr(hub.node.broker, "past", slow)
    connection, transport = open_connection(hub)
    answer = await subscribe(connection, transport, "room:1")
    await hub.publish("room:1", "said", "secret")
    await tick()
    assert answer["code"] == "forbidden"
    assert (connection.channels, data(transport)) == ([], [])


async def test_a_key_is_published_once(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    await subscribe(connection, transport, "room:1")
    say(connection, "publish", {"channel": "room:1", "data": "a", "key": "k"}, id="1")
    say(connection, "publish", {"channel": "room:1", "data": "b", "key": "k"}, id="2")
    await tick(SOON)
    first, second = transport.payloads("published")
    assert first == second
    assert data(transport) == ["a"]


async def test_another_publishers_key_is_another(hub: Hub) -> None:
    first = await hub.publish("room:1", None, 1, key="k")
    connection, transport = open_connection(hub)
    await subscribe(connection, transport, "room:1")
    say(connection, "publish", {"channel": "room:1", "data": 2, "key": "k"})
    await tick(SOON)
    assert transport.payloads("published")[0]["offset"] > (first.offset or 0)


async def test_a_channel_of_no_namespace_is_refused(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    for name in ("unknown:1", "rooms", ":", "room*"):
        assert (await subscribe(connection, transport, name))["code"] == "bad_channel"
    with pytest.raises(RequestError, match="bad_channel"):
        await hub.publish("unknown:1", None, 1)


async def test_history_by_pages(hub: Hub) -> None:
    for number in range(5):
        await hub.publish("room:1", "said", number)
    connection, transport = open_connection(hub)
    say(connection, "history", {"channel": "room:1", "limit": 2}, id="1")
    await tick(SOON)
    latest = transport.payloads("history")[0]
    assert [each["data"] for each in latest["publications"]] == [3, 4]
    past = await hub.history("room:1", limit=5)
    since = {"offset": past.publications[0].offset, "epoch": past.head.epoch}
    say(connection, "history", {"channel": "room:1", "since": since, "limit": 2})
    await tick(SOON)
    page = transport.payloads("history")[1]
    assert [each["data"] for each in page["publications"]] == [1, 2]
    assert page["complete"] is True


# --- Rules -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def allowed(hub: Hub) -> dict[str, bool | Lease]:
    """What the rule for rooms says, by action; yes where nothing is."""
    answers: dict[str, bool | Lease] = {}

    @hub.channel("room:{number}")
    async def rule(access: Access, number: int) -> bool | Lease:
        assert number == int(access.channel.partition(":")[2])
        return answers.get(access.action, True)

    return answers


async def test_the_rule_is_the_door_for_everything(hub: Hub, allowed: dict[str, bool | Lease]) -> None:
    allowed.update(subscribe=False, publish=False, history=False)
    connection, transport = open_connection(hub)
    assert (await subscribe(connection, transport, "room:1"))["code"] == "forbidden"
    connection.subscribe("room:1")  # the server may
    say(connection, "publish", {"channel": "room:1", "data": 1})
    say(connection, "history", {"channel": "room:1"})
    await tick(SOON)
    assert [error["code"] for error in transport.payloads("error")] == ["forbidden"] * 3


async def test_a_parameter_has_its_type(hub: Hub, allowed: dict[str, bool | Lease]) -> None:
    connection, transport = open_connection(hub)
    assert (await subscribe(connection, transport, "room:one"))["code"] == "bad_channel"
    assert "offset" in await subscribe(connection, transport, "room:1")


async def test_a_rule_that_fails_is_a_no(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    @hub.channel("room:{number}")
    def rule(access: Access, number: int) -> bool:
        raise ValueError("on purpose")

    connection, transport = open_connection(hub)
    assert (await subscribe(connection, transport, "room:1"))["code"] == "forbidden"
    assert "on purpose" in caplog.text


async def test_rights_that_are_taken_away_end_the_subscription(hub: Hub, allowed: dict[str, bool | Lease]) -> None:
    connection, transport = open_connection(hub, "ann")
    answer = await subscribe(connection, transport, "room:1")
    allowed.update(subscribe=False, history=False)
    await hub.recheck(channel="room:1")
    await hub.publish("room:1", "said", "secret")
    await tick()
    assert transport.payloads("unsubscribed") == [{"channel": "room:1", "code": "forbidden"}]
    assert data(transport) == []
    assert (await subscribe(connection, transport, "room:1", place(answer)))["code"] == "forbidden"


@pytest.mark.parametrize("user", ["bo", None], ids=["another user", "nobody"])
async def test_who_becomes_another_is_asked_about_again(hub: Hub, user: str | None) -> None:
    @hub.channel("room:{number}")
    def rule(access: Access, number: int) -> bool:
        return access.user_id == "ann"

    connection, transport = open_connection(hub, "ann")
    await subscribe(connection, transport, "room:1")
    await subscribe(connection, transport, "lobby")
    connection.identify(user)
    await tick(SOON)
    await hub.publish("room:1", "said", "secret")
    await tick()
    assert connection.channels == ["lobby"]
    assert transport.payloads("unsubscribed") == [{"channel": "room:1", "code": "forbidden"}]
    assert data(transport) == []


async def test_a_lease_is_asked_about_again(hub: Hub, allowed: dict[str, bool | Lease]) -> None:
    allowed["subscribe"] = Lease(recheck=5)
    connection, transport = open_connection(hub)
    await subscribe(connection, transport, "room:1")
    allowed["subscribe"] = False
    from time import monotonic

    hub.node.beat(monotonic() + 3)
    await tick(SOON)
    assert connection.channels == ["room:1"]
    hub.node.beat(monotonic() + 7)
    await tick(SOON)
    assert connection.channels == []


# --- Who else subscribes ---------------------------------------------------------------------------------------------


async def test_the_server_subscribes_a_user(hub: Hub) -> None:
    _, one = open_connection(hub, "ann")
    _, two = open_connection(hub, "ann")
    assert await hub.subscribe("ann", "room:1") == 2
    assert await hub.subscribe("ann", "room:1") == 0
    await tick(SOON)
    await hub.publish("room:1", None, 1)
    await tick()
    assert data(one) == data(two) == [1]
    assert one.payloads("subscribed")[0]["channel"] == "room:1"
    assert await hub.unsubscribe("ann", "room:1") == 2
    assert one.payloads("unsubscribed") == [{"channel": "room:1"}]


async def test_a_personal_channel_is_its_users(hub: Hub) -> None:
    hub.namespace("user", personal=True)
    connection, transport = open_connection(hub, "ann")
    await tick(SOON)
    assert connection.channels == ["user:ann"]
    assert (await subscribe(connection, transport, "user:bo"))["code"] == "forbidden"
    connection.identify("bo")
    await tick(SOON)
    assert connection.channels == ["user:bo"]


async def test_who_asks_for_a_channel_it_is_just_given_is_answered_when_it_has_it(
    hub: Hub, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.namespace("user", history=5, history_ttl=60, personal=True)
    read, past = asyncio.Event(), broker.past

    async def slow(*args: Any) -> Any:
        await read.wait()
        return await past(*args)

    monkeypatch.setattr(broker, "past", slow)
    connection, transport = open_connection(hub, "ann")
    await tick(SOON)
    say(connection, "subscribe", {"channel": "user:ann"}, id="s")
    say(connection, "publish", {"channel": "user:ann", "data": 1}, id="p")
    await tick(SOON)
    assert transport.types == []
    read.set()
    await tick(2 * SOON)
    assert [message.get("id") for message in transport.messages] == [None, "s", None, "p"]
    assert data(transport) == [1]


async def test_listeners_hear_by_pattern(hub: Hub) -> None:
    heard: list[tuple[str, Any]] = []
    hub.listen("room:*")(lambda channel, data: heard.append((channel, data)))
    await hub.publish("room:1", None, {"a": 1})
    await hub.publish("lobby", None, 2)
    assert heard == [("room:1", {"a": 1})]


async def test_hooks_tell_of_subscribers(hub: Hub) -> None:
    told: list[str] = []
    hub.on_subscribe(lambda conn, channel: told.append(f"+{channel}"))
    hub.on_unsubscribe(lambda conn, channel: told.append(f"-{channel}"))
    hub.on_occupied(lambda channel: told.append(f"occupied {channel}"))
    hub.on_vacated(lambda channel: told.append(f"vacated {channel}"))
    first, one = open_connection(hub)
    second, two = open_connection(hub)
    await subscribe(first, one, "room:1")
    await subscribe(second, two, "room:1")
    first.close()
    say(second, "unsubscribe", {"channel": "room:1"})
    await tick(SOON)
    assert told == ["occupied room:1", "+room:1", "+room:1", "-room:1", "-room:1", "vacated room:1"]


async def test_a_full_channel_takes_no_more(hub: Hub) -> None:
    hub.namespace("table", max_subscribers=1)
    first, one = open_connection(hub)
    second, two = open_connection(hub)
    await subscribe(first, one, "table:1")
    assert (await subscribe(second, two, "table:1"))["code"] == "channel_full"


@pytest.mark.parametrize("channel", ["room:1", "lobby"])
async def test_the_broker_is_asked_in_order(hub: Hub, monkeypatch: Any, channel: str) -> None:
    told: list[str] = []
    gate = asyncio.Event()

    async def subscribe_at(namespace: Namespace, channel: str) -> None:
        told.append(f"+{channel}")

    async def unsubscribe_at(channel: str) -> None:
        await gate.wait()
        told.append(f"-{channel}")

    monkeypatch.setattr(hub.node.broker, "shared", True)
    monkeypatch.setattr(hub.node.broker, "subscribe", subscribe_at)
    monkeypatch.setattr(hub.node.broker, "unsubscribe", unsubscribe_at)
    first, _ = open_connection(hub)
    await hub.subscribe(first, channel)
    await tick(SOON)
    first.close()
    await tick()
    second, _ = open_connection(hub)
    say(second, "subscribe", {"channel": channel})
    await tick(SOON)
    gate.set()
    await tick(SOON)
    assert (told, second.channels) == ([f"+{channel}", f"-{channel}", f"+{channel}"], [channel])
    second.unsubscribe(channel)
    second.subscribe(channel)
    await tick(SOON)
    assert len(told) == 3  # it is wanted again


async def test_who_goes_while_the_past_is_read_leaves_nothing_at_the_broker(hub: Hub, monkeypatch: Any) -> None:
    told: list[str] = []

    async def note(channel: str) -> None:
        told.append(channel)

    monkeypatch.setattr(hub.node.broker, "shared", True)
    monkeypatch.setattr(hub.node.broker, "unsubscribe", note)
    connection, _ = open_connection(hub)
    say(connection, "subscribe", {"channel": "room:1"})
    await tick()
    connection.close()
    await tick(SOON)
    assert told == ["room:1"]


async def test_leaving_while_the_past_is_read(hub: Hub) -> None:
    connection, transport = open_connection(hub)
    say(connection, "subscribe", {"channel": "room:1"})
    say(connection, "unsubscribe", {"channel": "room:1"})
    await tick(SOON)
    await hub.publish("room:1", None, 1)
    await tick()
    assert (connection.channels, data(transport)) == ([], [])


async def test_rights_that_change_while_the_app_is_asked_count(hub: Hub) -> None:
    asked, gate = [], asyncio.Event()
    allowed = True

    @hub.channel("room:{id}")
    async def may(access: Any, id: str) -> bool:
        answer = allowed
        asked.append(access.connection)
        await gate.wait()
        return answer

    connection, transport = open_connection(hub, "ada")
    say(connection, "subscribe", {"channel": "room:1"}, id="1")
    await tick(SOON)
    allowed = False
    rechecking = asyncio.create_task(hub.recheck(channel="room:1"))
    await tick(SOON)
    gate.set()
    await rechecking

    error = await transport.heard("error")
    assert (error["id"], error["payload"]["code"]) == ("1", "forbidden")
    assert connection.channels == []
    assert len(asked) == 2
