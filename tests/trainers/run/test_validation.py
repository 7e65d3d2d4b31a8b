"""Validation: the best step, early stopping, and which weights are saved."""

from __future__ import annotations

import math
import shutil
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.digests import weights_digest
from harness.core.errors import ConfigError, DataError, RunError
from harness.core.random_stream import Stream
from harness.data.dataset import TaskList, iterate_tasks
from harness.data.spec import open_dataset
from harness.prompts.grid_encoder import parse_encoder
from harness.prompts.prompt_template import load_prompt
from harness.prompts.prompt_tokenizer import PromptTokenizer
from tests.support.data_samples import random_task
from tests.support.training.mixtures import tiny_tokenizer, without_outputs
from tests.support.training.recipes import SMALL
from tests.support.training.train_runs import (
    Data,
    adapter_manifest,
    interrupt_training,
    kill_tree,
    log_losses,
    log_steps,
    recipe_data,
    run_python,
    train_adapter,
    train_command,
)
from tests.support.training.validations import validation_log, validation_recipe
from trainers.model.base_model import find_base
from trainers.model.tokenizer import load_tokenizer
from trainers.recipe.schema import make_recipe
from trainers.run.api import train
from trainers.run.validation import open_validation
from trainers.store.best_step import find_best_validation, patience_exhausted
from trainers.store.training_log import read_log

CHECK: Data = {"spec": "toy/cross/evaluation#n=6", "exact_tasks": 2, "patience": 3, "keep": "best"}


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=12), st.sampled_from(["loss", "exact"]))
def test_the_best_validation_is_the_first_among_equals(values: list[float], by: str) -> None:
    best = find_best_validation(validation_log(values, f"eval_{by}"), validation_recipe(by))
    extreme = (max if by == "exact" else min)(values)
    assert best is not None
    assert (best.step, best.value) == (2 * values.index(extreme) + 2, extreme)
    assert best.validations_since == len(values) - 1 - values.index(extreme)


@pytest.mark.parametrize("prompt", ["output-from-examples-v1", "input-from-inputs-v0"])
def test_the_answer_of_a_task_is_what_the_prompt_asks_for(prompt: str) -> None:
    tokens = PromptTokenizer(tiny_tokenizer(), load_prompt(prompt), parse_encoder("MinimalGridEncoder()"))
    dataset = open_dataset("toy/cross/evaluation#n=3")
    found = open_validation(dataset, tokens, max_tasks=3, exact_tasks=3, max_seq_len=4096, pad_id=0).tasks
    expected = [
        pair.input if prompt.startswith("input") else pair.output for t in iterate_tasks(dataset) for pair in t.test[:1]
    ]
    assert [task.answer for task in found] == expected


@given(st.lists(st.floats(0, 9), min_size=1, max_size=12), st.integers(1, 4), st.data())
def test_early_stopping_depends_only_on_the_validations_so_far(
    values: list[float], patience: int, data: st.DataObject
) -> None:
    ends = [
        patience_exhausted(
            find_best_validation(validation_log(values[:n]), validation_recipe("loss", patience)),
            validation_recipe("loss", patience),
        )
        for n in range(1, 13)
    ]
    first = next((n for n, ended in enumerate(ends, 1) if ended), math.inf)
    for n in range(1, len(values) + 1):
        window = values[max(0, n - patience) : n]
        stale = n > patience and min(window) >= min(values[: n - patience])
        assert (n == first) == (stale and n <= first)
    cut = data.draw(st.integers(1, len(values)))
    assert find_best_validation(validation_log(values), validation_recipe(), 2 * cut) == find_best_validation(
        validation_log(values[:cut]), validation_recipe()
    )


