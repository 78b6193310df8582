"""The outbox in transactions of Django's ORM; Django is configured once in a process, so it has one of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from hubbub import UsageError, outbox
from tests.outbox.ledger import Ledger
from tests.serving import REPOSITORY


async def test_what_is_committed_is_sent(url: str, ledger: Ledger) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.outbox.django_app", url]
    done = await asyncio.to_thread(subprocess.run, command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout == "done\n", done.stderr
    await ledger.until(3)
    await ledger.until_empty()
    assert [data["name"] for data in ledger.on("orders")] == ["pen", "ink", "by hand"]
    entries = (await ledger.hub.node.databases["inbox"].store.read("ada", 0, 10, 0)).entries
    assert [entry.payload for entry in entries] == [b'{"name":"pen"}', b'{"name":"ink"}', b'{"name":"by hand"}']


async def test_django_is_not_awaited() -> None:
    with pytest.raises(UsageError, match="not awaited"):
        await outbox.publish_async("default", "orders", "sold")
