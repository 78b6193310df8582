"""Design section 5, "Order and corking, one rule": corked delivery, compared with a model that delivers at once."""

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
from tests.fakes import RecordingTransport, make_hub, open_connection, tick

FORMS: list[Form] = [FRAMES, TEXTS, deflated(15), FRAMES, deflated(9), TEXTS]
CHANNELS = ["A", "B", "C"]

LIMITS, TIMEOUTS = Limits(send_queue=1 << 30), Timeouts(shutdown=0.0001)

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
            self.hub.node.delivery.note(found, text, None if left_out is None else left_out.connection.outbox)
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
        assert client.connection.send("direct", data) == client.open
        client.expect("direct", data)

    def subscribe(self, number: int, channel: str) -> None:
        """Join a channel."""
        client = self.clients[number % len(self.clients)]
        assert client.connection.subscribe(channel) == (client.open and channel not in client.channels)
        if client.open:
            client.channels.add(channel)

    def unsubscribe(self, number: int, channel: str) -> None:
        """Leave a channel."""
        client = self.clients[number % len(self.clients)]
        assert client.connection.unsubscribe(channel) == (channel in client.channels)
        client.channels.discard(channel)

    def close(self, number: int) -> None:
        """Say goodbye."""
        client = self.clients[number % len(self.clients)]
        client.connection.close(4500 + number)
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


async def run(steps: list[Step]) -> None:
    """Play the steps and compare; `RecordingTransport` watches that nothing is written while paused."""
    async with make_hub(limits=LIMITS, timeouts=TIMEOUTS).running() as hub:
        play = Play(hub)
        for step in steps:
            result = step(play)
            if result is not None:
                await result
        await play.finish()
        for client in play.clients:
            assert client.received == client.expected
        assert hub.node.slow_consumers == 0


@settings(max_examples=250)
@given(st.lists(STEPS, min_size=5, max_size=60))
def test_every_client_receives_what_it_would_without_corks(steps: list[Step]) -> None:
    asyncio.run(run(steps))
