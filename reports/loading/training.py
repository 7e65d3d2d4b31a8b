"""Find the training runs of the benched adapters, and read their cost and loss."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from harness.core.digests import ADAPTER_FILES, content_hash
from harness.core.errors import DataError, RunError
from harness.core.files import complete_lines
from harness.runs.schemas.manifest_schema import ModelConfig
from reports.loading.runs import Section

_MANIFEST, _LOG = "manifest.json", "log.jsonl"


class _Manifest(BaseModel):
    """The fields of the trainer's manifest.json that a report uses."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    steps: int
    seconds: float
    tokens: int
    losses: dict[str, object]
    weights_sha256: str


@dataclass(frozen=True)
class Training:
    """One finished training run: its folder (the trainer's, or a version in the registry), cost and losses."""

    folder: Path
    steps: int
    seconds: float
    tokens: int
    losses: tuple[tuple[int, float], ...]
    """(training step, loss in nats per answer token); empty if the folder has no log."""
    validation: tuple[tuple[int, float], ...]
    """(training step, validation loss)."""
    weights: str
    """SHA-256 of the weights."""

    @cached_property
    def hash(self) -> str | None:
        """Return the content hash under which a server lists this adapter, or None for a full model."""
        is_adapter = all((self.folder / name).is_file() for name in ADAPTER_FILES)
        return content_hash(self.folder) if is_adapter else None


def find_training(folders: Sequence[Path], sections: Sequence[Section]) -> dict[str, Training]:
    """Find the training run of each model of a report below ``folders`` by the content hash of its weights.

    If a run has no hash of a model (servers other than ours), the folder must have the name of the model.

    Returns:
        Training runs by the model's name in the report.

    Raises:
        DataError: a manifest or log is broken. RunError: no model of the runs was trained there, or several adapters
            have the name of a model without a hash.
    """
    candidates = [training for folder in folders for training in _trainings(folder)]
    trained: dict[str, Training] = {}
    for section in sections:
        for model, run, name in section.models_with_runs():
            same = _trainings_of(run.config(name), candidates)
            if same:  # prefer the trainer's folder: the copy in the registry has no log
                trained[model] = next((training for training in same if training.losses), same[0])
    if folders and not trained:
        raise RunError(
            f"{', '.join(map(str, folders))}: none of the {len(candidates)} trained adapters there is a model of these "
            "runs; name the folder that bench train wrote to, or the registry"
        )
    return trained


def _trainings_of(config: ModelConfig, candidates: Sequence[Training]) -> list[Training]:
    """Return the training runs, and copies of them, that gave a model its weights."""
    if config.hash is not None:
        return [training for training in candidates if training.hash == config.hash]
    same = [training for training in candidates if training.folder.name == config.name]
    if len({training.weights for training in same}) > 1:
        raise RunError(
            f"{' and '.join(str(training.folder) for training in same)} have different weights, and the run has only "
            f"the name {config.name}; name the folder of the one that was benched"
        )
    return same


def _trainings(folder: Path) -> Iterator[Training]:
    """Yield every finished training run in a folder or below it, in the order of the paths."""
    for path in sorted(folder.rglob(_MANIFEST)):
        data = _read_object(path)
        if "losses" not in data:
            continue  # another kind of manifest, such as a run's
        try:
            manifest = _Manifest.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            raise DataError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        lines = _read_log(path.with_name(_LOG))
        yield Training(
            path.parent, manifest.steps, manifest.seconds, manifest.tokens,
            _series(lines, "loss"), _series(lines, "eval_loss"), manifest.weights_sha256,
        )  # fmt: skip


def _series(lines: Sequence[dict[str, object]], key: str) -> tuple[tuple[int, float], ...]:
    return tuple((int(str(line["step"])), float(str(line[key]))) for line in lines if key in line and "step" in line)


def _read_object(path: Path) -> dict[str, object]:
    try:
        data = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from None
    return data if isinstance(data, dict) else {}


def _read_log(path: Path) -> list[dict[str, object]]:
    """Return the lines of a training log, without an incomplete last line; none if there is no log."""
    lines = []
    for number, line in enumerate(complete_lines(path), 1):
        try:
            lines.append(json.loads(line))  # orjson would refuse the NaN and Infinity that older versions wrote
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error})") from None
    return lines
