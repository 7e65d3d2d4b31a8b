"""Translate a recipe into TRL's configuration. Imports torch and TRL."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from harness.trackers.report import PROJECT
from trainers.data.micro_batches import MicroBatchLimits
from trainers.recipe.schema import Recipe

_vllm_log_level = os.environ.get("VLLM_LOGGING_LEVEL")

from trl import SFTConfig, SFTTrainer  # noqa: E402  # sets VLLM_LOGGING_LEVEL=ERROR for all child processes

if _vllm_log_level is None:
    os.environ.pop("VLLM_LOGGING_LEVEL", None)

__all__ = ["SFTConfig", "SFTTrainer", "chosen_dtype", "gpu_has_bfloat16", "micro_batch_limits", "training_arguments"]


def chosen_dtype(recipe: Recipe) -> torch.dtype:
    """Return the dtype of a recipe on this machine; ``auto`` is bfloat16 if the GPU computes in it, else float32.

    GPUs below compute capability 8.0 (V100, T4) emulate bfloat16, which is slow. float16 is fast there, but needs loss
    scaling and can overflow, so that a recipe must set it explicitly.
    """
    if recipe.dtype != "auto":
        dtype = getattr(torch, recipe.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype
    return torch.bfloat16 if gpu_has_bfloat16() else torch.float32


def gpu_has_bfloat16() -> bool:
    """Return whether this process has a GPU that computes in bfloat16 without emulation."""
    return bool(torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False))


def training_arguments(recipe: Recipe, samples: int, checkpoints: Path, dtype: torch.dtype) -> SFTConfig:
    """Return the recipe as TRL's configuration, with every option set whose default would change the result.

    Args:
        samples: samples of a training step on each process; they come as one batch, which ``training_step`` splits.
        checkpoints: folder of the checkpoints.
    """
    sharded = recipe.sharding == "fsdp"
    arguments = SFTConfig(
        **_optimization(recipe),
        output_dir=os.path.abspath(checkpoints),  # transformers expands a leading ~ of a relative path
        use_cpu=not torch.accelerator.is_available(),
        per_device_train_batch_size=samples,
        gradient_accumulation_steps=1,
        seed=recipe.seed,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        gradient_checkpointing=recipe.gradient_checkpointing and not sharded,
        fsdp=sharded,
        fsdp_config={"activation_checkpointing": recipe.gradient_checkpointing} if sharded else None,
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        log_level="error",
        log_level_replica="error",
        report_to=recipe.report_to or "none",
        run_name=recipe.output_dir.name,
        project=PROJECT,
        save_strategy="steps",
        save_steps=recipe.save_steps,
        save_total_limit=None,  # sorts by file time: if the clock was set back, the newest would be removed
        eval_strategy="steps" if recipe.validation else "no",
        eval_steps=recipe.eval_steps,
        dataloader_num_workers=recipe.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    # With several visible GPUs, one process would multiply the samples of a step (nn.DataParallel).
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def _optimization(recipe: Recipe) -> dict[str, Any]:
    """Return the options of steps, optimizer and learning rate."""
    return {
        "max_steps": recipe.max_steps,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.scheduler,
        "lr_scheduler_kwargs": (
            {"num_cycles": recipe.scheduler_cycles} if recipe.scheduler == "cosine_with_restarts" else {}
        ),
        "warmup_steps": recipe.warmup if recipe.warmup < 1 else int(recipe.warmup),
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "optim": recipe.optimizer,
    }


def micro_batch_limits(recipe: Recipe) -> MicroBatchLimits:
    """Return the limits of a recipe's micro-batches."""
    return MicroBatchLimits(recipe.tokens_a_pass, recipe.micro_batch_size, recipe.max_padding)
