"""The output folder: resuming with changed recipes and moved files, and the manifest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.core.digests import model_digest
from harness.core.errors import AdapterError, ConfigError, RunError
from trainers.commands.merge import merge
from trainers.model.base_model import find_base
from trainers.recipe.parts import ValidationRecipe
from trainers.run.finish import kept_step
from trainers.store import run_folder
from trainers.store.manifest import (
    MANIFEST,
    PARITY,
    AdapterManifest,
    DatasetRecord,
    summarize_losses,
    training_environment,
    write_json,
    write_manifest,
)
from trainers.store.run_folder import STARTED, prepare_folder


def test_starting_over_removes_the_parity_of_the_old_weights(tmp_path: Path) -> None:
    for name in (STARTED, PARITY):
        write_json(tmp_path / name, {})
    assert not prepare_folder(tmp_path, {"seed": 1}, resume=False)
    assert not (tmp_path / PARITY).exists()


@pytest.mark.parametrize("ours", [MANIFEST, "checkpoints/checkpoint-5", None])
def test_starting_over_removes_the_old_weights_but_nobody_elses(tmp_path: Path, ours: str | None) -> None:
    """transformers would put the adapter on top of a full model that is saved beside it.

    A run that ended before its first checkpoint has written no weights: those beside its records are not its own.
    """
    names = {"adapter_config.json", "adapter_model.safetensors", "model-00001-of-00002.safetensors", "config.json"}
    kept = {"notes.txt", "ds_config.json", "mine.safetensors"}
    for name in names | kept:
        (tmp_path / name).write_text("{}")
    write_json(tmp_path / STARTED, {})
    if ours is not None:
        (tmp_path / ours).mkdir(parents=True)
    if ours == MANIFEST:
        (tmp_path / ours).rmdir()
        (tmp_path / ours).write_text("{}")
    prepare_folder(tmp_path, {"seed": 1}, resume=False)
    left = {path.name for path in tmp_path.iterdir()} - {STARTED}
    assert left == (names | kept if ours is None else kept)


def test_starting_over_that_was_killed_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the removal of the manifest and that of the weights, which then belong to no run."""
    names = ("adapter_config.json", "adapter_model.safetensors", MANIFEST)
    for name in names:
        (tmp_path / name).write_text("{}")
    with monkeypatch.context() as patched:
        patched.setattr(run_folder, "_WEIGHTS", None)
        with pytest.raises(TypeError):
            prepare_folder(tmp_path, {"seed": 1}, resume=False)
    assert not (tmp_path / MANIFEST).exists()
    prepare_folder(tmp_path, {"seed": 1}, resume=False)
    assert {path.name for path in tmp_path.iterdir()} == {STARTED}


@pytest.mark.parametrize("key", ["tokens_a_pass", "micro_batch_size", "max_padding"])
def test_resuming_with_other_micro_batches_warns(tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str) -> None:
    (tmp_path / "checkpoints" / "checkpoint-5").mkdir(parents=True)
    started = {"seed": 1, "tokens_a_pass": 9, "micro_batch_size": None, "max_padding": 0.5}
    write_json(tmp_path / STARTED, started)
    assert not prepare_folder(tmp_path, started, resume=True)
    assert capsys.readouterr().err == ""
    assert not prepare_folder(tmp_path, {**started, key: 0.25}, resume=True)
    warning = capsys.readouterr().err
    assert warning.startswith(
        f"warning: resuming with {key} {started[key]} -> 0.25: dropout, where there is any, draws other"
    )
    assert not prepare_folder(tmp_path, {**started, key: 0.25}, resume=True)  # the new value was recorded
    assert capsys.readouterr().err == ""
    write_json(tmp_path / STARTED, {"seed": 1})  # as older versions wrote it
    assert not prepare_folder(tmp_path, {**started, key: 0.25}, resume=True)
    assert capsys.readouterr().err == ""
    with pytest.raises(ConfigError, match="of another recipe; changed: seed"):
        prepare_folder(tmp_path, {**started, "seed": 2, key: 1}, resume=True)


