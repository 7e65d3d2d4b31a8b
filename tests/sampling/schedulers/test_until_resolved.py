"""bench run --until-resolved against a real HTTP server: the run ends where a full run's scores say, and resumes."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.core.errors import ConfigError, RunError
from harness.runs.folder import RunFolder
from harness.runs.schemas.sequential_schema import SequentialResult
from harness.sampling.dry_run import estimate_run
from harness.sampling.options.run_options import RunOptions
from harness.sampling.progress_display import Display
from harness.sampling.reproduction import reproduce_run
from harness.scoring.prediction_loader import open_predictions
from harness.scoring.run_scores import score_run
from harness.stats.sequential import Schedule, sequential_verdict, task_order
from reports.report import write_report
from tests.support.commands import run_bench
from tests.support.runs.run_folders import load_records
from tests.support.runs.sampling_runs import (
    STOPPING_POLICY,
    copy_interrupted,
    predictions_without_times,
    run_sampling,
)
from tests.support.servers.chat_answers import Body, echo, random_faults
from tests.support.servers.chat_server import ChatServer

TASKS, N = 40, 2
MODELS = ("base", "similar", "better")
RIGHT = {"base": 100, "similar": 100, "better": 235}
"""Of 256 prompts, how many a model answers right; ``similar`` answers others than ``base``."""


SERVED: dict[str, Body] = {name: {"parent": None, "max_model_len": 65536} for name in MODELS}


def skilled_answer(body: Body) -> tuple[str, str]:
    """Return a right or a broken answer, chosen by a hash of the messages; ``similar`` has a hash of its own."""
    digest = hashlib.sha256(repr(body["messages"]).encode()).digest()[body["model"] == "similar"]
    text = echo(body)
    return (text if digest < RIGHT[body["model"]] else text[:-1] + "x"), "stop"


def options(server: ChatServer, out: Path, *models: str, **changes: object) -> RunOptions:
    plain = RunOptions(
        servers=(server.url,), models=models or ("base", "better"), dataset=f"toy/copy/evaluation#n={TASKS}", n=N,
        out=out, prompt="compact-v0", encoder="MinimalGridEncoder()", policy=STOPPING_POLICY, seed=3,
        until_resolved="accuracy",
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders ``full`` without the option, ``two`` and ``three`` with it, ``bound`` with a similar model."""
    folder = tmp_path_factory.mktemp("until")
    with ChatServer(skilled_answer, models=SERVED) as server:
        run_sampling(options(server, folder / "full", *MODELS, until_resolved=None))
        for name, models, bound in (
            ("two", ("base", "better"), None),
            ("three", MODELS, None),
            ("bound", ("base", "similar"), 60.0),
        ):
            before = len(server.bodies)
            summary = run_sampling(options(server, folder / name, *models, smaller_than=bound))
            assert summary.finished
            assert summary.sampled == summary.done == summary.total == len(server.bodies) - before
            score_run(folder / name)
    return folder


def result_of(run: Path) -> SequentialResult:
    result = RunFolder(run).results().sequential
    assert result is not None
    return result


def accuracies(run: Path, model: str) -> dict[str, float]:
    """Return a model's accuracy on each task with one test output, counted from the lines of the run."""
    lines = [record for record in load_records(run) if record.model == model]
    truths = {task.id: task.test[0].output.to_rows() for task in open_predictions(run).tasks if task.test[0].output}
    return {
        task: sum(line.grid == truth for line in lines if line.task_id == task) / N for task, truth in truths.items()
    }


