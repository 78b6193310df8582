"""The answers as text, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.bar import Verdict, judge
from bench.plot import draw
from bench.question import Question

__all__ = ["Report"]

MOSTLY = 0.3  # of the samples

Rows = list[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Report:
    """What a run found.

    Args:
        machine: day, commit, machine and versions.
        method: how much was measured, in words.
    """

    machine: dict[str, str]
    method: str
    questions: Sequence[Question]

    def text(self) -> str:
        """The tables for a terminal."""
        parts = ["\n".join([question.title, *_columns(_rows(question))]) for question in self.questions]
        verdicts = list(judge(self.questions))
        if verdicts:
            parts.append("\n".join(["The bar", *_columns(_verdict_rows(verdicts))]))
        return "\n\n".join([*parts, *_warnings(self.questions)])

    def markdown(self, plot: str) -> str:
        """The page for the results folder; `plot` is the picture's file name."""
        machine = ", ".join(f"{name} {value}" for name, value in self.machine.items() if name not in ("date", "commit"))
        parts = [
            f"# {self.machine['date']}, commit {self.machine['commit']}",
            f"{machine}.",
            self.method,
            f"![All results]({plot})",
        ]
        verdicts = list(judge(self.questions))
        if verdicts:
            parts += ["## The bar", _table(_verdict_rows(verdicts))]
        for question in self.questions:
            parts += [f"## {question.title}", _table(_rows(question))]
        return "\n\n".join([*parts, *_warnings(self.questions)]) + "\n"

    def write(self, folder: Path, name: str) -> None:
        """Write `name`.json, .md and .png into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        found = {"machine": self.machine, "method": self.method, "questions": [q.as_json() for q in self.questions]}
        (folder / f"{name}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        (folder / f"{name}.md").write_text(self.markdown(f"{name}.png"))
        draw(self.questions, f"{self.machine['date']}, commit {self.machine['commit']}", folder / f"{name}.png")


def _rows(question: Question) -> Rows:
    """Each contender's value, and how many times the first contender's it is."""
    first = next(iter(question.samples), "")
    header = ("", f"{question.unit}: median (range)", f"x {first}")
    rows = [(name, str(question.spread(name)), str(question.ratio(name, first))) for name in question.samples]
    return [header, *rows, *((name, "not measured", reason) for name, reason in question.missing.items())]


def _verdict_rows(verdicts: Sequence[Verdict]) -> Rows:
    header = ("", "measured: median (range)", "bar", "")
    return [
        header,
        *((_words(v), _measured(v), _limit(v), "held" if v.held else "MISSED") for v in verdicts),
    ]


def _words(verdict: Verdict) -> str:
    bar = verdict.bar
    return f"{bar.question}: {bar.contender}" + (f" / {bar.other}" if bar.other else f", {verdict.unit}")


def _measured(verdict: Verdict) -> str:
    more = "" if verdict.bar.more is None else f", {verdict.more} {verdict.unit} more"
    return f"{verdict.spread}{more}"


def _limit(verdict: Verdict) -> str:
    more = "" if verdict.bar.more is None else f" or + {verdict.bar.more:g} {verdict.unit}"
    return f"<= {verdict.bar.limit:g}{more}"


def _warnings(questions: Sequence[Question]) -> Iterator[str]:
    for question in questions:
        if names := question.starved():
            yield f"Warning: {question.name}: the load generator was the bottleneck for {', '.join(names)}."
        if (part := question.disturbed()) > MOSTLY:
            yield f"Warning: {question.name}: something else used the cores in {part:.0%} of the samples; repeat it."


def _columns(rows: Rows) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _table(rows: Rows) -> str:
    header, *body = rows
    lines = [header, ("---",) * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
