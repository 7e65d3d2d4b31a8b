"""The target modules of an adapter compared with its weights, as PEFT would apply them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.core.errors import AdapterError
from serve.registry.base_model import BaseModel
from serve.registry.validation import target_modules
from serve.registry.validation.adapter import validate_adapter
from tests.support.models.tiny_adapters import lora_tensors, make_adapter, write_safetensors


@pytest.mark.parametrize(
    ("change", "left_out"),
    [
        ({"target_modules": ["q_proj"]}, "2 of the 4.*layers.0.self_attn.v_proj, model.layers.1.self_attn.v_proj"),
        ({"target_modules": r".*\.q_proj"}, "2 of the 4"),
        ({"exclude_modules": ["self_attn.v_proj"]}, "2 of the 4"),
        ({"exclude_modules": r".*layers\.0.*"}, "2 of the 4.*layers.0.self_attn.q_proj, .*layers.0.self_attn.v_proj"),
        ({"layers_to_transform": [1]}, "2 of the 4.*layers.0"),
        ({"layers_to_transform": 0, "layers_pattern": "layers"}, "2 of the 4.*layers.1"),
        ({"layers_to_transform": [0, 1], "layers_pattern": ["blocks"]}, "4 of the 4"),
    ],
)
def test_weights_that_peft_ignores_are_refused(
    base: BaseModel, tmp_path: Path, change: dict[str, Any], left_out: str
) -> None:
    with pytest.raises(AdapterError, match=f"leaves out {left_out}.*vLLM would apply them and PEFT would not"):
        validate_adapter(make_adapter(tmp_path / "a", **change), base)


@pytest.mark.parametrize(
    "change",
    [
        {"target_modules": ["model.layers.0.self_attn.q_proj", "v_proj", "layers.1.self_attn.q_proj"]},
        {"target_modules": r"(?:.*?(?:self_attn|mlp).*?(?:q_proj|v_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.(?:mlp))"},
        {"layers_to_transform": [0, 1], "layers_pattern": None},
        {"exclude_modules": ["proj"]},
    ],
)
def test_targets_that_fit_pass(base: BaseModel, tmp_path: Path, change: dict[str, Any]) -> None:
    assert validate_adapter(make_adapter(tmp_path / "a", **change), base).warnings == ()


def test_a_target_pattern_that_takes_forever_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_modules, "_SECONDS", 0.5)
    with pytest.raises(AdapterError, match="target_modules is a pattern that takes over 0 s to match"):
        validate_adapter(make_adapter(tmp_path / "a", target_modules=r"((\w|\.)+)+!"))


def test_modules_without_weights_give_a_warning(base: BaseModel, tmp_path: Path) -> None:
    source = make_adapter(tmp_path / "a")
    assert validate_adapter(source, base).warnings == ()
    some = {name: t for name, t in lora_tensors(0).items() if "layers.1.self_attn.v" not in name}
    write_safetensors(source / "adapter_model.safetensors", some)
    (warning,) = validate_adapter(source, base).warnings
    assert "1 modules of adapter_config.json have no weights (model.layers.1.self_attn.v_proj)" in warning
    (warning,) = validate_adapter(make_adapter(tmp_path / "all", target_modules="all-linear"), base).warnings
    assert warning.startswith("10 modules of adapter_config.json have no weights (model.layers.0.self_attn.k_proj, ")
    layers = make_adapter(tmp_path / "b", layers=1, layers_to_transform=[0])
    assert validate_adapter(layers, base).warnings == ()


@pytest.mark.slow
def test_ignored_modules_are_those_that_peft_ignores() -> None:
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    random = np.random.default_rng(0)
    modules = [f"model.layers.{k}.{part}" for k in (0, 1, 12) for part in ("self_attn.q_proj", "mlp.experts.1.up_proj")]
    modules += ["layers.1.q_proj", "q_proj", "model.vision.blocks.1.xq_proj", "lm_head"]
    choices: dict[str, list[Any]] = {
        "target_modules": [["q_proj"], ["up_proj", "lm_head"], ["layers.1.q_proj"], r".*(q|up)_proj", r"q_proj", ["x"]],
        "exclude_modules": [None, [], ["q_proj"], ["experts.1.up_proj"], r".*\.12\..*", ["lm_head", "q_proj"]],
        "layers_to_transform": [None, 1, [0, 12], []],
        "layers_pattern": [None, "layers", ["blocks", "experts"], []],
    }
    for _ in range(400):
        config = {key: values[random.integers(len(values))] for key, values in choices.items()}
        if isinstance(config["target_modules"], str) or config["layers_to_transform"] is None:
            config |= {"layers_to_transform": None, "layers_pattern": None}  # PEFT takes no others together
        lora = LoraConfig(**config)
        expected = [m for m in modules if not check_target_module_exists(lora, m)]
        assert target_modules.ignored_modules(config, modules) == expected, config
