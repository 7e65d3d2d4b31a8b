"""The report's section on test-time training."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.runs.folder import RunFolder
from harness.runs.task_training import TTT_LOG, Protocol, TrainingLog, TttConfig
from harness.scoring.run_scores import score_run
from reports.loading.runs import load_sections
from reports.loading.task_costs import task_costs
from reports.report import ReportOptions, write_report
from reports.sections.provenance import provenance, warnings
from reports.sections.test_time_training import test_time_training as section_text
from tests.runs.test_task_training import record
from tests.support.runs.run_folders import MakeRun, edit_manifest

SPEC = "toy/cross/evaluation#n=20"
BASE = "b" * 16
PROTOCOL = Protocol(
    label="demonstrations of these tasks at test time", trained_on=[], leaked_tasks=0, reason="a start from the base"
)


def trained_run(make_run: MakeRun, name: str, skill: float, seconds: float, **protocol: object) -> Path:
    """Return the folder of a run with test-time training; one task has no adapter."""
    run = make_run(name, SPEC, {name: skill})
    config = TttConfig(recipe={"learning_rate": 0.004}, base=BASE, start=None)
    edit_manifest(run, ttt=config)
    folder = RunFolder(run)
    manifest = folder.manifest()
    answered = {name: [f"ttt-{k}@{k:012d}" for k in range(20)]}
    folder.write_manifest(
        manifest.model_copy(update={"protocol": PROTOCOL.model_copy(update=protocol), "answered_as": answered})
    )
    log = TrainingLog(run / TTT_LOG)
    for task_id in manifest.config.task_ids:
        log.append(record(task_id, train_seconds=seconds, sample_seconds=2.0))
    log.append(record(manifest.config.task_ids[0], outcome="not_finite", own_adapter=False, train_seconds=seconds))
    return run


def base_run(make_run: MakeRun) -> Path:
    """Return the folder of the base's run."""
    run = make_run("tiny-base", SPEC, {"tiny-base": 0.02})
    (model,) = RunFolder(run).manifest().config.models
    edit_manifest(run, models=[model.model_copy(update={"hash": BASE})])
    return run


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
