"""Check by its manifest whether a run folder holds the run that a demo or sweep expects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from harness.data.spec import open_dataset
from harness.prompts.prompt_template import load_prompt, nosystem_prompt
from harness.runs.folder import TTT_PLAN, RunFolder
from harness.runs.logs.task_training_log import TTT_LOG, TrainingLog
from harness.runs.schemas.manifest_schema import Manifest
from harness.runs.schemas.task_training import TttConfig, TttPlan


@dataclass(frozen=True)
class ExpectedRun:
    """The settings that a run folder must have, so that a demo or sweep uses it instead of sampling again."""

    hashes: Mapping[str, frozenset[str]]
    """By model, in order: the content hashes that its weights may have; empty if they are not known."""
    dataset: str
    n: int
    seed: int
    prompt: str
    encoder: str
    max_tokens: int | None = None
    """None for the default of ``bench run``."""
    ttt: TttConfig | None = None
    """How an adapter was trained for every task; None without test-time training."""

    def differences(self, manifest: Manifest) -> list[str]:
        """Return a description of each setting in which a run differs; empty if it is the expected run."""
        config = manifest.config
        differences = [
            f"{name} ({actual} instead of {expected})"
            for name, actual, expected in (
                ("models", [m.name for m in config.models], list(self.hashes)),
                ("dataset", config.dataset, self.dataset),
                ("n", config.n, self.n),
                ("seed", config.seed, self.seed),
            )
            if actual != expected
        ]
        if not differences and config.dataset_digest != open_dataset(self.dataset).digest():
            differences.append("the dataset's content")
        for model in config.models:
            known = self.hashes.get(model.name, frozenset())
            if known and model.hash is not None and model.hash not in known:
                differences.append(f"the weights of {model.name}")
            if model.prompt_digest not in self._prompt_digests() or model.encoder != self.encoder:
                differences.append(f"the prompt or encoder of {model.name}")
            if self.max_tokens is not None and model.max_tokens != self.max_tokens:
                differences.append(f"max_tokens of {model.name}")
        if config.ttt != self.ttt:
            differences.append("the recipe of its test-time training")
        return differences

    def _prompt_digests(self) -> set[str]:
        """Return the digests of the prompt, and of its variant for chat templates that take no system message."""
        names = (self.prompt, nosystem_prompt(self.prompt))
        return {load_prompt(name).digest for name in names if name is not None}

    def plan_differences(self, plan: TttPlan) -> list[str]:
        """Return the same for a run with test-time training that has only a plan so far."""
        planned = ([plan.model], plan.dataset, plan.config)
        expected = (list(self.hashes), self.dataset, self.ttt)
        names = ("model", "dataset", "the recipe of its test-time training")
        return [name for name, one, other in zip(names, planned, expected, strict=True) if one != other]


def is_finished(folder: Path, expected: ExpectedRun) -> bool:
    """Return whether a run folder holds the finished expected run; its manifest decides, not its results.json.

    Raises:
        RunError: the manifest is damaged.
    """
    run = RunFolder(folder)
    if not run.manifest_path.exists():
        return False
    manifest = run.manifest()
    if manifest.finished is None or expected.differences(manifest):
        return False
    return expected.ttt is None or set(manifest.config.task_ids) <= TrainingLog(folder / TTT_LOG).records().keys()


def resume_or_move_aside(folder: Path, expected: ExpectedRun) -> bool:
    """Return whether ``bench run`` should resume in a folder; rename a folder that holds another run, and say so.

    Raises:
        RunError: the manifest is damaged.
    """
    run = RunFolder(folder)
    if run.manifest_path.exists():
        differences = expected.differences(run.manifest())
    elif (plan := TttPlan.read(folder / TTT_PLAN)) is not None:
        differences = expected.plan_differences(plan)
    else:
        return folder.exists()
    if not differences:
        return True
    renamed = next(
        path for k in range(1, 1 << 20) if not (path := folder.with_name(f"{folder.name}.before-{k}")).exists()
    )
    folder.rename(renamed)
    click.echo(f"{folder} differs in {', '.join(differences)}; it is kept as {renamed} and made again")
    return False


def adapter_hashes(folder: Path) -> frozenset[str]:
    """Return the content hash under which a trained adapter is registered and served."""
    from harness.core.digests import content_hash

    return frozenset({content_hash(folder)})


def base_hashes(base: Path | str) -> frozenset[str]:
    """Return the content hashes under which a base model may be served; empty if it is not on this machine.

    Raises:
        ServerError: the folder holds no model.
    """
    from serve.registry.base_model import BaseModel

    return BaseModel.open(str(base)).hashes