@pytest.mark.parametrize(
    ("name", "model", "pairs", "bound"), [("two", "better", 1, None), ("bound", "similar", 1, 0.6)]
)
def test_the_run_ends_at_the_first_look_that_decides(
    runs: Path, name: str, model: str, pairs: int, bound: float | None
) -> None:
    order = task_order(list(accuracies(runs / "full", "base")), seed=3)
    assert RunFolder(runs / name).manifest().config.task_ids == order
    base, other = (accuracies(runs / "full", model) for model in ("base", model))
    schedule = Schedule(tuple(range(2, TASKS + 1, 2)), 0.05 / pairs)
    for tasks in schedule.looks:
        differences = np.array([other[task] - base[task] for task in order[:tasks]])
        verdict = sequential_verdict(differences, schedule, N, bound, seed=3)
        if verdict.decided:
            break
    result = result_of(runs / name)
    assert (result.reached, result.declared) == (tasks, TASKS)
    assert result.not_reached == order[tasks:]
    assert result.reached < TASKS
    comparison = result.comparisons[model]
    assert comparison.verdict == verdict.verdict == ("better" if bound is None else "smaller than 0.6")
    assert (comparison.delta, comparison.low) == (pytest.approx(differences.mean()), verdict.looks[-1].low)


def test_only_reached_tasks_are_sampled_and_scored(runs: Path) -> None:
    result = result_of(runs / "two")
    records = predictions_without_times(runs / "two")
    full = {record.key: record for record in predictions_without_times(runs / "full")}
    assert [full[record.key] for record in records] == records
    reached = set(RunFolder(runs / "two").manifest().config.task_ids[: result.reached])
    assert {record.task_id for record in records} == reached
    assert len(records) == 2 * N * result.reached
    for scores in RunFolder(runs / "two").results().models.values():
        assert (scores.tasks, scores.failures.get("missing", 0)) == (result.reached, 0)


def test_a_run_with_an_undecided_model_goes_on_for_all(runs: Path) -> None:
    result = result_of(runs / "three")
    assert result.reached == TASKS
    assert result.comparisons["better"].verdict == "better"
    assert result.comparisons["better"].tasks < TASKS
    assert (result.comparisons["similar"].verdict, result.comparisons["similar"].tasks) == ("not resolved", TASKS)
    assert result.not_reached == []
    assert RunFolder(runs / "three").manifest().config.sequential.alpha == 0.025  # type: ignore[union-attr]


@pytest.mark.parametrize("lines", [0, 3, 8, 15, 30])
def test_a_killed_run_resumes_to_the_same_predictions(runs: Path, tmp_path: Path, lines: int) -> None:
    copy_interrupted(runs / "two", tmp_path / "run", lines)
    with ChatServer(skilled_answer, models=SERVED) as server:
        assert run_sampling(options(server, tmp_path / "run", resume=True)).finished
        assert len(server.bodies) == len(load_records(runs / "two")) - lines
    assert predictions_without_times(tmp_path / "run") == predictions_without_times(runs / "two")
    score_run(tmp_path / "run")
    assert result_of(tmp_path / "run") == result_of(runs / "two")


def test_a_finished_run_resumes_without_requests(runs: Path) -> None:
    with ChatServer(skilled_answer, models=SERVED) as server:
        before = RunFolder(runs / "two").manifest().predictions_sha256
        summary = run_sampling(options(server, runs / "two", resume=True))
        assert (summary.finished, summary.sampled, server.bodies) == (True, 0, [])
    assert RunFolder(runs / "two").manifest().predictions_sha256 == before


def test_faults_of_the_server_change_nothing(runs: Path, tmp_path: Path) -> None:
    policy = replace(STOPPING_POLICY, retries=60, backoff=0.001)
    with ChatServer(skilled_answer, models=SERVED, faults=random_faults(5, 30)) as server:
        assert run_sampling(options(server, tmp_path / "run", policy=policy)).finished
    assert predictions_without_times(tmp_path / "run") == predictions_without_times(runs / "two")


def test_a_resumed_run_keeps_its_design(runs: Path, tmp_path: Path) -> None:
    copy_interrupted(runs / "two", tmp_path / "run", 5)
    with ChatServer(skilled_answer, models=SERVED) as server, pytest.raises(RunError, match="sequential"):
        run_sampling(options(server, tmp_path / "run", resume=True, smaller_than=5.0))


