"""The adapter registry: versions, names, leases, and what is known of the training of an adapter."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import AdapterError
from serve.registry import leases
from serve.registry.adapter_version import AdapterInUseError, AdapterRef, UnknownAdapterError
from serve.registry.base_model import BaseModel
from serve.registry.leases import LeaseFile, file_lock, running_servers
from serve.registry.prompt_record import manifest_of_checkpoint
from serve.registry.store import Registry
from tests.support.models.tiny_adapters import lora_tensors, make_adapter, write_safetensors


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


def test_a_second_server_with_the_same_port_gives_up_with_the_name_of_the_first(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that listens on another address of the machine."""
    monkeypatch.setattr(leases, "_SHUTDOWN_SECONDS", 0.2)
    first = LeaseFile(registry.root, "http://127.0.0.1:8000", 8000)
    with pytest.raises(AdapterError, match=r"another server with port 8000 uses this registry.*127\.0\.0\.1:8000"):
        LeaseFile(registry.root, "http://[::1]:8000", 8000)
    first.close()
    LeaseFile(registry.root, "http://[::1]:8000", 8000).close()


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
