"""Benchmarks store their measurements, compare repetition by repetition, and report missed goals."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import __main__ as runner
from benchmarks import interval_speed, scoring
from benchmarks.common.findings import Finding, Growth, from_json, to_json
from benchmarks.common.processes import measure_process, module_command
from benchmarks.common.results_page import results_page
from benchmarks.common.store import OutOfTimeError, Store

ROOT = Path(__file__).parents[2]


def test_every_benchmark_is_run_and_has_a_page() -> None:
    modules = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"__main__"}
    assert modules == set(runner.ENTRIES)
    assert modules <= {path.stem for path in (ROOT / "benchmarks").glob("*.md")}


@pytest.mark.parametrize(
    ("megabytes", "equal", "missed"),
    [
        (599, True, []),
        (600, True, ["600 MB at the peak, where less than 600 is wanted"]),
        (100, False, ["the intervals differ from scipy's"]),
    ],
)
def test_the_goals_of_intervals(megabytes: float, equal: bool, missed: list[str]) -> None:
    assert interval_speed.missed(megabytes, equal) == missed


@pytest.mark.parametrize(
    ("seconds", "megabytes", "agree", "missed"),
    [
        (59.0, 599.0, True, []),
        (60.0, 100.0, True, ["60 s for 1,000,000 predictions"]),
        (10.0, 600.0, True, ["600 MB for 1,000,000 predictions"]),
        (10.0, 100.0, False, ["the two sides give different metrics"]),
    ],
)
def test_the_goals_of_scoring(seconds: float, megabytes: float, agree: bool, missed: list[str]) -> None:
    goals = scoring.missed(1_000_000, seconds, megabytes, agree)
    assert [goal.startswith(begin) for goal, begin in zip(goals, missed, strict=True)] == [True] * len(missed)


def test_ratios_to_the_peer_are_computed_per_repetition() -> None:
    slower = Finding("x", "s", (1.0, 2.0, 4.0), "peer", (2.0, 4.0, 4.0), goal=2.0)
    assert slower.ahead == [2.0, 2.0, 1.0]
    assert slower.missed() is None
    assert slower.behind() is None
    rates = Finding("x", "/s", (1.0, 2.0, 4.0), "peer", (2.0, 4.0, 4.0), more_is_better=True, goal=0.9)
    assert rates.ahead == [0.5, 0.5, 1.0]
    assert rates.missed() == "x: 0.50 times peer, where 0.9 is wanted"
    assert rates.behind() == "x beside peer: 0.50 times"
    none = Finding("failed", "requests", (0.0,), "peer", (30.0,), goal=1.0)
    assert none.ahead is None
    assert none.missed() is None
    assert none.cells()[4] == "–"
    with pytest.raises(ValueError, match="shorter"):
        assert Finding("x", "s", (1.0, 2.0), "peer", (2.0,)).ahead


@given(st.floats(0.1, 3.0), st.floats(1e-6, 1e3))
def test_growth_fits_the_power_of_a_power_law(power: float, factor: float) -> None:
    sizes = (1.0, 3.0, 10.0)
    growth = Growth("x", "n", "s", sizes, tuple(factor * size**power for size in sizes))
    assert growth.power == pytest.approx(power, abs=1e-6)


@given(st.floats(0.01, 100.0), st.floats(0.01, 100.0))
def test_growth_fits_a_line(start: float, slope: float) -> None:
    growth = Growth("x", "n", "s", (1.0, 3.0, 10.0), tuple(start + slope * size for size in (1.0, 3.0, 10.0)))
    assert growth.line == pytest.approx((start, slope), rel=1e-6)


def test_results_survive_a_round_trip_through_json() -> None:
    findings = [Finding("x", "s", (1.0, 2.0), "peer", (2.0, 4.0), memory=(1.0, 2.0), goal=3.0)]
    growths = [Growth("x", "n", "s", (1.0, 2.0, 4.0), (1.0, 2.0, 4.5))]
    assert from_json(json.loads(json.dumps(to_json(findings, growths)))) == (findings, growths)


def test_stored_measurements_are_reused_and_incomplete_lines_repeated(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.get("a", lambda: {"seconds": 1.0})["seconds"] == 1.0
    store.get("b", lambda: {"seconds": 2.0})
    whole = store.path.read_bytes()
    store.path.write_bytes(whole[:-5])
    again = Store(tmp_path)
    assert again.get("a", lambda: {"seconds": 9.0})["seconds"] == 1.0
    assert again.get("b", lambda: {"seconds": 3.0})["seconds"] == 3.0
    assert [json.loads(line)["key"] for line in again.path.read_text().splitlines()] == ["a", "b"]
    late = Store(tmp_path, minutes=0)
    assert late.get("a", dict)["seconds"] == 1.0
    with pytest.raises(OutOfTimeError):
        late.get("c", dict)


def test_memory_of_the_parent_process_is_not_measured() -> None:
    ballast = bytearray(b"x" * 300_000_000)
    small = measure_process([sys.executable, "-c", "print('{\"x\": 1}')"])
    large = measure_process([sys.executable, "-c", "x = b'x' * 200_000_000; print(sum(range(10**6)))"])
    assert len(ballast) == 300_000_000
    assert small.last_line() == {"x": 1}
    assert small.memory < 100 < 200 < large.memory
    assert small.cpu > 0
    with pytest.raises(SystemExit, match="no_such_module"):
        measure_process(module_command("no_such_module"))


def test_the_page_of_results_lists_missed_goals() -> None:
    findings = [Finding("x", "s", (2.0,), "peer", (1.0,), goal=1.0)]
    growths = [Growth("x", "n", "s", (1.0, 2.0, 4.0), (1.0, 2.0, 4.0))]
    summary = {"versions": ["abc"], "measured": "2026-01-01", "missed": [findings[0].missed()]}
    page = results_page(runner.ENTRIES, {"prompts": {**summary, **to_json(findings, growths)}})
    assert "| x   |          2 s |   peer |        1 s |            0.5 (0.5–0.5) |" in page
    assert "- Building prompts: x: 0.50 times peer, where 1 is wanted" in page
    assert "1.00" in page.split("## How cost grows")[1]


def _summary(value: float, why: str) -> dict[str, object]:
    findings = [Finding("x", "s", (value,), "peer", (1.0,), goal=1.0, why=why)]
    growths = [Growth("x", "n", "s", (1.0, 2.0, 4.0), (value, 2.0, 4.0))]
    missed = [goal for finding in findings if (goal := finding.missed())]
    return {"versions": [why], "measured": "2026-01-01", "missed": missed, **to_json(findings, growths)}


def test_results_of_entries_that_are_not_measured_again_are_kept() -> None:
    summaries = {entry: _summary(2.0 + i, f"reason {i}") for i, entry in enumerate(runner.ENTRIES)}
    page = results_page(runner.ENTRIES, summaries)
    for entry in runner.ENTRIES:
        again = {entry: _summary(0.5, "mended")}
        assert results_page(runner.ENTRIES, again, page) == results_page(runner.ENTRIES, summaries | again)
    assert results_page(runner.ENTRIES, {}, page) == page


def test_the_page_in_the_tree_survives_being_written_again() -> None:
    page = runner.RESULTS.read_text(encoding="utf-8")
    tail = page.partition("## Start-up")[2]
    assert tail == results_page(runner.ENTRIES, {}, page).partition("## Start-up")[2] != ""
