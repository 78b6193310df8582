"""The answers as one picture: a panel a question."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from bench.growth import size_of
from bench.question import Question, Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

OURS, DOOR, PEER, FLOOR = "#1b6ca8", "#7fb3d5", "#b8bcc2", "#5f6770"
LINES = {"hubbub": OURS, "ws (Node)": "#c98b2b", "socketify": "#8a5fa8", "C send() loop": FLOOR}
COLUMNS = 2


def draw(questions: Sequence[Question], title: str, target: Path) -> None:
    """Draw all `questions` into the PNG file `target`."""
    from matplotlib.figure import Figure

    answered = [question for question in questions if question.samples]
    rows = ceil(len(answered) / COLUMNS) or 1
    figure = Figure(figsize=(13, 3.7 * rows), dpi=130, layout="constrained")
    figure.suptitle(
        f"Hubbub next to its peers: {title}. Less is better; whiskers are the range of the rounds.", fontsize=12
    )
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    for question, axis in zip(answered, axes, strict=False):
        (_lines if question.name == "growth" else _bars)(axis, question)
    for axis in axes[len(answered) :]:
        axis.remove()
    figure.savefig(target)


def _bars(axis: Axes, question: Question) -> None:
    names = list(question.samples)[::-1]
    spreads = [question.spread(name) for name in names]
    medians = [spread.median for spread in spreads]
    whiskers = [[s.median - s.low for s in spreads], [s.high - s.median for s in spreads]]
    axis.barh(
        names,
        medians,
        xerr=whiskers,
        color=[_colour(name) for name in names],
        ecolor="#333333",
        capsize=2.5,
        height=0.65,
    )
    for position, spread in enumerate(spreads):
        axis.annotate(
            _short(spread.median), (spread.high, position), (5, 0), textcoords="offset points", va="center", fontsize=9
        )
    axis.set_xlim(0, max(spread.high for spread in spreads) * 1.15)
    _dress(axis, question.title, question.unit)


def _lines(axis: Axes, question: Question) -> None:
    lines: dict[str, dict[int, Spread]] = {}
    for contender in question.samples:
        name, size = size_of(contender)
        lines.setdefault(name, {})[size] = question.spread(contender)
    for name, spreads in lines.items():
        colour = LINES.get(name, PEER)
        sizes, values = list(spreads), list(spreads.values())
        axis.plot(sizes, [v.median for v in values], "o-", color=colour, label=name, linewidth=2, markersize=5)
        axis.fill_between(
            sizes, [v.low for v in values], [v.high for v in values], color=colour, alpha=0.1, linewidth=0
        )
    ticks = sorted({size for spreads in lines.values() for size in spreads})
    axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{size:,}" for size in ticks])
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.set_ylabel(question.unit, fontsize=9)
    axis.legend(fontsize=9, frameon=False)
    _dress(axis, question.title, "subscribers")
    axis.grid(axis="y", color="#e6e8eb")


def _dress(axis: Axes, title: str, unit: str) -> None:
    axis.set_title(title, fontsize=10, loc="left")
    axis.set_xlabel(unit, fontsize=9)
    axis.tick_params(labelsize=9, length=0)
    axis.grid(axis="x", color="#e6e8eb")
    axis.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def _colour(name: str) -> str:
    if name.startswith("hubbub"):
        return DOOR if "ASGI" in name else OURS
    return FLOOR if name.startswith("C ") else PEER


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
