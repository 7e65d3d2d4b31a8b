"""Names of a sweep's adapters, which stay the same when seeds are added later; the recipes that it wrote."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from harness.core.errors import ConfigError
from trainers.recipe.files.extended_file import read_extended


def recipe_path(out: Path, name: str) -> Path:
    """Return the recipe that a sweep writes before it trains an adapter."""
    return out / "recipes" / f"{name}.yaml"


def adapter_name(out: Path, row: str, seed: int, several: bool, rows: Collection[str]) -> str:
    """Return the name of the adapter of a row and a training seed.

    It is ``<row>``, or ``<row>-s<seed>`` if there are several seeds. An adapter that the sweep's folder has under the
    other of these names keeps it, so that seeds can be added or left out without training it again.

    Args:
        out: the sweep's folder.
        several: whether the sweep has several seeds.
        rows: names of all rows.
    """
    with_seed = f"{row}-s{seed}"
    usual, other = (with_seed, row) if several else (row, with_seed)
    if other in set(rows) - {row}:
        return usual
    recorded = _recorded_seed(out, usual)
    if recorded != seed and _recorded_seed(out, other) == seed:
        return other
    return usual if several or recorded in (None, seed) else with_seed


def _recorded_seed(out: Path, name: str) -> object:
    """Return the seed in the recipe of an adapter that the sweep trained or began to train; None if there is none."""
    path = recipe_path(out, name)
    try:
        path.stat()
        return read_extended(path).merged().get("seed")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(f"out: {out} cannot be used: {error.strerror}; name another folder") from None
    except ConfigError as error:
        raise ConfigError(f"{error}; remove this file, the sweep writes it again") from None
