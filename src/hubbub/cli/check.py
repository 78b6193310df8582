"""`hubbub check`: run the eight scenarios against a server and print one table."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from hubbub.cli.dial import DialError, websocket_url
from hubbub.cli.line import printable
from hubbub.cli.peer import Failed, NotOffered, Target
from hubbub.cli.scenarios import SCENARIOS

__all__ = ["check"]

stdout = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)


class Verdict(Enum):
    """How a scenario ended, as the table shows it."""

    PASS = "[green]passed[/]"
    FAIL = "[bold red]failed[/]"
    NOT_OFFERED = "[yellow]not offered[/]"


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table; the time is in seconds."""

    name: str
    verdict: Verdict
    seconds: float
    detail: str


def check(
    url: Annotated[str, typer.Argument(help="The server, like ws://127.0.0.1:5000/ws", metavar="URL")],
    timeout: Annotated[float, typer.Option(min=0.1, help="The longest wait for any one answer, in seconds")] = 5.0,
    token: Annotated[str | None, typer.Option(envvar="HUBBUB_TOKEN", help="Sign in with this token")] = None,
) -> None:
    """Try a server: ping, echo, sign-in, chat, limits, special characters. Exit code 1 when something fails."""
    try:
        results = asyncio.run(_run(Target(websocket_url(url), timeout, token)))
    except (DialError, Failed, NotOffered) as error:
        stderr.print(f"[bold red]hubbub check:[/] {_safe(str(error))}", soft_wrap=True)
        raise typer.Exit(1) from None
    counts = {verdict: sum(result.verdict is verdict for result in results) for verdict in Verdict}
    summary = ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count)
    stdout.print(f"{summary} in {1e3 * sum(result.seconds for result in results):.0f} ms")
    raise typer.Exit(1 if counts[Verdict.FAIL] else 0)


async def _run(target: Target) -> list[Result]:
    await _reach(target)
    results: list[Result] = []
    with Live(console=stdout, auto_refresh=False, transient=True) if stdout.is_terminal else nullcontext() as live:
        for name in SCENARIOS:
            if live is not None:
                live.update(_table(target.url, results, running=name), refresh=True)
            results.append(await _try(name, target))
    stdout.print(_table(target.url, results))
    return results


async def _reach(target: Target) -> None:
    """Fail once and clearly, not eight times, where there is no server of ours at all."""
    try:
        async with target.connect(sign_in=False):
            return
    except Failed as error:
        raise Failed(f"{target.url} is a WebSocket, but not one of Hubbub's: {error}; check the path") from None


async def _try(name: str, target: Target) -> Result:
    started = time.perf_counter()
    try:
        verdict, detail = Verdict.PASS, await SCENARIOS[name](target)
    except NotOffered as error:
        verdict, detail = Verdict.NOT_OFFERED, str(error)
    except (Failed, DialError) as error:
        verdict, detail = Verdict.FAIL, str(error)
    return Result(name, verdict, time.perf_counter() - started, detail)


def _table(url: str, results: list[Result], running: str = "") -> Table:
    table = Table(
        title=escape(printable(url)), title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("Scenario", no_wrap=True)
    table.add_column("Result", no_wrap=True)
    table.add_column("ms", justify="right")
    table.add_column("Detail", overflow="fold")
    for result in results:
        table.add_row(result.name, result.verdict.value, f"{1e3 * result.seconds:.1f}", _safe(result.detail))
    if running:
        table.add_row(running, "[dim]running[/]", "", "")
    return table


def _safe(text: str) -> str:
    return escape(printable(text))
