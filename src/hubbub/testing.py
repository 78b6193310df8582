"""A test kit: clients without a network, a clock that is moved by hand, links that break and readers that stall.

Rules of this file:
1. Every wait has a deadline, and its failure says what came instead.
2. What a client was sent and the test did not ask for stays in order, and `expect_nothing` tells.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from hubbub.contracts import Handshake
from hubbub.core.forms import TEXTS, Form
from hubbub.core.identity import Identity
from hubbub.errors import CloseCode, UsageError
from hubbub.node.connection import Connection
from hubbub.node.hub import Hub

__all__ = ["Client", "Clock", "connect", "moving_clock"]

DEADLINE = 2.0
TURNS = 10
"""Turns of the loop after which everything that needs no disk and no network is done."""

Json = dict[str, Any]


class Link:
    """A client's socket in memory (`contracts.Transport`)."""

    form: Form = TEXTS

    def __init__(self) -> None:
        self.receiver: Connection
        self.paused = False
        self.buffered = 0
        self.arrived: deque[Json] = deque()
        self.something = asyncio.Event()
        self.closed: tuple[int, str] | None = None
        self._stalled: list[str] | None = None

    def write(self, data: Any) -> None:
        """Take texts; a reader that is slow leaves them underway."""
        if self._stalled is not None:
            self._stalled.extend(data)
            self.buffered += self.form.size(data)
            self.paused = True
            self.receiver.pause_writing()
        else:
            self._deliver(data)

    def ping(self) -> bool:
        """Say that somebody is there, as long as the link is up."""
        self.receiver.touch()
        return True

    def pause_reading(self) -> None:
        """Nothing is read ahead."""

    def resume_reading(self) -> None:
        """Nothing is read ahead."""

    def close(self, code: int, reason: str) -> None:
        """Take the server's goodbye, and agree."""
        self._end(code, reason)

    def abort(self) -> None:
        """Be cut."""
        self._end(CloseCode.ABNORMAL, "")

    def stall(self) -> None:
        """Read nothing more."""
        self._stalled = self._stalled or []

    def flow(self) -> None:
        """Read what is underway, and on."""
        stalled, self._stalled, self.buffered = self._stalled or [], None, 0
        self._deliver(stalled)
        if self.paused:
            self.paused = False
            self.receiver.resume_writing()

    def _deliver(self, texts: Iterable[str]) -> None:
        self.arrived.extend(json.loads(text) for text in texts)
        self.something.set()

    def _end(self, code: int, reason: str) -> None:
        if self.closed is None:
            self.closed = (code, reason)
            self.something.set()
            asyncio.get_running_loop().call_soon(self.receiver.lost, code, reason)


