from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from starlette.applications import Starlette

from hubbub import CloseCode, ConfigError, Connection, Hub, Limits, Receipt, RequestError, Timeouts, UsageError
from tests.fakes import RecordingTransport, make_hub, open_connection, say, tick

Act = Callable[[Hub], Coroutine[Any, Any, Any]]

SENDING: dict[str, Act] = {
    "publish": lambda hub: hub.publish("news", "x"),
    "broadcast": lambda hub: hub.broadcast("x"),
    "send_to_user": lambda hub: hub.send_to_user("ann", "x"),
    "send_to_connection": lambda hub: hub.send_to_connection("id", "x"),
    "notify": lambda hub: hub.notify("ann", "Title", "Message"),
    "disconnect_user": lambda hub: hub.disconnect_user("ann"),
}


NO_TEXTS: dict[str, Act] = {
    "the payload for a type": lambda hub: hub.broadcast({"text": "hi"}),  # type: ignore[arg-type]
    "the payload for a user's type": lambda hub: hub.send_to_user("ann", {"text": "hi"}),  # type: ignore[arg-type]
    "the payload for a durable type": lambda hub: hub.send_to_user("ann", {}, durable=True),  # type: ignore[arg-type]
    "a number for a user": lambda hub: hub.send_to_user(7, "x"),  # type: ignore[arg-type]
    "nobody for a user": lambda hub: hub.notify(None, "Title", "Message"),  # type: ignore[arg-type]
    "a number to disconnect": lambda hub: hub.disconnect_user(7),  # type: ignore[arg-type]
    "a number to look for": lambda hub: hub.is_user_connected(7),  # type: ignore[arg-type]
    "a number to count": lambda hub: hub.user_connection_count(7),  # type: ignore[arg-type]
    "a number to list": lambda hub: hub.user_connections(7),  # type: ignore[arg-type]
    "a number to subscribe": lambda hub: hub.subscribe(7, "news"),  # type: ignore[arg-type]
    "a number for a channel": lambda hub: hub.publish(7, "x"),  # type: ignore[arg-type]
    "a number for a key": lambda hub: hub.publish("news", "x", key=7),  # type: ignore[arg-type]
    "a number for a tag": lambda hub: hub.publish("news", "x", tags={"a": 7}),  # type: ignore[dict-item]
    "a list for tags": lambda hub: hub.publish("news", "x", tags=["a"]),  # type: ignore[arg-type]
    "a connection for its id": lambda hub: hub.send_to_connection(open_connection(hub)[0], "x"),  # type: ignore[arg-type]
    "a connection for the id to ask": lambda hub: hub.request(open_connection(hub)[0], "x"),  # type: ignore[arg-type]
}


# --- Options ---------------------------------------------------------------------------------------------------------


def test_times_may_be_given_in_two_ways() -> None:
    assert make_hub(heartbeat_interval=5, timeouts=Timeouts(ping=7, pong=3)).node.timeouts == Timeouts(ping=5, pong=3)
    assert make_hub(timeouts=Timeouts(shutdown=1)).node.timeouts == Timeouts(shutdown=1)


def test_a_time_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Timeouts\.ping is 0"):
        make_hub(heartbeat_interval=0)


def test_a_hub_says_how_its_sockets_are_served() -> None:
    assert (make_hub().native, make_hub(native=False).native) == (True, False)
    assert (make_hub().deflate, make_hub(deflate=True).deflate) == (False, True)


# --- Sending ---------------------------------------------------------------------------------------------------------


async def test_a_publication_reaches_the_subscribers(hub: Hub) -> None:
    clients = [open_connection(hub) for _ in range(3)]
    for connection, _ in clients[:2]:
        connection.subscribe("news")
    assert await hub.publish("news", "hello", {"a": 1}) == Receipt(2)
    assert await hub.publish("news", None, 2) == Receipt(2)
    assert await hub.publish("empty", "hello") == Receipt(0)
    await tick()
    expected = [
        {"type": "message", "payload": {"channel": "news", "data": {"a": 1}, "event": "hello"}},
        {"type": "message", "payload": {"channel": "news", "data": 2}},
    ]
    assert [transport.messages for _, transport in clients] == [expected, expected, []]


