"""The process of test-time training, with real trainings of the tiny base: adapters depend on their task only."""

from __future__ import annotations

import json
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.cli.workflows.ttt.training_data import find_training_data
from harness.core.digests import content_hash
from harness.core.grid import Grid
from harness.data.spec import open_dataset
from harness.inspection.protocol import TrainingData
from serve.registry.adapter_version import AdapterVersion
from serve.registry.store import Registry
from tests.families.make import make_family
from tests.support.servers.chat_server import TINY_BASE
from tests.support.training.mixtures import without_outputs
from tests.support.training.train_runs import recipe_data, train_adapter
from tests.trainers.ttt.support import (
    adapter_bytes,
    cross_tasks,
    manifest_of,
    replies,
    start_process,
    tiny_recipe,
    train_lines,
)
from trainers.recipe.schema import Recipe
from trainers.recipe.ttt_recipe import make_ttt_recipe
from trainers.run.api import open_checked
from trainers.ttt.protocol import StepLine, TaskLine, adapter_path, pair_digest, read_recipe, write_recipe

pytestmark = pytest.mark.slow
TASKS = cross_tasks(3)
LINES = [TaskLine.of(task) for task in TASKS]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a work folder in which all tasks were trained in order."""
    work = tmp_path_factory.mktemp("trained")
    output = train_lines(work, tiny_recipe(), LINES)
    steps = [(line.task_id, line.step) for line in output if isinstance(line, StepLine)]
    assert steps == [(task.id, step) for task in TASKS for step in (1, 2, 3)]
    assert [(r.task_id, r.outcome, r.steps, r.samples) for r in replies(output)] == [
        (task.id, "trained", 3, 12) for task in TASKS
    ]
    return work


def test_adapters_do_not_depend_on_the_order_of_tasks(trained: Path, tmp_path: Path) -> None:
    train_lines(tmp_path, tiny_recipe(), LINES[::-1])
    for task in TASKS:
        assert adapter_bytes(tmp_path, task.id) == adapter_bytes(trained, task.id)
    assert len({adapter_bytes(trained, task.id)[1] for task in TASKS}) == 3


def test_adapters_do_not_depend_on_test_outputs(trained: Path, tmp_path: Path) -> None:
    task = TASKS[0]
    altered = replace(task, test=tuple(replace(pair, output=Grid(1, 1, b"\x03")) for pair in task.test))
    for k, other in enumerate((altered, without_outputs(task), replace(task, test=()))):
        train_lines(tmp_path / str(k), tiny_recipe(), [TaskLine.of(other)])
        assert adapter_bytes(tmp_path / str(k), task.id) == adapter_bytes(trained, task.id)


@pytest.mark.parametrize("step", [1, 5, 9])
def test_a_killed_process_leaves_no_incomplete_adapter_and_resumes_to_the_same(
    trained: Path, tmp_path: Path, step: int
) -> None:
    write_recipe(tmp_path, tiny_recipe())
    with start_process(tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("".join(f"{line.model_dump_json()}\n" for line in LINES))
        process.stdin.flush()
        steps = 0
        for line in process.stdout:
            steps += '"outcome"' not in line
            if steps == step:
                break
        process.send_signal(signal.SIGKILL)
    done = [task.id for task in TASKS if adapter_path(tmp_path, task.id).exists()]
    for task_id in done:
        assert adapter_bytes(tmp_path, task_id) == adapter_bytes(trained, task_id)
    output = train_lines(tmp_path, tiny_recipe(), LINES)
    assert {line.task_id for line in output if isinstance(line, StepLine)} == {t.id for t in TASKS} - {*done}
    assert [r.outcome for r in replies(output)] == ["trained"] * 3
    for task in TASKS:
        assert adapter_bytes(tmp_path, task.id) == adapter_bytes(trained, task.id)
    assert not list((tmp_path / "adapters").glob(".*.part"))


def test_the_manifest_says_which_pairs_were_seen(trained: Path) -> None:
    task = TASKS[1]
    manifest = manifest_of(trained, task.id)
    pairs = [{"index": k, "digest": pair_digest(pair)} for k, pair in enumerate(task.train)]
    record = manifest["ttt"]
    assert (record["task_id"], record["pairs"], record["leave_out"], record["fallback"]) == (task.id, pairs, [1], False)
    assert (manifest["steps"], manifest["seed"], manifest["ended"], record["samples"]) == (3, 0, "max_steps", 12)
    assert manifest["datasets"] == []
    assert manifest["recipe"]["ttt"]["steps"] == 3
    files = {path.name for path in adapter_path(trained, task.id).iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors", "manifest.json"}


def test_the_registry_takes_the_adapters(trained: Path, tmp_path: Path) -> None:
    folder = adapter_path(trained, TASKS[0].id)
    version: AdapterVersion = Registry(tmp_path).add("ttt-cross", folder)
    assert content_hash(folder).startswith(version.version)


def test_an_adapter_of_another_recipe_or_a_changed_one_is_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "work")
    work = tmp_path / "work"
    other = replace(TASKS[0], train=TASKS[0].train[::-1])
    (work / "line").write_text(TaskLine.of(other).model_dump_json() + "\n")
    with start_process(work) as process:
        _, error = process.communicate((work / "line").read_text(), timeout=300)
    assert process.returncode == 1
    assert error.splitlines()[-1].startswith(
        f"error: {adapter_path(work, TASKS[0].id)}: was trained with another recipe"
    )
    again = train_lines(work, tiny_recipe(), [TaskLine.of(other, again=True)])
    assert replies(again)[0].outcome == "trained"


def test_deadlines_cut_at_a_step_and_are_recorded(tmp_path: Path) -> None:
    recipe = tiny_recipe(ttt={"steps": 500, "task_deadline": 4})
    first, second = replies(train_lines(tmp_path, recipe, [LINES[0], TaskLine.of(TASKS[1], seconds=0)]))
    assert (first.outcome, first.reason) == ("cut", f"deadline after step {first.steps} of 500")
    assert 0 < first.steps < 500
    assert manifest_of(tmp_path, TASKS[0].id)["ended"] == "deadline"
    assert (second.outcome, second.adapter, second.steps) == ("untrained", None, 0)
    assert second.reason == "the deadline passed before the first step"
    resumed = replies(train_lines(tmp_path, recipe, [LINES[0]]))
    assert (resumed[0].outcome, resumed[0].steps, resumed[0].digest) == ("cut", first.steps, first.digest)


def test_what_cannot_be_trained_has_no_adapter_and_says_why(tmp_path: Path) -> None:
    hot: dict[str, Any] = {"learning_rate": 1e30, "max_grad_norm": 0}
    single = TaskLine.of(replace(TASKS[2], train=TASKS[2].train[:1]))
    bad, short = replies(train_lines(tmp_path, tiny_recipe(**hot), [LINES[0], single]))
    assert (bad.outcome, bad.adapter, bad.digest) == ("not_finite", None, None)
    assert bad.reason is not None
    assert re.fullmatch(r"the .* is (nan|inf) at step [0-9]: lower learning_rate, or use dtype float32", bad.reason)
    assert (short.outcome, short.adapter) == ("untrained", None)
    assert short.reason == "task cross-000002: 1 train pair(s); to leave one out at least two are needed"
    assert not list((tmp_path / "adapters").glob("[!.]*"))


def test_a_task_that_failed_leaves_no_trace_in_the_next(trained: Path, tmp_path: Path) -> None:
    """The weights of the first task are not finite; the second is trained by the same trainer, at an ordinary rate."""
    from trainers.ttt.task_trainer import TaskTrainer

    inputs = open_checked(tiny_recipe(), None)
    trainer = TaskTrainer(inputs, tmp_path, tmp_path / "scratch", lambda line: None)
    trainer.train_task(LINES[0], LINES[0].pairs())
    assert trainer._trainer is not None
    ordinary = trainer._trainer.args.learning_rate
    trainer._trainer.args.learning_rate = 1e30
    trainer._trainer.args.max_grad_norm = 0
    assert trainer.train_task(LINES[2], LINES[2].pairs()).outcome == "not_finite"
    trainer._trainer.args.learning_rate = ordinary
    trainer._trainer.args.max_grad_norm = 1.0
    trainer._give_memory_back()  # as on a GPU after every task
    assert trainer._trainer.optimizer is None
    assert trainer.train_task(LINES[1], LINES[1].pairs()).outcome == "trained"
    assert adapter_bytes(tmp_path, TASKS[1].id) == adapter_bytes(trained, TASKS[1].id)


def test_the_scale_of_float16_is_that_of_the_start_for_every_task(tmp_path: Path) -> None:
    """It is set as on a GPU, where the gradients of a task change it; on a CPU nothing is trained in float16."""
    import torch

    from trainers.ttt.task_trainer import TaskTrainer

    trainer = TaskTrainer(open_checked(tiny_recipe(), None), tmp_path, tmp_path / "scratch", lambda line: None)
    trainer.train_task(LINES[0], LINES[0].pairs())
    assert trainer._trainer is not None
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    trainer._initial_scaler = scaler.state_dict()
    scaler.load_state_dict({**scaler.state_dict(), "scale": 2.0, "_growth_tracker": 7})
    trainer._trainer.accelerator.scaler = scaler
    trainer._prepare(trainer._trainer.train_dataset)
    assert (scaler.get_scale(), scaler.state_dict()["_growth_tracker"]) == (8.0, 0)


def test_training_starts_from_a_trained_adapter(tmp_path: Path) -> None:
    data = recipe_data("tiny", tmp_path / "start", lora={"rank": 4}, max_steps=4, datasets="toy/cross#n=50")
    start = train_adapter({**data, "learning_rate": 4e-3, "dtype": "float32", "validation": None})
    recipe = tiny_recipe(adapter=str(start), lora={"rank": 4})
    work = tmp_path / "work"
    output = train_lines(work, recipe, LINES[:2])
    assert [r.outcome for r in replies(output)] == ["trained", "trained"]
    fresh = train_lines(tmp_path / "fresh", tiny_recipe(lora={"rank": 4}), LINES[:1])
    losses = [next(line.loss for line in lines if isinstance(line, StepLine)) for lines in (output, fresh)]
    assert losses[0] != losses[1]
    assert manifest_of(work, TASKS[0].id)["ttt"]["start_digest"] is not None
    second = tmp_path / "second"
    train_lines(second, recipe, [LINES[1]])
    assert adapter_bytes(second, TASKS[1].id) == adapter_bytes(work, TASKS[1].id)
    _check_what_the_start_brings(start, adapter_path(work, TASKS[0].id), recipe, tmp_path)


def _check_what_the_start_brings(start: Path, trained_at_test_time: Path, recipe: Recipe, folder: Path) -> None:
    """Compare the date of prompts and the training data with the manifest of the starting adapter."""
    datasets = {"toy/cross#n=50": open_dataset("toy/cross#n=50").digest()}
    assert find_training_data(TINY_BASE, start) == TrainingData(datasets)
    assert find_training_data(TINY_BASE, None) == TrainingData({})
    unknown = find_training_data(TINY_BASE, trained_at_test_time).unknown
    assert unknown == f"{trained_at_test_time} was trained at test time, on task {TASKS[0].id}"
    manifest = json.loads((start / "manifest.json").read_bytes())
    manifest |= {"template_date": "2021-03-04", "recipe": {**manifest["recipe"], "adapter": str(folder / "gone")}}
    (start / "manifest.json").write_text(json.dumps(manifest))
    write_recipe(folder / "dated", recipe)
    assert str(read_recipe(folder / "dated").template_date) == "2021-03-04"
    earlier = find_training_data(TINY_BASE, start)
    assert earlier == TrainingData(datasets, f"{folder / 'gone'} has no manifest that names its training data")
    base = folder / "base"  # was trained itself, on other data
    base.mkdir()
    recorded = {**manifest["recipe"], "adapter": None}
    others = [{**manifest["datasets"][0], "spec": "toy/edge", "digest": "0" * 64}]
    (base / "manifest.json").write_text(json.dumps({**manifest, "recipe": recorded, "datasets": others}))
    (start / "manifest.json").write_text(json.dumps({**manifest, "recipe": {**recorded, "model": str(base)}}))
    assert find_training_data(TINY_BASE, start) == TrainingData({**datasets, "toy/edge": "0" * 64})
    shutil.rmtree(base)
    assert find_training_data(TINY_BASE, start).unknown is not None


def test_weights_that_are_not_finite_after_the_last_step_give_no_adapter(tmp_path: Path) -> None:
    """The loss and the gradient of the only step are finite; its weight decay overflows."""
    hot = tiny_recipe(warmup=0, weight_decay=1e300, ttt={"steps": 1})
    (reply,) = replies(train_lines(tmp_path, hot, LINES[:1]))
    assert (reply.outcome, reply.adapter, reply.reason) == ("not_finite", None, "weights are not finite after step 1")


def test_adapters_on_embeddings_and_output_layer_do_not_depend_on_the_order(tmp_path: Path) -> None:
    base = make_family("llama3", tmp_path / "base")
    data = {"model": str(base), "prompt": "output-from-examples-nosystem-v1", "max_seq_len": 2048, "threads": 1}
    recipe = make_ttt_recipe({**data, "ttt": {"preset": "architects", "steps": 2}, "lora": {"rank": 4}})
    for work, lines in (("there", LINES[:2]), ("back", LINES[1::-1])):
        assert [r.outcome for r in replies(train_lines(tmp_path / work, recipe, lines))] == ["trained", "trained"]
    for task in TASKS[:2]:
        files = adapter_bytes(tmp_path / "there", task.id)
        assert files == adapter_bytes(tmp_path / "back", task.id)
        assert b"lm_head.lora_A" in files[1]
        assert b"embed_tokens.lora_embedding_A" in files[1]


def test_the_process_ends_when_its_reader_has_ended(tmp_path: Path) -> None:
    write_recipe(tmp_path, tiny_recipe(ttt={"steps": 10_000}))
    with start_process(tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(LINES[0].model_dump_json() + "\n")
        process.stdin.flush()
        assert process.stdout.readline()
        process.stdout.close()
        assert process.wait(300) == 1
        assert "error: the process that reads the results has ended\n" in process.stderr.read()


def test_a_line_that_is_no_task_ends_the_process_with_one_line(tmp_path: Path) -> None:
    write_recipe(tmp_path, tiny_recipe())
    with start_process(tmp_path) as process:
        out, error = process.communicate('{"task_id": "a", "train": [], "test": []}\n', timeout=300)
    assert (process.returncode, out) == (1, "")
    assert error.splitlines()[-1] == "error: task line 1: test: Extra inputs are not permitted"