class Client:
    """One client of a hub.

    Args:
        hub: the hub; it must run.
        deadline: seconds that `expect` and `expect_close` wait at most.
    """

    def __init__(self, hub: Hub, deadline: float = DEADLINE) -> None:
        self._hub = hub
        self._deadline = deadline
        self._link = Link()
        self._number = 0
        self.connection: Connection
        """The hub's side of it."""

    async def open(self, user: str | Identity | None = None, headers: Mapping[str, str] | None = None) -> None:
        """Connect, signed in as `user` if one is given.

        Raises:
            UsageError: the hub does not run, or the client is connected already.
        """
        if not self._hub.node.running:
            raise UsageError("The hub does not run: `async with hub.running():` around it.")
        self._renew()
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]
        scope = {"type": "websocket", "path": self._hub.path, "headers": raw, "client": ("testclient", 0)}
        self.connection = self._link.receiver = Connection(self._hub.node)
        if user is not None:
            self.connection.identify(user)
        self.connection.accept(self._link, Handshake(scope))
        await settle()
        greetings = ("welcome", "authenticated")
        while self._link.arrived and self._link.arrived[0]["type"] in greetings:
            self._link.arrived.popleft()

    def _renew(self) -> None:
        """Have a link of its own for each connection."""
        if hasattr(self._link, "receiver") and self._link.closed is None:
            raise UsageError("This client is connected: another one is `Client(hub)`.")
        self._link = Link()

    def send(self, type: str, payload: Any = None, id: str | None = None) -> None:
        """Send a message."""
        message = {"type": type, "payload": payload, "id": id}
        text = json.dumps({name: value for name, value in message.items() if value is not None})
        if self._link.closed is None:
            self.connection.receive_text(text.encode())

    async def request(self, type: str, payload: Any = None) -> Any:
        """Send a message and wait for its answer; the answer's payload.

        Raises:
            AssertionError: an error was the answer, or none came in time.
        """
        self._number += 1
        id = f"request-{self._number}"
        self.send(type, payload, id)
        answer = await self._next(lambda message: message.get("id") == id, f"an answer to {type!r}")
        assert answer["type"] != "error", f"{type!r} was answered by an error: {answer['payload']}"
        return answer.get("payload")

    async def expect(self, type: str, /, **payload: Any) -> Any:
        """Wait for a message of a type, with these fields in its payload; what came before stays. Its payload.

        Raises:
            AssertionError: it did not come in time; the message says what did.
        """

        def fits(message: Json) -> bool:
            body = message.get("payload")
            return message["type"] == type and (
                not payload or (isinstance(body, dict) and payload.items() <= body.items())
            )

        return (await self._next(fits, f"{type!r} with {payload}" if payload else f"{type!r}")).get("payload")

    async def expect_nothing(self) -> None:
        """Fail if there is a message that nobody expected, now or when all that runs is done."""
        await settle()
        assert not self._link.arrived, f"nothing was expected, and there is {list(self._link.arrived)}"

    async def expect_close(self, code: int | None = None) -> int:
        """Wait for the end of the connection; its code."""
        try:
            async with asyncio.timeout(self._deadline):
                while self._link.closed is None:
                    self._link.something.clear()
                    await self._link.something.wait()
        except TimeoutError:
            raise AssertionError(f"it was not closed within {self._deadline:g} s") from None
        await settle()
        found = self._link.closed[0]
        assert code in (None, found), f"closed with {found} {self._link.closed[1]!r}, not with {code}"
        return found

    def messages(self, type: str | None = None) -> list[Json]:
        """What came and nobody expected so far, oldest first."""
        return [message for message in self._link.arrived if type in (None, message["type"])]

    @contextmanager
    def slow(self) -> Iterator[None]:
        """Read nothing for the length of the block, then everything."""
        self._link.stall()
        yield
        self._link.flow()

    def drop_link(self) -> None:
        """Break the connection without a goodbye, as a network does."""
        self._link.abort()

    def close(self, code: int = CloseCode.NORMAL) -> None:
        """Say goodbye."""
        if self._link.closed is None:
            self.connection.close_received(code, "")
            self._link.close(code, "")

    async def _next(self, wanted: Callable[[Json], bool], what: str) -> Json:
        link = self._link
        found: Json | None
        try:
            async with asyncio.timeout(self._deadline):
                while (found := next(filter(wanted, link.arrived), None)) is None:
                    link.something.clear()
                    await link.something.wait()
        except TimeoutError:
            came = [message["type"] for message in link.arrived]
            end = f"; it was closed with {link.closed[0]}" if link.closed else ""
            raise AssertionError(f"{what} did not come within {self._deadline:g} s; there is {came}{end}") from None
        link.arrived.remove(found)
        return found


@asynccontextmanager
async def connect(
    hub: Hub,
    user: str | Identity | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    deadline: float = DEADLINE,
) -> AsyncIterator[Client]:
    """A client for the length of the block; it says goodbye at its end.

    Args:
        hub: a hub that runs: `async with hub.running():`.
        user: who it is signed in as; None for nobody.
        headers: of its handshake, for the connect hooks.
        deadline: seconds that its waits last at most.
    """
    client = Client(hub, deadline)
    await client.open(user, headers)
    try:
        yield client
    finally:
        client.close()
        await settle()


class Clock:
    """The time of a hub, in seconds; it stands still until it is moved."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._now = time.monotonic()

    def __call__(self) -> float:
        return self._now

    async def advance(self, seconds: float) -> None:
        """Let time pass: heartbeats, timeouts and leases that are due happen; dates are the wall clock's."""
        end = self._now + seconds
        while self._now < end:
            self._now = min(end, self._now + self._hub.node.width)
            self._hub.node.beat(self._now)
            await settle()


@contextmanager
def moving_clock(hub: Hub) -> Iterator[Clock]:
    """Put a clock of the test's in the place of the machine's, for the length of the block.

    Args:
        hub: a hub whose clients connect inside of the block.
    """
    clock = Clock(hub)
    modules = [module for name, module in sys.modules.items() if name.startswith("hubbub.node.")]
    before = {module: module.monotonic for module in modules if hasattr(module, "monotonic")}
    for module in before:
        vars(module)["monotonic"] = clock
    try:
        yield clock
    finally:
        for module, own in before.items():
            vars(module)["monotonic"] = own


async def settle() -> None:
    """Let everything run that needs nothing from outside."""
    for _ in range(TURNS):
        await asyncio.sleep(0)
