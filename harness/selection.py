"""``RUN[@MODEL]``: the models of run folders, scored, and what speaks against comparing them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import RunError
from harness.records import RunConfig
from harness.runs import RunFolder
from harness.scoring import ModelScores, score_saved


@dataclass(frozen=True)
class Selected:
    """Scored models of one or more runs over the same tasks."""

    scored: list[ModelScores]
    seed: int
    """The first run's, for intervals and tests."""
    warnings: list[str]
    """In what the runs differ beside their models."""


def select_models(names: Sequence[str]) -> Selected:
    """The models that ``RUN[@MODEL]`` strings name, in order; a RUN alone gives all of its models.

    Raises:
        RunError: no such run or model, or the task lists differ.
    """
    scored: list[ModelScores] = []
    configs: list[RunConfig] = []
    several = len({_split(name)[0] for name in names}) > 1
    for name in names:
        path, model = _split(name)
        folder = RunFolder(path)
        manifest = folder.manifest()
        found = score_saved(folder, manifest)
        known = [scores.model for scores in found]
        if model is not None and model not in known:
            raise RunError(f"{path} has no model {model!r}; it has: {', '.join(known)}")
        chosen = [scores for scores in found if model in (None, scores.model)]
        scored += [replace(s, model=f"{path.name}@{s.model}") if several else s for s in chosen]
        configs.append(manifest.config)
    if any(set(config.task_ids) != set(configs[0].task_ids) for config in configs[1:]):
        raise RunError(f"{', '.join(names)}: the runs declared different tasks, so that they cannot be paired")
    return Selected(scored, configs[0].seed, _differences(configs))


def _split(name: str) -> tuple[Path, str | None]:
    path, at, model = name.partition("@")
    return Path(path), model if at else None


def _differences(configs: Sequence[RunConfig]) -> list[str]:
    warnings = []
    for field in ("dataset_digest", "n", "seed", "samples_per_view", "augment", "temperature"):
        values = {str(getattr(config, field)) for config in configs}
        if len(values) > 1:
            warnings.append(f"the runs differ in {field} ({', '.join(sorted(values))})")
    for field in ("prompt_digest", "encoder"):
        values = {str(getattr(model, field)) for config in configs for model in config.models}
        if len(values) > 1:
            warnings.append(f"the models differ in {field} ({', '.join(sorted(values))})")
    return warnings
