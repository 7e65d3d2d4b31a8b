"""kill -9 of a real trainer, before its changes to the disk and at random moments."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from time import monotonic

import pytest

from harness.core.random_stream import Stream
from serve.registry.store import Registry
from tests.faults.matrix import count_cases
from tests.faults.trainer.training import (
    TIMEOUT,
    assert_equal_adapters,
    check_killed_run,
    count_changes,
    die_at_change,
    run_training,
    small_recipe,
    start_training,
    terminal_output,
)
from tests.support.training.train_runs import Data, last_error_line
from trainers.store.manifest import read_manifest

pytestmark = pytest.mark.long

KILLED = -9
EVERY = 3
"""Each so many-th change to the output folder is a moment to be killed at."""
RANDOM = 12
ATTEMPTS = 5
WATCHED = [
    "checkpoints/checkpoint-4/adapter_model.safetensors", "checkpoints/checkpoint-4/optimizer.pt",
    "checkpoints/checkpoint-4/rng_state.pth", "checkpoints/checkpoint-4/trainer_state.json",
    "checkpoints/checkpoint-4/files.json.tmp", "checkpoints/best.tmp/adapter_model.safetensors",
    "adapter_model.safetensors", "loss.png", "README.md", "manifest.json.tmp", "manifest.json",
]  # fmt: skip
"""Files that are killed at as soon as they are seen: before, amid or after their writing."""


@dataclass(frozen=True)
class Undisturbed:
    """An undisturbed training run: its folder, number of changes to the disk, and duration in seconds."""

    model: Path
    output: Path
    changes: int
    seconds: float


@pytest.fixture(scope="module")
def undisturbed(qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    root = tmp_path_factory.mktemp("undisturbed")
    assert run_training(small_recipe(qwen, root / "first")) == 0  # with it torch is imported, once
    began = monotonic()
    changes = count_changes(small_recipe(qwen, root / "run"))
    return Undisturbed(qwen, root / "run", changes, monotonic() - began)


def check_resumed(data: Data, undisturbed: Undisturbed, registry: Registry) -> None:
    output = Path(data["output_dir"])
    check_killed_run(output, undisturbed.output, registry)
    assert run_training(data) == 0, terminal_output(data)
    assert_equal_adapters(output, undisturbed.output)
    count_cases()
    shutil.rmtree(output)


def test_killed_before_changes_to_the_disk(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Killed before any change to its folder, training resumes to a bit-equal adapter; an incomplete one is never
    taken for complete.
    """
    registry = Registry(tmp_path / "adapters")
    for event in range(1 + Stream("first").below(EVERY), undisturbed.changes + 1, EVERY):
        data = small_recipe(undisturbed.model, tmp_path / f"run{event}")
        assert run_training(data, die_at_change(data, event)) == KILLED, event
        check_resumed(data, undisturbed, registry)


@pytest.mark.parametrize("path", WATCHED)
def test_killed_while_a_file_is_written(undisturbed: Undisturbed, tmp_path: Path, path: str) -> None:
    """Killed while a checkpoint, the best weights or the result is written, training resumes bit-equal.

    A file that is there for less than a millisecond may be missed on a busy machine; then it is tried again.
    """
    for number in range(ATTEMPTS):
        run = tmp_path / f"run{number}"
        data = small_recipe(undisturbed.model, run)
        process, was_seen = start_training(data), False
        while not was_seen and process.is_alive() and not (run / "manifest.json").exists():
            was_seen = (run / path).exists()
        was_seen |= (run / path).name == "manifest.json"
        process.kill()
        process.join()
        check_resumed(data, undisturbed, Registry(tmp_path / "adapters"))
        if was_seen:
            return
    pytest.fail(f"{path} was not seen in {ATTEMPTS} runs")


def test_killed_at_random_moments(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Killed twice at random moments, training resumes to a bit-equal adapter; a finished one stays unchanged."""
    registry, unfinished = Registry(tmp_path / "adapters"), 0
    for moment in range(RANDOM):
        data = small_recipe(undisturbed.model, tmp_path / f"run{moment}")
        stream = Stream("random moments", moment)
        for _ in range(2):
            process = start_training(data)
            Event().wait(undisturbed.seconds * stream.uniform())
            process.kill()
            process.join()
            hit = read_manifest(tmp_path / f"run{moment}") is None
            unfinished += hit
            count_cases(int(hit))
        check_resumed(data, undisturbed, registry)
    assert unfinished >= RANDOM // 3  # how many depends on the machine; 11 of 24 where this was written


def test_two_trainers_in_one_folder(undisturbed: Undisturbed, tmp_path: Path) -> None:
    """A second trainer in the folder of a running one is refused by the name of the first, which ends undisturbed."""
    data = small_recipe(undisturbed.model, tmp_path / "run")
    first = start_training(data)
    while not (tmp_path / "run" / "log.jsonl").exists():
        assert first.is_alive()
    assert first.pid is not None
    os.kill(first.pid, signal.SIGSTOP)  # so that it does not end before the second begins
    second = start_training(data, terminal=tmp_path / "second")
    second.join(TIMEOUT)
    os.kill(first.pid, signal.SIGCONT)
    assert second.exitcode == 1
    assert last_error_line((tmp_path / "second").read_text()).endswith(
        f"process {first.pid} trains in this folder; wait or stop it"
    )
    first.join(TIMEOUT)
    assert_equal_adapters(tmp_path / "run", undisturbed.output)
