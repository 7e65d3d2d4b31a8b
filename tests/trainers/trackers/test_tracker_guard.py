"""A tracker that fails after the start of a training costs a warning, not the training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import CallbackHandler, ProgressCallback

from trainers.trackers.tracker_guard import guard_trackers


class BrokenStore(TensorBoardCallback):
    """TensorBoard's callback, whose store fails when it is written to."""

    calls = 0

    def on_log(self, *values: Any, **named: Any) -> None:
        self.calls += 1
        raise OSError("the store is gone")


class Unstartable(TensorBoardCallback):
    """TensorBoard's callback, which cannot start."""

    def on_train_begin(self, *values: Any, **named: Any) -> None:
        raise OSError("no such account")


def run_events(tmp_path: Path, *callbacks: Any) -> None:
    """Send the events of a small training to callbacks, as transformers does."""
    guard_trackers(callbacks, ["tensorboard"])
    handler = CallbackHandler(list(callbacks), None, None, None, None)
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none")
    state, control = TrainerState(is_world_process_zero=False), TrainerControl()
    handler.on_train_begin(arguments, state, control)
    for _ in range(3):
        handler.on_log(arguments, state, control, {"loss": 1.0})
    handler.on_train_end(arguments, state, control)


def test_an_error_while_training_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = BrokenStore()
    with caplog.at_level(logging.WARNING):
        run_events(tmp_path, broken)
    assert [record.getMessage() for record in caplog.records if "tensorboard" in record.getMessage()] == [
        "tensorboard failed and gets no more of this training: OSError: the store is gone"
    ]
    assert broken.calls == 1


def test_an_error_at_the_start_is_raised(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no such account"):
        run_events(tmp_path, Unstartable())


def test_only_trackers_are_guarded(tmp_path: Path) -> None:
    class Own(ProgressCallback):
        def on_log(self, *values: Any, **named: Any) -> None:
            raise ValueError("not a tracker")

    with pytest.raises(ValueError, match="not a tracker"):
        run_events(tmp_path, Own())
