"""The tables of one dataset: figures, differences, what the vote lost, failures, and cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from harness.results.comparison_table import comparison_footnote, comparison_table
from harness.results.summary_table import failed
from harness.results.table_format import markdown_table, percent
from harness.runs.schema import FAILURES, ModelResult
from harness.scoring.paired_comparison import Paired
from harness.stats.paired_test import FEWEST_DIFFERING
from harness.voting.metrics import selection_ratio
from reports.loading.runs import LoadedRun, Section
from reports.loading.training import Training

UNKNOWN = "–"


def differences(section: Section) -> list[str]:
    """The paired table: what is resolved or has an interval as rows, the rest in a line each."""
    rows = section.pairs
    if not rows:
        return []
    which = "Every pair of models" if section.every_pair else f"Every model against **{section.reference}**"
    about = f"{which}. {comparison_footnote(rows, section.family)}"
    told = [row for row in rows if row.comparison.verdict != "not resolved" or row.comparison.low is not None]
    parts = [about, *([comparison_table(told)] if told else [])]
    return parts + _rest([row for row in rows if row not in told])


def _rest(rows: Sequence[Paired]) -> list[str]:
    """The comparisons that say nothing, metric by metric: where few tasks differ, and where none does."""
    few = [row for row in rows if row.comparison.differing]
    none = [row for row in rows if not row.comparison.differing]
    parts = []
    if few:
        lines = [f"- {metric}: {'; '.join(map(_few, own))}" for metric, own in _by_metric(few)]
        head = f"Not resolved, and fewer than {FEWEST_DIFFERING} tasks differ (won / lost):"
        parts.append("\n".join([head, "", *lines]))
    if none:
        told = "; ".join(f"{metric} in {len(own)}" for metric, own in _by_metric(none))
        parts.append(f"In {len(none)} further comparisons no task differs at all: {told}.")
    return parts


def _few(row: Paired) -> str:
    return f"{row.model} against {row.baseline} {row.comparison.won} / {row.comparison.lost}"


def _by_metric(rows: Iterable[Paired]) -> list[tuple[str, list[Paired]]]:
    groups: dict[str, list[Paired]] = {}
    for row in rows:
        groups.setdefault(row.metric, []).append(row)
    return list(groups.items())


def losses(section: Section) -> str:
    """Per model what sampling found and what two attempts kept of it; per output and strict where that differs."""
    results = section.results.models
    header = ["model", "found (pass_n)", "chosen (vote_2)", "kept by the vote", "lost, points"]
    several = any(result.outputs > result.tasks for result in results.values())
    header += ["vote_2 per output", "all outputs right"] if several else []
    return markdown_table(header, [[name, *_loss(result, several)] for name, result in results.items()])


def _loss(result: ModelResult, several: bool) -> list[str]:
    found, chosen = result.metrics.get("pass_n"), result.metrics["vote_2"]
    kept = None if found is None else selection_ratio(chosen.value, found.value)
    cells = [UNKNOWN if found is None else percent(found.value), percent(chosen.value)]
    cells.append(UNKNOWN if kept is None else percent(kept))
    cells.append(UNKNOWN if found is None else f"{100 * (found.value - chosen.value):.1f}")
    if several:
        cells += [percent(chosen.per_output), UNKNOWN if chosen.strict is None else percent(chosen.strict)]
    return cells


def failures(section: Section) -> str:
    """Per model how many predictions gave no grid, by kind."""
    results = section.results.models
    due = sum(result.predictions for result in results.values())
    if not sum(map(failed, results.values())):
        return f"Every one of the {due:,} predictions is a grid."
    kinds = [kind for kind in FAILURES if any(result.failures.get(kind) for result in results.values())]
    rows = [
        [name, f"{result.predictions:,}", f"{failed(result):,}", percent(failed(result) / result.predictions)]
        + [f"{result.failures.get(kind, 0):,}" for kind in kinds]
        for name, result in results.items()
    ]
    return markdown_table(["model", "predictions", "failed", "share", *kinds], rows)


def cost(section: Section, trained: Mapping[str, Training]) -> list[str]:
    """What each model's predictions and its training took; what nobody wrote down is a dash."""
    rows = []
    for run, model, config in section.asked():
        spent = run.cost.get(config.name)
        training = trained.get(model)
        cells = [UNKNOWN] * 4
        if spent is not None:
            speed = UNKNOWN if not spent.seconds else f"{spent.tokens / spent.seconds:,.0f}"
            cells = [f"{spent.requests:,}", f"{spent.tokens:,}", f"{spent.seconds:,.0f}", speed]
        rows.append([model, *cells, UNKNOWN if training is None else duration(training.seconds)])
    about = (
        "Tokens are those of the answers; seconds are added up over requests, many of which run at once, so that "
        "tokens a second are the speed that one request sees."
    )
    told = " ".join([about, *(text for run in section.runs if (text := _wall_time(run)))])
    return [markdown_table(["model", "requests", "tokens", "seconds", "tokens a second", "training"], rows), told]


def _wall_time(run: LoadedRun) -> str:
    """How long a run took in all, and its throughput; empty where it was interrupted or nobody counted."""
    manifest = run.manifest
    if manifest.finished is None or manifest.resumed:
        return ""
    seconds = (datetime.fromisoformat(manifest.finished) - datetime.fromisoformat(manifest.started)).total_seconds()
    if seconds <= 0:
        return ""
    tokens = sum(spent.tokens for spent in run.cost.values())
    return f"Run {run.name} took {duration(seconds)} in all, {tokens / seconds:,.0f} tokens a second."


def duration(seconds: float) -> str:
    """``47 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
