"""The recipe in TRL's configuration."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.training.recipes import SMALL
from trainers.recipe.schema import make_recipe


def test_one_process_takes_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With several visible GPUs, transformers would multiply the samples of a step."""
    import torch

    from trainers.run.trl_config import training_arguments

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    arguments = training_arguments(make_recipe(SMALL), 6, tmp_path, torch.float32)
    assert (arguments.n_gpu, arguments.train_batch_size) == (1, 6)


@pytest.mark.parametrize(("major", "auto"), [(7, "float32"), (8, "bfloat16"), (9, "bfloat16")])
def test_auto_avoids_emulated_bfloat16(monkeypatch: pytest.MonkeyPatch, major: int, auto: str) -> None:
    """On a V100 or T4, torch reports bfloat16 as supported although it emulates it."""
    import torch

    from trainers.run.errors import memory_advice
    from trainers.run.trl_config import chosen_dtype

    recipe = make_recipe({key: value for key, value in SMALL.items() if key != "dtype"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=major))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)
    assert torch.cuda.is_bf16_supported()
    assert chosen_dtype(recipe) == getattr(torch, auto)
    assert ("dtype=float16" in memory_advice(recipe)) is (major < 8)
    assert chosen_dtype(recipe.model_copy(update={"dtype": "bfloat16"})) == torch.bfloat16


def test_sharding_reaches_trl(tmp_path: Path) -> None:
    import torch

    from trainers.run.trl_config import training_arguments

    sharded = make_recipe({**SMALL, "sharding": "fsdp", "gradient_checkpointing": True})
    arguments = training_arguments(sharded, 4, tmp_path, torch.float32)
    assert arguments.fsdp is True
    assert not arguments.gradient_checkpointing  # FSDP's own instead
    expected = {"fsdp_version": 2, "activation_checkpointing": True, "state_dict_type": "FULL_STATE_DICT"}
    assert expected.items() <= arguments.fsdp_plugin_args.items()
    assert not training_arguments(make_recipe(SMALL), 4, tmp_path, torch.float32).fsdp


def test_every_option_of_the_optimization_reaches_trl(tmp_path: Path) -> None:
    import torch

    from trainers.run.trl_config import training_arguments

    options = {"max_steps": 90, "seed": 11, "learning_rate": 3e-3, "weight_decay": 0.25, "max_grad_norm": 0.75}
    others = {"scheduler": "cosine_with_restarts", "scheduler_cycles": 7, "optimizer": "adafactor"}
    recipe = make_recipe({**SMALL, **options, **others, "save_steps": 12, "warmup": 9, "gradient_checkpointing": True})
    arguments = training_arguments(recipe, 4, tmp_path, torch.float32)
    assert {name: getattr(arguments, name) for name in options} == options
    assert (arguments.lr_scheduler_type, arguments.lr_scheduler_kwargs) == ("cosine_with_restarts", {"num_cycles": 7})
    assert (arguments.optim, arguments.save_steps, arguments.get_warmup_steps(90)) == ("adafactor", 12, 9)
    assert (arguments.gradient_checkpointing, arguments.bf16, arguments.fp16) == (True, False, False)
    assert training_arguments(recipe, 4, tmp_path, torch.float16).fp16
    share = training_arguments(recipe.model_copy(update={"warmup": 0.2}), 4, tmp_path, torch.float32)
    assert share.get_warmup_steps(90) == 18


def test_the_limits_of_micro_batches_are_the_recipe_s() -> None:
    from trainers.data.micro_batches import MicroBatchLimits
    from trainers.run.trl_config import micro_batch_limits

    recipe = make_recipe({**SMALL, "tokens_a_pass": 700, "micro_batch_size": 3, "max_padding": 0.4})
    assert micro_batch_limits(recipe) == MicroBatchLimits(700, 3, 0.4)
