"""What the server says when it has no descriptors left for those who come."""

from __future__ import annotations

import asyncio
import errno
import logging

import pytest

from hubbub.servers.server import NO_ROOM, Server, configure


async def app(scope: object, receive: object, send: object) -> None:
    raise NotImplementedError


def server() -> Server:
    return Server(configure(app, log_config=None))


def test_that_nobody_can_be_accepted_is_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    loop, failing = asyncio.new_event_loop(), server()
    for _ in range(3):
        failing._failed(loop, {"message": NO_ROOM, "exception": OSError(errno.EMFILE, "Too many open files")})
    loop.close()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "new connections wait: [Errno 24] Too many open files (see `ulimit -n`)"
    assert record.exc_info is None


def test_whatever_else_fails_in_the_loop_is_said_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    loop, failing = asyncio.new_event_loop(), server()
    for _ in range(2):
        failing._failed(loop, {"message": "something else", "exception": ZeroDivisionError()})
    loop.close()
    assert [record.name for record in caplog.records] == ["asyncio", "asyncio"]
    assert all(record.exc_info for record in caplog.records)
