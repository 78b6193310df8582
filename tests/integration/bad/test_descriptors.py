"""X21: a server that has no descriptors left for those who come."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator

import pytest

from tests.integration.bad.conftest import Target
from tests.serving import DEADLINE, RawClient, until

MOST = 256
COME = 400
WHILE = 2.0


@contextlib.contextmanager
def few_descriptors(target: Target) -> Iterator[None]:
    """What `ulimit -n 256` does, for the length of the block."""
    before = resource.prlimit(target.child.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(target.child.pid, resource.RLIMIT_NOFILE, (MOST, before[1]))
    try:
        yield
    finally:
        resource.prlimit(target.child.pid, resource.RLIMIT_NOFILE, before)


def descriptors(target: Target) -> int:
    return len(os.listdir(f"/proc/{target.child.pid}/fd"))


@pytest.mark.parametrize("door", ["native", "asyncio"])
async def test_x21_without_descriptors_the_server_goes_on_and_accepts_again(target: Target, door: str) -> None:
    async with RawClient.join(target) as client, contextlib.AsyncExitStack() as stack:
        with few_descriptors(target):
            others = [await stack.enter_async_context(RawClient.open(target)) for _ in range(COME)]
            for other in others:
                other.write(b"GET /ws")
            await until(lambda: descriptors(target) == MOST)
            before, complaints = target.seconds(), len(target.complained())
            with pytest.raises(TimeoutError):
                await client.expect_end(WHILE)
            assert target.seconds() - before < WHILE / 4
            assert len(target.complained()) <= complaints + 1
            assert (await client.ask("echo", 1))["payload"] == 1
            for other in others[:MOST]:
                other.cut()
            await until(lambda: descriptors(target) < MOST, 2 * DEADLINE)
            async with RawClient.join(target) as late:
                assert (await late.ask("echo", 2))["payload"] == 2
        await client.leave()
