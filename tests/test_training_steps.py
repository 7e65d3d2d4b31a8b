"""What a training step is: the same in any number of processes and passes, with any way to train."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train_runs import FEW, TORCHRUN, Data, bench, command, losses_of, manifest_of, recipe_data, steps_of, trained
from trainers.progress import read_log

pytestmark = pytest.mark.slow


def test_two_processes_take_the_same_steps(train_root: Path, qwen: Path, few_run: Path) -> None:
    output = train_root / "two"
    done = bench([*TORCHRUN, *command(recipe_data(qwen, output, **FEW))])
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line["counts"] for line in steps_of(output)] == [line["counts"] for line in steps_of(few_run)]
    for one, two in zip(losses_of(few_run), losses_of(output), strict=True):
        assert abs(one - two) < 3e-4


def test_passes_do_not_change_the_gradient(train_root: Path, qwen: Path, few_run: Path) -> None:
    padded = trained(recipe_data(qwen, train_root / "padded", max_padding=0.9, **FEW))
    assert manifest_of(few_run).padding == 0
    assert manifest_of(padded).padding > 0.1
    for one, two in zip(losses_of(few_run), losses_of(padded), strict=True):
        assert abs(one - two) < 2e-4


def test_going_on_from_an_adapter_starts_where_it_ended(train_root: Path, qwen: Path, plain_run: Path) -> None:
    check = {"spec": "toy/cross/evaluation#n=8", "max_tasks": 8}
    data = recipe_data(qwen, train_root / "further", adapter=str(plain_run), lora={"rank": 8}, max_steps=5, seed=1)
    further = trained({**data, "validation": check, "eval_steps": 2})
    assert losses_of(plain_run)[0] - losses_of(further)[0] > 0.5
    checks = [line for line in read_log(further / "log.jsonl") if "eval_loss" in line]
    assert [line["step"] for line in checks] == [2, 4, 5]
    assert manifest_of(further).losses.validation == {"loss": checks[-1]["eval_loss"]}


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "changes", "kind"),
    [
        ("full", {"lora": None, "learning_rate": 1e-4, "gradient_checkpointing": True}, "model"),
        ("bf16", {"dtype": "bfloat16", "lora": {"rank": 4, "rslora": True, "targets": ["q_proj"]}}, "adapter"),
        ("dora", {"lora": {"rank": 4, "dora": True}, "serveable": False}, "adapter"),
    ],
)
def test_other_ways_to_train(train_root: Path, qwen: Path, name: str, changes: Data, kind: str) -> None:
    from transformers import AutoModelForCausalLM

    folder = trained(recipe_data(qwen, train_root / name, **({"max_steps": 4} | changes)))
    assert manifest_of(folder).kind == kind
    assert (folder / "config.json").exists() == (kind == "model")
    if kind == "model":
        network = AutoModelForCausalLM.from_pretrained(folder)
        assert network.config.vocab_size == 320
