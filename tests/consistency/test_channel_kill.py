"""`kill -9` while channels with a history are published on: what was acknowledged is there, offsets go on (row X1).

Writers publish on rooms and on logs, which have an archive and a window much smaller than what is published. A writer
publishes again what it has no answer for, with the same key. Subscribers come back after each kill where they were. In
the end the server is killed once more, and what the next one has is compared with what everybody saw.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from tests.consistency.site import Site
from tests.consistency.test_kill import GONE

WRITERS, READERS = 24, 2
CHANNELS = ["room:1", "room:2", "log:1", "log:2"]
PUBLICATIONS = 2_000
"""In the everyday run; `make consistency` publishes 10,000."""
KILLS = 3
PATIENCE = 30.0
ABSENT = 0.3
"""Seconds a writer stays away after a kill."""

Json = dict[str, Any]
Item = tuple[str, int, int]  # channel, writer, the writer's number


@dataclass
class Seen:
    """What everybody saw."""

    published: int = 0
    acked: dict[Item, int] = field(default_factory=dict)
    starts: dict[str, Json] = field(default_factory=dict)
    resumed: list[bool] = field(default_factory=list)
    epochs: set[str] = field(default_factory=set)
    back: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether all subscribers have come back after the last kill."""


async def ask(client: ClientConnection, type: str, payload: Json, passing: list[Json] | None = None) -> Json:
    """Ask; the answer. What else comes meanwhile goes to `passing`."""
    await client.send(json.dumps({"type": type, "payload": payload, "id": type}))
    async with asyncio.timeout(PATIENCE):
        while (message := json.loads(await client.recv())).get("id") != type:
            if passing is not None:
                passing.append(message)
    answer: Json = message
    return answer


async def write(site: Site, seen: Seen, writer: int, count: int) -> None:
    """Be a writer until all its publications are acknowledged; after a kill one is, before all subscribers are back."""
    numbers = list(range(count))
    while numbers:
        try:
            async with site.client(f"writer-{writer}") as client:
                while numbers:
                    number = numbers[0]
                    channel = CHANNELS[(writer + number) % len(CHANNELS)]
                    seen.published += 1
                    data = {"channel": channel, "data": [writer, number], "key": f"{writer}-{number}"}
                    answer = await ask(client, "publish", data)
                    if answer["type"] == "published":
                        seen.acked[channel, writer, number] = answer["payload"]["offset"]
                        seen.epochs.add(answer["payload"]["epoch"])
                        numbers.pop(0)
                        await seen.back.wait()  # the window of a log would go on without them
        except GONE:
            await asyncio.sleep(ABSENT)


class Reader:
    """A subscriber of one channel: comes back after a kill to where it was, until there is nothing more."""

    def __init__(self, site: Site, seen: Seen, channel: str) -> None:
        self.channel = channel
        self.got: list[tuple[int, int, int]] = []
        """Offset, writer, number."""
        self.ready = asyncio.Event()
        self._site = site
        self._seen = seen
        self._since: Json | None = None

    async def read(self, done: asyncio.Future[Any]) -> None:
        """Read until the writers are done and the channel has nothing that was not received."""
        while True:
            try:
                async with self._site.client() as client:
                    await self._subscribe(client)
                    while not await self._take(client, done):
                        pass
                    return
            except GONE:
                await asyncio.sleep(0.01)

    async def _subscribe(self, client: ClientConnection) -> None:
        since = {} if self._since is None else {"since": self._since}
        answer = (await ask(client, "subscribe", {"channel": self.channel, **since}))["payload"]
        if self._since is None:
            self._since = {"offset": answer["offset"], "epoch": answer["epoch"]}
            self._seen.starts[self.channel] = dict(self._since)
            self.ready.set()
        else:
            self._seen.resumed.append(answer["recovered"])
        self._seen.epochs.add(answer["epoch"])

    async def _take(self, client: ClientConnection, done: asyncio.Future[Any]) -> bool:
        """Take the next publication; True if there will be none."""
        try:
            self._received(json.loads(await asyncio.wait_for(client.recv(), 0.3)))
        except TimeoutError:
            if done.done():
                passing: list[Json] = []
                answer = await ask(client, "history", {"channel": self.channel, "limit": 1}, passing)
                for message in passing:
                    self._received(message)
                assert self._since is not None
                return bool(answer["payload"]["offset"] == self._since["offset"])
        return False

    def _received(self, message: Json) -> None:
        if message["type"] == "message":
            assert self._since is not None
            payload = message["payload"]
            self._since["offset"] = payload["offset"]
            self.got.append((payload["offset"], *payload["data"]))


