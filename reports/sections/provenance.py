"""Write the origin of the results: warnings, a summary of each run's manifest, and the commands that repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime

import orjson

from harness.data.spec import open_dataset
from harness.results.table_format import markdown_table
from harness.runs.schemas.manifest_schema import RunConfig
from harness.runs.schemas.sequential_schema import SequentialDesign
from harness.scoring.comparable_metrics import enumerated_note, mixed_note, unequal_counts_note
from harness.scoring.confounders import find_confounders
from reports.loading.loaded_run import LoadedRun
from reports.loading.runs import Section

_SHORT = 12
"""Number of hexadecimal digits shown of a hash."""


def warnings(section: Section) -> list[str]:
    """Return the warnings of the runs, refused parameters, changed model versions, and settings that differ."""
    texts = [f"{run.name}: {text}" for run in section.runs for text in (*run.manifest.warnings, *run.warnings)]
    for run in section.runs:
        manifest = run.manifest
        texts += [
            f"{run.name}: the server refused the parameter {name}; requests were sent without it"
            for name in manifest.without
        ]
        texts += [
            f"{run.name}: {model} was answered by several versions: {', '.join(names)}"
            for model, names in manifest.answered_as.items()
            if len(names) > 1 and manifest.config.ttt is None  # with test-time training every task has a version
        ]
    manifests = [run.manifest for run in section.runs]
    models = [model for manifest in manifests for model in manifest.config.models]
    served = [
        listed
        for manifest in manifests
        for listed in manifest.served
        if listed.name in {model.name for model in manifest.config.models}
    ]
    texts += find_confounders(manifests, models, served)
    notes = (mixed_note, enumerated_note, unequal_counts_note)
    texts += [text for note in notes if (text := note(section.scored)) is not None]
    return list(dict.fromkeys(texts))


def provenance(runs: Sequence[LoadedRun]) -> list[str]:
    """Return markdown: a summary of each run's manifest, its models, and the commands that repeat it.

    The table of models is left out if it is the same as that of the previous run.
    """
    parts: list[str] = []
    previous = ""
    for run in runs:
        parts.append(_manifest_summary(run))
        table = _models_table(run.manifest.config)
        parts += [table] if table != previous else []
        previous = table
        reproduce = f"bench reproduce {shlex.quote(run.name)} --out AGAIN"
        parts.append(f"```\n{_run_command(run)}\n{reproduce}\n```")
    return parts


def _manifest_summary(run: LoadedRun) -> str:
    config, environment = run.manifest.config, run.manifest.environment
    dirty = " with uncommitted changes" if environment.dirty else ""
    packages = ", ".join(f"{name} {version}" for name, version in sorted(environment.packages.items()))
    started, finished = (
        time and datetime.fromisoformat(time).isoformat(timespec="seconds")
        for time in (run.manifest.started, run.manifest.finished)
    )
    times = f"{started} to {finished or '(not finished)'}"
    times += f", {run.manifest.cut_text()}" if run.manifest.cut_by is not None else ""
    return (
        f"**{run.name}**: dataset `{config.dataset}` (digest {config.dataset_digest}), "
        f"{len(config.task_ids)} tasks, N = {config.n}, seed {config.seed}, "
        f"temperature {config.temperature:g}, {config.api} API; {times}"
        f"{f', resumed {len(run.manifest.resumed)} times' if run.manifest.resumed else ''}; "
        f"arc-bench {environment.version}, commit {(environment.commit or 'unknown')[:_SHORT]}{dirty}; "
        f"Python {environment.python}, {packages}."
    )


def _models_table(config: RunConfig) -> str:
    rows = [
        [m.name, (m.hash or "–")[:_SHORT], m.prompt, m.prompt_digest, m.encoder, str(m.max_tokens)]
        for m in config.models
    ]
    return markdown_table(["model", "weights", "prompt", "digest", "encoder", "max tokens"], rows, left=5)


def _run_command(run: LoadedRun) -> str:
    """Return the ``bench run`` command that requests the same predictions."""
    config = run.manifest.config
    if config.ttt is not None:
        return _ttt_command(run)
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
    return shlex.join([*words, *_sampling_options(config), "--out", run.name])


def _ttt_command(run: LoadedRun) -> str:
    """Return the ``bench ttt`` command that trains and requests the same; the run folder has the recipe."""
    config = run.manifest.config
    words = ["bench", "ttt", f"{run.name}/ttt-recipe.json", "--dataset", config.dataset, "-n", str(config.n)]
    words += ["--seed", str(config.seed), "--max-tokens", str(config.models[0].max_tokens)]
    if len(config.task_ids) < len(open_dataset(config.dataset).ids):
        words += ["--limit", str(len(config.task_ids))]
    options = [word for word in _sampling_options(config) if word not in ("--api", config.api)]
    return shlex.join([*words, *options, "--name", config.models[0].name, "--out", f"{run.name}-again"])


def _sampling_options(config: RunConfig) -> list[str]:
    """Return the sampling options that differ from the command's defaults."""
    words = ["--api", config.api, *_search_options(config)]
    words += ["--temperature", f"{config.temperature:g}"] if config.temperature else []
    words += ["--top-p", f"{config.top_p:g}"] if config.top_p != 1 else []
    words += ["--min-p", f"{config.min_p:g}"] if config.min_p else []
    words += ["--samples-per-view", str(config.samples_per_view)] if config.samples_per_view != 1 else []
    words += ["--extra-body", orjson.dumps(config.extra_body).decode()] if config.extra_body else []
    kwargs = config.chat_template_kwargs
    words += ["--chat-template-kwargs", orjson.dumps(kwargs).decode()] if kwargs else []
    words += [] if config.stop is None else ["--stop", config.stop.rule]
    words += [] if config.sequential is None else _sequential_options(config.sequential)
    words += [] if config.rule is None else ["--rule", config.rule]
    words += [] if config.augment else ["--no-augment"]
    return words + (["--lenient"] if config.lenient else [])


def _sequential_options(design: SequentialDesign) -> list[str]:
    """Return the options of a run that ends once its models are told apart."""
    bound = [] if design.smaller_than is None else ["--smaller-than", f"{100 * design.smaller_than:g}"]
    return ["--until-resolved", design.metric, *bound]


def _search_options(config: RunConfig) -> list[str]:
    """Return the options that enumerate answers; none for drawn predictions."""
    if (search := config.search) is None:
        return []
    limit = [] if search.max_answers is None else ["--max-answers", str(search.max_answers)]
    return ["--search", "dfs", "--min-prob", f"{search.min_prob:g}", *limit]
