"""Design section 5, "Order and corking, one rule": corked delivery, compared with a model that delivers at once.

With small queues, what a client did not receive must be what it was told that it went without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hubbub import Connection, Hub, Limits, Timeouts
from hubbub.core.envelope import encode
from hubbub.core.forms import FRAMES, TEXTS, Form, deflated
from hubbub.core.namespaces import Slow
from tests.fakes import PLENTY, RecordingTransport, open_connection, tick

FORMS: list[Form] = [FRAMES, TEXTS, deflated(15), FRAMES, deflated(9), TEXTS]
CHANNELS = ["A", "B", "C"]
POLICIES: dict[str, Slow] = {"A": "close", "B": "drop_oldest", "C": "latest_per_key"}
KEYS = 3

SMALL_QUEUE, TIMEOUTS = 20_000, Timeouts(shutdown=0.0001)

Entry = tuple[str, Any]


@dataclass
class Client:
    """One connection, its socket, and what a hub without corks would have sent it."""

    connection: Connection
    transport: RecordingTransport
    channels: set[str] = field(default_factory=set)
    expected: list[Entry] = field(default_factory=list)
    open: bool = True

    def expect(self, type: str, data: Any) -> None:
        """Deliver at once, unless it is closed."""
        if self.open:
            self.expected.append((type, data))

    @property
    def received(self) -> list[Entry]:
        """What it was sent, in order; the goodbye last."""
        messages = [(each["type"], each["payload"]) for each in self.transport.messages]
        return messages + [("close", code) for code, _ in self.transport.closes]

    @property
    def overran(self) -> bool:
        """Whether more waited for it than may."""
        return self.connection.close_reason is not None and self.connection.close_reason[0] == 4002

    def look(self) -> None:
        """Take note of that."""
        if self.overran:
            self.open = False
            self.channels.clear()


class Play:
    """The hub and the model, side by side; each step does the same to both."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.clients: list[Client] = []
        self.count = 0
        for number in range(3):
            self.connect(None)
            self.subscribe(number, "A")
        self.subscribe(0, "B")

    def connect(self, room: int | None) -> None:
        """Open a connection; each with the next form."""
        form = FORMS[len(self.clients) % len(FORMS)]
        connection, transport = open_connection(self.hub, transport=RecordingTransport(form, polite=False))
        transport.room = room
        self.clients.append(Client(connection, transport))

    def publish(self, channel: str, size: int, excluded: int | None) -> None:
        """Publish to the subscribers of a channel."""
        data = self._data(size)
        left_out = self._client(excluded)
        found = self.hub.node.channels.get(channel)
        if found is not None:
            text = encode("message", {"channel": channel, "data": data}, 0)
            outbox = None if left_out is None else left_out.connection.outbox
            self.hub.node.delivery.note(found, text, outbox, data["n"], (str(data["n"] % KEYS), None))
        for client in self.clients:
            if channel in client.channels and client is not left_out:
                client.expect("message", {"channel": channel, "data": data})

    def burst(self, channel: str, count: int, size: int) -> None:
        """Publish so often that it does not wait for the tick."""
        for _ in range(count):
            self.publish(channel, size, None)

    async def broadcast(self, size: int, excluded: int | None) -> None:
        """Send to everybody."""
        data = self._data(size)
        left_out = self._client(excluded)
        await self.hub.broadcast("all", data, exclude=None if left_out is None else left_out.connection)
        for client in self.clients:
            if client is not left_out:
                client.expect("all", data)

    def send(self, number: int, size: int) -> None:
        """Send to one connection."""
        client, data = self.clients[number % len(self.clients)], self._data(size)
        sent = client.connection.send("direct", data)
        client.look()
        assert sent == client.open
        client.expect("direct", data)

    def subscribe(self, number: int, channel: str) -> None:
        """Join a channel."""
        client = self.clients[number % len(self.clients)]
        joined = client.connection.subscribe(channel)
        client.look()
        assert joined == (client.open and channel not in client.channels)
        if client.open:
            client.channels.add(channel)

    def unsubscribe(self, number: int, channel: str) -> None:
        """Leave a channel."""
        client = self.clients[number % len(self.clients)]
        left = client.connection.unsubscribe(channel)
        client.look()
        assert left == (channel in client.channels)
        client.channels.discard(channel)

    def close(self, number: int) -> None:
        """Say goodbye."""
        client = self.clients[number % len(self.clients)]
        client.connection.close(4500 + number)
        client.look()
        client.expect("close", 4500 + number)
        client.open = False
        client.channels.clear()

    def pause(self, number: int, room: int) -> None:
        """Let a client's socket take so much more and then nothing."""
        transport = self.clients[number % len(self.clients)].transport
        if not transport.paused:
            transport.room = room

    def take(self, number: int, room: int | None) -> None:
        """Let a client read, and its socket take so much again."""
        self.clients[number % len(self.clients)].transport.take(room=room)

    def cork(self, number: int) -> None:
        """Several messages of this client follow at once."""
        self.clients[number % len(self.clients)].connection.cork()

    def uncork(self, number: int) -> None:
        """The last of them came."""
        self.clients[number % len(self.clients)].connection.uncork()

    async def finish(self) -> None:
        """Let everybody read everything."""
        await tick()
        for number, client in enumerate(self.clients):
            self.uncork(number)
            while client.transport.paused:
                self.take(number, None)

    def _data(self, size: int) -> Any:
        self.count += 1
        return {"n": self.count, "filling": "x" * size}

    def _client(self, number: int | None) -> Client | None:
        return None if number is None else self.clients[number % len(self.clients)]


