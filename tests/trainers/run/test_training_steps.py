"""Training steps: equal for any number of processes and micro-batches, and every way to train."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.training.train_runs import (
    BATCH,
    FEW_STEPS,
    TORCHRUN,
    Data,
    adapter_manifest,
    last_error_line,
    log_losses,
    log_steps,
    recipe_data,
    run_python,
    train_adapter,
    train_command,
)
from trainers.model.inputs import open_inputs, open_recipe_mixture
from trainers.recipe.schema import make_recipe
from trainers.store.training_log import read_log

pytestmark = pytest.mark.slow


def test_two_processes_take_the_same_steps(train_root: Path, qwen: Path, few_run: Path) -> None:
    output = train_root / "two"
    done = run_python([*TORCHRUN, *train_command(recipe_data(qwen, output, **FEW_STEPS))])
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line["counts"] for line in log_steps(output)] == [line["counts"] for line in log_steps(few_run)]
    for one, two in zip(log_losses(few_run), log_losses(output), strict=True):
        assert abs(one - two) < 3e-4


def test_micro_batches_do_not_change_the_gradient(train_root: Path, qwen: Path, few_run: Path) -> None:
    padded = train_adapter(recipe_data(qwen, train_root / "padded", max_padding=0.9, **FEW_STEPS))
    assert adapter_manifest(few_run).padding == 0
    assert adapter_manifest(padded).padding > 0.1
    for one, two in zip(log_losses(few_run), log_losses(padded), strict=True):
        assert abs(one - two) < 2e-4


def test_the_loss_covers_outputs_where_the_recipe_says_so(train_root: Path, qwen: Path) -> None:
    """The first loss is the base model's, as the new adapter is zero: a mean over the tokens, one sample at a time."""
    import torch
    from transformers import AutoModelForCausalLM

    data = recipe_data(qwen, train_root / "outputs", loss_on="outputs", lora={"rank": 8}, max_steps=1)
    output = train_adapter(data)
    mixture = open_recipe_mixture(open_inputs(make_recipe(data)))
    model = AutoModelForCausalLM.from_pretrained(qwen)
    losses, answers = [], 0
    for sample in (mixture.draw_sample(k).sample for k in range(BATCH)):
        with torch.no_grad():
            rows = model(torch.tensor([sample.ids])).logits[0].float().log_softmax(-1)
        for first, last in (*sample.learned, (sample.prompt_length, len(sample.ids))):
            losses += [-float(rows[k - 1, sample.ids[k]]) for k in range(first, last)]
        answers += len(sample.ids) - sample.prompt_length
    assert log_losses(output)[0] == pytest.approx(sum(losses) / len(losses), abs=1e-4)
    manifest = adapter_manifest(output)
    assert (manifest.recipe["loss_on"], manifest.answer_tokens) == ("outputs", len(losses))
    assert len(losses) > answers


def test_training_from_an_adapter_continues_its_loss(train_root: Path, qwen: Path, plain_run: Path) -> None:
    check = {"spec": "toy/cross/evaluation#n=8", "max_tasks": 8}
    data = recipe_data(qwen, train_root / "further", adapter=str(plain_run), lora={"rank": 8}, max_steps=5, seed=1)
    further = train_adapter({**data, "validation": check, "eval_steps": 2})
    assert log_losses(plain_run)[0] - log_losses(further)[0] > 0.5
    checks = [line for line in read_log(further / "log.jsonl") if "eval_loss" in line]
    assert [line["step"] for line in checks] == [2, 4, 5]
    assert adapter_manifest(further).losses.validation == {"loss": checks[-1]["eval_loss"]}


def test_a_gradient_that_is_not_finite_ends_the_run_without_a_checkpoint(tmp_path: Path, qwen: Path) -> None:
    """With logits of 1e22 the loss of the first step is finite, but the squares of its gradient are not."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(qwen)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() * 1e22)
    model.all_tied_weights_keys = {}
    base = shutil.copytree(qwen, tmp_path / "base")
    model.save_pretrained(base)
    output = tmp_path / "out"
    done = run_python(train_command(recipe_data(base, output, max_steps=1)))
    assert done.returncode == 1
    assert re.search(
        r"error: the norm of the gradient is (inf|nan) at step 1: lower learning_rate", last_error_line(done.stderr)
    )
    assert not (output / "manifest.json").exists()
    assert (output / "log.jsonl").read_bytes() == b""


@pytest.mark.parametrize("continued", [False, True])
def test_an_adapter_on_4_bit_weights_stays_in_float32(
    tmp_path: Path, qwen: Path, plain_run: Path, continued: bool
) -> None:
    """TRL rounds it to bfloat16 in a first session, while a checkpoint restores it in float32."""
    import torch
    from safetensors.torch import load_file
    from transformers.integrations import TensorBoardCallback

    from trainers.data.hf_dataset import MixtureDataset
    from trainers.model.inputs import open_inputs
    from trainers.recipe.schema import make_recipe
    from trainers.run.build import build_trainer
    from trainers.run.load import load_setup
    from trainers.run.progress import Progress
    from trainers.run.stop import StopSignal
    from trainers.run.trainer import RunOutputs

    adapter = {"adapter": str(plain_run)} if continued else {}
    recipe = make_recipe(
        recipe_data(qwen, tmp_path / "out", lora={"rank": 8}, max_steps=2, report_to="tensorboard", **adapter)
    )
    setup = load_setup(open_inputs(recipe), recipe, tmp_path / "out")
    setup.model.is_loaded_in_4bit = True  # by which TRL knows; the weights themselves need bitsandbytes
    setup = replace(setup, recipe=recipe.model_copy(update={"quantize_4bit": True}))
    rows = MixtureDataset.from_mixture(setup.mixture, range(12))
    with StopSignal() as stop:
        trainer = build_trainer(setup, rows, outputs=RunOutputs(None, Progress(2, 1, False)), stop=stop)
    weights = {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    (tracker,) = (c for c in trainer.callback_handler.callbacks if isinstance(c, TensorBoardCallback))
    assert hasattr(tracker.on_log, "__wrapped__"), "a tracker's errors end the training"
    if continued:
        saved = load_file(plain_run / "adapter_model.safetensors")
        assert all(torch.equal(weights[name.replace(".weight", ".default.weight")], w) for name, w in saved.items())


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

    folder = train_adapter(recipe_data(qwen, train_root / name, **({"max_steps": 4} | changes)))
    assert adapter_manifest(folder).kind == kind
    assert (folder / "config.json").exists() == (kind == "model")
    if kind == "model":
        network = AutoModelForCausalLM.from_pretrained(folder)
        assert network.config.vocab_size == 320
