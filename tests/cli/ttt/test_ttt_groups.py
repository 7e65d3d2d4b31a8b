"""Groups of tasks in a run's folder: what a killed command on a cluster left there."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path

import pytest

from harness.cli.workflows.ttt.training import groups
from harness.cli.workflows.ttt.training.groups import collect_groups
from harness.core.errors import RunError
from trainers.store.run_folder import lock_folder


def make_group(run: Path, name: str, *adapters: str) -> Path:
    """Write a group's folder with files as adapters."""
    folder = run / "groups" / name
    for adapter in adapters:
        (folder / "adapters" / adapter).mkdir(parents=True)
        (folder / "adapters" / adapter / "weights").write_text(name)
    return folder


def test_complete_adapters_are_moved_and_the_groups_removed(tmp_path: Path) -> None:
    """Complete adapters get to the run, half-written ones do not, and one that the run has already stays."""
    make_group(tmp_path, "0000", "a", ".b.part")
    make_group(tmp_path, "0001", "c", "a")
    (tmp_path / "adapters" / "d").mkdir(parents=True)
    collect_groups(tmp_path)
    assert sorted(path.name for path in (tmp_path / "adapters").iterdir()) == ["a", "c", "d"]
    assert (tmp_path / "adapters" / "a" / "weights").read_text() == "0000"
    assert not (tmp_path / "groups").exists()
    collect_groups(tmp_path)


def test_a_run_without_groups_is_left_alone(tmp_path: Path) -> None:
    """Runs of one machine have no such folder, and none is made."""
    collect_groups(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_group_in_training_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a process trains a group, its folder is refused after some waiting."""
    monkeypatch.setattr(groups, "_LOCK_SECONDS", 0.3)
    folder = make_group(tmp_path, "0000", "a")
    context = multiprocessing.get_context("spawn")
    locked, done = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(folder / "adapters", locked, done))
    holder.start()
    try:
        assert locked.wait(60)
        with pytest.raises(RunError, match=f"process {holder.pid} trains in this folder"):
            collect_groups(tmp_path)
        assert (folder / "adapters" / "a").exists()
    finally:
        done.set()
        holder.join(30)
    collect_groups(tmp_path)
    assert (tmp_path / "adapters" / "a").exists()


def hold(folder: Path, locked: threading.Event, done: threading.Event) -> None:
    """Hold a folder's lock until ``done``."""
    with lock_folder(folder):
        locked.set()
        done.wait(60)
