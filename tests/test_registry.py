"""The adapter registry and what it refuses."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import AdapterError
from serve.base_model import BaseModel
from serve.leases import LeaseFile, running_servers
from serve.registry import Registry
from serve.tensorfile import count_bad_numbers, read_header
from serve.validate import validate_adapter
from serve.version import AdapterInUseError, AdapterRef, UnknownAdapterError
from tests.adapter_toys import lora_tensors, make_adapter, make_base, write_safetensors
from trainers.artifact import model_digest


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return BaseModel.open(make_base(tmp_path_factory.mktemp("models") / "toy-base"))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "adapters")


def test_a_version_is_named_by_its_content_and_comes_back_as_added(
    registry: Registry, base: BaseModel, tmp_path: Path
) -> None:
    source = make_adapter(tmp_path / "a")
    (source / "manifest.json").write_text('{"prompt": "compact-v0"}')
    version = registry.add("flips", source, base)
    again = registry.add("flips", make_adapter(tmp_path / "same"), base)
    other = registry.add("flips", make_adapter(tmp_path / "b", seed=1), base)
    assert again.id == version.id != other.id
    verified = registry.find(version.id).verify(base, max_rank=8)
    assert verified.hash.startswith(version.version)
    assert verified.manifest == {"prompt": "compact-v0"}
    assert (verified.facts.rank, verified.facts.base, verified.facts.targets) == (4, "toy-base", ("q_proj", "v_proj"))
    assert registry.names() == ["flips"]
    assert registry.find("flips").id == other.id


def test_adding_old_content_again_makes_it_the_newest(registry: Registry, tmp_path: Path) -> None:
    old = registry.add("a", make_adapter(tmp_path / "a"))
    registry.add("a", make_adapter(tmp_path / "b", seed=1))
    os.utime(old.folder, (0, 0))
    assert registry.find("a").id != old.id
    registry.add("a", tmp_path / "a")
    assert registry.find("a").id == old.id


def test_live_and_history(registry: Registry, tmp_path: Path) -> None:
    ids = [registry.add("a", make_adapter(tmp_path / str(seed), seed=seed)).version for seed in range(3)]
    assert registry.live("a").version is None
    for version in ids:
        registry.set_live("a", version)
    assert registry.live("a").version == ids[2]
    assert registry.live("a").history == (ids[1], ids[0])
    assert registry.previous("a").version == ids[1]
    registry.set_live("a", ids[1])
    assert registry.live("a").history == (ids[2], ids[0])
    registry.remove(f"a@{ids[2]}")
    assert registry.previous("a").version == ids[0]
    registry.set_live("a", None)
    assert registry.live("a").version is None
    with pytest.raises(UnknownAdapterError, match="no earlier version"):
        registry.previous("b")


def test_a_changed_version_is_noticed(registry: Registry, tmp_path: Path) -> None:
    version = registry.add("a", make_adapter(tmp_path / "a"))
    weights = version.folder / "adapter_model.safetensors"
    weights.chmod(0o644)
    write_safetensors(weights, lora_tensors(seed=9))
    with pytest.raises(AdapterError, match="changed since it was added"):
        version.verify()


def test_links_inside_the_registry_are_refused(registry: Registry, tmp_path: Path) -> None:
    version = registry.add("a", make_adapter(tmp_path / "a"))
    weights = version.folder / "adapter_model.safetensors"
    moved = tmp_path / "elsewhere.safetensors"
    weights.rename(moved)
    weights.symlink_to(moved)
    with pytest.raises(AdapterError, match="is a link"):
        version.verify()
    (registry.root / "b").symlink_to(registry.root / "a")
    assert registry.versions("b") == []


def test_remove_refuses_what_is_live_or_known_to_a_server(registry: Registry, tmp_path: Path) -> None:
    one = registry.add("a", make_adapter(tmp_path / "a"))
    two = registry.add("a", make_adapter(tmp_path / "b", seed=1))
    registry.set_live("a", one.version)
    with pytest.raises(AdapterInUseError, match="is live"):
        registry.remove(one.id)
    lease = LeaseFile(registry.root, "http://127.0.0.1:8000", 8000)
    lease.write([two.id])
    with pytest.raises(AdapterInUseError, match=r"http://127\.0\.0\.1:8000 knows it"):
        registry.remove(two.id)
    assert registry.gc(keep=0) == []
    lease.close()
    assert registry.remove(two.id) == [two.id]
    assert registry.remove("a") == [one.id]
    assert registry.names() == []
    assert not (registry.root / "a").exists()


def test_a_lease_of_a_dead_server_is_forgotten(registry: Registry, tmp_path: Path) -> None:
    version = registry.add("a", make_adapter(tmp_path / "a"))
    leftover = registry.root / ".servers" / "8000.json"
    leftover.parent.mkdir()
    leftover.write_text(json.dumps({"url": "http://127.0.0.1:8000", "pid": 1, "versions": [version.id]}))
    assert running_servers(registry.root) == []
    assert not leftover.exists()
    assert registry.remove(version.id) == [version.id]


def test_gc_keeps_live_and_newest_and_clears_leftovers(registry: Registry, tmp_path: Path) -> None:
    versions = [registry.add("a", make_adapter(tmp_path / str(seed), seed=seed)) for seed in range(4)]
    for age, version in enumerate(versions):
        os.utime(version.folder, (age, age))
    registry.set_live("a", versions[0].version)
    leftover = registry.root / "a" / ".draft-killed"
    leftover.mkdir()
    assert registry.gc(keep=1) == [versions[1].id, versions[2].id]
    assert not leftover.exists()
    assert [v.id for v in registry.versions("a")] == [versions[0].id, versions[3].id]


@given(st.text(max_size=80))
def test_a_name_never_leaves_the_registry(text: str) -> None:
    try:
        ref = AdapterRef.parse(text)
    except UnknownAdapterError:
        return
    folder = Path("/registry") / ref.name / (ref.version or "")
    assert os.path.normpath(folder) == str(folder)
    assert folder.is_relative_to("/registry")
    assert str(ref) == text


@pytest.mark.parametrize(
    "name", ["..", "a/b", "/etc", "a@", "@b", "a@xyz", ".hidden", "a" * 65, "", "a b", "a\n", "a..b"]
)
def test_odd_names_are_refused(registry: Registry, tmp_path: Path, name: str) -> None:
    source = make_adapter(tmp_path / "a")
    with pytest.raises(AdapterError):
        registry.add(name, source)
    with pytest.raises(UnknownAdapterError):
        registry.find(name)


def test_unknown_adapters_are_named_with_what_there_is(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UnknownAdapterError, match="nothing yet"):
        registry.find("a")
    version = registry.add("a", make_adapter(tmp_path / "a"))
    with pytest.raises(UnknownAdapterError, match=version.id):
        registry.find("a@000000000000")


def test_a_damaged_live_file_is_an_error(registry: Registry, tmp_path: Path) -> None:
    registry.add("a", make_adapter(tmp_path / "a"))
    (registry.root / "a" / "live.json").write_text('{"version": "../../x", "history": []}')
    with pytest.raises(AdapterError, match=r"live\.json: damaged"):
        registry.live("a")


# What validation refuses.


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


def test_all_reasons_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"DoRA.*biases"):
        validate_adapter(make_adapter(tmp_path / "a", use_dora=True, bias="all"))


@pytest.mark.parametrize("kind", ["gaussian", "eva", True, False, None])
def test_plain_initialisations_pass(base: BaseModel, tmp_path: Path, kind: object) -> None:
    assert validate_adapter(make_adapter(tmp_path / "a", init_lora_weights=kind), base).rank == 4


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e5])
def test_numbers_that_are_not_finite_never_get_in(
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
def test_the_bits_of_bf16_are_judged_as_their_values(tmp_path_factory: pytest.TempPathFactory, bits: list[int]) -> None:
    path = tmp_path_factory.mktemp("bits") / "t.safetensors"
    values = (np.array(bits, "<u4") << 16).view("<f4")
    write_safetensors(path, {"t": values}, "BF16")
    assert count_bad_numbers(path, read_header(path)["t"]) == np.count_nonzero(~(np.abs(values) <= 65504))


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
    with pytest.raises(AdapterError, match="above this server's --max-lora-rank 2"):
        validate_adapter(make_adapter(tmp_path / "b"), base, max_rank=2)
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


@pytest.mark.parametrize("key", ["lm_head", "model.embed_tokens"])
def test_lora_on_embeddings_and_head_is_refused(base: BaseModel, tmp_path: Path, key: str) -> None:
    source = make_adapter(tmp_path / "a")
    extra = {f"base_model.model.{key}.lora_{part}.weight": np.ones((4, 4)) for part in "AB"}
    write_safetensors(source / "adapter_model.safetensors", lora_tensors(0) | extra)
    with pytest.raises(AdapterError, match="embeddings or lm_head"):
        validate_adapter(source, base)


def test_a_pickle_is_named_and_never_read(registry: Registry, tmp_path: Path) -> None:
    source = make_adapter(tmp_path / "a")
    (source / "adapter_model.safetensors").rename(source / "adapter_model.bin")
    with pytest.raises(AdapterError, match=f"{source}.*is a pickle, which can run code"):
        registry.add("a", source)


def test_missing_and_odd_files(registry: Registry, tmp_path: Path) -> None:
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
    (source / "manifest.json").write_text("no json")
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


def test_a_tensor_hidden_behind_another_of_its_name_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    write_safetensors(path, {"t": np.ones((2, 3)), "u": np.ones((4,))})
    path.write_bytes(path.read_bytes().replace(b'"t"', b'"u"'))
    with pytest.raises(AdapterError, match="some bytes belong to no tensor"):
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
    with pytest.raises(AdapterError, match="share bytes"):
        read_header(path)


# The base.


def test_a_base_is_known_by_folder_name_or_hub_id(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "models--org--name" / "snapshots" / "abc")
    base = BaseModel.open(folder)
    assert base.name == "org/name"
    assert base.is_named("org/name")
    assert base.is_named(str(folder))
    assert base.is_named("/elsewhere/name/")
    assert not base.is_named("org/other")


def test_the_digest_in_the_manifest_decides_over_the_name(base: BaseModel, tmp_path: Path) -> None:
    source = make_adapter(tmp_path / "a", base="/elsewhere/renamed")
    manifest = source / "manifest.json"
    manifest.write_text(json.dumps({"base": {"name": "renamed", "digest": model_digest(base.folder or Path())}}))
    assert validate_adapter(source, base).base == "/elsewhere/renamed"
    manifest.write_text(json.dumps({"base": {"name": "toy-base", "digest": "0" * 16}}))
    with pytest.raises(AdapterError, match=f"of digest 0000000000000000, but this base has {base.hash}"):
        validate_adapter(source, base)
    manifest.write_text(json.dumps({"base": {"name": "hub", "digest": "unknown"}}))
    with pytest.raises(AdapterError, match="trained on '/elsewhere/renamed', but this base is 'toy-base'"):
        validate_adapter(source, base)


def test_the_hash_of_a_base_is_the_trainers_digest(base: BaseModel) -> None:
    assert base.hash == model_digest(base.folder or Path())


def test_the_hash_of_a_base_follows_its_content(tmp_path: Path) -> None:
    one, two = (BaseModel.open(make_base(tmp_path / name / "m")) for name in "ab")
    three = BaseModel.open(make_base(tmp_path / "c" / "m", vocabulary=41))
    assert one.hash == two.hash != three.hash
