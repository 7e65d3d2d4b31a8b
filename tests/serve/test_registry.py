"""The adapter registry: versions, names, leases, and the base that they must fit."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.digests import model_digest
from harness.core.errors import AdapterError
from serve.registry.adapter_version import AdapterInUseError, AdapterRef, UnknownAdapterError
from serve.registry.base_match import same_name
from serve.registry.base_model import BaseModel
from serve.registry.leases import LeaseFile, file_lock, running_servers
from serve.registry.prompt_record import manifest_of_checkpoint
from serve.registry.safetensors_file import read_header
from serve.registry.store import Registry
from serve.registry.validation import validate_adapter
from tests.support.models.tiny_adapters import lora_tensors, make_adapter, make_base, write_safetensors


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


def test_adding_a_version_again_replaces_its_manifest(registry: Registry, tmp_path: Path) -> None:
    source = make_adapter(tmp_path / "a")
    for text in ('{"prompt": "wrong"}', '{"prompt": "right"}'):
        (source / "manifest.json").write_text(text)
        version = registry.add("a", source)
        assert (version.folder / "manifest.json").read_text() == text
    (source / "manifest.json").unlink()
    again = registry.add("a", source)
    assert again.id == version.id
    assert (again.folder / "manifest.json").read_text() == '{"prompt": "right"}'


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


def test_the_history_keeps_the_last_20_live_versions(registry: Registry, tmp_path: Path) -> None:
    registry.add("a", make_adapter(tmp_path / "a"))
    ids = [f"{number:012x}" for number in range(25)]
    for version in ids:
        registry.set_live("a", version)
    assert registry.live("a").history == tuple(reversed(ids[4:24]))


def test_a_changed_version_is_refused(registry: Registry, tmp_path: Path) -> None:
    version = registry.add("a", make_adapter(tmp_path / "a"))
    weights = version.folder / "adapter_model.safetensors"
    weights.chmod(0o644)
    write_safetensors(weights, lora_tensors(seed=9))
    with pytest.raises(AdapterError, match="changed since it was added"):
        version.verify()
    with pytest.raises(AdapterError, match="damaged; remove it and add it again"):
        registry.add("a", tmp_path / "a")


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


def test_remove_refuses_live_and_leased_versions(registry: Registry, tmp_path: Path) -> None:
    one = registry.add("a", make_adapter(tmp_path / "a"))
    two = registry.add("a", make_adapter(tmp_path / "b", seed=1))
    registry.set_live("a", one.version)
    with pytest.raises(AdapterInUseError, match="is live"):
        registry.remove(one.id)
    lease = LeaseFile(registry.root, "http://127.0.0.1:8000", 8000)
    asyncio.run(lease.add(two.id))
    with pytest.raises(AdapterInUseError, match=r"http://127\.0\.0\.1:8000 knows it"):
        registry.remove(two.id)
    assert registry.gc(keep=0) == []
    lease.close()
    assert registry.remove(two.id) == [two.id]
    assert registry.remove("a") == [one.id]
    assert registry.names() == []
    assert not (registry.root / "a").exists()


def test_the_lease_of_a_dead_server_is_deleted(registry: Registry, tmp_path: Path) -> None:
    version = registry.add("a", make_adapter(tmp_path / "a"))
    leftover = registry.root / ".servers" / "8000.json"
    leftover.parent.mkdir()
    leftover.write_text(json.dumps({"url": "http://127.0.0.1:8000", "pid": 1, "versions": [version.id]}))
    assert running_servers(registry.root) == []
    assert not leftover.exists()
    assert registry.remove(version.id) == [version.id]


def test_a_lease_is_not_deleted_while_it_is_being_acquired(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process looks for leases of dead servers when the file is open and not locked yet."""
    lock = fcntl.flock
    others: list[threading.Thread] = []

    def look() -> None:
        with file_lock(registry.root / ".lock"):
            running_servers(registry.root)

    def interrupted(file: Any, how: int) -> None:
        if file.name.endswith("8000.json") and not others:
            others.append(threading.Thread(target=look))
            others[0].start()
            others[0].join(0.2)
        lock(file, how)

    registry.root.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(fcntl, "flock", interrupted)
    lease = LeaseFile(registry.root, "http://127.0.0.1:8000", 8000)
    others[0].join()
    assert [server.url for server in running_servers(registry.root)] == ["http://127.0.0.1:8000"]
    lease.close()


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