Step = Callable[[Play], Any]

NUMBER = st.integers(0, 5)
EXCLUDED = st.none() | NUMBER
CHANNEL = st.sampled_from(CHANNELS)
SIZE = st.sampled_from([0, 0, 0, 10, 300, 5000, 70_000])
SMALL = st.sampled_from([0, 100, 2500])
BURST = st.sampled_from([2, 30, 31, 32, 33, 70])
ROOM = st.sampled_from([0, 1, 50, 1000, 100_000])

STEPS: st.SearchStrategy[Step] = st.one_of(
    st.builds(lambda channel, size, out: lambda play: play.publish(channel, size, out), CHANNEL, SIZE, EXCLUDED),
    st.builds(lambda channel, size, out: lambda play: play.publish(channel, size, out), CHANNEL, SIZE, st.none()),
    st.builds(lambda channel, count, size: lambda play: play.burst(channel, count, size), CHANNEL, BURST, SMALL),
    st.builds(lambda size, out: lambda play: play.broadcast(size, out), SIZE, EXCLUDED),
    st.builds(lambda number, size: lambda play: play.send(number, size), NUMBER, SIZE),
    st.builds(lambda number, channel: lambda play: play.subscribe(number, channel), NUMBER, CHANNEL),
    st.builds(lambda number, channel: lambda play: play.subscribe(number, channel), NUMBER, CHANNEL),
    st.builds(lambda number, channel: lambda play: play.unsubscribe(number, channel), NUMBER, CHANNEL),
    st.builds(lambda number: lambda play: play.close(number), NUMBER),
    st.builds(lambda number, room: lambda play: play.pause(number, room), NUMBER, ROOM),
    st.builds(lambda number, room: lambda play: play.take(number, room), NUMBER, st.none() | ROOM),
    st.builds(lambda number: lambda play: play.cork(number), NUMBER),
    st.builds(lambda number: lambda play: play.uncork(number), NUMBER),
    st.builds(lambda room: lambda play: play.connect(room), st.none() | ROOM),
    st.builds(lambda room: lambda play: play.connect(room), st.none() | ROOM),
    st.just(lambda play: tick()),
)

