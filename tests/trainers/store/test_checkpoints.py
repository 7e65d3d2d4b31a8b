"""Checkpoints: damaged ones are skipped, and the weights of best steps are removed only if no checkpoint needs them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.training.validations import validation_log, validation_recipe
from trainers.store.best_step import find_best_validation
from trainers.store.checkpoints import newest_complete, prune_best_weights, write_best_weights
from trainers.store.digests import DIGESTS_FILE, write_digests


def write_checkpoint(folder: Path, step: int) -> Path:
    """Write the files of a checkpoint as transformers does, with digests."""
    import torch
    from safetensors.torch import save_file

    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"w": torch.zeros(200)}, path / "adapter_model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"step": step, "moment": torch.zeros(200)}, path / name)
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    write_digests(path)
    return path


FILES = [
    "trainer_state.json",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "adapter_model.safetensors",
    DIGESTS_FILE,
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [None, 0.0, 0.5])
def test_incomplete_checkpoints_are_skipped(
    tmp_path: Path, name: str, share: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    assert newest_complete(tmp_path / "none") is None
    whole, torn = write_checkpoint(tmp_path, 9), write_checkpoint(tmp_path, 10)
    assert newest_complete(tmp_path) == torn
    content = (torn / name).read_bytes()
    (torn / name).unlink()
    if share is not None:
        (torn / name).write_bytes(content[: int(len(content) * share)])
    assert newest_complete(tmp_path) == whole
    assert "checkpoint-10" in caplog.text


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=10), st.data())
@settings(max_examples=25)
def test_pruning_leaves_the_best_weights_of_every_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("best")
    log = validation_log(values)
    steps = data.draw(st.sets(st.integers(1, 2 * len(values)), max_size=2))
    for k in range(1, len(values) + 1):
        best = find_best_validation(log, validation_recipe(), 2 * k)
        assert best is not None
        if best.step == 2 * k:
            write_best_weights(folder, best.step, lambda path: path.mkdir())
    for step in steps:
        (folder / f"checkpoint-{step}").mkdir()
    prune_best_weights(folder, log, validation_recipe())
    needed = {best.step for end in (math.inf, *steps) if (best := find_best_validation(log, validation_recipe(), end))}
    assert {int(path.name.split("-")[1]) for path in folder.glob("best-*")} == needed
