"""Checkpoints: the newest that is complete, torn ones told apart, and the weights of the best step beside them.

Transformers writes a checkpoint file by file, its ``trainer_state.json`` last. One that was cut short by a kill or a
full disk must not be gone on from.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.errors import RunError
from trainers.recipe import ValidationRecipe
from trainers.standing import Line, standing

logger = logging.getLogger(__name__)

_WHOLE, _BEST = (re.compile(name + "-([0-9]+)") for name in ("checkpoint", "best"))


def newest_complete(folder: Path) -> Path | None:
    """The checkpoint with the highest step whose files are all there and open; torn ones are skipped with a warning."""
    for step, path in sorted(_steps(folder, _WHOLE), reverse=True):
        if why := torn(path, step):
            logger.warning("skipping checkpoint %s: %s", path, why)
        else:
            return path
    return None


def torn(path: Path, step: int) -> str | None:
    """What is wrong with a checkpoint folder; None where it is complete."""
    import pickle
    import zipfile

    import torch
    from safetensors import SafetensorError, safe_open

    try:
        state = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        if state["global_step"] != step:
            return f"trainer_state.json is of step {state['global_step']}"
        sharded = ("pytorch_model_fsdp.bin", "optimizer.bin")
        states = sharded if (path / sharded[0]).exists() else ("optimizer.pt",)
        for name in (*states, "scheduler.pt"):
            torch.load(path / name, map_location="cpu", weights_only=True)
        if not (weights := sorted(path.glob("*.safetensors"))):
            return "it has no weights"
        for file in weights:
            with safe_open(file, framework="pt") as tensors:
                len(tensors.keys())
        # The random states hold NumPy arrays, which only the trainer's own loader reads; the archive must be whole.
        random = sorted(path.glob("rng_state*.pth"))
        if not random or not all(map(zipfile.is_zipfile, random)):
            return "its random state is missing or cut short"
    except FileNotFoundError as error:
        return f"{Path(error.filename or '').name or error} is missing"
    except (ValueError, KeyError, TypeError, EOFError, RuntimeError) as error:
        return f"a file is damaged: {error}"
    except (pickle.UnpicklingError, SafetensorError) as error:
        return f"a file is cut short: {error}"
    return None


def history(checkpoint: Path) -> list[dict[str, Any]]:
    """What was logged up to a complete checkpoint, validations among it."""
    state: dict[str, list[dict[str, Any]]] = json.loads((checkpoint / "trainer_state.json").read_bytes())
    return state["log_history"]


def best_weights(folder: Path, step: int) -> Path:
    """Where the weights of the best validation lie.

    Raises:
        RunError: they do not.
    """
    path = folder / f"best-{step}"
    if not path.is_dir():
        raise RunError(f"{path} is missing, the weights of the best step; resume=false starts over")
    return path


def write_best(folder: Path, step: int, write: Callable[[Path], object]) -> None:
    """Write the weights of the best step so far into a folder that is there whole or not at all."""
    fresh, path = folder / "best.tmp", folder / f"best-{step}"
    for old in (fresh, path):
        shutil.rmtree(old, ignore_errors=True)
    write(fresh)
    os.replace(fresh, path)


def prune_best(folder: Path, lines: Sequence[Line], part: ValidationRecipe) -> None:
    """Remove weights that were once the best, but those that a checkpoint would go on with stay."""
    ends = [float("inf"), *(step for step, _ in _steps(folder, _WHOLE))]
    needed = {best.step for end in ends if (best := standing(lines, part, end))}
    for step, path in _steps(folder, _BEST):
        if step not in needed:
            shutil.rmtree(path)


def remove_after(folder: Path, step: int) -> None:
    """Remove what is newer than the step that is gone on from: torn checkpoints, and weights of steps to come."""
    for at, path in (*_steps(folder, _WHOLE), *_steps(folder, _BEST)):
        if at > step:
            shutil.rmtree(path)


def _steps(folder: Path, name: re.Pattern[str]) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    matches = ((name.fullmatch(path.name), path) for path in folder.iterdir() if path.is_dir())
    return [(int(match[1]), path) for match, path in matches if match]
