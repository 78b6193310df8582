"""The archive of several nodes: one of them writes what all published, into a database that nobody has made yet."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from hubbub import Hub
from hubbub.config import Auth
from tests.cluster.conftest import SECRET
from tests.fakes import open_connection, say


@pytest.mark.parametrize("broker", ["nats", "redis"])
async def test_what_any_node_published_is_in_the_archive_that_all_read(
    broker: str, tmp_path: Path, fresh: Callable[[str], str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBBUB_DATA_DIR", str(tmp_path))
    hubs = [Hub(broker_url=url, auth=Auth(secret=SECRET)) for url in [fresh(broker)] * 2]
    async with AsyncExitStack() as stack:
        for hub in hubs:
            hub.namespace("log", history=2, archive=True, publish="anyone")
            await stack.enter_async_context(hub.running())

        assert await hubs[0].archived("log:1") == []
        for number in range(4):
            await hubs[number % 2].publish("log:1", "line", number)

        for hub in hubs:
            assert [record.data for record in await hub.archived("log:1")] == [b"0", b"1", b"2", b"3"]
        connection, transport = open_connection(hubs[1])
        say(connection, "history", {"channel": "log:1", "archive": True, "back": True, "limit": 2})
        page = (await transport.heard("history"))["payload"]["publications"]
        assert [each["data"] for each in page] == [2, 3]


@pytest.mark.parametrize("broker", ["nats", "redis"])
async def test_hubs_with_other_paths_lose_nothing_in_one_archive(
    broker: str, tmp_path: Path, fresh: Callable[[str], str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBBUB_DATA_DIR", str(tmp_path))
    url = fresh(broker)
    hubs = [Hub(path, broker_url=url, auth=Auth(secret=SECRET)) for path in ("/ws", "/admin")]
    async with AsyncExitStack() as stack:
        for hub in hubs:
            hub.namespace("log", history=2, archive=True)
            await stack.enter_async_context(hub.running())

        for number in range(8):
            for hub in hubs:
                await hub.publish("log:1", hub.path, number)
            if number % 3 == 0:
                await hubs[number % 2].archived("log:1")

        await hubs[1].archived("log:1")
        records = await hubs[0].archived("log:1")
        for hub in hubs:
            assert [int(record.data) for record in records if record.event == hub.path] == list(range(8))
