"""Which adapters are valid, and the reason with which others are refused."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import AdapterError
from harness.core.vllm_classes import MODULES
from serve.registry import target_modules
from serve.registry.base_model import BaseModel
from serve.registry.safetensors_file import count_bad_numbers, read_header
from serve.registry.store import Registry
from serve.registry.validation import validate_adapter
from tests.support.models.tiny_adapters import lora_tensors, make_adapter, write_safetensors


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"lora_bias": True}, "LoRA bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"r": 0}, "rank r is 0"),
        ({"r": "8"}, "rank r is '8'"),
        ({"rank_pattern": {"q_proj": 1000}}, "rank q_proj is 1000"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"target_modules": None}, "target_modules"),
        ({"base_model_name_or_path": "another/model"}, "trained on 'another/model', but this base is 'toy-base'"),
        ({"base_model_name_or_path": None}, "its base is unknown"),
    ],
)
def test_a_configuration_that_cannot_be_served(
    base: BaseModel, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(AdapterError, match=reason):
        validate_adapter(make_adapter(tmp_path / "a", **change), base)


def test_all_reasons_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"DoRA.*biases"):
        validate_adapter(make_adapter(tmp_path / "a", use_dora=True, bias="all"))


@pytest.mark.parametrize("kind", ["gaussian", "eva", True, False, None])
def test_plain_initialisations_pass(base: BaseModel, tmp_path: Path, kind: object) -> None:
    assert validate_adapter(make_adapter(tmp_path / "a", init_lora_weights=kind), base).rank == 4


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e5])
def test_weights_that_are_not_finite_are_refused(
    registry: Registry, base: BaseModel, tmp_path: Path, dtype: str, bad: float
) -> None:
    source = make_adapter(tmp_path / "a")
    tensors = lora_tensors(0)
    name = next(iter(tensors))
    write_safetensors(source / "adapter_model.safetensors", tensors, dtype)
    validate_adapter(source, base)
    tensors[name][1, 2] = bad
    write_safetensors(source / "adapter_model.safetensors", tensors, dtype)
    with pytest.raises(AdapterError, match=f"1 of 256 numbers of {name} are NaN, infinite"):
        registry.add("a", source, base)
    assert not (registry.root / "a").exists()


@given(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=64))
def test_bfloat16_weights_are_checked_by_value(tmp_path_factory: pytest.TempPathFactory, bits: list[int]) -> None:
    path = tmp_path_factory.mktemp("bits") / "t.safetensors"
    values = (np.array(bits, "<u4") << 16).view("<f4")
    write_safetensors(path, {"t": values}, "BF16")
    assert count_bad_numbers(path, read_header(path)["t"]) == np.count_nonzero(~(np.abs(values) <= 65504))


def test_the_largest_float16_is_a_valid_weight(base: BaseModel, tmp_path: Path) -> None:
    source = make_adapter(tmp_path / "a")
    tensors = lora_tensors(0)
    next(iter(tensors.values()))[0, 0] = 65504.0
    write_safetensors(source / "adapter_model.safetensors", tensors, "F16")
    assert validate_adapter(source, base).rank == 4


def test_extra_layers_and_modules_are_refused(base: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"layers\.2\..*layer 2, but its layers are 0-1"):
        validate_adapter(make_adapter(tmp_path / "a", layers=3), base)
    source = make_adapter(tmp_path / "b")
    tensors = {name.replace("q_proj", "qq_proj"): t for name, t in lora_tensors(0).items()}
    write_safetensors(source / "adapter_model.safetensors", tensors)
    with pytest.raises(AdapterError, match="has no such module"):
        validate_adapter(source, base)


def test_wrong_shapes_and_ranks_are_refused(base: BaseModel, tmp_path: Path) -> None:
    source = make_adapter(tmp_path / "a")
    weights = source / "adapter_model.safetensors"
    tensors = lora_tensors(0)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    write_safetensors(weights, tensors | {name: np.ones((4, 32))})
    with pytest.raises(AdapterError, match="fits a layer of 64x32, but that of toy-base is 64x64"):
        validate_adapter(source, base)
    write_safetensors(weights, tensors | {name: np.ones((5, 64))})
    with pytest.raises(AdapterError, match="do not multiply"):
        validate_adapter(source, base)
    write_safetensors(weights, lora_tensors(0, rank=8))
    with pytest.raises(AdapterError, match=r"rank 8, but adapter_config\.json says 4"):
        validate_adapter(source, base)
    assert validate_adapter(make_adapter(tmp_path / "b"), base, max_rank=4).rank == 4
    with pytest.raises(AdapterError, match="rank 4 is above this server's --max-lora-rank 3"):
        validate_adapter(tmp_path / "b", base, max_rank=3)
    del tensors[name]
    write_safetensors(weights, tensors)
    with pytest.raises(AdapterError, match="has lora_B but not its partner"):
        validate_adapter(source, base)


def test_rank_pattern_is_followed(base: BaseModel, tmp_path: Path) -> None:
    source = make_adapter(tmp_path / "a", rank_pattern={r"layers\.1\.self_attn\.v_proj": 2})
    tensors = lora_tensors(0)
    for part, shape in (("A", (2, 64)), ("B", (64, 2))):
        tensors[f"base_model.model.model.layers.1.self_attn.v_proj.lora_{part}.weight"] = np.ones(shape)
    write_safetensors(source / "adapter_model.safetensors", tensors)
    assert validate_adapter(source, base).rank == 4


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


def test_a_pickle_is_named_and_never_read(registry: Registry, tmp_path: Path) -> None:
    source = make_adapter(tmp_path / "a")
    (source / "adapter_model.safetensors").rename(source / "adapter_model.bin")
    with pytest.raises(AdapterError, match=f"{source}.*is a pickle, which can run code"):
        registry.add("a", source)


def test_missing_and_invalid_files(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="no such adapter folder"):
        registry.add("a", tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(AdapterError, match=r"adapter_config\.json: cannot be read"):
        registry.add("a", empty)
    source = make_adapter(tmp_path / "b")
    for text in ("{", "[]", '{"a":' * 100_000):
        (source / "adapter_config.json").write_text(text)
        with pytest.raises(AdapterError, match=r"adapter_config\.json"):
            registry.add("a", source)
    source = make_adapter(tmp_path / "c")
    for text in ("no json", '{"prompt": "\\ud800"}'):
        (source / "manifest.json").write_text(text)
        with pytest.raises(AdapterError, match=r"manifest\.json: not JSON"):
            registry.add("a", source)


@given(data=st.data())
def test_a_damaged_weights_file_is_an_adapter_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damage") / "t.safetensors"
    write_safetensors(path, {"t": np.ones((2, 3)), "u": np.ones((4,))})
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans(), "truncate"):
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    else:
        raw[data.draw(st.integers(0, 100))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    try:
        tensors = read_header(path)
    except AdapterError:
        return
    # A flipped bit may leave a header that is still consistent, such as another name.
    assert sum(t.end - t.start for t in tensors.values()) == 40


def test_two_tensors_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    write_safetensors(path, {"t": np.ones((2, 3)), "u": np.ones((4,))})
    path.write_bytes(path.read_bytes().replace(b'"t"', b'"u"'))
    with pytest.raises(AdapterError, match=r"t\.safetensors: damaged.*copy it again"):
        read_header(path)


def test_overlapping_tensors_are_refused(tmp_path: Path) -> None:
    head = json.dumps(
        {
            "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
        }
    ).encode()
    path = tmp_path / "t.safetensors"
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"\0" * 12)
    with pytest.raises(AdapterError, match=r"t\.safetensors: damaged.*copy it again"):
        read_header(path)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("zero", ["lora_A", "lora_B", "both by halves"])
def test_an_adapter_that_changes_nothing_is_refused(
    registry: Registry, base: BaseModel, tmp_path: Path, zero: str, dtype: str
) -> None:
    source = make_adapter(tmp_path / "a")
    tensors = lora_tensors(0)
    for name in tensors:
        if zero in name or (zero == "both by halves" and ("lora_A" in name) == ("q_proj" in name)):
            tensors[name] *= 1e-12 if dtype == "F32" else 0
    write_safetensors(source / "adapter_model.safetensors", tensors, dtype)
    with pytest.raises(AdapterError, match="changes nothing: lora_A or lora_B is zero in all of its 4 modules"):
        registry.add("a", source, base)
    assert not (registry.root / "a").exists()


def test_modules_that_change_nothing_give_a_warning(registry: Registry, base: BaseModel, tmp_path: Path) -> None:
    source = make_adapter(tmp_path / "a")
    tensors = lora_tensors(0)
    tensors["base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"][:] = 0
    write_safetensors(source / "adapter_model.safetensors", tensors)
    warnings: list[str] = []
    registry.add("a", source, base, warn=warnings.append)
    assert warnings[0] == "1 of 4 modules change nothing: lora_B is zero (model.layers.1.self_attn.v_proj)"


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
