"""Training of special models: with a vision part, with token counts ignored, with adapters on the output layer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from harness.core.errors import ConfigError
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from tests.families.make import FAMILIES, constant_tasks, make_family
from tests.support.training.train_runs import (
    Data,
    adapter_manifest,
    log_losses,
    recipe_data,
    run_python,
    train_adapter,
    train_command,
)
from trainers.model.lora import check_lora
from trainers.recipe.schema import make_recipe

pytestmark = pytest.mark.slow


NO_COUNT = """
from transformers import Qwen2ForCausalLM
Qwen2ForCausalLM.accepts_loss_kwargs = False
from harness.cli import main
main()
"""
"""Runs ``bench`` with a model class that ignores the token count of a step."""


def recipe(model: Path, output: Path, **changes: object) -> Data:
    """Return a recipe of a few steps on constant answers."""
    tasks = constant_tasks(output.parent / "tasks.json")
    few = {"datasets": [str(tasks)], "augment": False, "max_steps": 3, "batch_size": 8, "max_seq_len": 600}
    return recipe_data(model, output, **{**few, "workers": 0, "lora": {"rank": 8}, "learning_rate": 1e-3, **changes})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads pictures beside text."""
    return make_family("gemma3-pictures", tmp_path_factory.mktemp("pictures") / "model")


@pytest.fixture(scope="module")
def one_batch(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter trained with all samples of a step in one micro-batch."""
    output = tmp_path_factory.mktemp("whole") / "out"
    return train_adapter(recipe(pictures, output, micro_batch_size=8, max_padding=0.9))


def test_the_loss_is_the_mean_over_tokens_for_any_micro_batches(tmp_path: Path) -> None:
    """Holds also for classes that declare to take no token count (Gemma 3n and 4); a small one declares it here."""
    model = make_family("qwen2", tmp_path / "model")
    losses = []
    for size in (8, 1):
        data = recipe(model, tmp_path / str(size), micro_batch_size=size, max_padding=0.9)
        _, _, *words = train_command(data)
        done = run_python(["-c", NO_COUNT, *words])
        assert done.returncode == 0, done.stderr
        losses.append(log_losses(tmp_path / str(size)))
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)
    assert losses[0][0] < 12


def test_only_the_language_model_is_trained_and_it_can_be_registered(
    pictures: Path, one_batch: Path, tmp_path: Path
) -> None:
    with safe_open(one_batch / "adapter_model.safetensors", "np") as file:
        names = list(file.keys())
    assert names
    assert all(name.startswith("base_model.model.model.language_model.layers.") for name in names)
    registry = Registry(tmp_path / "adapters")
    warnings: list[str] = []
    assert registry.add("learned", one_batch, BaseModel.open(pictures), warn=warnings.append).version
    assert warnings == []
    assert adapter_manifest(one_batch).stop_token_ids != []
    assert json.loads((one_batch / "adapter_config.json").read_text())["exclude_modules"]


def test_the_loss_with_an_adapter_on_the_output_layer_is_exact(tmp_path: Path) -> None:
    """TRL computes with the layer's own weights. Also with several micro-batches, a start adapter and validation."""
    model = make_family("llama3", tmp_path / "model")
    lora = {"rank": 8, "targets": ["q_proj", "embed_tokens", "lm_head"]}
    check = {"spec": str(constant_tasks(tmp_path / "tasks.json")), "exact_tasks": 0}
    losses = []
    for size in (8, 1):
        data = recipe(
            model, tmp_path / str(size), lora=lora, micro_batch_size=size, max_padding=0.9, learning_rate=1e-2
        )
        losses.append(log_losses(train_adapter({**data, "validation": check, "eval_steps": 3})))
    # Adam makes steps of rounding where an embedding has no gradient yet, so that later losses differ a little.
    assert losses[0][:2] == pytest.approx(losses[1][:2], abs=1e-3)
    validated = adapter_manifest(tmp_path / "8").losses.validation["loss"]
    assert losses[0][2] > validated
    further = train_adapter(recipe(model, tmp_path / "further", lora=lora, adapter=str(tmp_path / "8"), max_steps=1))
    assert log_losses(further)[0] == pytest.approx(validated, abs=0.1)
    with safe_open(tmp_path / "8" / "adapter_model.safetensors", "np") as file:
        changed = {name for name in file.keys() if "_B" in name and abs(file.get_tensor(name)).max() > 0}  # noqa: SIM118
    assert {"base_model.model.lm_head.lora_B.weight", "base_model.model.model.embed_tokens.lora_embedding_B"} < changed


@pytest.mark.parametrize("targets", [["q_proj", "embed_tokens"], ["lm_head"], r".*(q_proj|lm_head)"])
@pytest.mark.parametrize(("name", "served"), [("qwen3", True), ("llama3", True), ("mistral", False), ("qwen2", False)])
def test_adapters_on_embeddings_and_output_layer_are_served_for_some_classes(
    name: str, served: bool, targets: str | list[str], tmp_path: Path
) -> None:
    model = make_family(name, tmp_path / name)
    data = recipe(model, tmp_path / "out", lora={"targets": targets})
    check_lora(make_recipe({**data, "serveable": False}))
    if served:
        check_lora(make_recipe(data))
        return
    with pytest.raises(ConfigError, match=f"which vLLM does not serve for {FAMILIES[name].model} "):
        check_lora(make_recipe(data))


def test_training_continues_from_such_an_adapter(pictures: Path, one_batch: Path, tmp_path: Path) -> None:
    further = train_adapter(recipe(pictures, tmp_path / "further", adapter=str(one_batch), micro_batch_size=8))
    assert log_losses(further)[0] < log_losses(one_batch)[0]