def test_moved_files_with_the_same_content_may_be_resumed_with(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "checkpoint-5").mkdir(parents=True)
    started = {
        "model": "/a", "model (its content)": "1" * 16, "adapter": "/b", "adapter (its content)": "2",
        "datasets.0.spec": "/c", "datasets.0 (its content)": "3",
        "validation.spec": "/d", "validation (its content)": "4",
    }  # fmt: skip
    moved = {key: f"/moved{value}" if "(" not in key else value for key, value in started.items()}
    for key in ("model", "adapter", "datasets.0.spec", "validation.spec"):
        content = f"{key.removesuffix('.spec')} (its content)"
        write_json(tmp_path / STARTED, started)
        both = ", ".join(sorted((key, content)))
        with pytest.raises(ConfigError, match=rf"changed: {re.escape(both)}\. Give"):
            prepare_folder(tmp_path, {**moved, content: "other"}, resume=True)
        write_json(tmp_path / STARTED, {**started, content: None})  # its content was not recorded
        with pytest.raises(ConfigError, match=re.escape(f"changed: {key}")):
            prepare_folder(tmp_path, {**started, key: "/x", content: None}, resume=True)
    write_json(tmp_path / STARTED, started)
    assert not prepare_folder(tmp_path, moved, resume=True)
    assert not prepare_folder(tmp_path, started, resume=True)


def test_a_hub_base_of_an_older_run_is_compared_by_commit(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "checkpoint-5").mkdir(parents=True)
    write_json(tmp_path / STARTED, {"model": "a/b", "model (its content)": "c" * 40})
    now = {"model": "a/b", "model (its content)": "1" * 16}
    with pytest.raises(ConfigError, match=r"changed: model \(its content\)"):
        prepare_folder(tmp_path, now, resume=True, commit="d" * 40)
    assert not prepare_folder(tmp_path, now, resume=True, commit="c" * 40)
    assert not prepare_folder(tmp_path, now, resume=True, commit="e" * 40)  # its content was recorded


def test_an_adapter_is_not_merged_into_another_base(tmp_path: Path) -> None:
    write_json(tmp_path / "adapter_config.json", {})
    base = find_base("tiny")
    assert isinstance(base, Path)
    losses = {"first": 1, "last": 1, "mean_of_last_10": 1, "validation": {}}
    counts = dict.fromkeys(("seed", "steps", "kept_step", "tokens", "answer_tokens", "padding", "seconds"), 0)
    words = dict.fromkeys(("prompt", "prompt_digest", "encoder", "weights_sha256", "finished"), "")
    others = {"kind": "adapter", "recipe": {}, "datasets": [], "ended": "max_steps", "serveable": True}
    manifest = {"environment": training_environment().model_dump(), "losses": losses, **counts, **words, **others}
    other = {"name": "other", "digest": model_digest(base)[::-1]}
    write_manifest(tmp_path, AdapterManifest.model_validate({**manifest, "base": other}))
    with pytest.raises(AdapterError, match="was trained on 'other'"):
        merge("tiny", tmp_path, tmp_path / "merged")


def test_a_dataset_record_as_text() -> None:
    counts = {"ids": 9, "drawn": 30, "too_long": 4, "no_output": 2, "dropped_pairs": 1, "tokens": 5, "answer_tokens": 3}
    words = {"spec": "toy/copy", "prompt": "p", "prompt_digest": "d", "digest": "d"}
    record = DatasetRecord.model_validate({**words, **counts, "declared_share": 0.5, "share": 0.45})
    text = "30 samples, 45.0% (declared 50.0%); skipped: 4 too long, 2 without output; 1 pairs dropped"
    assert record.as_text() == f"toy/copy: {text}"


def test_a_log_without_a_step_is_an_error() -> None:
    with pytest.raises(RunError, match="has lost every step"):
        summarize_losses([{"eval_loss": 0.5, "step": 3}], kept=3)


def test_the_losses_of_a_log() -> None:
    log = [{"step": k, "loss": float(k)} for k in range(1, 21)]
    log += [{"step": k, "eval_loss": k / 100, "eval_exact": 0.5} for k in (5, 10, 20)]
    assert summarize_losses(log, kept=19).model_dump() == {
        "first": 1.0, "last": 20.0, "mean_of_last_10": 15.5, "validation": {"loss": 0.1, "exact": 0.5},
    }  # fmt: skip
    assert summarize_losses(log[:20], kept=20).validation == {}


def test_the_saved_weights_are_the_last_or_the_best() -> None:
    log = [{"step": 2, "eval_loss": 0.3}, {"step": 4, "eval_loss": 0.2}, {"step": 6, "eval_loss": 0.25}]
    validation = ValidationRecipe(spec="toy/cross", keep="best")
    assert kept_step(log, validation, 6) == 4
    assert kept_step(log, validation.model_copy(update={"keep": "last"}), 6) == 6
    assert kept_step([], None, 9) == 9
