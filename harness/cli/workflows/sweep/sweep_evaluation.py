"""The evaluation settings of a sweep in its folder, which all commands on the folder share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from harness.core.errors import ConfigError
from harness.core.files import write_atomically
from trainers.recipe.schema import changed_keys, flatten

if TYPE_CHECKING:
    from harness.cli.workflows.sweep.sweep_file import Sweep

EVALUATION = "evaluation.json"
"""The evaluation settings of the sweep in its folder; another evaluation in the same folder is refused."""


def record_evaluation(plan: Sweep) -> None:
    """Write the evaluation settings to the sweep's folder: rows of one table must be benched in the same way.

    Raises:
        ConfigError: the folder holds runs of a sweep with other evaluation settings, or its settings are damaged.
    """
    path = plan.out / EVALUATION
    now = flatten(plan.evaluation.model_dump(mode="json", exclude={"base", "prompt"}))
    if plan.evaluation.prompt is not None:
        now["prompt"] = plan.evaluation.prompt
    if path.exists():
        try:
            before = json.loads(path.read_bytes())
        except ValueError as error:
            raise ConfigError(
                f"{path} is damaged ({error}); give another out, or remove it where the evaluation is the same"
            ) from error
        is_benched = any((plan.out / name).exists() for name in ("bench", "bench-base"))
        if is_benched and (changed := changed_keys(before, now)):
            raise ConfigError(
                f"{plan.out} holds a sweep with another evaluation; changed: {', '.join(changed)}. "
                "Give another out, or the same evaluation"
            )
    plan.out.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(now, indent=2) + "\n").encode())
