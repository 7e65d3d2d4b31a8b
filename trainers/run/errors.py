"""Turn failures from outside into one-line errors: no memory, a full disk, a dead worker or node. Imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError  # only the error, which torch raises where it refuses a pickle  # nosec B403

import torch
from safetensors import SafetensorError

from harness.core.errors import DataError, RunError
from trainers.recipe.launcher_environment import process_count
from trainers.recipe.schema import Recipe
from trainers.run.trl_config import chosen_dtype, gpu_has_bfloat16
from trainers.store.training_log import RESTART_HINT

_NO_MEMORY = ("can't allocate memory", "out of memory", "bad_alloc", "Cannot allocate memory", "STATUS_ALLOC_FAILED")
"""Messages of torch, CUDA, C++, the system and cuBLAS, whose errors have no class of their own."""
_NOT_WRITTEN = ("PytorchStreamWriter", "inline_container", "unexpected pos")
"""Parts of ``torch.save``'s messages when a file cannot be written."""

_NO_CONNECTION = ("gloo/transport", "connectFullMesh", "Connection closed by peer", "Connection reset by peer", "NCCL")
"""Parts of the messages of gloo and NCCL when another training process cannot be reached any more, or never could."""
_NO_CONNECTION_ADVICE = (
    "the connection to another training process failed ({}). If that process ended, its output says why. If they never "
    "connected, set GLOO_SOCKET_IFNAME (NCCL_SOCKET_IFNAME on GPUs) on every machine to its network interface towards "
    f"the others, such as eth0. {RESTART_HINT} on every machine"
)


@contextmanager
def explain_write_errors(what: str, where: Path) -> Iterator[None]:
    """Turn a failed write into one line.

    Args:
        what: what is written, such as "the result".

    Raises:
        RunError: a full disk, a quota, a limit on file sizes, or a folder that became read-only.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())[:200]
        if isinstance(error, RuntimeError):
            if not any(mark in str(error) for mark in _NOT_WRITTEN):
                raise
            why = f"the disk is full, or the file over a limit ({why})"
        raise RunError(f"{what} cannot be written to {where}: {why}. Make room. {RESTART_HINT}") from error


@contextmanager
def explain_training_errors(recipe: Recipe) -> Iterator[None]:
    """Turn a lack of memory into a list of what to change, and a lost worker or training process into one line.

    Raises:
        RunError: out of memory, a worker was killed, another training process is lost, or a checkpoint was not written
            by the trainer.
        DataError: a dataset cannot supply samples in a worker.
    """
    try:
        yield
    except DataError as error:
        # A worker passes its error on as the text of a traceback, which ends with the message.
        raise DataError(str(error).strip().rpartition(f"{DataError.__name__}: ")[2]) from error
    except UnpicklingError as error:
        raise RunError(
            "a checkpoint holds other things than tensors and plain values, which training does not write and which "
            "may be code; nothing of it was run. resume=false starts over"
        ) from error
    except (RuntimeError, MemoryError, OSError) as error:
        first = " ".join(str(error).split())[:200]
        if "DataLoader worker" in first:
            raise RunError(
                f"{first.rstrip('.')}. Set workers=0, or fewer where memory is short. {RESTART_HINT}"
            ) from error
        known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        if not known and not any(mark in str(error) for mark in _NO_MEMORY):
            if process_count() > 1 and any(mark in str(error) for mark in _NO_CONNECTION):
                raise RunError(_NO_CONNECTION_ADVICE.format(first.rstrip("."))) from error
            raise
        raise RunError(f"out of memory ({first or type(error).__name__}). {memory_advice(recipe)}") from error


def memory_advice(recipe: Recipe) -> str:
    """Return what to change if memory is short: first what keeps the result, then what changes it."""
    same = []
    if recipe.tokens_a_pass > recipe.max_seq_len:
        same.append(f"tokens_a_pass={max(recipe.max_seq_len, recipe.tokens_a_pass // 2)}")
    if recipe.batch_size > 1 and recipe.micro_batch_size != 1:
        same.append("micro_batch_size=1")
    if not recipe.gradient_checkpointing:
        same.append("gradient_checkpointing=true")
    other = []
    if chosen_dtype(recipe) == torch.float32:
        other.append("dtype=bfloat16" if gpu_has_bfloat16() or not torch.cuda.is_available() else "dtype=float16")
    if recipe.lora is None:
        other.append("lora={} instead of training all weights")
    elif not recipe.quantize_4bit:
        other.append("quantize_4bit=true")
    other.append(f"max_seq_len={max(1, recipe.max_seq_len // 2)}")
    if recipe.lora is not None and recipe.lora.rank > 1:
        other.append(f"lora.rank={recipe.lora.rank // 2}")
    dropout = recipe.lora is None or recipe.lora.dropout > 0
    result = "the same result but for other draws of dropout" if dropout else "the same result"
    free = f"Change, in this order, with {result}: {', '.join(same)}. Then, with another: " if same else "Change: "
    return f"{free}{', '.join(other)}, or a smaller model"
