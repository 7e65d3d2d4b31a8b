"""The options of the arc24 fine-tuning script; ``trainers.recipe.arc24`` makes a recipe of their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from harness.cli_options import OutputBesideSettings

Command = TypeVar("Command", bound=Callable[..., Any])

_TEXT_OPTIONS = (
    "model_path", "adapter_path", "grid_encoder", "torch_dtype", "optim", "report_to",
    "lr_scheduler_type", "lora_weight_initialization", "device_map",
)  # fmt: skip
_INTEGER_OPTIONS = (
    "lora_r", "max_steps", "logging_steps", "eval_steps", "save_steps", "batch_size", "max_seq_len",
    "per_device_train_batch_size", "random_seed", "lr_num_cycles", "n_gpus",
)  # fmt: skip
_FLOAT_OPTIONS = (
    "learning_rate", "warmup_ratio", "max_grad_norm", "subsample_train_tasks_ratio", "compose_new_task_probability",
    "verify_correct_output_probability",
)  # fmt: skip
_SWITCH_OPTIONS = ("resume_from_checkpoint", "gradient_checkpointing", "use_lora", "verbose")
_FLAG_OPTIONS = ("use_4bit_quantization", "remove_train_samples_to_fit_max_seq_len")


def arc24_options(command: Command) -> Command:
    """Add the options of the arc24 fine-tuning script to a command."""
    options = [
        click.option("--train-datasets", nargs=2, multiple=True, metavar="SPEC PROMPT", help="May be repeated."),
        click.option(
            "-o", "--out", "--output-dir", "output_dir", cls=OutputBesideSettings, help="Folder of the adapter."
        ),
        click.option("--val-dataset", nargs=2, metavar="SPEC PROMPT", default=None),
        click.option("--compose-new-task-weights", nargs=4, type=float, default=None),
    ]
    for names, kind in ((_TEXT_OPTIONS, str), (_INTEGER_OPTIONS, int), (_FLOAT_OPTIONS, float)):
        options += [click.option(f"--{_dashed(name)}", type=kind, default=None) for name in names]
    options += [click.option(f"--{_dashed(name)}/--no-{_dashed(name)}", default=None) for name in _SWITCH_OPTIONS]
    options += [click.option(f"--{_dashed(name)}", is_flag=True, default=None) for name in _FLAG_OPTIONS]
    for option in reversed(options):
        command = option(command)
    return command


def _dashed(name: str) -> str:
    return name.replace("_", "-")