async def test_a_bad_channel_is_refused_though_nobody_is_there(hub: Hub) -> None:
    with pytest.raises(RequestError, match="bad_channel"):
        await hub.publish("a*", "hello")


@pytest.mark.parametrize("by", ["id", "connection"])
async def test_a_broadcast_reaches_all_but_one(hub: Hub, by: str) -> None:
    clients = [open_connection(hub) for _ in range(3)]
    first = clients[0][0]
    receipt = await hub.broadcast("system_message", {"text": "hi"}, exclude=first.id if by == "id" else first)
    assert receipt == Receipt(2)
    await tick()
    assert [transport.payloads("system_message") for _, transport in clients] == [
        [],
        [{"text": "hi"}],
        [{"text": "hi"}],
    ]


async def test_one_that_is_not_here_excludes_nobody(hub: Hub) -> None:
    (connection, _), (gone, transport) = open_connection(hub), open_connection(hub)
    gone.close()
    await tick()
    for exclude in (gone, gone.id, "unknown", Connection(hub.node), None):
        assert (await hub.broadcast("x", exclude=exclude)).connections == 1
    await tick()
    assert transport.messages == []
    assert connection.is_open


async def test_a_goodbye_to_all_but_the_one_who_left(hub: Hub) -> None:
    @hub.on_close
    async def tell(conn: Connection) -> None:
        await hub.broadcast("first")
        await hub.broadcast("left", {"id": conn.id}, exclude=conn)

    (connection, gone), (_, transport) = open_connection(hub), open_connection(hub)
    connection.lost(CloseCode.ABNORMAL, "")
    await tick(3)
    assert transport.payloads("left") == [{"id": connection.id}]
    assert gone.messages == []


async def test_a_user_gets_it_on_every_connection(hub: Hub) -> None:
    (_, first), (_, second) = open_connection(hub, "ann"), open_connection(hub, "ann")
    _, other = open_connection(hub, "bob")
    receipt = await hub.send_to_user("ann", "hello", 1)
    assert (receipt.connections, receipt.delivered, receipt.stored) == (2, True, False)
    assert [t.payloads("hello") for t in (first, second, other)] == [[1], [1], []]
    nobody = await hub.send_to_user("eve", "hello", 1)
    assert (nobody.connections, nobody.delivered) == (0, False)


async def test_one_connection_gets_it(hub: Hub) -> None:
    (connection, transport), (_, other) = open_connection(hub), open_connection(hub)
    assert await hub.send_to_connection(connection.id, "hello", 1) == Receipt(1)
    assert await hub.send_to_connection("unknown", "hello", 1) == Receipt(0)
    assert (transport.payloads("hello"), other.messages) == ([1], [])


async def test_a_notification_has_a_form(hub: Hub) -> None:
    _, transport = open_connection(hub, "ann")
    await hub.notify("ann", "Shipped", "Your order left.")
    await hub.notify("ann", "Late", "It rains.", "warning")
    assert transport.payloads("notification") == [
        {"title": "Shipped", "message": "Your order left.", "type": "info"},
        {"title": "Late", "message": "It rains.", "type": "warning"},
    ]


async def test_a_slow_client_does_not_count_as_reached() -> None:
    async with make_hub(limits=Limits(send_queue=1000), timeouts=Timeouts(shutdown=0.01)).running() as hub:
        connection, transport = open_connection(hub, "ann", RecordingTransport(polite=False))
        transport.pause()
        assert (await hub.send_to_user("ann", "x", "x" * 2000)).connections == 0
        assert not connection.is_open


