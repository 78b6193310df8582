"""`hubbub check` as a person runs it: against the reference app, against a faulty server, against no server."""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from hubbub.cli.scenarios import SCENARIOS
from tests.cli.signing import token_of
from tests.cli.standin import reply, stand_in
from tests.serving import process, running


async def check(url: str, *options: str, **environment: Any) -> tuple[str, str, int]:
    """Run the command on a wide screen; its output, its words on stderr, its exit code."""
    command = ["-m", "hubbub.cli", "check", url, *options]
    async with process(*command, COLUMNS="160", **environment) as command_running:
        code = await command_running.end()
        return command_running.out, command_running.err, code


def verdicts(out: str) -> dict[str, str]:
    """The scenarios of the table with their results."""
    rows = re.findall(r"^ (\S.*?)  +(passed|failed|not offered) ", out, re.MULTILINE)
    return dict(rows)


async def test_the_reference_app_passes_every_scenario() -> None:
    from examples.chat.app import app

    with running(app) as server:
        out, err, code = await check(server.url, "--token", await token_of("check"))
        stranger, *_ = await check(server.url)
    assert verdicts(out) == dict.fromkeys(SCENARIOS, "passed"), out + err
    assert re.search(r"^8 passed in \d+ ms$", out, re.MULTILINE)
    assert (err, code) == ("", 0)
    assert "\n6 passed, 2 not offered in " in stranger


async def test_faults_and_missing_features_are_told_apart() -> None:
    async def changed(socket: ServerConnection, message: dict[str, Any]) -> None:
        await reply(socket, "echo_response", {"text": "[red]\x1b[2J"}, message)

    async with stand_in(echo=changed) as url:
        out, _, code = await check(url, "--timeout", "2")
    expected = dict.fromkeys(SCENARIOS, "passed") | {
        "echo": "failed",
        "authentication": "not offered",
        "chat": "not offered",
        "rapid fire": "failed",
        "unicode and special characters": "failed",
    }
    assert verdicts(out) == expected, out
    assert "3 passed, 3 failed, 2 not offered in " in out
    assert code == 1


@pytest.mark.parametrize("way", ["option", "environment"])
async def test_the_token_is_used(way: str) -> None:
    async def authenticate(socket: ServerConnection, message: dict[str, Any]) -> None:
        await reply(socket, "authenticated", {"userId": f"[{message['payload']['token']}]"}, message)

    async with stand_in(authenticate=authenticate) as url:
        options, environment = (["--token", "ann"], {}) if way == "option" else ([], {"HUBBUB_TOKEN": "ann"})
        out, _, code = await check(url, *options, **environment)
    assert "signed in as [ann]" in out
    assert code == 0


async def test_nobody_there_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        out, err, code = await check(f"127.0.0.1:{port}")
    assert err.startswith(f"hubbub check: cannot connect to ws://127.0.0.1:{port}/ws: nobody listens there; start")
    assert (out, err.count("\n"), code) == ("", 1, 1)


async def test_a_websocket_of_another_kind_is_one_line() -> None:
    async with stand_in(welcome="") as url:
        out, err, code = await check(url, "--timeout", "0.2")
    assert f"{url} is a WebSocket, but not one of Hubbub's: waited 0.2 s for `welcome`; check the path" in err
    assert (out, err.count("\n"), code) == ("", 1, 1)
