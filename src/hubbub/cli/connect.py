"""`hubbub connect`: talk to a server by hand, or by a script through a pipe."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import Annotated

import typer

from hubbub.cli.dial import SUBPROTOCOL, DialError, dial, websocket_url
from hubbub.cli.line import printable
from hubbub.cli.pipe import pipe

__all__ = ["connect"]


def connect(
    url: Annotated[str, typer.Argument(help="The server, like ws://127.0.0.1:5000/ws", metavar="URL")],
    subprotocol: Annotated[list[str], typer.Option(help="A subprotocol to offer; may be given again")] = [SUBPROTOCOL],  # noqa: B006
    header: Annotated[list[str], typer.Option("--header", "-H", help="'Name: value' to send; may be given again")] = [],  # noqa: B006
    token: Annotated[str | None, typer.Option(envvar="HUBBUB_TOKEN", help="Sign in with this token")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="The longest wait for the connection, in seconds")] = 10.0,
    wait: Annotated[float, typer.Option(min=0.0, help="In a pipe: how long to stay for answers, in seconds")] = 2.0,
) -> None:
    """Talk to a server: type `echo {"a": 1}` or whole JSON messages; /help lists the commands.

    In a pipe every line is sent and every message printed as one line.
    """
    headers = [_header(line) for line in header]
    try:
        open = partial(dial, websocket_url(url), open_timeout=timeout, subprotocols=subprotocol, headers=headers)
        if sys.stdin.isatty() and sys.stdout.isatty():
            # The line editor takes a tenth of a second to import, and a pipe has no use for it.
            from hubbub.cli.prompt import Prompt, history

            code = asyncio.run(Prompt(open, token=token, history=history()).run())
        else:
            code = asyncio.run(pipe(open, token=token, wait=wait))
    except DialError as error:
        print(f"hubbub connect: {printable(str(error))}", file=sys.stderr)
        code = 1
    raise typer.Exit(code)


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name.strip():
        raise typer.BadParameter(f"{line!r} is not a header; write it like 'Authorization: Bearer ...'")
    return name.strip(), value.strip()
