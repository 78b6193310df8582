"""Clients without a network: deadlines on every wait, links that break, readers that stall, time that is moved."""

import pytest

from examples.quick.rooms import hub, members
from hubbub.testing import Client, connect, moving_clock


async def test_a_member_who_drops_out_misses_nothing() -> None:
    members[7] = {"ada", "brian"}
    async with hub.running(), connect(hub, "ada") as ada:
        brian = Client(hub)
        await brian.open("brian")
        place = await brian.request("subscribe", {"channel": "room:7"})
        brian.drop_link()
        await ada.request("subscribe", {"channel": "room:7"})
        await ada.request("publish", {"channel": "room:7", "event": "said", "data": "hello"})
        async with connect(hub, "brian") as again:
            since = {"offset": place["offset"], "epoch": place["epoch"]}
            answer = await again.request("subscribe", {"channel": "room:7", "since": since})
            assert answer["recovered"]
            assert (await again.expect("message", event="said"))["data"] == "hello"
            await again.expect_nothing()


async def test_a_stranger_is_refused() -> None:
    async with hub.running(), connect(hub, "eve") as eve:
        with pytest.raises(AssertionError, match="forbidden"):
            await eve.request("subscribe", {"channel": "room:7"})


async def test_who_says_nothing_stays_as_long_as_it_answers() -> None:
    async with hub.running():
        with moving_clock(hub) as clock:
            async with connect(hub, "ada") as ada:
                await clock.advance(300)
                assert ada.connection.is_open
