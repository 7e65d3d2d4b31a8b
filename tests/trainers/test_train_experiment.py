"""The experiment that this project reproduces: its original commands, and a run that resumes with more processes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.support.data_samples import barc_lines, write_lines
from tests.support.training.recipes import EXPERIMENT
from tests.support.training.train_runs import (
    FEW_STEPS,
    TORCHRUN,
    adapter_manifest,
    interrupt_training,
    log_losses,
    log_steps,
    recipe_data,
    run_python,
    train_command,
)
from trainers.store.training_log import read_log

pytestmark = [pytest.mark.slow, pytest.mark.long]

PROMPT = "output-from-examples-v1"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return ARC-AGI-1 as combined JSON files, as users export it, and a small BARC file."""
    folder = tmp_path_factory.mktemp("experiment")
    for split in ("training", "evaluation"):
        done = run_python(["-m", "harness.cli", "data", "export", f"arc1/{split}", "-o", str(folder / f"{split}.json")])
        assert done.returncode == 0, done.stderr
    write_lines(folder / "barc.jsonl", barc_lines(60, 12))
    return folder


@pytest.mark.parametrize("with_arc", [True, False])
def test_the_two_commands_of_the_experiment_run(files: Path, with_arc: bool) -> None:
    """Run the original commands with other paths only. Takes 2 to 4 minutes each on one core."""
    arc = ["--train_datasets", str(files / "training.json"), PROMPT] if with_arc else []
    barc = ["--train_datasets", f"barc-400-10-{files / 'barc.jsonl'}", PROMPT]
    output = files / ("both" if with_arc else "barc")
    paths = [
        "--model_path",
        "tiny",
        "--output_dir",
        str(output),
        "--val_dataset",
        str(files / "evaluation.json"),
        PROMPT,
    ]
    done = run_python(["-m", "harness.cli", "train", *paths, *arc, *barc, *EXPERIMENT], timeout=3000)
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert [word in line for word, line in zip(("--verbose", "DoRA"), warnings, strict=True)] == [True, True]
    manifest = adapter_manifest(output)
    assert (manifest.steps, manifest.seed, manifest.prompt, manifest.serveable) == (10, 7, PROMPT, True)
    assert [d.ids for d in manifest.datasets] == ([400, 400] if with_arc else [400])
    assert sum(d.drawn for d in manifest.datasets) == 160
    assert [d.resplit for d in manifest.datasets] == [d.drawn for d in manifest.datasets]
    assert manifest.padding < 0.05
    assert [line["step"] for line in read_log(output / "log.jsonl") if "loss" in line] == list(range(1, 11))
    assert manifest.losses.validation["loss"] > 0  # of all evaluation tasks that fit, once, after the last step
    config = json.loads((output / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"], config["use_rslora"]) == (32, 64, 0.1, True)
    assert sorted(config["target_modules"]) == ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert not config["use_dora"]


def test_a_run_resumes_with_another_number_of_processes(train_root: Path, qwen: Path, few_run: Path) -> None:
    output = train_root / "one-then-two"
    arguments = train_command(recipe_data(qwen, output, save_steps=2, **FEW_STEPS))
    status, error = interrupt_training(arguments, output, 3, lambda process: process.send_signal(signal.SIGTERM))
    assert status == 130, error
    stopped = len(log_steps(output))
    assert stopped < len(log_steps(few_run))
    done = run_python([*TORCHRUN, *arguments])
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"resuming after step {stopped}" in done.stderr
    assert [line["counts"] for line in log_steps(output)] == [line["counts"] for line in log_steps(few_run)]
    for one, two in zip(log_losses(few_run), log_losses(output), strict=True):
        assert abs(one - two) < 3e-4