async def test_what_has_no_json_form_is_the_callers_error(hub: Hub) -> None:
    connection, transport = open_connection(hub, "ann")
    connection.subscribe("news")
    for send in (
        hub.publish("news", "x", object()),
        hub.broadcast("x", object()),
        hub.send_to_user("ann", "x", object()),
        hub.send_to_connection(connection.id, "x", object()),
    ):
        with pytest.raises(TypeError, match="no JSON form"):
            await send
    await hub.broadcast("good")
    await tick()
    assert transport.types == ["good"]


async def test_a_user_is_disconnected_everywhere(hub: Hub) -> None:
    (_, first), (_, second) = open_connection(hub, "ann"), open_connection(hub, "ann")
    _, other = open_connection(hub, "bob")
    assert await hub.disconnect_user("ann", 4503, "banned") == 2
    assert await hub.disconnect_user("ann") == 0
    assert [t.closes for t in (first, second, other)] == [[(4503, "banned")], [(4503, "banned")], []]
    assert not await hub.is_user_connected("ann")


async def test_a_code_that_cannot_be_sent_is_refused_wherever_the_user_is(hub: Hub) -> None:
    with pytest.raises(UsageError, match="Close code 1006"):
        await hub.disconnect_user("nobody", 1006)


# --- Asking ----------------------------------------------------------------------------------------------------------


async def test_who_is_here(hub: Hub) -> None:
    assert hub.connection_count == 0
    assert not await hub.is_user_connected("ann")
    first, _ = open_connection(hub, "ann")
    second, _ = open_connection(hub, "ann")
    open_connection(hub)
    assert hub.connection_count == 3
    assert await hub.is_user_connected("ann")
    assert await hub.user_connection_count("ann") == 2
    first.identify("bob")
    assert (await hub.user_connection_count("ann"), await hub.user_connection_count("bob")) == (1, 1)
    first.close()
    second.lost(CloseCode.ABNORMAL, "")
    assert hub.connection_count == 1
    assert not await hub.is_user_connected("ann")


async def test_the_numbers(hub: Hub) -> None:
    first, _ = open_connection(hub, "ann")
    second, _ = open_connection(hub, "ann")
    open_connection(hub)
    for connection in (first, second):
        connection.subscribe("news")
    first.subscribe("sport")
    stats = await hub.stats()
    assert stats.pop("loopLagMs") >= 0
    assert stats == {
        "connections": 3,
        "users": 1,
        "channels": 2,
        "slowConsumers": 0,
        "droppedPublications": 0,
        "conflated": 0,
        "handlerTimeouts": 0,
        "refused": 0,
        "rateLimited": 0,
        "nodes": 1,
        "connectionsElsewhere": 0,
        "databases": {"inbox": True, "archive": True},
    }


# --- Life ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", SENDING.values(), ids=SENDING.keys())
async def test_before_the_start_nothing_is_sent(act: Act) -> None:
    hub = make_hub()
    for _ in range(2):
        with pytest.raises(UsageError, match=r"has not started: attach it to the app, or use `async with hub\.running"):
            await act(hub)
        async with hub.running():
            await act(hub)


@pytest.mark.parametrize("act", SENDING.values(), ids=SENDING.keys())
async def test_a_hub_that_belongs_to_an_app_sends_to_nobody_before_the_first_client(act: Act) -> None:
    hub = make_hub()
    hub.wrap(Starlette())
    other = asyncio.new_event_loop()
    thread = threading.Thread(target=other.run_forever)
    thread.start()
    try:
        assert asyncio.run_coroutine_threadsafe(act(hub), other).result(2) in (Receipt(0), 0)
        async with hub.running():  # it was not started in that other loop
            connection, transport = open_connection(hub, "ann")
            assert connection.send("hello")
            assert transport.types == ["hello"]
    finally:
        other.call_soon_threadsafe(other.stop)
        thread.join()
        other.close()


