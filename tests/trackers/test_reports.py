"""What is reported: names of metrics, configuration, links, and the rows of comparisons and sweeps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.client.protocol.model_list import parse_model
from harness.results.tracker_reports import (
    ScoredSource,
    comparison_frame,
    comparison_metrics,
    model_reports,
    sweep_report,
    training_links,
)
from harness.runs.folder import RunFolder
from harness.runs.logs.task_training_log import TTT_LOG, TrainingLog
from harness.runs.schemas.manifest_schema import ServedModel
from harness.runs.schemas.task_training import TttConfig
from harness.runs.schemas.tracker_run import TrackerRun
from harness.scoring.run_scores import score_run
from harness.trackers.choice import PACKAGES, parse_trackers
from harness.trackers.report import ReportedMetric, TrackerReport, flatten
from harness.trackers.sent_file import read_links
from tests.runs.logs.test_task_training_log import record
from tests.support.runs.run_folders import MakeRun, edit_manifest

SPEC = "toy/cross/evaluation#n=12"
COMPARISON: dict[str, Any] = {
    "delta": 0.25, "low": None, "high": None, "p": 0.03, "p_holm": 0.06, "p_method": "mcnemar",
    "won": 3, "lost": 0, "tasks": 12, "verdict": "not resolved", "note": "too few tasks differ",
}  # fmt: skip


def test_a_metric_has_its_interval_beside_it() -> None:
    metrics = {
        "vote_2": ReportedMetric(0.5, 0.2, 0.8),
        "count/tasks": ReportedMetric(12),
        "odd": ReportedMetric(math.nan),
    }
    expected = {"vote_2": 0.5, "vote_2/low": 0.2, "vote_2/high": 0.8, "count/tasks": 12.0}
    assert TrackerReport("r", "score", {}, metrics).scalars() == expected


def test_every_model_is_a_run_with_its_metrics_costs_and_configuration(make_run: MakeRun) -> None:
    run = make_run("r", SPEC, {"base": 0.1, "cross": 0.8})
    results, manifest = score_run(run), RunFolder(run).manifest()
    source = ScoredSource(run, "run", manifest, results.cost, {"seconds": 1.5})
    base, cross = model_reports(source, results)
    assert (base.name, cross.name, cross.group, cross.folder) == ("r@base", "r@cross", "r", run)
    metric, scalars = results.models["cross"].metrics["vote_2"], cross.scalars()
    assert (scalars["vote_2"], scalars["vote_2/low"], scalars["vote_2/high"]) == (metric.value, metric.low, metric.high)
    assert results.cost is not None
    assert (scalars["cost/tokens"], scalars["session/seconds"]) == (results.cost["cross"].tokens, 1.5)
    assert scalars["count/failures"] == sum(results.models["cross"].failures.values()) > 0
    assert (cross.config["dataset"], cross.config["tasks"], cross.config["prompting"]["name"]) == (SPEC, 12, "cross")
    assert "task_ids" not in cross.config
    assert list(cross.tables["scores"].columns)[:4] == ["metric", "value", "low", "high"]


def test_a_run_that_cannot_be_scored_reports_counts_and_costs(make_run: MakeRun) -> None:
    run = make_run("r", SPEC, {"base": 0.1})
    results, manifest = score_run(run), RunFolder(run).manifest()
    [report] = model_reports(ScoredSource(run, "run", manifest, results.cost, {"seconds": 2.0}), None)
    assert set(report.scalars()) == {"cost/requests", "cost/tokens", "cost/seconds", "session/seconds"}
    assert report.tables == {}


def test_only_the_adapters_own_training_is_linked() -> None:
    there = {"wandb": TrackerRun(id="abc", project="arc-bench", url="https://there.test")}
    here = {"mlflow": TrackerRun(id="123", project="7")}
    served = [
        ServedModel(name="base"),
        ServedModel(name="a", tracker_runs=there),
        ServedModel(name="b", tracker_runs=here),
    ]
    assert training_links(served, "a") == {"training wandb": "https://there.test"}
    assert training_links(served, "b") == {"training mlflow": "7/123"}
    assert training_links(served, "base") == {}


def test_a_server_lists_where_an_adapter_was_trained() -> None:
    runs = {"wandb": {"id": "abc", "project": "arc-bench"}}
    listed = parse_model({"id": "a", "arc_bench": {"manifest": {"tracker_runs": runs}}})
    assert listed.tracker_runs == {"wandb": TrackerRun(id="abc", project="arc-bench")}
    for other in (None, [], {"wandb": {"url": "no id"}}, {"wandb": "abc"}):
        model = parse_model({"id": "a", "arc_bench": {"manifest": {"tracker_runs": other}}})
        assert model.tracker_runs is None
        assert "tracker_runs" not in model.model_dump()


def test_a_comparison_without_an_interval_has_p_values_only() -> None:
    rows = [{"metric": "vote_2", "model": "a", "baseline": "b", "comparison": COMPARISON}]
    scalars = TrackerReport("r", "compare", {}, comparison_metrics(rows)).scalars()
    assert scalars == {"vote_2/a vs b": 0.25, "vote_2/a vs b/p": 0.03, "vote_2/a vs b/p_holm": 0.06}
    assert comparison_frame(rows).loc[0, "verdict"] == "not resolved"


def test_a_sweep_is_one_run_with_rows_and_differences(tmp_path: Path) -> None:
    interval = {"value": 0.5, "low": 0.25, "high": 0.75, "method": "bca", "tasks": 12}
    recipe = {"metric": "vote_2", "recipe": "50 %", "baseline": "100 %", "comparison": COMPARISON}
    table = {
        "dataset": SPEC, "n": 4, "tasks": 12, "recipes": [recipe], "adapters": [],
        "rows": [{"label": "50 %", "models": ["w50-s0", "w50-s1"], "metrics": {"vote_2": interval}}],
    }  # fmt: skip
    report = sweep_report(tmp_path / "mix", "Title", [table], {"intervals": b"png"}, {"training w50-s0 wandb": "u"})
    scalars = report.scalars()
    assert (report.name, report.command, report.folder) == ("mix", "sweep", tmp_path / "mix")
    assert (scalars["50 %/vote_2"], scalars["50 %/vote_2/high"], scalars["vote_2/50 % vs 100 %/p_holm"]) == (
        0.5,
        0.75,
        0.06,
    )
    assert report.tables["mixtures"].loc[0, "mixture"] == "50 %"
    assert report.config["mixtures"] == {"50 %": ["w50-s0", "w50-s1"]}
    two = sweep_report(tmp_path, "Title", [table, {**table, "dataset": "arc1/evaluation"}], {}, {})
    assert {f"{SPEC}/50 %/vote_2", "arc1/evaluation/50 %/vote_2"} <= two.scalars().keys()


def test_a_damaged_line_of_the_list_of_reports_is_skipped(tmp_path: Path) -> None:
    line = '{"tracker":"wandb","command":"run","run":{"id":"abc","name":"r@a","url":"%s"}}\n'
    (tmp_path / "trackers.jsonl").write_text(
        line % "https://old.test" + '{"tracker":"wan\n' + line % "https://new.test"
    )
    assert read_links(tmp_path) == {"wandb r@a": "https://new.test"}
    assert read_links(tmp_path / "nowhere") == {}


@given(st.lists(st.sampled_from(list(PACKAGES)), min_size=1))
def test_trackers_are_taken_once_each_in_their_order(names: list[str]) -> None:
    assert list(parse_trackers(" ,".join(names))) == list(dict.fromkeys(names))


def test_nested_values_become_dotted_keys() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": []}, "e": {}}) == {"a.b.c": 1, "a.d": [], "e": {}}


@pytest.mark.parametrize("text", ["nobody", "wandb,nobody", "", " , "])
def test_other_names_of_trackers_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="choose of wandb, mlflow, trackio, tensorboard"):
        parse_trackers(text)


def test_test_time_training_counts_the_tasks_with_and_without_an_adapter(make_run: MakeRun) -> None:
    run = make_run("ttt", SPEC, {"mine": 0.5})
    config = TttConfig(recipe={"model": "tiny"}, base="d", start=None)
    edit_manifest(run, ttt=config)
    log = TrainingLog(run / TTT_LOG)
    for number, outcome in enumerate(("trained", "trained", "not_finite")):
        own = outcome == "trained"
        log.append(
            record(f"cross-{number:06}", outcome=outcome, own_adapter=own, train_seconds=3.0, sample_seconds=1.0)
        )
    [report] = model_reports(ScoredSource(run, "ttt", RunFolder(run).manifest()), None)
    assert report.scalars() == {
        "ttt/tasks_with_adapter": 2,
        "ttt/tasks_without_adapter": 1,
        "ttt/train_seconds": 9,
        "ttt/sample_seconds": 3,
        "ttt/outcome/trained": 2,
        "ttt/outcome/not_finite": 1,
    }
