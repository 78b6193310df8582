"""Two processes relay one outbox: when one is killed, or does not move, the other goes on."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from hubbub import Hub
from hubbub.contracts import OutboxTable
from hubbub.node.relay import Relay
from tests.outbox.ledger import Ledger, eventually
from tests.outbox.test_relay import put
from tests.serving import process

APP = "tests.consistency.outbox_app:app"
LEASE = 3.0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
async def test_the_other_goes_on(url: str, table: OutboxTable, tmp_path: Path, how: signal.Signals) -> None:
    where: dict[str, Any] = {"HUBBUB_OUTBOX_URL": url, "HUBBUB_DATA_DIR": str(tmp_path), "LEASE": str(LEASE)}
    hub = Hub()
    ledger = Ledger(hub)
    relay = hub.node.relay = Relay(hub, url, lease=LEASE)

    async def nothing_waits() -> bool:
        return not (await table.counts()).waiting

    async with process("-m", "hubbub.cli", "serve", APP, "--port", "0", **where) as other:
        await other.says("Stop with")
        await asyncio.to_thread(put, url, ("room:1", 1))
        await eventually(nothing_waits)
        async with hub.running():
            await asyncio.to_thread(put, url, ("room:1", 2))
            await eventually(nothing_waits)
            assert not relay.state["relaying"]
            os.kill(other.pid, how)
            await asyncio.to_thread(put, url, ("room:1", 3))
            await ledger.until(1)
            assert relay.state["relaying"]
            if how is signal.SIGSTOP:
                os.kill(other.pid, signal.SIGCONT)
            await asyncio.to_thread(put, url, ("room:1", 4))
            await ledger.until(2)
            await eventually(nothing_waits)
    assert ledger.on("room:1") == [3, 4]
