"""The archive of a hub on a real SQLite file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from hubbub import Hub, Limits, RequestError, Timeouts
from hubbub.core.records import Record
from hubbub.core.recovery import Position
from hubbub.errors import StoreUnavailable
from hubbub.node.access import Access
from tests.fakes import open_connection, say

Json = dict[str, Any]


@pytest.fixture
async def another(tmp_path: Path) -> AsyncIterator[Any]:
    """Makes running hubs that follow each other on one database."""
    async with AsyncExitStack() as stack:

        async def another(**options: Any) -> Hub:
            await stack.aclose()
            hub = Hub(timeouts=Timeouts(shutdown=0.05), archive_url=f"sqlite:///{tmp_path}/archive.db", **options)
            hub.namespace("log", history=3, archive=True)
            hub.namespace("room", history=3)
            await stack.enter_async_context(hub.running())
            return hub

        yield another


@pytest.fixture
async def hub(another: Any) -> Hub:
    """The first of them."""
    first: Hub = await another()
    return first


async def fill(hub: Hub, count: int, channel: str = "log:1") -> list[Position]:
    """Publish numbers."""
    receipts = [await hub.publish(channel, "said", number) for number in range(count)]
    return [Position(receipt.offset or 0, receipt.epoch or "") for receipt in receipts]


def hold(hub: Hub) -> None:
    """Let it do nothing from time to time."""
    assert hub.node._timer is not None
    hub.node._timer.cancel()


def numbers(records: Sequence[Record]) -> list[int]:
    """What was published."""
    return [int(record.data) for record in records]


async def ask(hub: Hub, connection: Any, transport: Any, **payload: Any) -> Json:
    """A client's question about the archive; the answer."""
    transport.forget()
    say(connection, "history", {"channel": "log:1", "archive": True, **payload}, id="h")
    answer: Json = await transport.heard("history")
    return answer["payload"]  # type: ignore[no-any-return]


async def test_every_publication_is_archived_however_small_the_window(hub: Hub) -> None:
    places = await fill(hub, 700)
    records = await hub.archived("log:1", 1000)
    assert numbers(records) == list(range(700))
    assert [(record.offset, record.epoch) for record in records] == places
    assert len((await hub.history("log:1")).publications) == 3
    assert records[0].event == "said"


async def test_tags_are_archived(hub: Hub) -> None:
    await hub.publish("log:1", None, 1, tags={"a.b": "$c"})
    [record] = await hub.archived("log:1")
    assert (record.event, record.tags) == (None, {"a.b": "$c"})


async def test_it_is_read_in_pages(hub: Hub) -> None:
    await fill(hub, 7)
    await fill(hub, 2, "log:2")
    found: list[Record] = []
    while page := await hub.archived("log:1", 3, after=Position(found[-1].offset, found[-1].epoch) if found else None):
        found += page
    assert numbers(found) == list(range(7))
    assert await hub.archived("log:1", since=found[-1].published_at + 1) == []
    later = await hub.archived("log:1", since=found[3].published_at)
    assert later == [record for record in found if record.published_at >= found[3].published_at]


async def test_it_is_written_by_itself(hub: Hub) -> None:
    hold(hub)
    await fill(hub, 3)
    archiver, store = hub.node.archiver, hub.node.databases["archive"].store
    await archiver.stop()
    archiver.beat(10.0)
    assert archiver._task is not None
    await archiver._task
    assert numbers(await store.archived("log:1", 10)) == [0, 1, 2]
    archiver.beat(10.1)
    assert archiver._task is None


async def test_what_was_not_archived_before_the_end_is_after(another: Any, hub: Hub) -> None:
    await fill(hub, 2)
    await hub.archived("log:1")
    hold(hub)  # it ends before it comes to the rest
    places = await fill(hub, 5)
    hub = await another()
    assert numbers(await hub.archived("log:1")) == [0, 1, 0, 1, 2, 3, 4]
    [place] = await fill(hub, 1)
    assert place.epoch == places[0].epoch
    assert place.offset > places[-1].offset
    assert len(await hub.archived("log:1")) == 8


async def test_a_database_that_fails_leaves_no_hole(hub: Hub) -> None:
    hold(hub)
    database = hub.node.databases["archive"]
    archive = database.store.archive

    async def fail(*_: Any) -> None:
        raise StoreUnavailable("down")

    database.store.archive = fail  # type: ignore[method-assign,assignment]
    await fill(hub, 5)
    with pytest.raises(StoreUnavailable):
        await hub.archived("log:1")
    await hub.node.archiver._run()  # which lets it wait
    database.store.archive = archive  # type: ignore[method-assign]
    database._failed_at = -10.0  # as if some time had gone by
    await fill(hub, 1)
    assert numbers(await hub.archived("log:1")) == [0, 1, 2, 3, 4, 0]


@pytest.mark.parametrize("channel", ["room:1", "nowhere"], ids=["without an archive", "of no namespace"])
async def test_other_channels_have_none(hub: Hub, channel: str) -> None:
    with pytest.raises(RequestError, match="bad_channel"):
        await hub.archived(channel)


async def test_nothing_is_made_for_an_archive_of_nothing() -> None:
    hub = Hub()
    hub.namespace("log", history=3, archive=True)
    async with hub.running():
        assert await hub.archived("log:1") == []
        assert not hub.node.databases["archive"].store.exists
        await hub.publish("log:1", None, 1)
        assert numbers(await hub.archived("log:1")) == [1]


async def test_a_client_pages_through_it(hub: Hub) -> None:
    places = await fill(hub, 5)
    connection, transport = open_connection(hub)
    first = await ask(hub, connection, transport, limit=3)
    assert (first["channel"], first["archive"]) == ("log:1", True)
    assert [each["data"] for each in first["publications"]] == [0, 1, 2]
    last = first["publications"][-1]
    assert (last["offset"], last["epoch"], last["event"]) == (*places[2], "said")
    second = await ask(hub, connection, transport, since={"offset": last["offset"], "epoch": last["epoch"]})
    assert [each["data"] for each in second["publications"]] == [3, 4]
    later = await ask(hub, connection, transport, **{"from": last["timestamp"] + 3_600_000})
    assert later["publications"] == []


async def test_a_client_pages_back(hub: Hub) -> None:
    await fill(hub, 5)
    connection, transport = open_connection(hub)
    found: list[Json] = []
    since: Json = {}
    while page := (await ask(hub, connection, transport, back=True, limit=2, **since))["publications"]:
        found = [*page, *found]
        since = {"since": {name: page[0][name] for name in ("offset", "epoch")}}
    assert [each["data"] for each in found] == [0, 1, 2, 3, 4]


async def test_a_page_is_no_larger_than_a_client_can_be_sent(another: Any) -> None:
    hub = await another(limits=Limits(send_queue=8192))
    for number in range(5):
        await hub.publish("log:1", None, f"{number}" * 1500)
    connection, transport = open_connection(hub)
    page = await ask(hub, connection, transport)
    assert [each["data"][0] for each in page["publications"]] == ["0", "1"]
    page = await ask(hub, connection, transport, back=True)
    assert [each["data"][0] for each in page["publications"]] == ["3", "4"]


async def test_the_app_decides_who_reads_it(hub: Hub) -> None:
    asked: list[Access] = []

    @hub.channel("log:{id}")
    def may(access: Access, id: int) -> bool:
        asked.append(access)
        return False

    connection, transport = open_connection(hub)
    say(connection, "history", {"channel": "log:1", "archive": True})
    assert (await transport.heard("error"))["payload"]["code"] == "forbidden"
    assert [access.action for access in asked] == ["history"]
