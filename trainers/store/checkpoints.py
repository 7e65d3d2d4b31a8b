"""Checkpoints: the newest that is whole, damaged ones told apart, and the weights of the best step beside them.

Transformers writes a checkpoint file by file; it is sealed when all are there. One that was cut short by a kill or a
full disk, or has changed since, must not be gone on from.
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
from trainers.recipe.schema import ValidationRecipe
from trainers.store.best_step import Line, find_best_validation
from trainers.store.digests import find_damage, write_digests

logger = logging.getLogger(__name__)

TRAINER_STATE = "trainer_state.json"
_WHOLE, _BEST = (re.compile(name + "-([0-9]+)") for name in ("checkpoint", "best"))


def newest_complete(folder: Path) -> Path | None:
    """The checkpoint with the highest step that is whole; others are skipped with a warning."""
    for step, path in sorted(_steps(folder, _WHOLE), reverse=True):
        if why := checkpoint_damage(path, step):
            logger.warning("skipping checkpoint %s: %s", path, why)
        else:
            return path
    return None


def checkpoint_damage(path: Path, step: int) -> str | None:
    """What is wrong with a checkpoint folder; None where it is whole."""
    if why := find_damage(path):
        return why
    found = json.loads((path / TRAINER_STATE).read_bytes())["global_step"] if (path / TRAINER_STATE).exists() else None
    return None if found == step else f"{TRAINER_STATE} is of step {found}"


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the ``keep`` checkpoints of the highest steps; clocks, which may jump, are not asked."""
    for _, path in sorted(_steps(folder, _WHOLE), reverse=True)[keep:]:
        shutil.rmtree(path)


def read_log_history(checkpoint: Path) -> list[dict[str, Any]]:
    """What was logged up to a complete checkpoint, validations among it."""
    state: dict[str, list[dict[str, Any]]] = json.loads((checkpoint / TRAINER_STATE).read_bytes())
    return state["log_history"]


def best_weights_folder(folder: Path, step: int) -> Path:
    """Where the weights of the best validation lie.

    Raises:
        RunError: they do not, or have changed since.
    """
    path = folder / f"best-{step}"
    why = find_damage(path) if path.is_dir() else "it is missing"
    if why:
        raise RunError(f"{path}, the weights of the best step: {why}; resume=false starts over")
    return path


def write_best_weights(folder: Path, step: int, write: Callable[[Path], object]) -> None:
    """Write the weights of the best step so far into a folder that is there whole or not at all."""
    fresh, path = folder / "best.tmp", folder / f"best-{step}"
    for old in (fresh, path):
        shutil.rmtree(old, ignore_errors=True)
    write(fresh)
    write_digests(fresh)
    os.replace(fresh, path)


def prune_best_weights(folder: Path, lines: Sequence[Line], part: ValidationRecipe) -> None:
    """Remove weights that were once the best, but those that a checkpoint would go on with stay."""
    ends = [float("inf"), *(step for step, _ in _steps(folder, _WHOLE))]
    needed = {best.step for end in ends if (best := find_best_validation(lines, part, end))}
    for step, path in _steps(folder, _BEST):
        if step not in needed:
            shutil.rmtree(path)


def remove_later_steps(folder: Path, step: int) -> None:
    """Remove what is newer than the step that is gone on from: torn checkpoints, and weights of steps to come."""
    for at, path in (*_steps(folder, _WHOLE), *_steps(folder, _BEST)):
        if at > step:
            shutil.rmtree(path)


def _steps(folder: Path, name: re.Pattern[str]) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    matches = ((name.fullmatch(path.name), path) for path in folder.iterdir() if path.is_dir())
    return [(int(match[1]), path) for match, path in matches if match]
