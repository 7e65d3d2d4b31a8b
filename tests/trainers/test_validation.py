"""Validation: which step is the best, when training ends, and whose weights are the result."""

from __future__ import annotations

import math
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import ConfigError, RunError
from harness.core.hub_cache import weights_digest
from harness.data.spec import open_dataset
from tests.support.train_runs import (
    Data,
    command,
    interrupted,
    kill,
    losses_of,
    manifest_of,
    recipe_data,
    steps_of,
    trained,
)
from tests.trainers.test_recipe import SMALL
from trainers.recipe.schema import ValidationRecipe, make_recipe
from trainers.run.api import train
from trainers.store.best_step import find_best_validation, patience_exhausted
from trainers.store.checkpoints import prune_best_weights, write_best_weights
from trainers.store.training_log import read_log

CHECK: Data = {"spec": "toy/cross/evaluation#n=6", "exact_tasks": 2, "patience": 3, "keep": "best"}


def part(by: str = "loss", patience: int | None = 2) -> ValidationRecipe:
    values = {"spec": "toy/cross", "by": by, "patience": patience, "exact_tasks": 1}
    return ValidationRecipe.model_validate(values)


def lines(values: list[float], key: str = "eval_loss") -> list[dict[str, float]]:
    """A log with a step between two validations."""
    return [
        line for k, v in enumerate(values) for line in ({"step": 2 * k + 1, "loss": v}, {"step": 2 * k + 2, key: v})
    ]


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=12), st.sampled_from(["loss", "exact"]))
def test_the_best_is_the_first_of_the_extremes(values: list[float], by: str) -> None:
    best = find_best_validation(lines(values, f"eval_{by}"), part(by))
    extreme = (max if by == "exact" else min)(values)
    assert best is not None
    assert (best.step, best.value) == (2 * values.index(extreme) + 2, extreme)
    assert best.validations_since == len(values) - 1 - values.index(extreme)


@given(st.lists(st.floats(0, 9), min_size=1, max_size=12), st.integers(1, 4), st.data())
def test_training_ends_once_and_a_prefix_decides_alike(values: list[float], patience: int, data: st.DataObject) -> None:
    ends = [
        patience_exhausted(find_best_validation(lines(values[:n]), part("loss", patience)), part("loss", patience))
        for n in range(1, 13)
    ]
    first = next((n for n, ended in enumerate(ends, 1) if ended), math.inf)
    for n in range(1, len(values) + 1):
        window = values[max(0, n - patience) : n]
        stale = n > patience and min(window) >= min(values[: n - patience])
        assert (n == first) == (stale and n <= first)
    cut = data.draw(st.integers(1, len(values)))
    assert find_best_validation(lines(values), part(), 2 * cut) == find_best_validation(lines(values[:cut]), part())


