"""Checkpoints with any kind of file truncated, bit-flipped or missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.core.errors import RunError
from harness.core.random_stream import Stream
from tests.faults.damage import damaged_contents, damaged_file
from tests.faults.matrix import count_cases
from tests.faults.trainer.training import assert_equal_adapters, run_training, small_recipe, terminal_output
from tests.support.training.train_runs import Data, last_error_line
from trainers.store.checkpoints import best_weights_folder, checkpoint_damage, newest_complete
from trainers.store.manifest import MANIFEST

pytestmark = pytest.mark.slow

NEWEST, BEFORE, BEST = "checkpoint-6", "checkpoint-4", "best-6"
KINDS = [
    "adapter_model.safetensors", "adapter_config.json", "optimizer.pt", "scheduler.pt", "rng_state.pth",
    "trainer_state.json", "training_args.bin", "tokenizer.json", "files.json",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished training run with its last two checkpoints."""
    data = small_recipe(qwen, tmp_path_factory.mktemp("checkpoints") / "whole", keep_checkpoints=True)
    assert run_training(data) == 0, terminal_output(data)
    return Path(data["output_dir"])


def unfinished(whole: Path, qwen: Path, output: Path) -> Data:
    """Copy the training run as if it had been killed before its result."""
    shutil.copytree(whole, output)
    (output / MANIFEST).unlink()
    return small_recipe(qwen, output, keep_checkpoints=True)


def test_a_damaged_checkpoint_is_skipped(whole: Path) -> None:
    """A checkpoint with a truncated, bit-flipped, empty or missing file is skipped for the previous one."""
    folder = whole / "checkpoints"
    assert newest_complete(folder) == folder / NEWEST
    files = sorted(path for path in (folder / NEWEST).iterdir())
    assert set(KINDS) <= {path.name for path in files}
    for path in files:
        for what, content in damaged_contents(path.read_bytes(), Stream("checkpoint", path.name), cuts=5, flips=8):
            with damaged_file(path, content):
                assert newest_complete(folder) == folder / BEFORE, (path.name, what)
                damage = checkpoint_damage(folder / NEWEST, 6) or ""
                assert path.name in damage or path.name == "files.json", damage
            count_cases()
    assert newest_complete(folder) == folder / NEWEST


def test_damaged_best_weights_are_refused(whole: Path) -> None:
    """Best weights with a truncated, bit-flipped, empty or missing file are refused by name."""
    folder = whole / "checkpoints"
    assert best_weights_folder(folder, 6) == folder / BEST
    for path in sorted((folder / BEST).iterdir()):
        for what, content in damaged_contents(path.read_bytes(), Stream("best", path.name), cuts=3, flips=4):
            with (
                damaged_file(path, content),
                pytest.raises(RunError, match=r"best-6, the weights of the best step: .*over"),
            ):
                raise AssertionError(f"{path.name}, {what}: {best_weights_folder(folder, 6)}")
            count_cases()


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
def test_training_resumes_from_the_previous_checkpoint(whole: Path, qwen: Path, tmp_path: Path, name: str) -> None:
    """With a flipped bit in its newest checkpoint, training resumes from the previous one and ends bit-equal."""
    data = unfinished(whole, qwen, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / NEWEST / name
    *_, (_, content) = damaged_contents(path.read_bytes(), Stream("resumed", name), cuts=0, flips=1)
    assert content is not None
    path.write_bytes(content)
    assert run_training(data) == 0, terminal_output(data)
    assert "skipping checkpoint" in terminal_output(data)
    assert "resuming after step 4" in terminal_output(data)
    assert_equal_adapters(tmp_path / "run", whole)


@pytest.mark.long
def test_training_starts_over_if_no_checkpoint_is_valid(whole: Path, qwen: Path, tmp_path: Path) -> None:
    """With both checkpoints damaged, training says so and starts over, to a bit-equal adapter."""
    data = unfinished(whole, qwen, tmp_path / "run")
    for name in (NEWEST, BEFORE):
        (tmp_path / "run" / "checkpoints" / name / "optimizer.pt").write_bytes(b"")
        count_cases()
    assert run_training(data) == 0, terminal_output(data)
    assert terminal_output(data).count("skipping checkpoint") == 2
    assert "going on" not in terminal_output(data)
    assert_equal_adapters(tmp_path / "run", whole)


@pytest.mark.long
def test_training_does_not_end_with_damaged_best_weights(whole: Path, qwen: Path, tmp_path: Path) -> None:
    """With damaged best weights, a resumed training run ends with one error that names them, and no result."""
    data = unfinished(whole, qwen, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / BEST / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert run_training(data) == 1
    assert "best-6, the weights of the best step: adapter_model.safetensors is damaged" in last_error_line(
        terminal_output(data)
    )
    assert not (tmp_path / "run" / MANIFEST).exists()
