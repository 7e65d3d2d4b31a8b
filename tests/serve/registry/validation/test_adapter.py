"""Which adapters are valid, and the reason with which others are refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import AdapterError
from serve.registry.base_model import BaseModel
from serve.registry.safetensors_file import count_bad_numbers, read_header
from serve.registry.store import Registry
from serve.registry.validation.adapter import validate_adapter
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
