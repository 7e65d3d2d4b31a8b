"""Loading the base model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.core.errors import ConfigError
from tests.support.training.recipes import SMALL
from trainers.model.base_model import find_base
from trainers.model.inputs import open_inputs
from trainers.recipe.schema import make_recipe


def remove_one_weight(model: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(model / "model.safetensors")
    del weights["model.layers.0.mlp.down_proj.weight"]
    save_file(weights, model / "model.safetensors", {"format": "pt"})


def change_shapes(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "intermediate_size": 2 * config["intermediate_size"]}))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (remove_one_weight, "1 weights are missing, such as model.layers.0.mlp.down_proj.weight"),
        (change_shapes, r"its weights have other shapes than its config\.json"),
    ],
)
def test_a_base_without_all_its_weights_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], expected: str
) -> None:
    import torch

    from trainers.run.load import _load_base

    model = shutil.copytree(find_base("tiny"), tmp_path / "model")
    damage(model)
    inputs = open_inputs(make_recipe({**SMALL, "model": str(model), "max_seq_len": 100}))
    with pytest.raises(ConfigError, match=expected):
        _load_base(inputs, torch.float32)


def test_4_bit_quantization_reaches_transformers() -> None:
    import torch

    from trainers.run.load import model_options

    options = model_options(make_recipe({**SMALL, "quantize_4bit": True}), torch.bfloat16)
    quantization = options["quantization_config"]
    assert (quantization.load_in_4bit, quantization.bnb_4bit_quant_type) == (True, "nf4")
    assert quantization.bnb_4bit_compute_dtype == options["dtype"] == torch.bfloat16
    assert model_options(make_recipe(SMALL), torch.bfloat16) == {"dtype": torch.bfloat16}
    assert model_options(make_recipe({**SMALL, "lora": None}), torch.bfloat16) == {"dtype": torch.float32}
