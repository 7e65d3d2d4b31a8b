"""How the benched adapters were trained, from the folders that the trainer left."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from harness.core.errors import DataError, RunError
from reports.loading.runs import Section

_MANIFEST, _LOG = "manifest.json", "log.jsonl"
_WEIGHTS = ("adapter_config.json", "adapter_model.safetensors")


class _Manifest(BaseModel):
    """What a report reads of the trainer's manifest.json, which holds much more."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    steps: int
    seconds: float
    tokens: int
    losses: dict[str, object]
    weights_sha256: str


@dataclass(frozen=True)
class Training:
    """One finished training run: its folder (the trainer's, or a version in the registry) and what it cost."""

    folder: Path
    steps: int
    seconds: float
    tokens: int
    losses: tuple[tuple[int, float], ...]
    """(step, loss in nats an answer token); empty where the folder has no log."""
    validation: tuple[tuple[int, float], ...]

    @cached_property
    def hash(self) -> str | None:
        """The content hash under which a server lists this adapter; None for a full model.

        SHA-256 over the two adapter files, each preceded by its length in 8 bytes, as the registry names versions.
        """
        digest = hashlib.sha256()
        for name in _WEIGHTS:
            path = self.folder / name
            if not path.is_file():
                return None
            digest.update(path.stat().st_size.to_bytes(8, "little"))
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


def find_training(folders: Sequence[Path], sections: Sequence[Section]) -> dict[str, Training]:
    """The training of each model of a report, found below ``folders`` by its content hash.

    Where a run knows no hash of a model (another kind of server), the folder's name must be the model's.

    Raises:
        DataError: a manifest or log is broken. RunError: no model of the runs was trained there.
    """
    candidates = [training for folder in folders for training in _trainings(folder)]
    found: dict[str, Training] = {}
    for section in sections:
        for _, model, config in section.asked():
            for training in candidates:
                same = training.folder.name == config.name if config.hash is None else training.hash == config.hash
                # The trainer's own folder has the log, which the registry's copy lacks.
                if same and (model not in found or not found[model].losses):
                    found[model] = training
    if folders and not found:
        raise RunError(
            f"{', '.join(map(str, folders))}: none of the {len(candidates)} trained adapters there is a model of these "
            "runs; name the folder that bench train wrote to, or the registry"
        )
    return found


def _trainings(folder: Path) -> Iterator[Training]:
    """Every finished training run in a folder or below it, in the order of the paths."""
    for path in sorted(folder.rglob(_MANIFEST)):
        data = _object(path)
        if "losses" not in data:
            continue  # a manifest of something else, such as a run
        try:
            manifest = _Manifest.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            raise DataError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        lines = _lines(path.with_name(_LOG))
        yield Training(
            path.parent, manifest.steps, manifest.seconds, manifest.tokens,
            _series(lines, "loss"), _series(lines, "eval_loss"),
        )  # fmt: skip


def _series(lines: Sequence[dict[str, object]], key: str) -> tuple[tuple[int, float], ...]:
    return tuple((int(str(line["step"])), float(str(line[key]))) for line in lines if key in line and "step" in line)


def _object(path: Path) -> dict[str, object]:
    try:
        data = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from None
    return data if isinstance(data, dict) else {}


def _lines(path: Path) -> list[dict[str, object]]:
    """The lines of a training log; none where there is no log. A torn last line is left out."""
    if not path.is_file():
        return []
    lines = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                lines.append(json.loads(line))  # takes the NaN and Infinity that older versions wrote
            except ValueError as error:
                raise DataError(f"{path}, line {number}: not JSON ({error})") from None
    return lines
