"""The report's section on test-time training."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.scoring.run_scores import score_run
from reports.loading.runs import load_sections
from reports.loading.task_costs import task_costs
from reports.report import ReportOptions, write_report
from reports.sections.provenance import provenance, warnings
from reports.sections.test_time_training import test_time_training as section_text
from tests.support.runs.run_folders import MakeRun
from tests.support.runs.trained_runs import base_run, trained_run


def test_models_with_and_without_it_are_set_side_by_side_by_cost(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [trained_run(make_run, "long", 0.9, 8.0), base_run(make_run), trained_run(make_run, "short", 0.5, 2.0)]
    (section,) = load_sections(runs)
    costs = task_costs(section)
    assert costs["short"].train == pytest.approx(2.0)
    assert costs["long"].sample == pytest.approx(1.95)
    text = "\n\n".join(section_text(section))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows[1:5] if "---" not in row] == ["tiny-base", "short", "long"]
    assert "19 trained" in text
    assert "1 not finite" in text
    assert "1 answered by the starting adapter or the base" in text
    labels = [row for row in rows if "a start from the base" in row]
    assert sum("demonstrations of these tasks at test time" in row for row in labels) == 2
    assert sum("tiny-base" in row and "nothing of these tasks" in row for row in labels) == 1
    compared = text[text.index("Each against") :]
    assert "long" in compared
    assert "tiny-base" in compared
    assert f"Holm-corrected over the {section.family_size} such comparisons of all datasets here alone" in compared
    assert not any("long" in line and "short" in line for line in compared.splitlines())
    assert warnings(section) == []
    assert "bench ttt long/ttt-recipe.json" in "\n".join(provenance(section.runs))
    page = write_report(runs, tmp_path / "report.md", ReportOptions(tasks=("cross-000003",)))[0].read_text()
    assert "### Test-time training" in page
    assert "report-costs.png" in page
    assert (tmp_path / "report-costs.svg").is_file()


def test_a_leak_of_the_starting_adapter_is_said(make_run: MakeRun) -> None:
    run = trained_run(make_run, "leaky", 0.9, 1.0, label="these tasks", leaked_tasks=5, reason="5 of 20 tasks")
    (section,) = load_sections([run])
    text = "\n".join(section_text(section))
    assert "these tasks" in text
    assert "25.0 % of the tasks" in text


def test_other_reports_have_no_such_section(make_run: MakeRun) -> None:
    (section,) = load_sections([base_run(make_run)])
    assert section_text(section) == []


def test_results_have_the_cost(make_run: MakeRun) -> None:
    results = score_run(trained_run(make_run, "long", 0.9, 8.0))
    assert results.test_time_training is not None
    assert results.test_time_training.outcomes == {"not_finite": 1, "trained": 19}
    assert results.test_time_training.train_seconds == pytest.approx(160.0)
    plain = base_run(make_run)
    assert score_run(plain).test_time_training is None
    assert b"test_time_training" not in (plain / "results.json").read_bytes()
