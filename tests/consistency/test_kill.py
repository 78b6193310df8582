"""`kill -9` while durable messages are sent: what was acknowledged arrives, in order, on every store.

64 writers send to 20 users, half of whom are connected. A writer sends its next message when the last one is
acknowledged; after a kill it sends the one it does not know about again, with the same key. The server is killed
several times and started again on the same database. In the end every user collects what is left.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from tests.consistency.site import Site

WRITERS, USERS, ONLINE = 64, 20, 10
MESSAGES = 2_000
"""In the everyday run; `make consistency` sends 10,000."""
KILLS = 3
GONE = (OSError, ConnectionClosed, InvalidHandshake, InvalidMessage, TimeoutError)
PATIENCE = 30.0


@dataclass
class Mail:
    """What everybody saw."""

    sent: int = 0
    acked: set[tuple[str, int, int]] = field(default_factory=set)
    got: dict[str, list[tuple[int, int, int]]] = field(default_factory=lambda: defaultdict(list))
    backward: int = 0

    def received(self, user: str, last: int, message: Any) -> int:
        """Note one message; its cursor."""
        cursor: int = message["cursor"]
        self.backward += cursor <= last
        self.got[user].append((cursor, *message["payload"]))
        return cursor

    def report(self) -> dict[str, int]:
        """The numbers that decide."""
        arrived = {(user, *place[1:]) for user, places in self.got.items() for place in places}
        total = sum(map(len, self.got.values()))
        return {
            "sent": self.sent,
            "acked": len(self.acked),
            "lost": len(self.acked - arrived),
            "duplicated": total - len(arrived),
            "stored twice": sum(len(set(places)) for places in self.got.values()) - len(arrived),
            "reordered": self.backward + sum(map(_reordered, self.got.values())),
        }


def _reordered(places: list[tuple[int, int, int]]) -> int:
    """How often a writer's earlier message has a later cursor."""
    last: dict[int, int] = defaultdict(lambda: -1)
    count = 0
    for _, writer, number in sorted(set(places)):
        count += number <= last[writer]
        last[writer] = max(last[writer], number)
    return count


async def write(site: Site, mail: Mail, writer: int, count: int) -> None:
    """Be a writer until all its messages are acknowledged."""
    numbers = list(range(count))
    while numbers:
        try:
            async with site.client() as client:
                while numbers:
                    number = numbers[0]
                    to = f"user-{(writer + number) % USERS}"
                    mail.sent += 1
                    await client.send(
                        json.dumps({"type": "post", "payload": {"to": to, "writer": writer, "number": number}})
                    )
                    async with asyncio.timeout(PATIENCE):
                        while (answer := json.loads(await client.recv()))["type"] == "welcome":
                            pass
                    if answer["type"] == "posted":
                        mail.acked.add((to, writer, number))
                        numbers.pop(0)
        except GONE:
            await asyncio.sleep(0.05)


class Reader:
    """A user: takes what comes, acks every tenth message, comes back after a kill, until nothing is left."""

    def __init__(self, site: Site, mail: Mail, user: str) -> None:
        self._site = site
        self._mail = mail
        self._user = user
        self._last = 0

    async def read(self, done: Callable[[], bool]) -> None:
        """Read until the writers are done and the inbox has nothing that was not received."""
        while True:
            try:
                async with self._site.client(self._user) as client:
                    self._last = 0
                    while not await self._take(client, done):
                        pass
                    return
            except GONE:
                await asyncio.sleep(0.05)

    async def _take(self, client: ClientConnection, done: Callable[[], bool]) -> bool:
        """Take the next message; True if there will be none."""
        try:
            message = json.loads(await asyncio.wait_for(client.recv(), 0.5))
        except TimeoutError:
            return done() and await self._nothing_left(client)
        self._received(message)
        if message.get("cursor", 1) % 10 == 0:
            await client.send(json.dumps({"type": "ack", "payload": {"cursor": self._last}}))
        return False

    async def _nothing_left(self, client: ClientConnection) -> bool:
        await client.send(json.dumps({"type": "inbox", "payload": {"after": self._last}, "id": "left"}))
        while (message := json.loads(await asyncio.wait_for(client.recv(), PATIENCE))).get("id") != "left":
            self._received(message)
        if message["type"] == "error":
            assert message["payload"]["code"] == "unavailable", message
        return message["type"] == "inbox" and not message["payload"]["messages"]

    def _received(self, message: dict[str, Any]) -> None:
        if "cursor" in message:
            self._last = self._mail.received(self._user, self._last, message)


async def kill_and_check(site: Site, messages: int) -> dict[str, int]:
    """Run the whole thing; the report."""
    mail = Mail()
    each = -(-messages // WRITERS)
    await site.start()
    writers = [asyncio.create_task(write(site, mail, writer, each)) for writer in range(WRITERS)]
    finished = asyncio.gather(*writers)
    users = [Reader(site, mail, f"user-{n}") for n in range(USERS)]
    readers = [asyncio.create_task(user.read(finished.done)) for user in users[:ONLINE]]
    for kill in range(1, KILLS + 1):
        while len(mail.acked) < kill * WRITERS * each // (KILLS + 1):  # noqa: ASYNC110  # the writers are at work
            await asyncio.sleep(0.01)
        await site.kill()
        await site.start()
    await finished
    readers += [asyncio.create_task(user.read(finished.done)) for user in users[ONLINE:]]
    await asyncio.gather(*readers)
    await site.kill()
    return mail.report()


@pytest.mark.parametrize("messages", [pytest.param(MESSAGES), pytest.param(10_000, marks=pytest.mark.full)])
@pytest.mark.timeout(900)  # a slow database is slow, not wrong
async def test_what_was_acknowledged_arrives_in_order(url: str, tmp_path: Path, messages: int) -> None:
    report = await kill_and_check(Site(url, tmp_path), messages)
    print(url.partition(":")[0], report)
    assert report["acked"] >= messages
    assert (report["lost"], report["reordered"], report["stored twice"]) == (0, 0, 0)
