"""When a demo or sweep takes a run as done: by its manifest, and by the weights that were trained last."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli.workflows.existing_run import ExpectedRun, adapter_hashes, is_finished, resume_or_move_aside
from harness.core.errors import RunError
from harness.prompts.prompt_template import load_prompt
from harness.runs.folder import RunFolder
from harness.scoring.run_scores import score_run
from serve.launch.operations import add_adapter
from tests.support.run_folders import MakeRun, edit_manifest

SPEC = "toy/cross/evaluation#n=3"
NOW, BEFORE = "a" * 64, "b" * 64
WANTED = ExpectedRun({"m": frozenset({NOW})}, SPEC, 4, 0, "compact-v0", "MinimalGridEncoder()")


def made(run: Path, **changes: object) -> Path:
    """The run with the weights and prompt that are wanted, but for the changes."""
    (model,) = RunFolder(run).manifest().config.models
    own = {"hash": NOW, "prompt_digest": load_prompt("compact-v0").digest}
    own |= {key: value for key, value in changes.items() if key in type(model).model_fields}
    rest = {key: value for key, value in changes.items() if key not in own}
    edit_manifest(run, models=[model.model_copy(update=own)], **rest)
    return run


def test_a_results_file_alone_says_nothing(make_run: MakeRun) -> None:
    run = made(make_run("r", SPEC, {"m": 0.5}))
    assert not (run / "results.json").exists()
    assert is_finished(run, WANTED)
    score_run(made(run, finished=None))
    assert (run / "results.json").is_file()
    assert not is_finished(run, WANTED)
    assert resume_or_move_aside(run, WANTED)


@pytest.mark.parametrize(
    ("changes", "told"),
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
def test_a_run_of_something_else_is_kept_aside(
    make_run: MakeRun,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    told: str,
    finished: str | None,
) -> None:
    run = made(make_run("r", SPEC, {"m": 0.5}), finished=finished, **changes)
    lines = (run / "predictions.jsonl").read_bytes()
    assert not is_finished(run, WANTED)
    for k in (1, 2):
        assert not resume_or_move_aside(run, WANTED)
        assert not run.exists()
        assert (run.with_name(f"r.before-{k}") / "predictions.jsonl").read_bytes() == lines
        assert told in capsys.readouterr().out
        if k == 1:
            made(make_run("r", SPEC, {"m": 0.5}), finished=finished, **changes)


def test_what_is_not_known_or_not_asked_for_is_no_difference(make_run: MakeRun) -> None:
    run = made(make_run("r", SPEC, {"m": 0.5}), hash=None)
    assert is_finished(run, WANTED)
    assert is_finished(made(run), replace(WANTED, hashes={"m": frozenset()}))
    assert is_finished(made(run), replace(WANTED, max_tokens=9))
    assert not is_finished(run, replace(WANTED, max_tokens=10))


def test_a_folder_that_is_no_run_yet(tmp_path: Path) -> None:
    assert not is_finished(tmp_path / "none", WANTED)
    assert not resume_or_move_aside(tmp_path / "none", WANTED)
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / ".lock").write_bytes(b"1\n")
    assert resume_or_move_aside(tmp_path / "killed", WANTED)
    (tmp_path / "killed" / "manifest.json").write_bytes(b"{")
    with pytest.raises(RunError, match=r"manifest\.json"):
        is_finished(tmp_path / "killed", WANTED)


@pytest.mark.slow
def test_an_adapter_has_the_hash_under_which_it_is_registered(plain_run: Path, tmp_path: Path) -> None:
    version = add_adapter(tmp_path / "adapters", "mine", plain_run, None)
    assert adapter_hashes(plain_run) == {version.verify().hash}
