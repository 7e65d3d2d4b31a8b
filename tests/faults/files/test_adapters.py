"""Adapters damaged or replaced on disk: folders from training, registered versions, and versions that are loaded."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.core.errors import AdapterError
from harness.core.random_stream import Stream
from serve.registry.adapter_version import VERSION, AdapterVersion, UnknownAdapterError
from serve.registry.base_model import BaseModel
from serve.registry.leases import LeaseFile, file_lock, running_servers
from serve.registry.store import Registry
from tests.faults.damage import damaged_contents, damaged_file
from tests.faults.matrix import count_cases
from tests.support.models.tiny_adapters import make_adapter
from tests.support.servers.admin_site import FakeEngine, Site
from tests.support.training.train_runs import FEW_STEPS, adapter_manifest, last_error_line, recipe_data
from trainers.recipe.schema import make_recipe
from trainers.run.api import train
from trainers.store.manifest import check_unchanged

FILES = ("adapter_config.json", "adapter_model.safetensors")
JUMPS = (-(10**9), -60, 60, 10**9)
"""Seconds by which a clock is set."""


def result_or_error(action: Callable[[], str | None]) -> str | None:
    """Run an action and return its result, or the message of its AdapterError."""
    try:
        return action()
    except AdapterError as error:
        return str(error)


def two_versions(registry: Registry, base: BaseModel, root: Path) -> list[AdapterVersion]:
    """Register two versions of an adapter."""
    return [registry.add("a", make_adapter(root / f"a{seed}", seed), base) for seed in (0, 1)]


def test_a_damaged_version_is_never_loaded(registry: Registry, base: BaseModel, tmp_path: Path) -> None:
    """A registered version that is truncated, has a bit flipped, is empty or missing is not loaded and not extended."""
    version, _ = two_versions(registry, base, tmp_path)
    for name in FILES:
        content = (version.folder / name).read_bytes()
        for what, left in damaged_contents(content, Stream("registered", name), cuts=4, flips=8):
            with damaged_file(version.folder / name, left):
                with pytest.raises(AdapterError, match=f"{version.version}"):
                    raise AssertionError(f"{name}, {what}: {version.verify(base)}")
                with pytest.raises(AdapterError, match=r"damaged|cannot be read"):
                    raise AssertionError(f"{name}, {what}: {registry.add('a', tmp_path / 'a0', base)}")
            count_cases()
    assert version.verify(base).facts.rank == 4


def test_a_live_version_changed_on_disk(registry: Registry, base: BaseModel, tmp_path: Path) -> None:
    """A version replaced on disk while it is served stays as loaded; loading it again is refused with a message."""
    one, two = two_versions(registry, base, tmp_path)
    site = Site(base, registry)

    async def scenario() -> None:
        assert (await site.request("POST", "/admin/adapters/promote", {"adapter": one.id}))[0] == 200
        with site.pool.use("a") as used:
            for name in FILES:
                (one.folder / name).unlink()
                shutil.copyfile(two.folder / name, one.folder / name)
            assert used == one.id
            assert site.engine.models == {one.id}
            # Asked for again, what is loaded answers; its files are not read.
            assert (await site.request("POST", "/admin/adapters/load", {"adapter": one.id}))[0] == 200
            status, answer = await site.request("POST", "/v1/completions", {"model": "a", "prompt": "x"})
            assert (status, answer["body"]["model"]) == (200, one.id)
        assert (await site.request("POST", "/admin/adapters/promote", {"adapter": two.id}))[0] == 200
        while one.id in site.engine.models:
            await asyncio.sleep(0.001)
        for action, body in (("rollback", "a"), ("promote", one.id), ("load", one.id)):
            status, answer = await site.request("POST", f"/admin/adapters/{action}", {"adapter": body})
            assert (status, "changed since it was added" in answer["error"]["message"]) == (422, True), answer
            count_cases()
        assert site.pool.live["a"] == two.id
        assert site.engine.models == {two.id}

    asyncio.run(scenario())
    site.lease.close()


class Replacing(FakeEngine):
    """An engine that loads an adapter just after one of its files was replaced."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    async def load(self, model: str, folder: str) -> None:
        path = Path(folder) / FILES[1]
        content, when = path.read_bytes(), path.stat()
        if self.how == "renamed over":
            path.with_suffix(".new").write_bytes(content)
            os.replace(path.with_suffix(".new"), path)
            os.utime(path, ns=(when.st_atime_ns, when.st_mtime_ns))
        elif self.how == "written to":
            path.chmod(0o644)
            path.write_bytes(content[:-1] + b"\1")
        elif self.how == "cut short":
            path.chmod(0o644)
            path.write_bytes(content[:-1])
            os.utime(path, ns=(when.st_atime_ns, when.st_mtime_ns))
        await super().load(model, folder)


@pytest.mark.parametrize("how", ["renamed over", "written to", "cut short"])
def test_replaced_between_verification_and_loading(
    registry: Registry, base: BaseModel, tmp_path: Path, how: str
) -> None:
    """A file replaced between its verification and its loading by the engine: refused, and unloaded again."""
    one, _ = two_versions(registry, base, tmp_path)
    site = Site(base, registry)
    site.engine = site.pool._versions._engine = Replacing(how)
    with pytest.raises(AdapterError, match="changed on disk while it was loaded"):
        asyncio.run(site.pool.load(one.id))
    assert site.engine.models == set()
    assert site.pool.loaded == {}
    assert running_servers(registry.root)[0].versions == ()
    site.lease.close()


