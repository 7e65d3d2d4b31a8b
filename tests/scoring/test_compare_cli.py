"""``bench compare``: comparisons, their warnings, and how runs and models are selected."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder
from harness.runs.schemas.manifest_schema import ServedModel
from harness.scoring.run_selector import select_models
from harness.stats.paired_test import holm, tasks_needed
from harness.voting.metrics import METRICS
from reports.loading.runs import load_sections
from reports.sections.provenance import warnings as report_warnings
from tests.support.commands import run_bench
from tests.support.data_samples import task_json
from tests.support.runs.run_folders import MakeRun, edit_manifest

SPEC = "toy/cross/evaluation#n=40"


def test_every_metric_of_every_pair_is_compared_and_corrected_together(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun
) -> None:
    run = make_run("a", SPEC, {"low": 0.1, "mid": 0.5, "high": 0.9})
    status, out, _ = run_bench(capsys, "compare", run, "--json", "-")
    assert status == 0
    rows = json.loads(out)
    pairs = [("mid", "low"), ("high", "low"), ("high", "mid")]
    assert [(row["metric"], row["model"], row["baseline"]) for row in rows] == [
        (metric, *pair) for metric in METRICS for pair in pairs
    ]
    assert [row["comparison"]["p_holm"] for row in rows] == pytest.approx(holm([r["comparison"]["p"] for r in rows]))
    for row in rows:
        c = row["comparison"]
        assert (len(row["won"]), len(row["lost"])) == (c["won"], c["lost"])
        assert (c["verdict"] == "not resolved") == (c["p_holm"] >= 0.05)
        if c["sd"] and c["delta"]:
            assert row["tasks_needed"] == tasks_needed(c["sd"], abs(c["delta"]))
    accuracy = next(
        row for row in rows if (row["metric"], row["model"], row["baseline"]) == ("accuracy", "high", "low")
    )
    assert accuracy["comparison"]["verdict"] == "better"


def test_the_text_has_verdicts_task_ids_and_the_tasks_needed(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun
) -> None:
    run = make_run("a", SPEC, {"base": 0.45, "same": 0.5, "good": 0.95})
    status, out, _ = run_bench(capsys, "compare", run, "--baseline", "--plan", "2.5")
    assert status == 0
    assert out.count("| same ") == out.count("| good ") == 2 * len(METRICS)
    assert "against same" not in out
    assert f"Holm-corrected over these {2 * len(METRICS)} comparisons" in out
    assert re.search(r"accuracy: good against base: better, \+\d+\.\d points; wins \d+: cross-0000\d\d", out)
    assert re.search(r"not resolved, [+-]\d+\.\d points \(a difference of this size takes about [\d,]+ tasks\)", out)
    assert "tasks for 2.5 points" in out
    assert "…" in out
    alike = make_run("alike", SPEC, {"none": 0.0, "nothing": 0.0, "all": 1.0})
    _, plan, _ = run_bench(capsys, "compare", alike, "--plan", "1", "--metric", "vote_2")
    assert re.search(r"\| nothing +\| none .* no task differs \|", plan)
    assert re.search(r"\| all +\| none .* all tasks differ alike \|", plan)
    assert "tasks for 1 point |" in plan
    _, every, _ = run_bench(capsys, "compare", run, "--all-ids", "--metric", "accuracy")
    assert "…" not in every
    assert "over these 3 comparisons alone" in every
    _, twice, _ = run_bench(capsys, "compare", run, "--all-ids", "--metric", "accuracy", "--metric", "accuracy")
    assert twice == every


def test_servers_that_computed_in_other_dtypes_give_a_warning(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun
) -> None:
    """Of the compared models only, and not where a server did not say."""
    one, two, three = (make_run(name, SPEC, {"m": 0.5, "other": 0.5}) for name in ("one", "two", "three"))
    for run, dtypes in ((one, ("float32", "bfloat16")), (two, ("bfloat16", "bfloat16"))):
        served = [ServedModel(name=name, dtype=dtype) for name, dtype in zip(("m", "other"), dtypes, strict=True)]
        edit_manifest(run, served=served)
    text = "the servers of the models computed in different dtypes (bfloat16, float32)"
    assert text in run_bench(capsys, "compare", f"{one}@m", f"{two}@m")[2]
    assert "dtype" not in run_bench(capsys, "compare", f"{one}@other", f"{two}@m")[2]
    assert "dtype" not in run_bench(capsys, "compare", f"{one}@m", f"{three}@m")[2]
    edit_manifest(
        three, served=[ServedModel(name="m", dtype="bfloat16").with_dtypes_of(ServedModel(name="m", dtype="float32"))]
    )
    assert text in run_bench(capsys, "compare", three)[2]


def test_differences_between_runs_give_warnings(capsys: pytest.CaptureFixture[str], make_run: MakeRun) -> None:
    one = make_run("one", SPEC, {"m": 0.5})
    two = make_run("two", SPEC, {"m": 0.5}, n=2, seed=5)
    (asked,) = RunFolder(two).manifest().config.models
    other = {"prompt_digest": "other", "encoder": "GridShapeEncoder(MinimalGridEncoder())"}
    edit_manifest(two, models=[asked.model_copy(update=other)], finished=None)
    status, _, err = run_bench(capsys, "compare", one, two)
    assert status == 0
    for word in ("differ in n (2, 4)", "differ in seed (0, 5)", "differ in prompt (d, other)", "differ in encoder"):
        assert word in err
    assert f"{two} is unfinished" in err
    assert "dataset" not in err


@pytest.mark.parametrize(
    ("of", "field", "value", "shown"),
    [
        ("run", "top_p", 0.9, "(0.9, 1.0)"),
        ("run", "min_p", 0.1, "(0.0, 0.1)"),
        ("run", "temperature", 0.5, "(0.0, 0.5)"),
        ("run", "api", "completions", "(chat, completions)"),
        ("run", "extra_body", {"repetition_penalty": 1.3}, '({"repetition_penalty": 1.3}, {})'),
        ("run", "chat_template_kwargs", {"enable_thinking": False}, '({"enable_thinking": false}, {})'),
        ("run", "samples_per_view", 2, "(1, 2)"),
        ("run", "augment", False, "(False, True)"),
        ("run", "lenient", True, "(False, True)"),
        ("model", "max_tokens", 7, "(7, 9)"),
        ("manifest", "without", ["min_p"], "the parameters that servers refused (min_p; none)"),
    ],
)
def test_each_difference_of_configuration_gives_a_warning(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, of: str, field: str, value: object, shown: str
) -> None:
    one, two = make_run("one", SPEC, {"m": 0.5, "k": 0.4}), make_run("two", SPEC, {"m": 0.5, "k": 0.4})
    models = RunFolder(two).manifest().config.models
    changed = [models[0].model_copy(update={field: value}), models[1]]
    edit_manifest(two, **({"models": changed} if of == "model" else {field: value}))
    words = ("--metric", "accuracy", "--json", "-")
    (line,) = run_bench(capsys, "compare", f"{one}@m", f"{two}@m", *words)[2].splitlines()
    assert (field if of != "manifest" else "parameters") in line
    assert shown in line
    assert run_bench(capsys, "compare", f"{one}@k", f"{two}@k", *words)[2] == ("" if of == "model" else line + "\n")
    assert run_bench(capsys, "gate", f"{two}@m", "--baseline", f"{one}@m", "--margin", "1")[2] == line + "\n"
    (section,) = load_sections([one, two]) if field != "augment" else (None,)
    assert section is None or line.removeprefix("warning: ") in report_warnings(section)


def test_different_tasks_are_refused_without_common(capsys: pytest.CaptureFixture[str], make_run: MakeRun) -> None:
    one, two = make_run("one", SPEC, {"m": 0.9}), make_run("two", "toy/cross/evaluation#n=30", {"m": 0.1})
    status, out, err = run_bench(capsys, "compare", one, two)
    assert (status, out) == (1, "")
    assert f"{two} did not declare tasks of {one}: 10 (cross-000030, cross-000031" in err
    assert "--common compares the 30 tasks that all have" in err
    status, out, err = run_bench(capsys, "compare", one, two, "--common", "--metric", "accuracy", "--json", "-")
    assert status == 0
    assert json.loads(out)[0]["comparison"]["tasks"] == 30
    assert f"compared are the 30 tasks that all runs have (id and content): 30 of the 40 of {one}" in err
    other = make_run("other", "toy/diagonal/evaluation#n=5", {"m": 0.9})
    status, _, err = run_bench(capsys, "compare", one, other, "--common")
    assert (status, "no task in common" in err) == (1, True)


@pytest.mark.parametrize("old", [False, True])
def test_tasks_pair_by_content_and_not_by_id_alone(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, old: bool
) -> None:
    one = make_run("one", "toy/copy/evaluation#n=20#seed=1", {"m": 0.9})
    two = make_run("two", "toy/copy/training#n=20#seed=2", {"m": 0.1})
    if old:  # what runs of older versions lack
        for run in (one, two):
            edit_manifest(run, task_digests=None)
    ids = [RunFolder(run).manifest().config.task_ids for run in (one, two)]
    assert ids[0] == ids[1]
    for words in (
        ("compare", one, two),
        ("compare", one, two, "--common"),
        ("gate", one, "--baseline", two, "--margin", "0.1"),
    ):
        status, out, err = run_bench(capsys, *words)
        assert (status != 0, out) == (True, "")
        assert "have no task in common, so that nothing can be paired; 20 ids are the same" in err


def test_the_tasks_of_one_content_are_compared_with_their_count(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    tasks: dict[str, Any] = {
        task.id: task_json(task) for task in iterate_tasks(open_dataset("toy/cross/evaluation#n=12"))
    }
    first.write_text(json.dumps(tasks))
    for changed in list(tasks)[:4]:  # one cell of one test output
        tasks[changed]["test"][0]["output"][0][0] = (tasks[changed]["test"][0]["output"][0][0] + 1) % 10
    second.write_text(json.dumps(tasks))
    one, two = make_run("one", str(first), {"m": 0.9}), make_run("two", str(second), {"m": 0.1})
    status, out, err = run_bench(capsys, "compare", one, two)
    assert (status, out) == (1, "")
    assert f"{two} and {one} mean other tasks by the ids 4 (cross-000000, cross-000001" in err
    status, out, err = run_bench(capsys, "compare", one, two, "--common", "--metric", "accuracy", "--json", "-")
    assert status == 0
    (row,) = json.loads(out)
    assert row["comparison"]["tasks"] == 8
    assert not {*row["won"], *row["lost"]} & set(list(tasks)[:4])
    assert f"compared are the 8 tasks that all runs have (id and content): 8 of the 12 of {one}" in err
    assert len(load_sections([one, two])) == 2  # a report puts them in sections of their own


def test_one_content_in_two_files_is_compared(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, tmp_path: Path
) -> None:
    path = tmp_path / "copy.json"
    path.write_text(json.dumps({t.id: task_json(t) for t in iterate_tasks(open_dataset("toy/cross/evaluation#n=12"))}))
    one, two = make_run("one", str(path), {"m": 0.9}), make_run("two", "toy/cross/evaluation#n=12", {"m": 0.1})
    edit_manifest(two, dataset_digest="0" * 16)  # the order of the tasks, or those that a --limit left out
    assert run_bench(capsys, "compare", one, two)[::2] == (0, "")
    assert len(load_sections([one, two])) == 1


def test_runs_of_one_name_in_two_folders_are_labelled_by_path(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, tmp_path: Path
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    one, two = make_run("x/run", SPEC, {"m": 0.9}), make_run("y/run", SPEC, {"m": 0.2})
    _, out, _ = run_bench(capsys, "compare", one, two, "--json", "-")
    assert (json.loads(out)[0]["model"], json.loads(out)[0]["baseline"]) == (f"{two}@m", f"{one}@m")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["compare", "RUN@a"], 2, "one model alone has nothing to be compared with"),
        (["compare", "RUN@nobody"], 1, "no model 'nobody'; it has: a, b"),
        (["compare", "RUN", "--metric", "beauty"], 2, "no metric 'beauty'"),
        (["compare", "RUN/nothing"], 1, "manifest.json is missing"),
        (["gate", "RUN", "--min", "0.5"], 2, "holds several models; name one with RUN@MODEL: a, b"),
        (["gate", "RUN@a"], 2, "give either --min, or --baseline with --margin"),
        (["gate", "RUN@a", "--min", "0.5", "--baseline", "RUN@b", "--margin", "0.1"], 2, "give either --min"),
        (["gate", "RUN@a", "--baseline", "RUN@b"], 2, "give either --min"),
        (["gate", "RUN@a", "--min", "0.5", "--metric", "beauty"], 2, "no metric 'beauty'"),
        (["gate", "RUN@a", "--min", "0.5", "--metric", "unanswered"], 2, "less of unanswered is better"),
        (["gate", "RUN@a", "--min", "1.5"], 2, "1.5 is not in the range"),
    ],
)
def test_wrong_options_and_wrong_runs(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, words: list[str], status: int, message: str
) -> None:
    run = make_run("r", "toy/cross/evaluation#n=3", {"a": 0.5, "b": 0.5})
    actual, out, err = run_bench(capsys, *(word.replace("RUN", str(run)) for word in words))
    assert (actual, out) == (status, "")
    assert message in err


def test_an_at_sign_may_be_part_of_a_run_or_a_model(
    capsys: pytest.CaptureFixture[str], make_run: MakeRun, tmp_path: Path
) -> None:
    plain, signed = make_run("a", SPEC, {"b": 0.9, "m@1f": 0.1}), make_run("a@c", SPEC, {"b": 0.5})
    for name, models in (
        (f"{signed}", ["b"]),
        (f"{signed}@b", ["b"]),
        (f"{plain}@b", ["b"]),
        (f"{plain}@m@1f", ["m@1f"]),
        (f"{plain}", ["b", "m@1f"]),
    ):
        assert [scores.model for scores in select_models((name,)).scored] == models, name
    make_run("a@b", SPEC, {"x": 0.5})
    status, _, err = run_bench(capsys, "compare", f"{plain}@b", f"{plain}@m@1f")
    assert (status, err.count("\n")) == (2, 1)
    assert f"may be {plain}@b or model b of {plain}" in err
    assert [scores.model for scores in select_models((f"{plain}@b/",)).scored] == ["x"]
    assert [scores.model for scores in select_models((f"{plain}/@b",)).scored] == ["b"]
