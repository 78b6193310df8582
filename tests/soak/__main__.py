"""`python -m tests.soak`: soak for SOAK_SECONDS with SOAK_CONNECTIONS and SOAK_SEED; exit 1 on a failure."""

from __future__ import annotations

import asyncio
import os
import random
import sys

import uvloop

from tests.soak.run import Report, Row, raise_descriptors, soak

__all__ = ["main"]

SECONDS, CONNECTIONS = 600.0, 2000
SLOPE = 512.0  # KiB a minute


def main() -> int:
    """Soak, and print the figures; the exit code."""
    seconds = float(os.environ.get("SOAK_SECONDS") or SECONDS)
    connections = int(os.environ.get("SOAK_CONNECTIONS") or CONNECTIONS)
    seed = int(os.environ.get("SOAK_SEED") or random.randrange(1_000_000))
    raise_descriptors(connections)
    print(f"==> {connections:,} connections that come and go for {seconds:g} s, seed {seed}", flush=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(soak(seconds, connections, seed, say=lambda line: print(line, flush=True)))
    return _print(report)


def _print(report: Report) -> int:
    rows = [
        *report.rows,
        Row("surprises", None, None, report.surprises.total(), 0),
        Row("errors in the log", None, None, sum(map(report.said.count, ("ERROR", "Traceback"))), 0),
        Row("exit code", None, None, abs(report.code), 0),
    ]
    if report.slope is not None:
        rows.insert(0, Row("memory's slope, KiB a minute", None, None, round(report.slope, 1), SLOPE))
    print("\nwhat the visitors did: " + ", ".join(f"{name} {count:,}" for name, count in report.done.most_common()))
    for text, count in report.surprises.most_common(20):
        print(f"surprise, {count} times: {text}")
    if report.said:
        print(f"the log:\n{report.said.rstrip()}")
    print(f"\n{'':<30}{'before':>12}{'peak':>12}{'after':>12}{'limit':>12}")
    for row in rows:
        columns = "".join(f"{'' if value is None else f'{value:,}':>12}" for value in (row.before, row.peak, row.after))
        print(f"{row.name:<30}{columns}{row.limit:>12,}  {'pass' if row.passed else 'FAIL'}")
    passed = all(row.passed for row in rows)
    print(f"\n{'PASS' if passed else 'FAIL'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
