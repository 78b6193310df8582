"""A running hub, and an eye on what the loop complains about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hubbub import Hub, Timeouts
from tests.fakes import PLENTY


@pytest.fixture(autouse=True)
async def complaints() -> AsyncIterator[list[dict[str, Any]]]:
    """What nobody caught in this loop: nothing, unless a test takes it out."""
    found: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context))
    yield found
    assert not found


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    """A hub as it comes but for its rates, running; a client that stays is soon cut at its end."""
    hub = Hub(timeouts=Timeouts(shutdown=0.05), rates=PLENTY)
    hub.namespace("*")
    async with hub.running():
        yield hub
