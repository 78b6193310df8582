"""The Autobahn cases, run by `kosoku` against an echo on the native transport (see docs/reference/conformance.md).

A case that fails, or whose closing handshake is not clean, raises `FailureError`. There is no list of allowed failures,
for there are none; what is right but not strict is pinned below.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from kosoku import run_fuzzingclient

from tests.serving import DEADLINE, Loop, process

if TYPE_CHECKING:
    from kosoku._kosoku import CaseResult

CORE = [f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 10)]
LIMITS = ["9.*"]
DEFLATE_LIGHT = ["12.*.2", "12.*.9", "13.*.2", "13.*.9"]
DEFLATE = ["12.*", "13.*"]

# The case, and the close code we answered with.
NOT_STRICT = {
    "6.4.3": 1007,  # text is judged when its frame is complete, not byte by byte inside a frame that goes on
    "6.4.4": 1007,
}
INFORMATIONAL = {
    "7.1.6": 1000,  # a close behind a message of 256 KiB
    "7.13.1": 1002,  # close code 5000
    "7.13.2": 1002,  # close code 65535
}

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:unclosed file .*autobahntestsuite:ResourceWarning"),  # kosoku's cases leave them
]


@asynccontextmanager
async def echo(loop: Loop) -> AsyncIterator[str]:
    """Serve the echo in a process of its own, which must have nothing to complain of; the address."""
    async with process("-m", "tests.conformance.echo", loop) as server:
        said = await server.says("\n", 4 * DEADLINE)
        yield f"ws://127.0.0.1:{int(said.removeprefix('port '))}"
        assert server.child.returncode is None, server.said
        assert server.err == ""


async def run(loop: Loop, path: str, cases: list[str], *, jobs: int = 2) -> list[CaseResult]:
    """Run cases; the results of all when none failed."""
    async with echo(loop) as address:
        return await run_fuzzingclient(f"{address}/{path}", cases, [], concurrency=jobs)


def short_of_ok(results: list[CaseResult], behavior: str) -> dict[str, int | None]:
    """The cases with this verdict, and the code they were closed with."""
    return {result.case_id: result.remote_close_code for result in results if result.behavior.value == behavior}


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_core(loop: Loop) -> None:
    results = await run(loop, "native", CORE, jobs=4)
    assert len(results) == 247
    assert short_of_ok(results, "NON-STRICT") == NOT_STRICT
    assert short_of_ok(results, "INFORMATIONAL") == INFORMATIONAL


async def test_core_on_an_asgi_route() -> None:
    results = await run("uvloop", "asgi", CORE, jobs=4)
    assert len(results) == 247


@pytest.mark.parametrize("path", ["native", "asgi"])
async def test_large_messages_and_many_parts(path: str) -> None:
    results = await run("uvloop", path, LIMITS)
    assert len(results) == 54
    assert {result.behavior.value for result in results} == {"OK"}


async def test_deflate_light() -> None:
    results = await run("uvloop", "native", DEFLATE_LIGHT)
    assert len(results) == 24
    assert {result.behavior.value for result in results} == {"OK"}


@pytest.mark.full
@pytest.mark.timeout(3600)
async def test_deflate() -> None:
    results = await run("uvloop", "native", DEFLATE)
    assert len(results) == 216
    assert {result.behavior.value for result in results} == {"OK"}