def test_without_validations_there_is_no_best() -> None:
    assert find_best_validation([{"step": 1, "loss": 2.0}], validation_recipe()) is None
    assert not patience_exhausted(None, validation_recipe())
    assert not patience_exhausted(
        find_best_validation(validation_log([1, 2, 3, 4, 5]), validation_recipe(patience=None)),
        validation_recipe(patience=None),
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"validation": {"spec": "toy/cross", "by": "exact"}}, "by: exact needs exact_tasks above 0"),
        ({"validation": {"spec": "toy/cross", "patience": 0}}, "validation.patience"),
        ({"validation": {"spec": "toy/cross"}, "sharding": "fsdp"}, "validation is not done where sharding"),
    ],
)
def test_impossible_validations_are_refused(changes: Data, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        make_recipe({**SMALL, **changes})


MINIMAL = "MinimalGridEncoder()"


@pytest.mark.slow
def test_generated_answers_ignore_the_model_s_repetition_penalty() -> None:
    """Qwen's own generation settings penalise repetition, which ruins grids."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(find_base("tiny"))
    tokens = PromptTokenizer(load_tokenizer(find_base("tiny")), load_prompt("compact-v0"), parse_encoder(MINIMAL))
    held = open_dataset("toy/copy/evaluation#n=4")
    validation = open_validation(held, tokens, max_seq_len=512, max_tasks=4, exact_tasks=4, pad_id=0)
    plain = validation._exact(model, validation.tasks, "cpu")
    model.generation_config.update(repetition_penalty=1.5, no_repeat_ngram_size=2)
    assert validation._exact(model, validation.tasks, "cpu") == plain > 1


def test_the_heaviest_batches_hold_the_longest_samples_for_every_process() -> None:
    tokens = PromptTokenizer(tiny_tokenizer(), load_prompt("compact-v0"), parse_encoder(MINIMAL))
    held = TaskList("held", tuple(random_task(Stream("held out", k), 2, 5, f"t{k}") for k in range(6)))
    validation = open_validation(held, tokens, max_tasks=6, exact_tasks=2, max_seq_len=900, pad_id=0)
    validation = replace(validation, micro_batch=3)
    batch, longest_answer = validation.heaviest_batches(2)
    longest = sorted((len(q.sample.ids) for q in validation.tasks), reverse=True)[:3]
    for process in range(2):
        assert [len(q.sample.ids) for q in batch.tasks[process::2]] == longest
    assert (batch.exact, longest_answer.exact) == (0, 2)
    assert longest_answer.tasks == [max(validation.tasks[:2], key=lambda q: len(q.sample.ids))] * 2
    (only,) = replace(validation, exact=0).heaviest_batches(1)
    assert len(only.tasks) == 3


def test_validation_reports_skipped_tasks() -> None:
    tasks = [random_task(Stream("held out", k), 2, 5, f"t{k}") for k in range(6)]
    dataset = TaskList("held", (*map(without_outputs, tasks[:2]), *tasks[2:]))
    tokens = PromptTokenizer(tiny_tokenizer(), load_prompt("compact-v0"), parse_encoder(MINIMAL))
    lengths = sorted(len(tokens.sample(task, 0).ids) for task in tasks[2:])
    options = {"max_tasks": 9, "exact_tasks": 5, "pad_id": 0}
    validation = open_validation(dataset, tokens, max_seq_len=lengths[1], **options)
    assert (len(validation.tasks), validation.skipped) == (2, 4)
    expected = "validation: 2 tasks, 2 of them for the exact grid; 4 have no known output or are too long"
    assert validation.as_text() == expected
    with pytest.raises(DataError, match="no task with a known output fits"):
        open_validation(dataset, tokens, max_seq_len=lengths[0] - 1, **options)


def early_stopping_recipe(model: Path, output: Path, **changes: Any) -> Data:
    """Return a recipe whose validation loss soon rises again; its best step has no checkpoint."""
    data = recipe_data(model, output, learning_rate=1e-2, scheduler="constant", warmup=0, validation=CHECK)
    return {**data, "eval_steps": 2, "keep_checkpoints": True, "report_to": "tensorboard", **changes}


@pytest.fixture(scope="module")
def ended(train_root: Path, qwen: Path) -> Path:
    """A run that ended by early stopping."""
    return train_adapter(early_stopping_recipe(qwen, train_root / "early"))


@pytest.mark.slow
def test_early_stopping_saves_the_best_weights(train_root: Path, qwen: Path, ended: Path) -> None:
    manifest, log = adapter_manifest(ended), read_log(ended / "log.jsonl")
    checks = {line["step"]: line["eval_loss"] for line in log if "eval_loss" in line}
    best = min(checks, key=checks.__getitem__)
    assert (manifest.ended, manifest.kept_step, manifest.steps) == ("patience", best, best + 6)
    assert manifest.losses.validation["loss"] == checks[best]
    assert manifest.validation is not None
    assert manifest.validation.digest == open_dataset(CHECK["spec"]).digest()
    assert best % 7
    assert f"step {best}" in (ended / "README.md").read_text(encoding="utf-8")
    short = train_adapter(
        early_stopping_recipe(qwen, train_root / "short", max_steps=best, validation=None, report_to=[])
    )
    assert log_losses(short) == log_losses(ended)[:best]
    assert weights_digest(short) == weights_digest(ended)


@pytest.mark.slow
def test_a_lost_log_is_noted_and_does_not_change_the_reason_of_the_end(train_root: Path, qwen: Path) -> None:
    data = recipe_data(qwen, train_root / "lost", max_steps=9, save_steps=3)
    _, _ = interrupt_training(train_command(data), train_root / "lost", 7, kill_tree)
    (train_root / "lost" / "log.jsonl").unlink()
    done = run_python(train_command(data))
    manifest = adapter_manifest(train_root / "lost")
    assert (manifest.ended, manifest.steps, manifest.kept_step) == ("max_steps", 9, 9)
    assert "log.jsonl has no lines of 6 of the 6 steps before" in done.stderr


@pytest.mark.slow
def test_a_run_killed_after_its_best_step_ends_with_the_same_weights(train_root: Path, qwen: Path, ended: Path) -> None:
    output = train_root / "early-cut"
    arguments = train_command(early_stopping_recipe(qwen, output, report_to=[]))
    best = adapter_manifest(ended).kept_step
    done = sum(line["step"] <= best for line in read_log(ended / "log.jsonl"))
    interrupt_training(arguments, output, done + 1, kill_tree)
    assert (output / "checkpoints" / f"best-{best}").is_dir()
    assert not (output / "checkpoints" / f"checkpoint-{best}").exists()
    train_adapter(early_stopping_recipe(qwen, output, report_to=[]))
    assert log_steps(output) == log_steps(ended)
    assert weights_digest(output) == weights_digest(ended)


@pytest.mark.slow
def test_a_run_killed_before_its_result_is_finished_without_training(train_root: Path, qwen: Path, ended: Path) -> None:
    output = shutil.copytree(ended, train_root / "unfinished")
    (output / "manifest.json").unlink()
    (output / "adapter_model.safetensors").unlink()
    recipe = make_recipe(early_stopping_recipe(qwen, output))
    train(recipe, output, progress=False)
    assert log_steps(output) == log_steps(ended)
    assert weights_digest(output) == weights_digest(ended)
    (output / "manifest.json").unlink()
    shutil.rmtree(output / "checkpoints" / f"best-{adapter_manifest(ended).kept_step}")
    with pytest.raises(RunError, match=r"the weights of the best step: it is missing; resume=false starts over"):
        train(recipe, output, progress=False)


@pytest.mark.slow
def test_tensorboard_has_the_losses(ended: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    (path,) = (ended / "tensorboard").glob("events.out.tfevents.*")
    data, scalars = path.read_bytes(), {}
    while data:  # a record: its length, a checksum of it, the event, a checksum of that
        (length,) = struct.unpack("<Q", data[:8])
        event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
        scalars |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    for line in read_log(ended / "log.jsonl"):
        tag, key = ("train/loss", "loss") if "loss" in line else ("eval/loss", "eval_loss")
        assert scalars[tag, line["step"]] == pytest.approx(line[key], rel=1e-6)
    assert scalars["train/tokens_per_second", 5] > 10
