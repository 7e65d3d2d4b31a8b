"""Whether a demo or sweep counts a run as finished: by its manifest and the weights that were trained last."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli.workflows.existing_run import ExpectedRun, adapter_hashes, is_finished, resume_or_move_aside
from harness.core.errors import RunError
from harness.prompts.prompt_template import load_prompt, nosystem_prompt
from harness.runs.folder import TTT_PLAN, RunFolder
from harness.runs.logs.task_training_log import TTT_LOG, TrainingLog
from harness.runs.schemas.task_training import Protocol, TaskRecord, TttConfig, TttPlan
from harness.scoring.run_scores import score_run
from serve.launch.operations import add_adapter
from tests.support.runs.run_folders import MakeRun, edit_manifest

SPEC = "toy/cross/evaluation#n=3"
NOW, BEFORE = "a" * 64, "b" * 64
EXPECTED = ExpectedRun({"m": frozenset({NOW})}, SPEC, 4, 0, "compact-v0", "MinimalGridEncoder()")


def with_expected_manifest(run: Path, **changes: object) -> Path:
    """Give a run the expected weights and prompt, except for the changes."""
    (model,) = RunFolder(run).manifest().config.models
    fields = {"hash": NOW, "prompt_digest": load_prompt("compact-v0").digest}
    fields |= {key: value for key, value in changes.items() if key in type(model).model_fields}
    rest = {key: value for key, value in changes.items() if key not in fields}
    edit_manifest(run, models=[model.model_copy(update=fields)], **rest)
    return run


def test_the_manifest_decides_and_not_the_results_file(make_run: MakeRun) -> None:
    run = with_expected_manifest(make_run("r", SPEC, {"m": 0.5}))
    assert not (run / "results.json").exists()
    assert is_finished(run, EXPECTED)
    score_run(with_expected_manifest(run, finished=None))
    assert (run / "results.json").is_file()
    assert not is_finished(run, EXPECTED)
    assert resume_or_move_aside(run, EXPECTED)


def test_a_run_with_the_variant_without_a_system_message_is_the_expected_one(make_run: MakeRun) -> None:
    """As trainer and ``bench run`` use it where the chat template takes no system message."""
    variant = nosystem_prompt("output-from-examples-v1")
    assert variant is not None
    run = with_expected_manifest(make_run("r", SPEC, {"m": 0.5}), prompt_digest=load_prompt(variant).digest)
    assert is_finished(run, replace(EXPECTED, prompt="output-from-examples-v1"))
    assert not is_finished(run, EXPECTED)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"hash": BEFORE}, "the weights of m"),
        ({"name": "other"}, "models (['other'] instead of ['m'])"),
        ({"n": 8}, "n (8 instead of 4)"),
        ({"seed": 1}, "seed (1 instead of 0)"),
        ({"dataset": "toy/cross/evaluation#n=2"}, "dataset (toy/cross/evaluation#n=2 instead of"),
        ({"dataset_digest": "0" * 16}, "the dataset's content"),
        ({"prompt_digest": "0" * 16}, "the prompt or encoder of m"),
        ({"encoder": "GridShapeEncoder(MinimalGridEncoder())"}, "the prompt or encoder of m"),
    ],
)
@pytest.mark.parametrize("finished", ["2026-01-01T00:01:00+00:00", None])
def test_another_run_is_moved_aside(
    make_run: MakeRun,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    difference: str,
    finished: str | None,
) -> None:
    run = with_expected_manifest(make_run("r", SPEC, {"m": 0.5}), finished=finished, **changes)
    lines = (run / "predictions.jsonl").read_bytes()
    assert not is_finished(run, EXPECTED)
    for k in (1, 2):
        assert not resume_or_move_aside(run, EXPECTED)
        assert not run.exists()
        assert (run.with_name(f"r.before-{k}") / "predictions.jsonl").read_bytes() == lines
        assert difference in capsys.readouterr().out
        if k == 1:
            with_expected_manifest(make_run("r", SPEC, {"m": 0.5}), finished=finished, **changes)


def test_unknown_hashes_and_defaults_are_no_difference(make_run: MakeRun) -> None:
    run = with_expected_manifest(make_run("r", SPEC, {"m": 0.5}), hash=None)
    assert is_finished(run, EXPECTED)
    assert is_finished(with_expected_manifest(run), replace(EXPECTED, hashes={"m": frozenset()}))
    assert is_finished(with_expected_manifest(run), replace(EXPECTED, max_tokens=9))
    assert not is_finished(run, replace(EXPECTED, max_tokens=10))


def test_a_folder_that_is_no_run_yet(tmp_path: Path) -> None:
    assert not is_finished(tmp_path / "none", EXPECTED)
    assert not resume_or_move_aside(tmp_path / "none", EXPECTED)
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / ".lock").write_bytes(b"1\n")
    assert resume_or_move_aside(tmp_path / "killed", EXPECTED)
    (tmp_path / "killed" / "manifest.json").write_bytes(b"{")
    with pytest.raises(RunError, match=r"manifest\.json"):
        is_finished(tmp_path / "killed", EXPECTED)


TTT = TttConfig(recipe={"max_steps": 30}, base="0" * 16, start=None)
EXPECTED_TTT = replace(EXPECTED, hashes={"m": frozenset()}, ttt=TTT)


def test_a_run_with_another_test_time_training_is_moved_aside(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = with_expected_manifest(make_run("r", SPEC, {"m": 0.5}))
    assert not is_finished(run, EXPECTED_TTT)
    edit_manifest(run, ttt=TTT)
    assert not is_finished(run, EXPECTED)
    assert not is_finished(run, EXPECTED_TTT)  # ttt.jsonl lacks its tasks
    assert resume_or_move_aside(run, EXPECTED_TTT)
    for task_id in RunFolder(run).manifest().config.task_ids:
        TrainingLog(run / TTT_LOG).append(task_record(task_id))
    assert is_finished(run, EXPECTED_TTT)
    assert not resume_or_move_aside(run, replace(EXPECTED_TTT, ttt=TTT.model_copy(update={"base": "1" * 16})))
    assert "the recipe of its test-time training" in capsys.readouterr().out


def task_record(task_id: str) -> TaskRecord:
    """Return the record of a task that the base answered."""
    return TaskRecord(
        task_id=task_id, outcome="untrained", adapter=None, digest=None, steps=0, samples=0, train_seconds=0.0,
        reason="deadline", answered_by="base", own_adapter=False, sample_seconds=1.0,
    )  # fmt: skip


@pytest.mark.parametrize("dataset", [SPEC, "toy/cross/evaluation#n=2"])
def test_a_run_that_has_only_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str], dataset: str) -> None:
    protocol = Protocol(label="not known", trained_on=[], leaked_tasks=0, reason="")
    plan = TttPlan(
        format=1, model="m", dataset=dataset, dataset_digest="0" * 16, task_ids=[], config=TTT, protocol=protocol
    )
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / TTT_PLAN).write_text(plan.model_dump_json())
    assert not is_finished(tmp_path / "r", EXPECTED_TTT)
    assert resume_or_move_aside(tmp_path / "r", EXPECTED_TTT) == (dataset == SPEC)
    assert ("differs in dataset" in capsys.readouterr().out) == (dataset != SPEC)


@pytest.mark.slow
def test_an_adapter_has_the_hash_under_which_it_is_registered(plain_run: Path, tmp_path: Path) -> None:
    version = add_adapter(tmp_path / "adapters", "mine", plain_run, None)
    assert adapter_hashes(plain_run) == {version.verify().hash}
