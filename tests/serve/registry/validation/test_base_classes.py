"""LoRA on embeddings and the output layer, and on composite models: valid for some classes of base models only."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from harness.core.errors import AdapterError
from harness.core.vllm_classes import MODULES
from serve.registry.base_model import BaseModel
from serve.registry.safetensors_file import read_header
from serve.registry.validation.adapter import validate_adapter
from tests.support.models.tiny_adapters import lora_tensors, make_adapter, write_safetensors

ON_EMBEDDINGS = {
    "base_model.model.model.embed_tokens.lora_embedding_A": (4, 40),
    "base_model.model.model.embed_tokens.lora_embedding_B": (64, 4),
}
ON_HEAD = {"base_model.model.lm_head.lora_A.weight": (4, 64), "base_model.model.lm_head.lora_B.weight": (40, 4)}
COPY = "base_model.model.model.embed_tokens.base_layer.weight"


def with_weights(folder: Path, shapes: dict[str, tuple[int, ...]], **more: np.ndarray) -> Path:
    """Create an adapter with further matrices of ones."""
    source = make_adapter(folder, target_modules=["q_proj", "v_proj", "embed_tokens", "lm_head"])
    extra = {name: np.ones(shape) for name, shape in shapes.items()}
    write_safetensors(source / "adapter_model.safetensors", lora_tensors(0) | extra | more)
    return source


@pytest.fixture
def own_base(base: BaseModel, tmp_path: Path) -> BaseModel:
    """A copy of the base that the test may change."""
    assert base.folder is not None
    return BaseModel.open(Path(shutil.copytree(base.folder, tmp_path / "own" / base.folder.name)))


def of_class(base: BaseModel, architecture: str) -> BaseModel:
    """Set the class in a base's configuration."""
    assert base.folder is not None
    config = json.loads((base.folder / "config.json").read_text())
    (base.folder / "config.json").write_text(json.dumps(config | {"architectures": [architecture]}))
    return BaseModel.open(base.folder)


@pytest.mark.parametrize("shapes", [ON_EMBEDDINGS, ON_HEAD, ON_EMBEDDINGS | ON_HEAD])
def test_lora_on_embeddings_and_head_is_served_by_some_classes(
    own_base: BaseModel, tmp_path: Path, shapes: dict[str, tuple[int, ...]]
) -> None:
    source = with_weights(tmp_path / "a", shapes)
    for architecture in ("Qwen2ForCausalLM", "MistralForCausalLM", "Gemma3ForCausalLM"):
        with pytest.raises(AdapterError, match=f"which vLLM does not serve for {architecture} "):
            validate_adapter(source, of_class(own_base, architecture))
    for architecture in ("LlamaForCausalLM", "Qwen3ForCausalLM"):
        facts = validate_adapter(source, of_class(own_base, architecture))
        assert set(facts.targets) > {"q_proj"}


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({**ON_HEAD, "base_model.model.lm_head.lora_B.weight": (41, 4)}, "fits a layer of 41x64, but .* is 40x64"),
        (
            {**ON_EMBEDDINGS, "base_model.model.model.embed_tokens.lora_embedding_A": (4, 41)},
            "fits a layer of 64x41, but .* is 64x40",
        ),
        (
            {name.replace("embedding_", "") + ".weight": s for name, s in ON_EMBEDDINGS.items()},
            "are for embeddings, and only they",
        ),
        ({"base_model.model.lm_head.lora_embedding_A": (4, 64)}, "are for embeddings, and only they"),
        ({"base_model.model.model.layers.0.mlp.up_proj.base_layer.weight": (96, 64)}, "not a LoRA matrix"),
    ],
)
def test_lora_on_embeddings_that_does_not_fit(
    own_base: BaseModel, tmp_path: Path, shapes: dict[str, tuple[int, ...]], reason: str
) -> None:
    with pytest.raises(AdapterError, match=reason):
        validate_adapter(with_weights(tmp_path / "a", shapes), of_class(own_base, "LlamaForCausalLM"))


