"""Does the relay reach its outbox, and is there anything that could not be sent?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from hubbub.cli.checks.finding import Deployment, Finding, Level
from hubbub.errors import StoreError

__all__ = ["check_outbox"]

SHOW = "SELECT id, kind, target, error FROM hubbub_outbox WHERE failed_at IS NOT NULL"


async def check_outbox(deployment: Deployment) -> AsyncIterator[Finding]:
    """Count what waits in each outbox, and what was set aside; nothing is changed."""
    for relay in filter(None, (hub.node.relay for hub in deployment.hubs)):
        try:
            async with asyncio.timeout(deployment.timeout):
                counts = await relay.look()
        except TimeoutError:
            what = f"{relay.place} did not answer in {deployment.timeout:g} s"
            yield Finding(Level.ERROR, "outbox", what, "start it, or give another URL")
        except StoreError as error:
            yield Finding(Level.ERROR, "outbox", str(error))
        else:
            if counts is None:
                what = f"{relay.place} has no outbox yet: nothing can be put into it before the first start"
                yield Finding(Level.WARNING, "outbox", what, "hubbub migrate")
            elif counts.failed:
                yield Finding(Level.WARNING, "outbox", f"{relay.place}: {counts.failed} could not be sent", SHOW)
            else:
                yield Finding(Level.OK, "outbox", f"{relay.place}: {counts.waiting} waiting")
