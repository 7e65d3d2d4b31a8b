"""SIGTERM and Ctrl-C end training after the running step. Imports torch."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback

from trainers.run.stop import StopSignal


class StopAtStep(TrainerCallback):  # type: ignore[misc]  # transformers is not followed
    """Ends training after the step in which a signal came, with a checkpoint."""

    def __init__(self, signal: StopSignal) -> None:
        self.signal = signal

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop on all processes if a signal reached any of them."""
        came = torch.tensor(int(self.signal.came is not None), device=args.device)
        if args.world_size > 1:
            torch.distributed.all_reduce(came, torch.distributed.ReduceOp.MAX)
        if came.item():
            self.signal.stopped_at = state.global_step
            control.should_save = control.should_training_stop = True