def test_an_unfinished_run_has_no_verdict_before_its_first_look(runs: Path, tmp_path: Path) -> None:
    copy_interrupted(runs / "two", tmp_path / "run", 3)
    saved = open_predictions(tmp_path / "run")
    assert saved.sequential is not None
    assert (saved.sequential.comparisons, saved.sequential.reached, len(saved.tasks)) == ({}, 2, 2)


def test_a_reproduction_has_the_same_design(runs: Path, tmp_path: Path) -> None:
    with ChatServer(skilled_answer, models=SERVED) as server:
        _, agreement = reproduce_run(
            runs / "bound", tmp_path / "again", (server.url,), policy=STOPPING_POLICY, display=Display(io.StringIO())
        )
    assert agreement is not None
    assert agreement.same_results
    assert agreement.same == agreement.predictions


def test_the_verdict_is_in_every_command(runs: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    run, reached = runs / "two", result_of(runs / "two").reached
    for words in (["score", str(run)], ["compare", str(run)]):
        result = runner.invoke(cli, words)
        assert result.exit_code == 0, result.output
        assert f"--until-resolved accuracy: {reached} of {TASKS} tasks were sampled" in result.stdout
        assert f"{TASKS - reached} others are in no figure" in result.stderr
    write_report([run], tmp_path / "report.md")
    page = (tmp_path / "report.md").read_text()
    assert f"--until-resolved accuracy: {reached} of {TASKS} tasks were sampled" in page
    assert "--until-resolved accuracy --" in page  # the command that repeats the run
    gate = runner.invoke(cli, ["gate", f"{run}@better", "--metric", "accuracy", "--min", "0.1"])
    assert "--until-resolved accuracy sampled" in gate.stderr


def test_a_pool_refuses_a_run_that_did_not_reach_all_tasks(
    capsys: pytest.CaptureFixture[str], runs: Path, tmp_path: Path
) -> None:
    status, _, error = run_bench(capsys, "pool", runs / "two", runs / "full", "-o", tmp_path / "pool")
    assert status == 2
    assert "did not reach" in error


def test_a_submission_says_that_tasks_are_missing(runs: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["submit", f"{runs / 'two'}@better", "-o", str(tmp_path / "submission.json")])
    assert result.exit_code == 0, result.stderr
    assert f"sampled {result_of(runs / 'two').reached} of {TASKS} tasks" in result.stderr


def test_other_runs_are_compared_on_common_tasks_with_a_warning(capsys: pytest.CaptureFixture[str], runs: Path) -> None:
    status, _, error = run_bench(capsys, "compare", f"{runs / 'two'}@better", f"{runs / 'full'}@better", "--common")
    assert status == 0
    assert "the runs differ in --until-resolved (accuracy, none)" in error


def test_a_dry_run_says_that_it_may_end_earlier(tmp_path: Path) -> None:
    with ChatServer(skilled_answer, models=SERVED) as server:
        text = estimate_run(options(server, tmp_path / "run")).text()
    assert "at most: the models are compared after every 2 tasks" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ("base",)}, "second --model"),
        ({"stop": "decided"}, "--stop"),
        ({"search": "dfs"}, "--search dfs"),
        ({"rule": "logprob"}, "--rule"),
        ({"until_resolved": "f1"}, "no such metric"),
        ({"smaller_than": 0.0}, "above 0"),
        ({"until_resolved": None, "smaller_than": 2.0}, "belongs to --until-resolved"),
    ],
)
def test_options_that_do_not_go_together(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with ChatServer(skilled_answer, models=SERVED) as server, pytest.raises(ConfigError, match=message):
        run_sampling(options(server, tmp_path / "run", **changes))


def test_tasks_without_answers_cannot_be_compared(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.json"
    tasks.write_text('{"a": {"train": [{"input": [[1]], "output": [[1]]}], "test": [{"input": [[2]]}]}}')
    with (
        ChatServer(skilled_answer, models=SERVED) as server,
        pytest.raises(Exception, match="no output to score against"),
    ):
        run_sampling(options(server, tmp_path / "run", dataset=str(tasks)))