def test_a_damaged_live_file(registry: Registry, base: BaseModel, tmp_path: Path) -> None:
    """A truncated or bit-flipped live.json is refused or names a version that does not exist; never another version."""
    one, two = two_versions(registry, base, tmp_path)
    registry.set_live("a", one.version)
    registry.set_live("a", two.version)
    path = registry.root / "a" / "live.json"
    for what, left in damaged_contents(path.read_bytes(), Stream("live"), cuts=40, flips=200):
        if left is None or left + b"\n" == path.read_bytes():
            continue  # without the file no version is live, which the file's absence says
        with damaged_file(path, left):
            live = result_or_error(lambda: registry.live("a").version)
            assert live == two.version or live not in (None, one.version), what
            if live != two.version:
                with pytest.raises(UnknownAdapterError):
                    registry.find(f"a@{live}")
                assert VERSION.fullmatch(str(live)) or str(path) in str(live)
        count_cases()
    assert registry.live("a").version == two.version


@pytest.mark.slow
def test_a_damaged_training_result_is_not_registered(few_run: Path, qwen: Path, tmp_path: Path) -> None:
    """The registry and the trainer refuse a trained folder whose adapter is damaged."""
    output = Path(shutil.copytree(few_run, tmp_path / "trained"))
    recipe = make_recipe(recipe_data(qwen, output, micro_batch_size=1, **FEW_STEPS))
    assert train(recipe, output) == output
    base, registry = BaseModel.open(qwen), Registry(tmp_path / "adapters")
    for name in FILES:
        for what, left in damaged_contents((output / name).read_bytes(), Stream("trained", name), cuts=10, flips=30):
            with damaged_file(output / name, left):
                with pytest.raises(AdapterError, match=str(output)):
                    raise AssertionError(f"{name}, {what}: {registry.add('a', output, base)}")
                with pytest.raises(AdapterError, match="not what training wrote"):
                    train(recipe, output)
            count_cases()
    again = make_recipe(recipe_data(qwen, tmp_path / "more", adapter=str(output), **FEW_STEPS))
    with damaged_file(output / FILES[1], (output / FILES[1]).read_bytes()[:-1] + b"\1"):
        with pytest.raises(AdapterError, match="not what training wrote"):
            train(again, tmp_path / "more")
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "harness.cli",
                "adapters",
                "add",
                "a",
                str(output),
                "--adapters",
                str(tmp_path / "r"),
            ],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert "damaged or changed since training" in last_error_line(done.stderr)
    assert registry.versions("a") == []
    assert registry.add("a", output, base).verify(base)


@pytest.mark.slow
def test_a_damaged_manifest_changes_no_weights(few_run: Path, qwen: Path, tmp_path: Path) -> None:
    """A truncated or bit-flipped manifest.json of a trained folder is refused with an ArcBenchError, or the weights
    are the same.
    """
    output = Path(shutil.copytree(few_run, tmp_path / "trained"))
    registry, base = Registry(tmp_path / "adapters"), BaseModel.open(qwen)
    expected = registry.add("whole", output, base).version
    for _, left in damaged_contents((output / "manifest.json").read_bytes(), Stream("manifest"), cuts=20, flips=100):
        if left is not None:
            with damaged_file(output / "manifest.json", left):
                added = result_or_error(lambda: registry.add("a", output, base).version)
                assert added == expected or str(output) in str(added)
                read = result_or_error(lambda: check_unchanged(output, adapter_manifest(output)))
                assert read is None or str(output) in read
            count_cases()


@pytest.mark.parametrize("jump", JUMPS)
def test_the_newest_version_whatever_the_clock_says(
    registry: Registry, base: BaseModel, tmp_path: Path, jump: int
) -> None:
    """A version added after the clock was set back is the newest: its name finds it, and it stays when others are
    deleted.
    """
    one, two = two_versions(registry, base, tmp_path)
    for version in (one, two):
        when = version.added - jump  # as if the clock had been set by the jump since
        os.utime(version.folder, (when, when))
    three = registry.add("a", make_adapter(tmp_path / "a3", 3), base)
    assert registry.find("a").id == three.id
    back = registry.add("a", tmp_path / "a0", base)
    assert (back.id, registry.find("a").id) == (one.id, one.id)
    registry.gc(keep=1)
    assert [version.id for version in registry.versions("a")] == [one.id]


@pytest.mark.parametrize("jump", JUMPS)
def test_leases_know_no_clock(registry: Registry, base: BaseModel, tmp_path: Path, jump: int) -> None:
    """A lease neither expires nor outlives its server when the clock jumps: it lives as long as the process."""
    one, _ = two_versions(registry, base, tmp_path)
    lease = LeaseFile(registry.root, "http://127.0.0.1:9", 9)
    asyncio.run(lease.add(one.id))
    path = registry.root / ".servers" / "9.json"
    when = path.stat().st_mtime + jump
    os.utime(path, (when, when))
    with file_lock(registry.root / ".lock"):
        assert [server.versions for server in running_servers(registry.root)] == [(one.id,)]
    with pytest.raises(AdapterError, match="knows it; unload it there first"):
        registry.remove(one.id)
    lease._file.close()  # what the system does when the process dies
    assert json.loads(path.read_text())["versions"] == [one.id]
    assert registry.remove(one.id) == [one.id]
    assert not path.exists()