# What fills queues: sockets that take little, and publications that may be dropped.
DROPPABLE = st.sampled_from(["B", "C"])
LITTLE = st.sampled_from([0, 1, 3000])
FLOOD: st.SearchStrategy[Step] = st.one_of(
    STEPS,
    st.builds(lambda channel, count, size: lambda play: play.burst(channel, count, size), DROPPABLE, BURST, SMALL),
    st.builds(lambda channel, size: lambda play: play.publish(channel, size, None), DROPPABLE, SIZE),
    st.builds(lambda number, channel: lambda play: play.subscribe(number, channel), NUMBER, DROPPABLE),
    st.builds(lambda number, room: lambda play: play.pause(number, room), NUMBER, LITTLE),
    st.builds(lambda number, room: lambda play: play.take(number, room), NUMBER, LITTLE),
)
STALLED: list[Step] = [
    step
    for number in range(3)
    for step in (
        lambda play, number=number: play.subscribe(number, "B"),
        lambda play, number=number: play.subscribe(number, "C"),
        lambda play, number=number: play.pause(number, 0),
    )
]


async def run(
    steps: list[Step], check: Callable[[Play], None], policies: dict[str, Slow], send_queue: int = 1 << 30
) -> None:
    """Play the steps and check; `RecordingTransport` watches that nothing is written while paused."""
    hub = Hub(limits=Limits(send_queue=send_queue), timeouts=TIMEOUTS, rates=PLENTY)
    for channel in CHANNELS:
        hub.namespace(channel, slow=policies.get(channel, "close"))
    async with hub.running():
        play = Play(hub)
        for step in steps:
            result = step(play)
            if result is not None:
                await result
            for client in play.clients:
                client.look()
        await play.finish()
        check(play)


@settings(max_examples=250)
@given(st.lists(STEPS, min_size=5, max_size=60))
def test_every_client_receives_what_it_would_without_corks(steps: list[Step]) -> None:
    asyncio.run(run(steps, check_everything, {}))


@settings(max_examples=250)
@given(st.lists(FLOOD, min_size=5, max_size=60))
def test_every_client_is_told_what_it_went_without(steps: list[Step]) -> None:
    asyncio.run(run(STALLED + steps, check_gaps, POLICIES, SMALL_QUEUE))


def check_everything(play: Play) -> None:
    """Compare what came with the model."""
    for client in play.clients:
        assert client.received == client.expected
    assert play.hub.node.slow_consumers == 0


def check_gaps(play: Play) -> None:
    """Compare what came with what is left of the model without what the client was told of."""
    skipped = 0
    for client in play.clients:
        received = [entry for entry in client.received if entry != ("close", 4002)]
        dropped = explain(received, client.expected)
        left = [entry for entry in client.expected if number_of(entry) not in dropped]
        arrived = [entry for entry in received if entry[0] != "skipped"]
        assert arrived == (left[: len(arrived)] if client.overran else left)
        skipped += len(dropped)
    node = play.hub.node
    if not node.slow_consumers:
        assert node.dropped_publications + node.conflated == skipped


def explain(received: list[Entry], expected: list[Entry]) -> set[int]:
    """What a client was told that it went without; each notice stands between those of its channel that came."""
    waiting: dict[str, list[int]] = {channel: [] for channel in CHANNELS}
    for type, body in expected:
        if type == "message":
            waiting[body["channel"]].append(body["data"]["n"])
    newest = {(channel, n % KEYS): n for channel, numbers in waiting.items() for n in numbers}
    dropped: set[int] = set()
    for type, body in received:
        if type == "message":
            assert waiting[body["channel"]].pop(0) == body["data"]["n"]
        elif type == "skipped":
            channel, count = body["channel"], body["count"]
            gap, waiting[channel] = waiting[channel][:count], waiting[channel][count:]
            assert (len(gap), gap[0], gap[-1]) == (count, body["from"], body["to"])
            assert POLICIES[channel] != "close"
            assert channel != "C" or all(newest["C", n % KEYS] > n for n in gap)
            dropped.update(gap)
    return dropped


def number_of(entry: Entry) -> int | None:
    """The number of a publication."""
    type, body = entry
    return body["data"]["n"] if type == "message" else None
