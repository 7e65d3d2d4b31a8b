"""Whether a run folder already holds the benchmark that a demo or sweep wants, by what its manifest says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from harness.data.spec import open_dataset
from harness.prompts.prompt_template import load_prompt
from harness.runs.folder import RunFolder
from harness.runs.schema import Manifest


@dataclass(frozen=True)
class ExpectedRun:
    """What the models of a run were to be asked."""

    hashes: Mapping[str, frozenset[str]]
    """By model in order, the content hashes that its weights may have; empty where they are not known."""
    dataset: str
    n: int
    seed: int
    prompt: str
    encoder: str
    max_tokens: int | None = None
    """None for the command's default."""

    def differences(self, manifest: Manifest) -> list[str]:
        """Return in what a run differs from this, in words; empty where it is this benchmark."""
        config = manifest.config
        told = [
            f"{name} ({had} instead of {wanted})"
            for name, had, wanted in (
                ("models", [m.name for m in config.models], list(self.hashes)),
                ("dataset", config.dataset, self.dataset),
                ("n", config.n, self.n),
                ("seed", config.seed, self.seed),
            )
            if had != wanted
        ]
        if not told and config.dataset_digest != open_dataset(self.dataset).digest():
            told.append("the dataset's content")
        for model in config.models:
            known = self.hashes.get(model.name, frozenset())
            if known and model.hash is not None and model.hash not in known:
                told.append(f"the weights of {model.name}")
            if (model.prompt_digest, model.encoder) != (load_prompt(self.prompt).digest, self.encoder):
                told.append(f"the prompt or encoder of {model.name}")
            if self.max_tokens is not None and model.max_tokens != self.max_tokens:
                told.append(f"max_tokens of {model.name}")
        return told


def is_finished(folder: Path, wanted: ExpectedRun) -> bool:
    """Return whether a run folder holds all predictions of this benchmark; a results.json alone says nothing.

    Raises:
        RunError: its manifest is damaged.
    """
    run = RunFolder(folder)
    if not run.manifest_path.exists():
        return False
    manifest = run.manifest()
    return manifest.finished is not None and not wanted.differences(manifest)


def resume_or_move_aside(folder: Path, wanted: ExpectedRun) -> bool:
    """Return whether ``bench run`` is to resume in a folder; a run of another benchmark is moved aside, and told.

    Raises:
        RunError: its manifest is damaged.
    """
    run = RunFolder(folder)
    if not run.manifest_path.exists():
        return folder.exists()
    if not (differences := wanted.differences(run.manifest())):
        return True
    kept = next(path for k in range(1, 1 << 20) if not (path := folder.with_name(f"{folder.name}.before-{k}")).exists())
    folder.rename(kept)
    click.echo(f"{folder} differs in {', '.join(differences)}; it is kept as {kept} and made anew")
    return False


def adapter_hashes(folder: Path) -> frozenset[str]:
    """Return the content hash under which a trained adapter is registered and served."""
    from serve.registry.adapter_version import content_hash

    return frozenset({content_hash(folder)})


def base_hashes(base: Path | str) -> frozenset[str]:
    """Return the content hashes under which a base may be served; empty for a hub model that is not on this machine.

    Raises:
        ServerError: it is no model.
    """
    from serve.registry.base_model import BaseModel

    return BaseModel.open(str(base)).hashes
