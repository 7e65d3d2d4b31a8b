"""Which base model an adapter was trained on: compared by content, digest, path or name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from harness.core.digests import model_digest
from harness.core.errors import AdapterError
from serve.registry.base_model import BaseModel
from serve.registry.safetensors_file import read_header
from serve.registry.store import Registry
from serve.registry.validation.adapter import validate_adapter
from serve.registry.validation.base_match import same_name
from tests.support.models.tiny_adapters import lora_tensors, make_adapter, make_base, write_safetensors


def test_a_base_is_identified_by_folder_name_or_hub_id(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "models--org--name" / "snapshots" / "abc")
    base = BaseModel.open(folder)
    assert base.name == "org/name"
    assert same_name("org/name", base.identity)
    assert same_name(str(folder), base.identity)
    assert same_name("/elsewhere/name/", base.identity)
    assert not same_name("org/other", base.identity)


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


def changed_base(folder: Path, original: Path, factor: float = 1.01) -> Path:
    """Copy a base model with all its embeddings equal to ``factor``."""
    shutil.copytree(original, folder)
    header = read_header(original / "model.safetensors")
    tensors = {n: np.ones(t.shape) if "embed" not in n else np.full(t.shape, factor) for n, t in header.items()}
    write_safetensors(folder / "model.safetensors", tensors, "BF16")
    return folder


def test_bases_on_this_machine_are_compared_by_content(tmp_path: Path) -> None:
    one = changed_base(tmp_path / "a" / "1", make_base(tmp_path / "origin"), 1.0)
    two = BaseModel.open(changed_base(tmp_path / "b" / "1", one))
    adapter = make_adapter(tmp_path / "adapter", base=str(one))
    with pytest.raises(AdapterError, match=f"trained on '{one}', which is on this machine and has other content than"):
        validate_adapter(adapter, two)
    renamed = shutil.copytree(one, tmp_path / "elsewhere")
    assert validate_adapter(adapter, BaseModel.open(renamed)).warnings == ()
    # Other files and notes in config.json, the same model: as save_pretrained of another version would write it.
    config = json.loads((renamed / "config.json").read_text())
    (renamed / "config.json").write_text(json.dumps(config | {"transformers_version": "0.0"}))
    tensors = {n: np.ones(t.shape) for n, t in read_header(renamed / "model.safetensors").items()}
    for k, name in enumerate(tensors):
        write_safetensors(renamed / f"model-{k + 1:05}-of-{len(tensors):05}.safetensors", {name: tensors[name]}, "BF16")
    (renamed / "model.safetensors").unlink()
    assert validate_adapter(adapter, BaseModel.open(renamed)).warnings == ()
    (renamed / "config.json").write_text(json.dumps(config | {"rope_theta": 7.0}))
    with pytest.raises(AdapterError, match="has other content"):
        validate_adapter(adapter, BaseModel.open(renamed))


@pytest.mark.parametrize(
    ("named", "served", "same"),
    [
        ("/kaggle/input/qwen2.5/transformers/0.5b/1", "/kaggle/input/qwen2.5/transformers/0.5b-instruct/1", False),
        ("/kaggle/input/qwen2.5/transformers/0.5b/1", "/data/qwen2.5/transformers/0.5b/1/", True),
        ("/kaggle/input/qwen2.5/transformers/7b/1", "/kaggle/input/llama3/transformers/7b/1", False),
        ("/kaggle/input/qwen2.5/transformers/7b/1", "/kaggle/input/qwen2.5/transformers/7b/2", False),
        ("unsloth/tiny-base-bnb-4bit", "/x/tiny-base", False),
        ("Qwen/Qwen2.5-0.5B", "/models/Qwen2.5-0.5B", True),
        ("Qwen/Qwen2.5-0.5B", "/models/Qwen2.5-0.5B-Instruct", False),
        ("Qwen/Qwen2.5-0.5B", "someone/Qwen2.5-0.5B", False),
        ("Qwen/Qwen2.5-0.5B", "/cache/models--Qwen--Qwen2.5-0.5B/snapshots/0123abc", True),
        ("/home/a/models--o--m/snapshots/0123abc", "/cache/models--o--m/snapshots/4567def", True),
        ("C:\\models\\Qwen2.5-0.5B", "/models/Qwen2.5-0.5B", True),
        ("runs/first/merged", "/home/me/runs/second/merged", False),
        ("model", "/home/me/model", None),
        ("checkpoint-500", "/home/me/checkpoint-600", False),
    ],
)
def test_without_content_names_and_paths_are_compared(named: str, served: str, same: bool | None) -> None:
    assert same_name(named, served) is same
    assert same_name(served, named) is same


def test_a_generic_name_gives_a_warning(tmp_path: Path) -> None:
    base = BaseModel.open(make_base(tmp_path / "model"))
    (warning,) = validate_adapter(make_adapter(tmp_path / "a", base="model"), base).warnings
    assert warning == "it was trained on 'model', of which only the name could be compared with this base, 'model'"


def test_the_served_name_does_not_identify_the_base(tmp_path: Path) -> None:
    folder = make_base(tmp_path / "toy-base")
    base = BaseModel("org/other", folder, source=str(folder))
    with pytest.raises(AdapterError, match="trained on 'org/other'"):
        validate_adapter(make_adapter(tmp_path / "a", base="org/other"), base)


def test_accept_base_overrides_the_name_of_the_base_only(registry: Registry, tmp_path: Path) -> None:
    base = BaseModel.open(make_base(tmp_path / "toy-base"))
    other = BaseModel.open(make_base(tmp_path / "other", vocabulary=41))
    adapter = make_adapter(tmp_path / "a", base="someone/toy-base-bnb-4bit")
    (adapter / "accepted_base.json").write_text(json.dumps({"base": base.name, "hash": base.hash}))
    with pytest.raises(AdapterError, match="add it with --base MODEL --accept-base"):
        registry.add("a", adapter, base)  # what lies in a foreign folder is no user's word
    version = registry.add("a", adapter, base, accept=True)
    assert version.verify(BaseModel.open(base.folder or "")).facts.rank == 4
    with pytest.raises(AdapterError, match="but this base is 'other'"):
        version.verify(other)
    bad = make_adapter(tmp_path / "b", base="someone/x")
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    write_safetensors(bad / "adapter_model.safetensors", lora_tensors(0) | {key: np.ones((4, 32))})
    with pytest.raises(AdapterError, match="fits a layer"):  # insisting on the base does not make it fit
        registry.add("b", bad, base, accept=True)


def hub_snapshot(cache: Path, model: str, commit: str, source: Path) -> Path:
    """Create a model in the hub's cache, as a download does."""
    home = cache / f"models--{model.replace('/', '--')}"
    snapshot = home / "snapshots" / commit
    shutil.copytree(source, snapshot)
    (snapshot / "tokenizer.json").write_text("{}")
    (home / "refs").mkdir(exist_ok=True)
    (home / "refs" / "main").write_text(commit)
    return snapshot


