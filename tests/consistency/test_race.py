"""64 senders on two processes race the acks of one user: cursor order is visible order, and nothing is missed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection

from tests.consistency.site import Site

SENDERS, EACH = 32, 10
TOTAL = 2 * SENDERS * EACH


async def send(site: Site, writer: int) -> None:
    """Send one writer's messages, each when the last one is stored."""
    async with site.client() as client:
        await client.recv()  # the welcome
        for number in range(EACH):
            payload = {"to": "bo", "writer": writer, "number": number}
            await client.send(json.dumps({"type": "post", "payload": payload}))
            assert json.loads(await client.recv())["type"] == "posted"


class Reader:
    """The user, on one connection: acks everything at once and keeps what came."""

    def __init__(self) -> None:
        self.cursors: list[int] = []
        self.places: list[tuple[int, int]] = []

    async def take(self, client: ClientConnection, count: int) -> None:
        """Take messages until there are `count`."""
        while len(self.cursors) < count:
            message: dict[str, Any] = json.loads(await client.recv())
            if "cursor" in message:
                self.cursors.append(message["cursor"])
                self.places.append(tuple(message["payload"]))
                await client.send(json.dumps({"type": "ack", "payload": {"cursor": message["cursor"]}}))


@pytest.mark.timeout(180)
async def test_two_processes_and_a_reader(url: str, tmp_path: Path) -> None:
    one, two = Site(url, tmp_path), Site(url, tmp_path)
    await one.start()
    await two.start()
    reader = Reader()
    async with one.client("bo") as client:
        reading = asyncio.create_task(reader.take(client, TOTAL + 1))
        senders = (send(site, 1000 * index + n) for index, site in enumerate((one, two)) for n in range(SENDERS))
        await asyncio.gather(*senders)
        # What the other process stored last is noticed with the next message here.
        async with one.client() as last:
            await last.send(json.dumps({"type": "post", "payload": {"to": "bo", "writer": -1, "number": 0}}))
            await reading
    assert reader.cursors == sorted(set(reader.cursors))
    assert len(set(reader.places)) == TOTAL + 1
    for writer in {writer for writer, _ in reader.places}:
        assert [number for who, number in reader.places if who == writer] == sorted(range(EACH if writer >= 0 else 1))
    while True:  # acks are on their way when the last message is
        async with one.client("bo") as client:
            await client.send(json.dumps({"type": "inbox", "id": "left"}))
            while (answer := json.loads(await client.recv())).get("id") != "left":
                pass
            if answer["payload"]["pending"] == 0:
                break
    await one.kill()
    await two.kill()