def test_without_validations_there_is_no_best() -> None:
    assert find_best_validation([{"step": 1, "loss": 2.0}], part()) is None
    assert not patience_exhausted(None, part())
    assert not patience_exhausted(
        find_best_validation(lines([1, 2, 3, 4, 5]), part(patience=None)), part(patience=None)
    )


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=10), st.data())
@settings(max_examples=25)
def test_pruning_keeps_the_best_of_every_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("best")
    log = lines(values)
    steps = data.draw(st.sets(st.integers(1, 2 * len(values)), max_size=2))
    for k in range(1, len(values) + 1):
        best = find_best_validation(log, part(), 2 * k)
        assert best is not None
        if best.step == 2 * k:
            write_best_weights(folder, best.step, lambda path: path.mkdir())
    for step in steps:
        (folder / f"checkpoint-{step}").mkdir()
    prune_best_weights(folder, log, part())
    needed = {best.step for end in (math.inf, *steps) if (best := find_best_validation(log, part(), end))}
    assert {int(path.name.split("-")[1]) for path in folder.glob("best-*")} == needed


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"validation": {"spec": "toy/cross", "by": "exact"}}, "by: exact needs exact_tasks above 0"),
        ({"validation": {"spec": "toy/cross", "patience": 0}}, "validation.patience"),
        ({"validation": {"spec": "toy/cross"}, "sharding": "fsdp"}, "validation is not done where sharding"),
    ],
)
def test_what_cannot_be_validated_is_refused(changes: Data, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        make_recipe({**SMALL, **changes})


def early(model: Path, output: Path, **changes: Any) -> Data:
    """A rate at which the validation loss of the random model soon rises again; the best step is no save step."""
    data = recipe_data(model, output, learning_rate=1e-2, scheduler="constant", warmup=0, validation=CHECK)
    return {**data, "eval_steps": 2, "keep_checkpoints": True, "report_to": "tensorboard", **changes}


@pytest.fixture(scope="module")
def ended(train_root: Path, qwen: Path) -> Path:
    """A run that patience ended."""
    return trained(early(qwen, train_root / "early"))


@pytest.mark.slow
def test_patience_ends_training_and_the_best_weights_are_kept(train_root: Path, qwen: Path, ended: Path) -> None:
    manifest, log = manifest_of(ended), read_log(ended / "log.jsonl")
    checks = {line["step"]: line["eval_loss"] for line in log if "eval_loss" in line}
    best = min(checks, key=checks.__getitem__)
    assert (manifest.ended, manifest.kept_step, manifest.steps) == ("patience", best, best + 6)
    assert manifest.losses.validation["loss"] == checks[best]
    assert manifest.validation is not None
    assert manifest.validation.digest == open_dataset(CHECK["spec"]).digest()
    assert best % 7
    assert f"step {best}" in (ended / "README.md").read_text(encoding="utf-8")
    short = trained(early(qwen, train_root / "short", max_steps=best, validation=None, report_to=[]))
    assert losses_of(short) == losses_of(ended)[:best]
    assert weights_digest(short) == weights_digest(ended)


@pytest.mark.slow
def test_a_lost_log_does_not_change_why_it_ended(train_root: Path, qwen: Path) -> None:
    data = recipe_data(qwen, train_root / "lost", max_steps=9, save_steps=3)
    _, _ = interrupted(command(data), train_root / "lost", 7, kill)
    (train_root / "lost" / "log.jsonl").unlink()
    manifest = manifest_of(trained(data))
    assert (manifest.ended, manifest.steps, manifest.kept_step) == ("max_steps", 9, 9)


@pytest.mark.slow
def test_killed_after_its_best_step_it_ends_alike(train_root: Path, qwen: Path, ended: Path) -> None:
    output = train_root / "early-cut"
    arguments = command(early(qwen, output, report_to=[]))
    best = manifest_of(ended).kept_step
    done = sum(line["step"] <= best for line in read_log(ended / "log.jsonl"))
    interrupted(arguments, output, done + 1, kill)
    assert (output / "checkpoints" / f"best-{best}").is_dir()
    assert not (output / "checkpoints" / f"checkpoint-{best}").exists()
    trained(early(qwen, output, report_to=[]))
    assert steps_of(output) == steps_of(ended)
    assert weights_digest(output) == weights_digest(ended)


@pytest.mark.slow
def test_killed_between_its_end_and_its_result_it_is_only_finished(train_root: Path, qwen: Path, ended: Path) -> None:
    output = shutil.copytree(ended, train_root / "unfinished")
    (output / "manifest.json").unlink()
    (output / "adapter_model.safetensors").unlink()
    recipe = make_recipe(early(qwen, output))
    train(recipe, output, progress=False)
    assert steps_of(output) == steps_of(ended)
    assert weights_digest(output) == weights_digest(ended)
    (output / "manifest.json").unlink()
    shutil.rmtree(output / "checkpoints" / f"best-{manifest_of(ended).kept_step}")
    with pytest.raises(RunError, match=r"the weights of the best step: it is missing; resume=false starts over"):
        train(recipe, output, progress=False)


@pytest.mark.slow
def test_tensorboard_has_the_losses(ended: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    (path,) = (ended / "tensorboard").glob("events.out.tfevents.*")
    data, found = path.read_bytes(), {}
    while data:  # a record: its length, a checksum of it, the event, a checksum of that
        (length,) = struct.unpack("<Q", data[:8])
        event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    for line in read_log(ended / "log.jsonl"):
        tag, key = ("train/loss", "loss") if "loss" in line else ("eval/loss", "eval_loss")
        assert found[tag, line["step"]] == pytest.approx(line[key], rel=1e-6)
    assert found["train/tokens_per_second", 5] > 10
