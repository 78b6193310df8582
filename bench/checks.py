"""What do the checks cost? Origin, rates and quotas, on an echo, on a delivery and on an upgrade.

The same hub with and without: without, every rate is None and any origin may come. With them, all is counted as it is
with the limits that come with Hubbub, but they are so high that a bench stays below.
"""

from __future__ import annotations

from bench import peers
from bench.echo import echo
from bench.fanout import SUBSCRIBERS, fanout
from bench.load import Workload
from bench.question import Question
from bench.rounds import Settings, ask
from bench.upgrade import SIDE_BY_SIDE

__all__ = ["measure"]

QUESTIONS = {
    "checked echo": ("Echo with checks and without: server CPU a message", echo("echo")),
    "checked fanout": ("Fan-out to 1000 with checks and without: server CPU a delivery", fanout(SUBSCRIBERS, 1)),
    "checked upgrade": ("Upgrade with checks and without: server CPU a connection", Workload("upgrade", SIDE_BY_SIDE)),
}


def measure(settings: Settings) -> list[Question]:
    """Each with checks and without, in the same rounds."""
    return [
        ask(
            Question(name, title, "µs"),
            {"without": (peers.HUBBUB_UNCHECKED, workload), "with checks": (peers.HUBBUB, workload)},
            settings,
        )
        for name, (title, workload) in QUESTIONS.items()
    ]
