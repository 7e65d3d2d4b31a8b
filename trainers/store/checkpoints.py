"""Find the newest complete checkpoint, and manage the weights of the best step beside the checkpoints.

Transformers writes a checkpoint file by file; its digests are written after the last one. A checkpoint that was cut
short by a kill or a full disk, or that changed later, must not be resumed from.
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

from harness.core.errors import RunError
from trainers.recipe.parts import ValidationRecipe
from trainers.store.best_step import Line, find_best_validation
from trainers.store.digests import find_damage, write_digests

logger = logging.getLogger(__name__)

TRAINER_STATE = "trainer_state.json"
_CHECKPOINT, _BEST = (re.compile(name + "-([0-9]+)") for name in ("checkpoint", "best"))


def newest_complete(folder: Path) -> Path | None:
    """Return the complete checkpoint of the highest step; others are skipped with a warning."""
    for step, path in sorted(_steps(folder, _CHECKPOINT), reverse=True):
        if damage := checkpoint_damage(path, step):
            logger.warning("skipping checkpoint %s: %s", path, damage)
        else:
            return path
    return None


def checkpoint_damage(path: Path, step: int) -> str | None:
    """Return what is wrong with the checkpoint folder of a step; None if it is complete."""
    if damage := find_damage(path):
        return damage
    actual = json.loads((path / TRAINER_STATE).read_bytes())["global_step"] if (path / TRAINER_STATE).exists() else None
    return None if actual == step else f"{TRAINER_STATE} is of step {actual}"


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the ``keep`` checkpoints of the highest steps; file times are not used, as clocks may jump."""
    for _, path in sorted(_steps(folder, _CHECKPOINT), reverse=True)[keep:]:
        shutil.rmtree(path)


def read_log_history(checkpoint: Path) -> list[dict[str, Any]]:
    """Return all log lines up to a complete checkpoint, validations included."""
    state: dict[str, list[dict[str, Any]]] = json.loads((checkpoint / TRAINER_STATE).read_bytes())
    return state["log_history"]


def best_weights_folder(folder: Path, step: int) -> Path:
    """Return the folder with the weights of the best validation, made after ``step``.

    Raises:
        RunError: it is missing or damaged.
    """
    path = folder / f"best-{step}"
    damage = find_damage(path) if path.is_dir() else "it is missing"
    if damage:
        raise RunError(f"{path}, the weights of the best step: {damage}; resume=false starts over")
    return path


def write_best_weights(folder: Path, step: int, write: Callable[[Path], object]) -> None:
    """Write the weights of the best step so far into a folder that appears only when it is complete.

    Args:
        write: writes the weights into the folder that it is given.
    """
    fresh, path = folder / "best.tmp", folder / f"best-{step}"
    for old in (fresh, path):
        shutil.rmtree(old, ignore_errors=True)
    write(fresh)
    write_digests(fresh)
    os.replace(fresh, path)


def prune_best_weights(folder: Path, lines: Sequence[Line], part: ValidationRecipe) -> None:
    """Remove weights of former best steps, except those that a run resumed from one of the checkpoints would need."""
    ends = [float("inf"), *(step for step, _ in _steps(folder, _CHECKPOINT))]
    needed = {best.step for end in ends if (best := find_best_validation(lines, part, end))}
    for step, path in _steps(folder, _BEST):
        if step not in needed:
            shutil.rmtree(path)


def remove_later_steps(folder: Path, step: int) -> None:
    """Remove checkpoints and best weights of steps after the one from which training resumes."""
    for at, path in (*_steps(folder, _CHECKPOINT), *_steps(folder, _BEST)):
        if at > step:
            shutil.rmtree(path)


def _steps(folder: Path, name: re.Pattern[str]) -> list[tuple[int, Path]]:
    """Return (step, path) of the folders whose names match."""
    if not folder.is_dir():
        return []
    matches = ((name.fullmatch(path.name), path) for path in folder.iterdir() if path.is_dir())
    return [(int(match[1]), path) for match, path in matches if match]
