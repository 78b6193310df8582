"""`hubbub doctor`: say what is unsafe or will fail before others find out."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from hubbub.cli.application import import_app
from hubbub.cli.checks import Deployment, Finding, Level, examine, examine_surroundings
from hubbub.cli.line import printable
from hubbub.config import load_settings
from hubbub.errors import ConfigError

__all__ = ["doctor"]

COLOURS = {Level.ERROR: "red", Level.WARNING: "yellow", Level.INFO: "cyan", Level.OK: "green"}


def doctor(
    app: Annotated[str, typer.Argument(help="Where the app is: module:attribute, for example main:app.")],
    host: Annotated[str, typer.Option(help="Address it will listen on.")] = "127.0.0.1",
    workers: Annotated[int, typer.Option(min=1, help="Processes that will serve it.")] = 1,
    ssl_certfile: Annotated[Path | None, typer.Option(help="Certificate for HTTPS and WSS, in PEM.")] = None,
    ssl_keyfile: Annotated[Path | None, typer.Option(help="Private key of the certificate, not encrypted.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for each database and broker to answer.")] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look at an app as it would be served: each line says what is wrong, why, and how to mend it; exit 1 on an error.

    The app is imported and not started, and nothing is changed.
    """
    try:
        deployment = Deployment(
            settings=load_settings(),
            host=host,
            workers=workers,
            concurrency=_concurrency(),
            certfile=ssl_certfile,
            keyfile=ssl_keyfile,
            timeout=timeout,
        )
    except ConfigError as error:
        findings = [Finding(Level.ERROR, "settings", str(error))]
    else:
        findings = _examine(app, deployment)
    counts = Counter(finding.level for finding in findings)
    (_print_json if as_json else _print)(findings, counts)
    raise typer.Exit(1 if counts[Level.ERROR] else 0)


def _examine(app: str, deployment: Deployment) -> list[Finding]:
    findings = examine_surroundings(deployment)
    if any(finding.level is Level.ERROR for finding in findings):
        return [*findings, Finding(Level.INFO, "app", "not looked at before that is mended")]
    sys.path.insert(0, os.getcwd())
    try:
        import_app(app)
    except ConfigError as error:
        return [*findings, Finding(Level.ERROR, "app", str(error))]
    from hubbub.node.hub import Hub

    hubs = sorted(Hub.all_made(), key=lambda hub: hub.path)
    if not hubs:
        return [*findings, Finding(Level.ERROR, "app", f"importing {app} makes no hub", "hub = Hub(); hub.attach(app)")]
    return findings + asyncio.run(examine(replace(deployment, hubs=hubs)))


def _concurrency() -> int:
    value = os.environ.get("WEB_CONCURRENCY", "")
    return int(value) if value.isdecimal() else 1


def _print(findings: list[Finding], counts: Counter[Level]) -> None:
    for finding in findings:
        level = typer.style(f"{finding.level.value:<7}", fg=COLOURS[finding.level])
        mend = f"  ->  {finding.mend}" if finding.mend else ""
        typer.echo(f"{level}  {printable(f'{finding.check:<11}  {finding.what}{mend}')}")
    errors, warnings = counts[Level.ERROR], counts[Level.WARNING]
    typer.echo(f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}")


def _print_json(findings: list[Finding], counts: Counter[Level]) -> None:
    rows = [{**asdict(finding), "level": finding.level.value} for finding in findings]
    typer.echo(json.dumps({"findings": rows, "counts": {level.value: counts[level] for level in Level}}, indent=2))
