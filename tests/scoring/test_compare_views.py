"""Comparing, gating, reporting and submitting runs with enumerated views, alone and beside drawn runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.scoring.comparable_metrics import comparable_values, mixed_note
from harness.scoring.paired_comparison import compare_pairs
from harness.scoring.run_selector import select_models
from harness.voting.metrics import METRICS
from reports.report import write_report
from tests.support.commands import run_bench
from tests.support.runs.run_folders import MakeRun, edit_manifest
from tests.support.runs.view_runs import write_view_run

SPEC = "toy/cross/evaluation#n=24"


@pytest.fixture
def views(tmp_path: Path) -> Path:
    return write_view_run(tmp_path, "views", SPEC, {"good": 0.9, "bad": 0.2}, n=6)


def test_two_enumerated_models_compare_in_every_metric_and_greedy(
    views: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    status, out, err = run_bench(capsys, "compare", views, "--json", tmp_path / "pairs.json")
    assert status == 0
    rows = json.loads((tmp_path / "pairs.json").read_text())
    assert [row["metric"] for row in rows] == ["accuracy", "greedy", *METRICS[1:]]
    assert next(row for row in rows if row["metric"] == "accuracy")["comparison"]["verdict"] == "worse"
    assert "by up to the unexplored mass in points" in err
    status, out, _ = run_bench(capsys, "compare", views, "--metric", "unexplored")
    assert status == 0
    assert "unexplored" in out


def test_an_enumerated_and_a_drawn_run_compare_in_what_means_the_same(
    views: Path, make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = make_run("drawn", SPEC, {"good": 0.9})
    selected = select_models((f"{views}@good", str(drawn)))
    enumerated, draws = selected.scored
    rows = compare_pairs([(draws, enumerated)], selected.seed)
    assert [row.metric for row in rows] == ["greedy", "pass_n", "vote_2", "vote_1"]
    values = comparable_values("greedy", enumerated, draws)
    assert values is not None
    assert values[0].tolist() == enumerated.tasks.values_of("greedy").tolist()
    assert values[1].tolist() == draws.tasks.values_of("accuracy").tolist()
    (note,) = [text for text in selected.warnings if "are enumerated" in text]
    assert note == mixed_note(selected.scored)
    assert "greedy is compared with accuracy at temperature 0;" in note
    assert "pass_n is of 6 views against 4 draws" in note
    assert "accuracy, correct_size, correct_pixels, unanswered" in note
    assert any("differ in search (dfs min_prob 0.05 logprobs 21, none)" in text for text in selected.warnings)
    status, _, err = run_bench(capsys, "compare", f"{views}@good", drawn, "--metric", "accuracy")
    assert status == 1 or status == 2
    assert "accuracy is not compared" in err
    edit_manifest(drawn, temperature=1.0)
    warm = select_models((f"{views}@good", str(drawn)))
    assert comparable_values("greedy", *warm.scored) is None
    assert "(not for drawn@good, drawn otherwise)" in (mixed_note(warm.scored) or "")


def test_drawn_runs_are_compared_as_before(make_run: MakeRun) -> None:
    drawn = make_run("drawn", SPEC, {"good": 0.9, "bad": 0.2})
    selected = select_models((str(drawn),))
    assert mixed_note(selected.scored) is None
    assert comparable_values("greedy", *selected.scored) is None
    assert comparable_values("accuracy", *selected.scored) is not None


def test_gates_on_enumerated_views(views: Path, make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    drawn = make_run("drawn", SPEC, {"good": 0.9})
    status, out, _ = run_bench(capsys, "gate", f"{views}@good", "--metric", "greedy", "--min", "0.01")
    assert (status, out.split(":")[0]) == (0, "PASS")
    status, _, err = run_bench(capsys, "gate", drawn, "--metric", "greedy", "--min", "0.5")
    assert "greedy is of enumerated views only (--search dfs), and good was drawn" in err
    assert status != 0
    options = ("--baseline", drawn, "--margin", "0.9")
    status, _, err = run_bench(capsys, "gate", f"{views}@good", "--metric", "accuracy", *options)
    assert "accuracy is not compared: the answers of" in err
    assert status != 0
    assert run_bench(capsys, "gate", f"{views}@good", "--metric", "greedy", *options)[0] == 0


def test_tables_show_the_unexplored_mass_and_rules_that_need_rescores_are_left_out(
    views: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run_bench(capsys, "score", views, "--rules", "all")
    assert status == 0
    assert "| greedy" in out
    assert " + at most " in out
    assert "N = 6 views a test output" in out
    assert "144 views requested" in out
    assert "there are no vote curves" in out
    for rule in ("poe", "kgmon"):
        assert f"rule {rule} is left out for good: the candidates were not rescored" in err
        assert f"| {rule}" not in out
    status, _, err = run_bench(capsys, "score", views, "--rules", "poe")
    assert status != 0
    assert "rule poe cannot be applied: the candidates were not rescored" in err


def test_submissions_take_the_best_candidates(views: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out_file = tmp_path / "submission.json"
    assert run_bench(capsys, "submit", f"{views}@good", "-o", out_file)[0] == 0
    status, out, _ = run_bench(capsys, "score", out_file, "--dataset", SPEC, "--json", "-")
    assert status == 0
    expected = select_models((f"{views}@good",)).scored[0].tasks.per_output["vote_2"]
    assert json.loads(out)["models"]["-"]["metrics"]["vote_2"]["per_output"] == pytest.approx(expected, abs=0.1)
    status, _, err = run_bench(capsys, "submit", f"{views}@good", "-o", out_file, "--rule", "kgmon")
    assert status != 0
    assert "rule kgmon cannot be applied: the candidates were not rescored" in err


@pytest.mark.parametrize("others", [{}, {"drawn": 0.5}])
def test_a_report_of_enumerated_views(views: Path, make_run: MakeRun, tmp_path: Path, others: dict[str, float]) -> None:
    runs = [views] + ([make_run("drawn", SPEC, others, n=6)] if others else [])
    (path,) = write_report(runs, tmp_path / "report.md")
    text = path.read_text()
    assert "there are no vote curves" in text
    assert " + at most " in text
    assert "--search dfs --min-prob 0.05" in text
    assert ("not compared" in text) == bool(others)