async def collect(client: ClientConnection, channel: str, start: Json) -> list[tuple[int, int, int]]:
    """All that a channel has: in its history, or in its archive where it has one."""
    found: list[tuple[int, int, int]] = []
    query: Json = {"archive": True} if channel.startswith("log") else {"since": start}
    while True:
        page = (await ask(client, "history", {"channel": channel, **query}))["payload"]
        assert page.get("complete", True), page
        if not page["publications"]:
            return found
        found += [(each["offset"], *each["data"]) for each in page["publications"]]
        query["since"] = {"epoch": start["epoch"], "offset": found[-1][0]}


def report(seen: Seen, readers: list[Reader], kept: dict[str, list[tuple[int, int, int]]]) -> dict[str, int]:
    """The numbers that decide."""
    places = {(channel, writer, number): at for channel, all in kept.items() for at, writer, number in all}
    return {
        "published": seen.published,
        "acked": len(seen.acked),
        "lost": sum(places.get(item) != offset for item, offset in seen.acked.items()),
        "duplicated": sum(map(len, kept.values())) - len(places),
        "reordered": sum(map(_reordered, kept.values())),
        "gaps": sum(reader.got != kept[reader.channel] for reader in readers),
        "epochs": len(seen.epochs),
        "resumed": len(seen.resumed),
        "recovered": sum(seen.resumed),
    }


def _reordered(all: list[tuple[int, int, int]]) -> int:
    """How often an offset does not grow, or a writer's earlier publication has a later one."""
    count, last = 0, defaultdict[int, int](lambda: -1)
    for index, (offset, writer, number) in enumerate(all):
        count += (index > 0 and offset <= all[index - 1][0]) or number <= last[writer]
        last[writer] = number
    return count


async def kill_and_check(site: Site, publications: int) -> dict[str, int]:
    """Run the whole thing; the report."""
    seen, each = Seen(), -(-publications // WRITERS)
    await site.start()
    readers = [Reader(site, seen, channel) for channel in CHANNELS for _ in range(READERS)]
    finished: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    reading = [asyncio.create_task(reader.read(finished)) for reader in readers]
    for reader in readers:
        await reader.ready.wait()
    seen.back.set()
    writers = [asyncio.create_task(write(site, seen, writer, each)) for writer in range(WRITERS)]
    for kill in range(1, KILLS + 1):
        while len(seen.acked) < kill * WRITERS * each // (KILLS + 1):  # noqa: ASYNC110  # everybody is at work
            await asyncio.sleep(0.01)
        seen.back.clear()
        await site.kill()
        await site.start()
        while len(seen.resumed) < kill * len(readers):  # noqa: ASYNC110  # everybody is at work
            await asyncio.sleep(0.01)
        seen.back.set()
    await asyncio.gather(*writers)
    finished.set_result(None)
    await asyncio.gather(*reading)
    await site.kill()
    await site.start()
    async with site.client() as client:
        kept = {channel: await collect(client, channel, seen.starts[channel]) for channel in CHANNELS}
    await site.kill()
    return report(seen, readers, kept)


@pytest.mark.parametrize("url", ["sqlite", "postgres"], indirect=True)
@pytest.mark.parametrize("publications", [pytest.param(PUBLICATIONS), pytest.param(10_000, marks=pytest.mark.full)])
@pytest.mark.timeout(300)
async def test_what_was_acknowledged_is_in_the_history(url: str, tmp_path: Path, publications: int) -> None:
    found = await kill_and_check(Site(url, tmp_path, "tests.consistency.channel_app:app"), publications)
    print(url.partition(":")[0], found)
    assert found["acked"] >= publications
    assert (found["lost"], found["duplicated"], found["reordered"], found["gaps"]) == (0, 0, 0, 0)
    assert found["epochs"] == 1
    assert found["recovered"] == found["resumed"] >= KILLS * len(CHANNELS) * READERS