def test_lora_that_is_shared_with_the_output_layer_is_refused(own_base: BaseModel, tmp_path: Path) -> None:
    source = with_weights(tmp_path / "a", ON_EMBEDDINGS)
    config = json.loads((source / "adapter_config.json").read_text())
    (source / "adapter_config.json").write_text(json.dumps(config | {"ensure_weight_tying": True}))
    with pytest.raises(AdapterError, match="ensure_weight_tying"):
        validate_adapter(source, of_class(own_base, "LlamaForCausalLM"))


def test_a_copy_of_the_embeddings_must_be_that_of_the_base(own_base: BaseModel, tmp_path: Path) -> None:
    embeddings = np.random.default_rng(0).normal(size=(40, 64))  # as make_base draws them
    truncated = ((embeddings.astype("<f4").view("<u4") >> 16) << 16).view("<f4")
    base = of_class(own_base, "LlamaForCausalLM")
    validate_adapter(with_weights(tmp_path / "same", ON_EMBEDDINGS, **{COPY: truncated}), base)
    truncated[39, 63] += 0.5
    for name, other in {"changed": truncated, "resized": truncated[:39]}.items():
        with pytest.raises(AdapterError, match=r"holds another model\.embed_tokens than"):
            validate_adapter(with_weights(tmp_path / name, ON_EMBEDDINGS, **{COPY: other}), base)


def renamed(base: BaseModel, prefix: str) -> BaseModel:
    """Turn the base into the language model of a model that also reads pictures."""
    assert base.folder is not None
    path = base.folder / "model.safetensors"
    tensors = {name.replace("model.", prefix, 1): np.ones(t.shape) for name, t in read_header(path).items()}
    tensors["vision_tower.encoder.layers.0.self_attn.q_proj.weight"] = np.ones((64, 64))
    write_safetensors(path, tensors)
    config = json.loads((base.folder / "config.json").read_text())
    (base.folder / "config.json").write_text(json.dumps({"text_config": config}))
    return BaseModel.open(base.folder)


@pytest.mark.parametrize("stored", ["language_model.model.", "model.language_model."])
def test_modules_of_a_composite_model_need_the_prefix_that_vllm_uses(
    own_base: BaseModel, tmp_path: Path, stored: str
) -> None:
    composite = renamed(own_base, stored)
    assert composite.layers == 2
    for number, named in enumerate(("model.language_model.layers.", "language_model.model.layers.")):
        source = make_adapter(tmp_path / str(number))
        tensors = {name.replace("model.layers.", named): array for name, array in lora_tensors(0).items()}
        write_safetensors(source / "adapter_model.safetensors", tensors)
        assert validate_adapter(source, composite).rank == 4
        wider = {name: array[:, :-1] if "lora_A" in name else array for name, array in tensors.items()}
        write_safetensors(source / "adapter_model.safetensors", wider)
        with pytest.raises(AdapterError, match="fits a layer of"):
            validate_adapter(source, composite)
    with pytest.raises(AdapterError, match=r"no such module \(vLLM finds its layers under model.language_model.layers"):
        validate_adapter(make_adapter(tmp_path / "bare"), composite)
    tower = {
        name.replace("model.layers.", "model.vision_tower.encoder.layers."): a for name, a in lora_tensors(0).items()
    }
    source = make_adapter(tmp_path / "tower")
    write_safetensors(source / "adapter_model.safetensors", tower)
    with pytest.raises(AdapterError, match="vision or audio part"):
        validate_adapter(source, composite)


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture", ["LlamaForCausalLM", "Qwen3ForCausalLM", "Phi3ForCausalLM", "SmolLM3ForCausalLM"]
)
def test_vllm_serves_lora_on_the_embeddings_of_every_accepted_class(architecture: str) -> None:
    from vllm.model_executor.models.registry import ModelRegistry

    for name in (architecture, "MistralForCausalLM", "Qwen2ForCausalLM", "Gemma3ForCausalLM", "Gemma2ForCausalLM"):
        model_class = ModelRegistry.models[name].load_model_cls()
        assert MODULES.get(name, set()) <= set(getattr(model_class, "embedding_modules", {}))
