"""Checkpoints: the newest that is complete, and torn ones told apart.

Transformers writes a checkpoint file by file, its ``trainer_state.json`` last. One that was cut short by a kill or a
full disk must not be gone on from.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

logger = logging.getLogger(__name__)

_NAME = re.compile(r"checkpoint-([0-9]+)")


def newest_complete(folder: Path) -> Path | None:
    """The checkpoint with the highest step whose files are all there and open; torn ones are skipped with a warning."""
    for step, path in sorted(_steps(folder), reverse=True):
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
        for name in ("optimizer.pt", "scheduler.pt"):
            torch.load(path / name, map_location="cpu", weights_only=True)
        if not (weights := sorted(path.glob("*.safetensors"))):
            return "it has no weights"
        for file in weights:
            with safe_open(file, framework="pt") as tensors:
                len(tensors.keys())
        # The random states hold NumPy arrays, which only the trainer's own loader reads; the archive must be whole.
        states = sorted(path.glob("rng_state*.pth"))
        if not states or not all(map(zipfile.is_zipfile, states)):
            return "its random state is missing or cut short"
    except FileNotFoundError as error:
        return f"{Path(error.filename or '').name or error} is missing"
    except (ValueError, KeyError, TypeError, OSError, EOFError, RuntimeError) as error:
        return f"a file cannot be read: {error}"
    except (pickle.UnpicklingError, SafetensorError) as error:
        return f"a file is cut short: {error}"
    return None


def _steps(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir() if path.is_dir())
    return [(int(match[1]), path) for match, path in matches if match]
