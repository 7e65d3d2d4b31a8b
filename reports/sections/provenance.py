"""Where the figures come from: warnings, the manifest of each run in short, and the commands that repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import orjson

from harness.data.spec import open_dataset
from harness.results.table_format import markdown_table
from harness.runs.schema import RunConfig
from harness.scoring.confounders import confounds
from reports.loading.runs import LoadedRun, Section

_SHORT = 12
"""Digits shown of a hash."""


def warnings(section: Section) -> list[str]:
    """What a reader must know before trusting the figures: what the runs warned of, and in what they differ."""
    told = [f"{run.name}: {warning}" for run in section.runs for warning in run.manifest.warnings]
    for run in section.runs:
        manifest = run.manifest
        told += [f"{run.name}: the server refused the parameter {name}; asked without" for name in manifest.without]
        told += [
            f"{run.name}: {model} was answered by several versions: {', '.join(names)}"
            for model, names in manifest.answered_as.items()
            if len(names) > 1
        ]
    manifests = [run.manifest for run in section.runs]
    told += confounds(manifests, [model for manifest in manifests for model in manifest.config.models])
    return list(dict.fromkeys(told))


def provenance(runs: Sequence[LoadedRun]) -> list[str]:
    """The manifest of each run in short, and the command that repeats it; the models once where they are the same."""
    parts: list[str] = []
    shown = ""
    for run in runs:
        parts.append(_manifest(run))
        table = _models(run.manifest.config)
        if table != shown:
            parts.append(table)
            shown = table
        again = f"bench reproduce {shlex.quote(run.name)} --out AGAIN"
        parts.append(f"```\n{_command(run)}\n{again}\n```")
    return parts


def _manifest(run: LoadedRun) -> str:
    config, environment = run.manifest.config, run.manifest.environment
    dirty = " with uncommitted changes" if environment.dirty else ""
    packages = ", ".join(f"{name} {version}" for name, version in sorted(environment.packages.items()))
    times = f"{run.manifest.started} to {run.manifest.finished or '(not finished)'}"
    return (
        f"**{run.name}**: dataset `{config.dataset}` (digest {config.dataset_digest}), "
        f"{len(config.task_ids)} tasks, N = {config.n}, seed {config.seed}, "
        f"temperature {config.temperature:g}, {config.api} API; {times}"
        f"{f', resumed {len(run.manifest.resumed)} times' if run.manifest.resumed else ''}; "
        f"arc-bench {environment.version}, commit {(environment.commit or 'unknown')[:_SHORT]}{dirty}; "
        f"Python {environment.python}, {packages}."
    )


def _models(config: RunConfig) -> str:
    rows = [
        [m.name, (m.hash or "–")[:_SHORT], m.prompt, m.prompt_digest, m.encoder, str(m.max_tokens)]
        for m in config.models
    ]
    return markdown_table(["model", "weights", "prompt", "digest", "encoder", "max tokens"], rows, left=5)


def _command(run: LoadedRun) -> str:
    """The ``bench run`` that asks for the same predictions."""
    config = run.manifest.config
    words = ["bench", "run", *(w for url in run.manifest.servers for w in ("--server", url))]
    words += [w for model in config.models for w in ("--model", model.name)]
    words += ["--dataset", config.dataset, "-n", str(config.n), "--seed", str(config.seed)]
    for option, values in (
        ("--prompt", {m.prompt for m in config.models}),
        ("--grid-encoder", {m.encoder for m in config.models}),
        ("--max-tokens", {str(m.max_tokens) for m in config.models}),
    ):
        words += [option, *values] if len(values) == 1 else []
    if len(config.task_ids) < len(open_dataset(config.dataset).ids):
        words += ["--limit", str(len(config.task_ids))]
    return shlex.join([*words, *_sampling(config), "--out", run.name])


def _sampling(config: RunConfig) -> list[str]:
    """Options of the sampling, where they are not the command's defaults."""
    words = ["--api", config.api]
    words += ["--temperature", f"{config.temperature:g}"] if config.temperature else []
    words += ["--top-p", f"{config.top_p:g}"] if config.top_p != 1 else []
    words += ["--min-p", f"{config.min_p:g}"] if config.min_p else []
    words += ["--samples-per-view", str(config.samples_per_view)] if config.samples_per_view != 1 else []
    words += ["--extra-body", orjson.dumps(config.extra_body).decode()] if config.extra_body else []
    extra = config.chat_template_kwargs
    words += ["--chat-template-kwargs", orjson.dumps(extra).decode()] if extra else []
    words += [] if config.stop is None else ["--stop", config.stop.rule]
    words += [] if config.augment else ["--no-augment"]
    return words + (["--lenient"] if config.lenient else [])
