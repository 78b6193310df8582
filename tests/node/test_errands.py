from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from hubbub.errors import StoreUnavailable
from hubbub.node.errands import Errands


async def test_what_has_not_begun_when_they_stop_never_does() -> None:
    done: list[str] = []

    async def work(name: str) -> None:
        done.append(name)
        await asyncio.sleep(60)

    errands = Errands(logging.getLogger("hubbub.test"))
    errands.spawn(work("begun"))
    await asyncio.sleep(0)
    errands.spawn(work("not begun"))
    errands.stop()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()  # a coroutine that nobody awaited would be a warning
    assert done == ["begun"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (StoreUnavailable("the database is away"), "the database is away"),
        (KeyError("x"), "something by the side failed"),
    ],
)
async def test_what_fails_is_logged(caplog: pytest.LogCaptureFixture, error: Exception, line: str) -> None:
    ended = asyncio.Event()

    async def fail() -> None:
        ended.set()
        raise error

    Errands(logging.getLogger("hubbub.test")).spawn(fail())
    await ended.wait()
    await asyncio.sleep(0)
    assert line in caplog.text