@pytest.mark.parametrize("act", SENDING.values(), ids=SENDING.keys())
async def test_another_loop_is_told_the_way_out(hub: Hub, act: Act) -> None:
    with pytest.raises(UsageError, match=r"hub\.sync"):
        await asyncio.to_thread(lambda: asyncio.run(act(hub)))


async def test_asking_needs_no_start() -> None:
    hub = make_hub()
    assert (hub.connection_count, await hub.is_user_connected("ann"), await hub.user_connection_count("ann")) == (
        0,
        False,
        0,
    )
    assert (await hub.stats())["connections"] == 0


async def test_running_inside_of_running_changes_nothing() -> None:
    hub = make_hub()
    async with hub.running() as outer:
        async with hub.running() as inner:
            assert outer is inner is hub
        assert hub.node.running
        assert hub in Hub.all_running()
    assert not hub.node.running
    assert hub not in Hub.all_running()


async def test_start_and_shutdown_may_come_twice() -> None:
    hub = make_hub()
    hub.start()
    hub.start()
    connection, transport = open_connection(hub)
    await asyncio.gather(hub.shutdown(), hub.shutdown())
    await hub.shutdown()
    assert transport.closes == [(1001, "the server stops")]
    assert connection.state.name == "CLOSED"


async def test_a_hub_may_start_again() -> None:
    hub = make_hub()
    for _ in range(2):
        async with hub.running():
            connection, transport = open_connection(hub, "ann")
            connection.subscribe("news")
            await hub.publish("news", "x")
            await tick()
            assert transport.types == ["message"]
            assert hub.connection_count == 1


@pytest.mark.parametrize("ends", ["shut down", "left"])
def test_a_hub_may_start_again_in_another_loop(ends: str) -> None:
    hub = make_hub()
    hub.on("a")(lambda conn: "plain")

    @hub.on("b")
    async def later(conn: Connection) -> str:
        await tick()
        return "coroutine"

    async def use(last: bool) -> None:
        hub.start()
        assert hub.node.loop is asyncio.get_running_loop()
        assert hub.connection_count == 0
        connection, transport = open_connection(hub, "ann")
        connection.subscribe("news")
        say(connection, "a")
        say(connection, "b")
        await transport.heard("b_response")
        await hub.publish("news", "x")
        await transport.heard("message")
        if last or ends == "shut down":
            await hub.shutdown()
            assert transport.closes
        else:
            await hub.broadcast("noted, and never sent")

    for last in (False, False, True):
        asyncio.run(use(last))


async def test_a_hub_runs_in_one_loop_at_a_time(hub: Hub) -> None:
    def start_elsewhere() -> None:
        async def start() -> None:
            hub.start()

        asyncio.run(start())

    with pytest.raises(UsageError, match="another loop"):
        await asyncio.to_thread(start_elsewhere)


async def test_shutdown_says_goodbye_behind_what_was_sent() -> None:
    hub = make_hub()
    async with hub.running():
        clients = [open_connection(hub) for _ in range(3)]
        await hub.broadcast("last words")
    for _, transport in clients:
        assert transport.types == ["last words"]
        assert transport.closes == [(1001, "the server stops")]
        assert not transport.aborted


async def test_shutdown_cuts_who_does_not_go() -> None:
    hub = make_hub()
    reasons: list[Any] = []
    hub.on_close(lambda conn, code, reason: reasons.append((code, reason)))
    hub.start()
    (_, polite), (_, stuck) = open_connection(hub), open_connection(hub, transport=RecordingTransport(polite=False))
    await hub.shutdown(timeout=0.005)
    assert (polite.aborted, stuck.aborted) == (False, True)
    assert reasons == [(1001, "the server stops")] * 2
    assert hub.connection_count == 0


async def test_shutdown_waits_for_close_hooks() -> None:
    hub = make_hub()
    done: list[str] = []

    @hub.on_close
    async def closed(conn: Connection) -> None:
        await tick(5)
        done.append(conn.id)

    async with hub.running():
        connection, _ = open_connection(hub)
    assert done == [connection.id]


