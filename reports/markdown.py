"""The report: one deterministic markdown file with its pictures beside it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from harness.errors import RunError
from harness.metrics import selection
from harness.pairs import Paired, all_pairs, compare_pairs
from harness.records import FAILURES, ModelResult, RunConfig
from harness.runs import write_atomically
from harness.summary import summary_table
from harness.tables import markdown_table, percent, with_interval
from harness.verdicts import comparison_table, sentence
from reports.gallery import draw_gallery, instructive_tasks
from reports.loading import LoadedRun, Section, load_sections
from reports.plots import plot_intervals

GALLERY_TASKS = 4


def write_report(runs: Sequence[Path], output: Path, title: str = "arc-bench report", closing: str = "") -> None:
    """Write the report of these runs to ``output`` and its pictures into the same folder.

    The same run folders give the same bytes.

    Args:
        closing: markdown to end with.

    Raises:
        RunError, DataError: a run is missing or broken.
    """
    sections = load_sections(runs)
    if not sections:
        raise RunError("no run was named")
    output.parent.mkdir(parents=True, exist_ok=True)
    plot_intervals(sections, output.parent / f"{output.stem}-intervals.png")
    found = [compare_pairs(all_pairs(section.scored), section.seed) for section in sections]
    parts = [f"# {title}", _verdict(sections, found)]
    if len(sections) > 1:
        parts += ["## All datasets", _overview(sections)]
    parts.append(f"![Every metric with its interval]({output.stem}-intervals.png)")
    for number, (section, rows) in enumerate(zip(sections, found, strict=True), 1):
        picture = output.parent / f"{output.stem}-tasks-{number}.png"
        tasks = instructive_tasks(section, GALLERY_TASKS)
        draw_gallery(section, tasks, picture)
        parts += _section(section, rows, picture.name)
    parts += ["## How it was made", *_provenance([run for section in sections for run in section.runs])]
    write_atomically(output, ("\n\n".join([*parts, closing]).rstrip() + "\n").encode())


def _verdict(sections: Sequence[Section], found: Sequence[list[Paired]]) -> str:
    """What the comparisons say of vote_2, dataset by dataset, in words."""
    lines = []
    for section, rows in zip(sections, found, strict=True):
        told = [sentence(row) for row in rows if row.metric == "vote_2"]
        real = [text for text in told if "not resolved" not in text]
        if not told:
            continue
        text = "; ".join(real) if real else "no difference between the models is resolved"
        lines.append(f"- `{section.dataset}` ({len(section.tasks)} tasks): {text}.")
    unfinished = [run.name for section in sections for run in section.runs if run.manifest.finished is None]
    if unfinished:
        lines.append(f"- **Unfinished**: {', '.join(unfinished)}; what was not sampled counts as missing.")
    head = "What the votes say (two attempts an output; only differences that survive Holm's correction):"
    return "\n".join([head, "", *lines]) if lines else "One model, so that nothing is compared."


def _overview(sections: Sequence[Section]) -> str:
    models = list(dict.fromkeys(scores.model for section in sections for scores in section.scored))
    rows = []
    for section in sections:
        results = section.results.models
        cells = [with_interval(results[m].metrics["accuracy"]) if m in results else "–" for m in models]
        rows.append([section.dataset, str(len(section.tasks)), *cells])
    return "Accuracy (share of exact predictions):\n\n" + markdown_table(["dataset", "tasks", *models], rows)


def _section(section: Section, rows: list[Paired], picture: str) -> list[str]:
    parts = [f"## {section.dataset}", summary_table(section.results)]
    if rows:
        about = (
            f"Differences in percentage points, paired by task; p by sign flips or McNemar's exact test, "
            f"Holm-corrected over these {len(rows)} comparisons; *resolvable*: the smallest difference that this many "
            "tasks resolve at 80 % power."
        )
        parts += ["### Differences", about, comparison_table(rows)]
    parts += ["### Found, chosen, failed", _losses(section), f"![Tasks with predictions]({picture})"]
    return parts


def _losses(section: Section) -> str:
    """Per model: what sampling found, what voting kept of it, and failures by kind."""
    results = section.results.models
    kinds = [kind for kind in FAILURES if any(kind in result.failures for result in results.values())]
    rows = [
        [name, *_loss(result), *(str(result.failures.get(kind, 0)) for kind in kinds)]
        for name, result in results.items()
    ]
    header = ["model", "found (pass_n)", "kept by the vote", "predictions", *kinds]
    return markdown_table(header, rows)


def _loss(result: ModelResult) -> list[str]:
    kept = selection(result.metrics["vote_2"].value, result.metrics["pass_n"].value)
    return [percent(result.metrics["pass_n"].value), "–" if kept is None else percent(kept), str(result.predictions)]


def _provenance(runs: Sequence[LoadedRun]) -> list[str]:
    """The manifest of each run in short, and the command that repeats it; the models once where they are the same."""
    parts: list[str] = []
    shown = ""
    for run in runs:
        config, environment = run.manifest.config, run.manifest.environment
        dirty = " with uncommitted changes" if environment.dirty else ""
        packages = ", ".join(f"{name} {version}" for name, version in sorted(environment.packages.items()))
        parts.append(
            f"**{run.name}**: dataset `{config.dataset}` (digest {config.dataset_digest}), "
            f"{len(config.task_ids)} tasks, N = {config.n}, seed {config.seed}, "
            f"temperature {config.temperature:g}; arc-bench {environment.version}, "
            f"commit {(environment.commit or 'unknown')[:12]}{dirty}; {packages}."
        )
        parts += [f"Warning: {warning}." for warning in run.manifest.warnings]
        table = _models(config)
        if table != shown:
            parts.append(table)
            shown = table
        parts.append(f"```\n{_command(run)}\n```")
    return parts


def _models(config: RunConfig) -> str:
    rows = [
        [m.name, (m.hash or "–")[:12], m.prompt, m.prompt_digest, m.encoder, str(m.max_tokens)] for m in config.models
    ]
    return markdown_table(["model", "weights", "prompt", "digest", "encoder", "max tokens"], rows, left=5)


def _command(run: LoadedRun) -> str:
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
    words += ["--temperature", f"{config.temperature:g}"] if config.temperature else []
    words += [] if config.augment else ["--no-augment"]
    return shlex.join([*words, "--out", run.name])
