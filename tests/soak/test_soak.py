"""The short form of `make soak`: after a crowd has come and gone, a server is as it was before."""

from __future__ import annotations

import pytest

from tests.soak.run import Row, raise_descriptors, slope, soak

CONNECTIONS, SECONDS, SEED, PAUSE = 200, 12.0, 20_261, 0.5


@pytest.mark.timeout(300)  # a busy machine settles late
async def test_a_crowd_leaves_nothing_behind() -> None:
    raise_descriptors(CONNECTIONS)
    lines: list[str] = []
    report = await soak(SECONDS, CONNECTIONS, SEED, PAUSE, say=lines.append)
    assert [row for row in report.rows if not row.passed] == [], lines
    assert (report.surprises, report.code, report.said.count("Traceback")) == ({}, 0, 0), report.said
    assert all(report.done[what] for what in ("subscribe", "publish", "keep", "presence", "history", "stalled"))
    peaks = {row.name: row.peak or 0 for row in report.rows}
    assert peaks["connections"] > CONNECTIONS / 2
    assert peaks["channels"] > 10


def test_a_slope() -> None:
    assert slope([(0.0, 100.0), (30.0, 110.0), (60.0, 120.0)]) == pytest.approx(20.0)
    assert slope([(0.0, 5.0), (1.0, 5.0)]) == 0.0
    assert slope([(1.0, 5.0)]) == 0.0


def test_a_row_passes_up_to_its_limit() -> None:
    assert Row("tasks", 4, 90, 4, 4).passed
    assert not Row("tasks", 4, 90, 5, 4).passed