async def test_a_handler_may_not_wait_for_its_own_end(hub: Hub) -> None:
    @hub.on("stop")
    async def stop(conn: Connection) -> str:
        with pytest.raises(UsageError, match=r"create_task"):
            await hub.shutdown()
        return "told"

    connection, transport = open_connection(hub)
    say(connection, "stop")
    await transport.heard("stop_response")
    assert hub.node.running


async def test_a_shutdown_that_is_given_up_can_be_repeated() -> None:
    hub = make_hub(timeouts=Timeouts(shutdown=0.01))
    hub.start()
    _, transport = open_connection(hub, transport=RecordingTransport(polite=False))
    stopping = asyncio.create_task(hub.shutdown())
    await tick()
    stopping.cancel()
    await tick(2)
    await hub.shutdown()
    assert transport.aborted
    assert not hub.node.running


async def test_hubs_do_not_know_each_other() -> None:
    async with make_hub().running() as first, make_hub().running() as second:
        connection, _ = open_connection(first, "ann")
        connection.subscribe("news")
        assert set(Hub.all_running()) >= {first, second}
        assert (second.connection_count, await second.is_user_connected("ann")) == (0, False)
        assert (await second.publish("news", "x")).connections == 0
        assert (await second.broadcast("x", exclude=connection)).connections == 0


async def test_a_thread_may_ask_and_is_told_to_use_sync(hub: Hub) -> None:
    assert await asyncio.to_thread(lambda: hub.connection_count) == 0
    assert threading.get_ident() == hub.node.thread


@pytest.mark.parametrize("act", NO_TEXTS.values(), ids=NO_TEXTS)
async def test_what_is_no_text_is_refused_and_nothing_is_sent(act: Act) -> None:
    async with make_hub().running() as hub:
        _, transport = open_connection(hub, "ann")
        before = list(transport.writes)
        with pytest.raises(UsageError, match=r"text"):
            await act(hub)
        await tick()
        assert transport.writes == before


async def test_a_type_that_is_no_text_is_refused_by_a_connection() -> None:
    async with make_hub().running() as hub:
        connection, _ = open_connection(hub, "ann")
        with pytest.raises(UsageError, match=r"A message's type is a text, and this is of type dict"):
            connection.send({"text": "hi"})  # type: ignore[arg-type]
        with pytest.raises(RequestError, match=r"A user's id is a text"):
            connection.identify(7)  # type: ignore[arg-type]


# --- What is refused where it is written, and not when the first client comes ----------------------------------------

OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "inbox": ({"inbox": "per-device"}, "give 'per_user' or 'per_device'"),
    "when_full": ({"when_full": "replace"}, "give 'refuse' or 'replace_oldest'"),
    "limits": ({"limits": {"in_flight": 1}}, r"takes Limits\(\.\.\.\), not a dict"),
    "timeouts": ({"timeouts": 5}, r"takes Timeouts\(\.\.\.\), not a int"),
    "auth": ({"auth": "secret"}, r"takes Auth\(\.\.\.\), not a str"),
    "authenticator": ({"authenticator": lambda: "ann"}, r"must take \(handshake\)"),
}


@pytest.mark.parametrize(("options", "message"), OPTIONS.values(), ids=OPTIONS)
def test_an_option_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Hub(**options)


def test_two_hubs_cannot_share_a_path_of_one_app() -> None:
    app = Starlette()
    hub = Hub()
    hub.attach(app)
    hub.attach(app)  # itself it may
    Hub(path="/other").attach(app)
    with pytest.raises(UsageError, match="Another hub is at /ws of this app"):
        Hub().attach(app)
    with pytest.raises(UsageError, match="Another hub is at /ws of this app"):
        Hub().wrap(hub.wrap(Starlette()))


def test_what_is_no_app_cannot_be_wrapped() -> None:
    with pytest.raises(UsageError, match=r"hub\.wrap takes an ASGI app, not a str"):
        Hub().wrap("main:app")
