"""The adapter registry: versions, names, leases, and the base that they must fit."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import AdapterError
from serve.base_model import BaseModel
from serve.leases import LeaseFile, file_lock, running_servers
from serve.registry import Registry
from serve.validate import validate_adapter
from serve.version import AdapterInUseError, AdapterRef, UnknownAdapterError
from tests.adapter_toys import lora_tensors, make_adapter, make_base, write_safetensors
from trainers.artifact import model_digest


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


def test_what_is_said_beside_the_weights_can_be_corrected(registry: Registry, tmp_path: Path) -> None:
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


def test_a_changed_version_is_noticed(registry: Registry, tmp_path: Path) -> None:
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


def test_a_lease_just_being_taken_is_not_swept_away(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process looks for leftovers when the file is open and not locked yet."""
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


def test_gc_keeps_what_rollback_brings_back(registry: Registry, tmp_path: Path) -> None:
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
