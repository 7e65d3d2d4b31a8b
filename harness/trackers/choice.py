"""Which experiment trackers there are, and whether their packages are installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from harness.core.errors import MissingExtraError

PACKAGES = {
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
    "tensorboard": ("tensorboardX",),
}
"""By tracker, the packages of which one must be installed to report results; its extra has the tracker's name."""
TRAINING_PACKAGES = {**PACKAGES, "tensorboard": ("tensorboard", "tensorboardX")}
"""The same for training, where transformers reports."""


def missing_package(tracker: str, packages: Iterable[str]) -> str | None:
    """Return a message with the remedy if none of the packages is installed, else None. Imports nothing."""
    names = list(packages)
    if any(importlib.util.find_spec(name) is not None for name in names):
        return None
    return f'{tracker} needs {names[0]}, not installed here: pip install -e ".[{tracker}]"'


def parse_trackers(text: str) -> tuple[str, ...]:
    """Return the trackers of a comma-separated list, each once, in its order.

    Raises:
        ValueError: one is unknown, or the list is empty.
    """
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if unknown := [name for name in names if name not in PACKAGES]:
        raise ValueError(f"there is no tracker {unknown[0]!r}; choose of {', '.join(PACKAGES)}")
    if not names:
        raise ValueError(f"no tracker named; choose of {', '.join(PACKAGES)}")
    return tuple(names)


def require_trackers(trackers: Iterable[str]) -> None:
    """Check that the packages of trackers are installed.

    Raises:
        MissingExtraError: one is not; the message gives the install command.
    """
    for tracker in trackers:
        if message := missing_package(tracker, PACKAGES[tracker]):
            raise MissingExtraError(f"--report-to {message}")
