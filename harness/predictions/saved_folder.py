"""Tell runs and pools from files and folders of other formats."""

from __future__ import annotations

from pathlib import Path

from harness.candidates.pool_folder import PoolFolder, is_pool
from harness.core.errors import ConfigError
from harness.predictions.files.prediction_formats import FORMATS
from harness.runs.folder import RunFolder

RUN = "run"
POOL_FORM = "pool"
FORM_NAMES = (RUN, POOL_FORM, *FORMATS)
"""The values of ``--format``."""


def find_folder(path: Path, form: str | None = None) -> RunFolder | PoolFolder | None:
    """Return the run or pool that a path names; None for a file or folder of another format.

    Args:
        form: one of FORM_NAMES; None detects the format.
    """
    pool = _pool_folder(path)
    if form == POOL_FORM or (form is None and pool is not None):
        return pool or PoolFolder(path)
    run = _run_folder(path)
    return run or RunFolder(path) if form == RUN or (form is None and run is not None) else None


def require_dataset(path: Path, spec: str | None) -> str:
    """Return the dataset of a file's tasks; raise ConfigError if it is not given."""
    if spec is None:
        raise ConfigError(
            f"{path}: name the tasks that it answers with --dataset (in Python dataset=…), such as arc1/evaluation"
        )
    return spec


def _pool_folder(path: Path) -> PoolFolder | None:
    """Return the pool that a path names by its folder or its candidates.jsonl; None for anything else."""
    folder = path.parent if path.name == "candidates.jsonl" and path.is_file() else path
    return PoolFolder(folder) if is_pool(folder) else None


def _run_folder(path: Path) -> RunFolder | None:
    """Return the run that a path names by its folder or its predictions.jsonl; None for another format.

    A folder without JSON files counts as a run, and so does one that ``bench ttt`` began, so that the message says what
    a run lacks.
    """
    folder = path.parent if path.name == "predictions.jsonl" and path.is_file() else path
    if (folder / "manifest.json").is_file():
        return RunFolder(folder)
    if not path.is_dir():
        return None
    is_begun = any((path / name).exists() for name in ("predictions.jsonl", "ttt-recipe.json"))
    return RunFolder(path) if is_begun or not any(path.glob("*.json")) else None
