"""A disk that fills up and a clock that jumps during a real training run."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.faults.matrix import count_cases
from tests.faults.trainer.training import assert_equal_adapters, run_training, small_recipe, terminal_output
from tests.support.training.train_runs import Data, last_error_line
from trainers.store.manifest import MANIFEST

pytestmark = pytest.mark.long

FILE_LIMITS = [40_000, 90_000, 200_000, 400_000]
DISK_SIZES = [32, 256, 512, 768, 1024, 1280, 1536, 2048, 2560, 3072]
"""KiB."""


@pytest.fixture(scope="module")
def whole(qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = small_recipe(qwen, tmp_path_factory.mktemp("room") / "whole", keep_checkpoints=True)
    assert run_training(data) == 0, terminal_output(data)
    return Path(data["output_dir"])


def check_failed(data: Data) -> None:
    """Assert that training failed with one error line that says what to do, and left no finished result."""
    error = last_error_line(terminal_output(data))
    assert error.startswith("error: "), terminal_output(data)
    assert "cannot be written" in error, error
    assert not (Path(data["output_dir"]) / MANIFEST).exists()


def limit_files(size: int) -> None:
    sys.dont_write_bytecode = True  # a .pyc that the limit cuts short would break the environment (see disks.py)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("size", FILE_LIMITS)
def test_files_over_a_limit(whole: Path, qwen: Path, tmp_path: Path, size: int) -> None:
    """A file that cannot grow (quota, limit) ends training with one error; resumed with room, it ends bit-equal."""
    data = small_recipe(qwen, tmp_path / "run", keep_checkpoints=True)
    assert run_training(data, partial(limit_files, size)) in (1, 2)
    check_failed(data)
    assert run_training(data) == 0, terminal_output(data)
    assert_equal_adapters(tmp_path / "run", whole)


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[Callable[[], None]]:
    """Mount a disk at a folder, and yield a function that makes it large."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)], check=True)
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True) and None
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk(whole: Path, qwen: Path, tmp_path: Path) -> None:
    """A disk that is full at any moment ends training with one error; resumed with room, it ends bit-equal."""
    failed = 0
    for kib in DISK_SIZES:
        with small_disk(tmp_path / f"disk{kib}", kib) as enlarge:
            data = small_recipe(qwen, tmp_path / f"disk{kib}" / "run", keep_checkpoints=True)
            (tmp_path / f"disk{kib}" / "run.out").symlink_to(tmp_path / f"out{kib}")
            status = run_training(data)
            if status == 0:
                break
            assert status in (1, 2)
            check_failed(data)
            failed += 1
            enlarge()
            assert run_training(data) == 0, terminal_output(data)
            assert_equal_adapters(tmp_path / f"disk{kib}" / "run", whole)
    print(f"{failed} sizes were too small")
    assert failed >= 4
    count_cases(failed)


def jump(checkpoints: str) -> None:
    """Make the clock jump by years, back and forth, so that newer checkpoints get older times."""
    real, jumps = time.time, iter(range(10**9))
    time.time = lambda: real() + (-1) ** next(jumps) * 1e8

    def date() -> None:
        while True:
            for path in Path(checkpoints).glob("checkpoint-*"):
                then = 10**9 - 10**7 * int(path.name.split("-")[1])
                try:
                    os.utime(path, (then, then))
                except FileNotFoundError:
                    continue
            time.sleep(0.001)

    threading.Thread(target=date, daemon=True).start()


def test_a_clock_that_jumps(whole: Path, qwen: Path, tmp_path: Path) -> None:
    """While the clock jumps back and forth by years, training keeps its newest checkpoints and ends bit-equal."""
    data = small_recipe(qwen, tmp_path / "run", keep_checkpoints=True)
    assert run_training(data, partial(jump, str(tmp_path / "run" / "checkpoints"))) == 0, terminal_output(data)
    assert {path.name for path in (tmp_path / "run" / "checkpoints").glob("ch*")} == {"checkpoint-4", "checkpoint-6"}
    assert_equal_adapters(tmp_path / "run", whole)