def test_a_new_commit_of_the_same_weights_is_the_same_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    before, after = "1" * 40, "2" * 40
    original = make_base(tmp_path / "origin")
    old = hub_snapshot(tmp_path / "hub", "org/name", before, original)
    adapter = make_adapter(tmp_path / "a", base="org/name")
    (adapter / "manifest.json").write_text(json.dumps({"base": {"name": "org/name", "digest": before}}))
    new = hub_snapshot(tmp_path / "hub", "org/name", after, original)
    (new / "README.md").write_text("edited")
    assert validate_adapter(adapter, BaseModel.open("org/name")).warnings == ()
    # A folder of any name with the same content is the same base.
    assert validate_adapter(adapter, BaseModel.open(original)).warnings == ()
    changed_base(tmp_path / "changed", original)
    for commit in (before, after):
        shutil.copyfile(tmp_path / "changed" / "model.safetensors", new.parent / commit / "model.safetensors")
        if commit == before:
            with pytest.raises(AdapterError, match="has other content"):
                validate_adapter(adapter, BaseModel.open("org/name"))
    shutil.rmtree(old)  # the old commit is no longer here: nothing to compare with
    (warning,) = validate_adapter(adapter, BaseModel.open("org/name")).warnings
    assert warning == "it was trained on commit 111111111111 of 'org/name', and this base is commit 222222222222"


def test_weights_that_transformers_ignores_do_not_change_the_base(tmp_path: Path) -> None:
    base = make_base(tmp_path / "toy-base")
    digest = model_digest(base)
    shutil.copyfile(base / "model.safetensors", base / "consolidated.safetensors")
    opened = BaseModel.open(base)
    assert opened.hashes == {digest, model_digest(base)}
    adapter = make_adapter(tmp_path / "a", base="/elsewhere")
    (adapter / "manifest.json").write_text(json.dumps({"base": {"name": "x", "digest": digest}}))
    assert validate_adapter(adapter, opened).warnings == ()
