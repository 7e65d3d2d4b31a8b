"""The environment of launchers: variables that would override the recipe are removed, torchrun's are checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import ConfigError
from tests.support.training.train_runs import (
    FEW_STEPS,
    Data,
    last_error_line,
    log_losses,
    recipe_data,
    run_python,
    train_adapter,
    train_command,
)
from trainers.recipe.launcher_environment import is_first_process, process_count, remove_launcher_variables

LEFT = {"ACCELERATE_MIXED_PRECISION": "bf16", "PMI_SIZE": "4", "OMPI_COMM_WORLD_SIZE": "2", "RANK": "1"}


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def test_variables_of_launchers_are_removed_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    harmless = {"ACCELERATE_LOG_LEVEL": "debug", "CUDA_VISIBLE_DEVICES": "0", "MASTER_ADDR": "x", "FSDPX": "1"}
    without_effect = {
        "ACCELERATE_DYNAMO_BACKEND": "NO",
        "ACCELERATE_USE_CPU": "False",
        "PMI_RANK": "0",
        "MV2_COMM_WORLD_SIZE": "1",
    }
    environ = {**without_effect, **LEFT, **harmless}
    remove_launcher_variables(environ)
    assert environ == harmless
    assert capsys.readouterr().err == (
        "warning: not used: ACCELERATE_MIXED_PRECISION=bf16, OMPI_COMM_WORLD_SIZE=2, PMI_SIZE=4, RANK=1 in the "
        "environment; the recipe decides, and processes are those of torchrun\n"
    )
    remove_launcher_variables(environ)
    assert capsys.readouterr().err == ""


def test_variables_of_torchrun_stay() -> None:
    environ = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_PORT": "29500"}
    remove_launcher_variables(environ)
    assert environ == {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_PORT": "29500"}


@pytest.mark.parametrize("value", ["abc", "0", "-1", "", "tcp://10.0.0.1:8000"])
def test_an_invalid_number_of_processes_is_an_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", value)
    with pytest.raises(ConfigError, match=r"WORLD_SIZE=.* in the environment is no number of processes"):
        process_count()


def test_the_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert is_first_process()  # of one
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not is_first_process()
    monkeypatch.setenv("RANK", "0")
    assert is_first_process()


@pytest.mark.slow
def test_variables_of_launchers_do_not_change_training(
    train_root: Path, qwen: Path, few_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**LEFT, "ACCELERATE_TORCH_DEVICE": "meta", "ACCELERATE_USE_FSDP": "true"}.items():
        monkeypatch.setenv(name, value)
    assert log_losses(
        train_adapter(recipe_data(qwen, train_root / "left", micro_batch_size=1, **FEW_STEPS))
    ) == log_losses(few_run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environ", "changes", "message"),
    [
        ({}, {"optimizer": "adamw_torh"}, "recipe: optimizer 'adamw_torh' is not known; did you mean adamw_torch or"),
        ({}, {"optimizer": "nonsense"}, "recipe: optimizer 'nonsense' is not known; known: adamw_torch, "),
        ({}, {"optimizer": "adamw_torch_8bit"}, "recipe: optimizer adamw_torch_8bit cannot be used here: You need to"),
        ({"WORLD_SIZE": "2"}, {}, "recipe: the trainer does not take it: Tried to launch on distributed with"),
        ({"WORLD_SIZE": "x"}, {}, "WORLD_SIZE='x' in the environment is no number of processes"),
    ],
)
def test_a_failed_start_is_one_line(
    train_root: Path, qwen: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], changes: Data, message: str
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    done = run_python(train_command(recipe_data(qwen, train_root / "refused", **changes)))
    assert done.returncode == 2
    assert last_error_line(done.stderr).startswith(f"error: {message}")
