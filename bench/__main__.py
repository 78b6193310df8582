"""`python -m bench`: every question, or some, and the results as a table, a page, a picture and JSON."""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench import (
    broker,
    checks,
    durable,
    echo,
    fanout,
    growth,
    hostile,
    memory,
    nodes,
    recovery,
    rolling,
    storm,
    upgrade,
)
from bench.load import compile_programs
from bench.machine import describe
from bench.measure import BenchError
from bench.question import Question
from bench.report import Report
from bench.rounds import Settings

__all__ = ["main"]

RESULTS = Path(__file__).parent / "results"
QUESTIONS: dict[str, Callable[[Settings], list[Question]]] = {
    "echo": echo.measure,
    "fanout": fanout.measure,
    "upgrade": upgrade.measure,
    "memory": memory.measure,
    "growth": growth.measure,
    "durable": durable.measure,
    "recovery": recovery.measure,
    "broker": broker.measure,
    "nodes": nodes.measure,
    "storm": storm.measure,
    "rolling": rolling.measure,
    "hostile": hostile.measure,
    "checks": checks.measure,
}


def main() -> int:
    """Measure what the command line asks for."""
    options = _options()
    _raise_file_limit()
    with tempfile.TemporaryDirectory() as programs:
        settings = _settings(options, Path(programs))
        try:
            compile_programs(settings.programs)
            report = Report(describe(), _method(settings), _ask(options.only, settings))
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    print(f"\n{report.text()}\n")
    some = [] if set(options.only) == set(QUESTIONS) else options.only
    name = "-".join([report.machine["date"], report.machine["commit"], *some, *["quick"][: options.quick]])
    report.write(options.results, name)
    print(f"Written: {name}.json, .md and .png in {options.results.name}/")
    return 0


def _ask(names: list[str], settings: Settings) -> list[Question]:
    return [question for name in names for question in QUESTIONS[name](settings)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="What Hubbub costs, next to its peers.")
    parser.add_argument("--quick", action="store_true", help="two short rounds, fewer sizes: a first look, no evidence")
    parser.add_argument("--only", type=_names, default=list(QUESTIONS), help=f"some of: {','.join(QUESTIONS)}")
    parser.add_argument("--rounds", type=int, help="rounds of each question (5)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the results")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - QUESTIONS.keys():
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(QUESTIONS)}")
    return names


def _settings(options: argparse.Namespace, programs: Path) -> Settings:
    settings = Settings(programs)
    if options.quick:
        settings = replace(settings, rounds=1, slices=3, slice_seconds=0.3, warmup=0.5, sizes=(100, 1000))
        settings = replace(settings, clients=300, drain=6.0)
    return replace(settings, rounds=options.rounds) if options.rounds else settings


def _method(settings: Settings) -> str:
    turns = f"{settings.slices} turns of {settings.slice_seconds:g} s"
    return (
        f"{settings.rounds} rounds; in each every contender has {turns}. Values are server CPU (user and system), "
        "medians over the rounds; ratios are taken inside a round. Server and load generator have a core each."
    )


def _raise_file_limit() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main())
