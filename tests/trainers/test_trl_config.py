"""The recipe in TRL's configuration."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.recipes import SMALL
from trainers.recipe.schema import make_recipe


@pytest.mark.slow
def test_one_process_takes_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With several in sight, transformers would take as many times the samples of a step."""
    import torch

    from trainers.run.trl_config import training_arguments

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    arguments = training_arguments(make_recipe(SMALL), 6, tmp_path, torch.float32)
    assert (arguments.n_gpu, arguments.train_batch_size) == (1, 6)


@pytest.mark.slow
@pytest.mark.parametrize(("major", "auto"), [(7, "float32"), (8, "bfloat16"), (9, "bfloat16")])
def test_auto_avoids_emulated_bfloat16(monkeypatch: pytest.MonkeyPatch, major: int, auto: str) -> None:
    """On a V100 or T4, torch calls bfloat16 supported, because it emulates it."""
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