def test_gc_keeps_the_version_that_a_rollback_makes_live(registry: Registry, tmp_path: Path) -> None:
    versions = [registry.add("a", make_adapter(tmp_path / str(seed), seed=seed)) for seed in range(4)]
    for live in versions[:3]:
        registry.set_live("a", live.version)
    assert set(registry.gc(keep=0)) == {versions[0].id, versions[3].id}
    assert registry.previous("a").id == versions[1].id


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
def test_invalid_names_are_refused(registry: Registry, tmp_path: Path, name: str) -> None:
    source = make_adapter(tmp_path / "a")
    with pytest.raises(AdapterError):
        registry.add(name, source)
    with pytest.raises(UnknownAdapterError):
        registry.find(name)


def test_the_error_for_an_unknown_adapter_lists_the_registry(registry: Registry, tmp_path: Path) -> None:
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


def test_a_checkpoint_gets_prompt_and_encoder_of_its_training_run(
    registry: Registry, base: BaseModel, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    step = make_adapter(output / "checkpoints" / "checkpoint-5", seed=5)
    flat = {"model": "x", "model (its content)": base.hash, "prompt": "a", "datasets.0.prompt": "compact-v0"}
    (output / "training.json").write_text(json.dumps(flat | {"encoder": "MinimalGridEncoder()", "seed": 3}))
    warnings: list[str] = []
    version = registry.add("step", step, base, warn=warnings.append)
    manifest = registry.find("step").verify(base).manifest
    assert manifest is not None
    assert (manifest["prompt"], manifest["encoder"]) == ("compact-v0", "MinimalGridEncoder()")
    assert manifest["checkpoint"] == "checkpoint-5"
    assert warnings == []
    auxiliary = {"datasets.0.spec": "x", "datasets.0.prompt": "input-from-inputs-v0", "datasets.1.spec": "y",
                 "datasets.1.prompt": None, "prompt": "compact-v0", "prompt compact-v0 (its text)": "t"}  # fmt: skip
    (output / "training.json").write_text(json.dumps(flat | auxiliary))
    assert manifest_of_checkpoint(step)["prompt"] == "compact-v0"
    assert manifest_of_checkpoint(step)["prompt_digest"] == "t"
    finished = {
        "prompt": "other-v0",
        "encoder": "E",
        "weights_sha256": "0" * 64,
        "config_sha256": "0" * 64,
        "kind": "adapter",
    }
    (output / "manifest.json").write_text(json.dumps(finished))
    registry.add("step", step, base)
    assert registry.find("step").id == version.id
    assert registry.find("step").manifest == {
        "prompt": "other-v0", "encoder": "E", "kind": "adapter", "checkpoint": "checkpoint-5"
    }  # fmt: skip


def test_an_adapter_without_prompt_and_encoder_gives_a_warning(
    registry: Registry, base: BaseModel, tmp_path: Path
) -> None:
    source = make_adapter(tmp_path / "a")
    warnings: list[str] = []
    registry.add("a", source, base, warn=warnings.append)
    assert len(warnings) == 1
    assert "does not say with which prompt and encoder it was trained" in warnings[0]
    warnings.clear()
    registry.add("a", source, base, prompt_settings={"prompt": "compact-v0", "encoder": "E"}, warn=warnings.append)
    assert registry.find("a").manifest == {"prompt": "compact-v0", "encoder": "E"}
    registry.add("a", source, base, warn=warnings.append)  # once said, it is known
    assert warnings == []


def test_registered_files_have_the_permissions_that_the_umask_leaves(registry: Registry, tmp_path: Path) -> None:
    source = make_adapter(tmp_path / "a")
    before = os.umask(0o077)
    try:
        version = registry.add("private", source)
        os.umask(0o022)
        shared = registry.add("shared", make_adapter(tmp_path / "b", seed=1))
    finally:
        os.umask(before)
    for folder, folder_mode, file_mode in ((version.folder, 0o700, 0o400), (shared.folder, 0o755, 0o444)):
        assert folder.stat().st_mode & 0o777 == folder_mode
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {file_mode}
