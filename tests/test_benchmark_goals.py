"""The benchmarks of scores end with status 1 where a goal is missed."""

from __future__ import annotations

from argparse import Namespace

import pytest

from benchmarks import interval_speed, scoring


@pytest.mark.parametrize(
    ("times", "megabytes", "equal", "told"),
    [
        (30, 599, True, []),
        (29, 100, True, ["29 times faster, where 30 are wanted"]),
        (40, 600, True, ["600 MB at the peak, where less than 600 is wanted"]),
        (40, 100, False, ["the intervals differ from scipy's"]),
    ],
)
def test_the_goals_of_intervals(times: float, megabytes: float, equal: bool, told: list[str]) -> None:
    assert interval_speed.missed(times, megabytes, equal) == told
    sides: list[tuple[str, float, float]] = [("harness", 1.0, megabytes), ("scipy", times, 90.0)]
    runs: list[tuple[str, dict[str, float | str]]] = [
        (side, {"wall": wall, "cpu": wall, "total": total, "own": 1.0, "digest": "x" if equal else side})
        for side, wall, total in sides
    ]
    page, goals = interval_speed.write_page(runs, Namespace(resamples=9, repeats=1))
    assert goals == told
    assert f"Time ratio {times} by the clock" in page


@pytest.mark.parametrize(
    ("seconds", "megabytes", "agree", "told"),
    [
        (59.0, 599.0, True, []),
        (60.0, 100.0, True, ["60 s for 1,000,000 predictions"]),
        (10.0, 600.0, True, ["600 MB for 1,000,000 predictions"]),
        (10.0, 100.0, False, ["the two sides give different metrics"]),
    ],
)
def test_the_goals_of_scoring(seconds: float, megabytes: float, agree: bool, told: list[str]) -> None:
    found = scoring.missed(1_000_000, scoring.Figures(seconds, 1.0, megabytes, {}), agree)
    assert [goal.startswith(begin) for goal, begin in zip(found, told, strict=True)] == [True] * len(told)
