"""The table of results that commands print: one row per model, metrics with intervals, and a footnote."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from harness.results.sequential_text import sequential_text
from harness.results.table_format import markdown_table, percent, with_interval
from harness.runs.schemas.results_schema import Metric, ModelResult, Results
from harness.scoring.early_stopped_scores import unavailable_metrics_text
from harness.scoring.headline_rule import rule_note
from harness.scoring.paired_comparison import HEADLINE
from harness.stats.intervals import FEW_TASKS, SMALL_SAMPLE, Interval
from harness.voting.metrics import selection_ratio

WILSON_MARK = "†"


def summary_table(results: Results) -> str:
    """Return a table of the headline metrics, one row per model, best vote_2 first, with footnotes.

    The footnotes explain the intervals, what a deadline left out, what early stopping skipped, what was enumerated, and
    the headline rule. The verdicts of a sequential design follow.
    """
    names = sorted(results.models, key=lambda name: (-results.models[name].metrics["vote_2"].value, name))
    metrics = headline_metrics(results)
    rows = [
        [name, *metric_cells(results.models[name].metrics, metrics), str(failure_count(results.models[name]))]
        for name in names
    ]
    parts = [markdown_table(["model", *metrics, "failed"], rows), summary_footnote(results)]
    parts += [*deadline_notes(results, names), *early_stopping_notes(results, names)]
    parts += enumeration_notes(results, names)
    note = rule_note({name: results.models[name].rule for name in names})
    parts += [] if note is None else [f"{note}."]
    return "\n\n".join([*parts, *([] if results.sequential is None else [sequential_text(results.sequential)])])


def headline_metrics(results: Results) -> list[str]:
    """Return the metrics of the table: HEADLINE, with ``greedy`` after accuracy if some views were enumerated."""
    enumerated = any(result.enumeration is not None for result in results.models.values())
    return [HEADLINE[0], "greedy", *HEADLINE[1:]] if enumerated else list(HEADLINE)


def enumeration_notes(results: Results, names: Sequence[str]) -> list[str]:
    """Return a sentence for each model with enumerated views: what was enumerated, and how to read its figures."""
    notes = []
    for name in names:
        result = results.models[name]
        if (counts := result.enumeration) is None:
            continue
        notes.append(
            f"{name}: N counts views, whose answers are enumerated: {counts.answers:,} answers, {counts.candidates:,} "
            f"candidates, {counts.truncated:,} completions truncated, {counts.dropped:,} branches dropped. accuracy is "
            "the mean probability of the exact grid and a lower bound: what was not enumerated, the unexplored mass, "
            "adds at most the figure after it. pass@k over views is exact; there are no vote curves."
        )
    return notes


def deadline_notes(results: Results, names: Sequence[str]) -> list[str]:
    """Return a sentence for each model of a run that its deadline cut: how many predictions are missing."""
    notes = []
    for name in names:
        result = results.models[name]
        if (cut := result.deadline) is None:
            continue
        share = percent(cut.missing / result.predictions)
        notes.append(
            f"{name}: missing by the deadline: {cut.missing:,} of {result.predictions:,} {_unit(result)} ({share}), on "
            f"{cut.outputs} of {result.outputs} test outputs; {cut.tasks_without} of {result.tasks} tasks have none. "
            "They count as wrong and are no failures."
        )
    return notes


def early_stopping_notes(results: Results, names: Sequence[str]) -> list[str]:
    """Return a sentence for each model with early stopping: what was skipped, and which metrics are unavailable."""
    notes = []
    for name in names:
        if (early := results.models[name].stopping) is None:
            continue
        text = (
            f"{name} stopped early ({early.rule}): {early.not_drawn:,} of {results.models[name].outputs * results.n:,} "
            f"predictions ({percent(early.share)}) were skipped, on {early.outputs} of {results.models[name].outputs} "
            "test outputs"
        )
        if early.first_round < results.n:
            text += f"; means over predictions are of the first {early.first_round} of each"
        notes.append("; ".join([text, *unavailable_metrics_text(early.not_available)]) + ".")
    return notes


def details_text(results: Results) -> str:
    """Return a table of all metrics for each model, with its counts of predictions and failures.

    Columns: mean over tasks with its interval, mean over test outputs (as Kaggle computes it), and
    share of tasks with every test output right.
    """
    parts = []
    for name, result in results.models.items():
        rows = [
            [metric, with_interval(m), m.method, percent(m.per_output), "–" if m.strict is None else percent(m.strict)]
            for metric, m in result.metrics.items()
        ]
        table = markdown_table(["metric", "mean over tasks", "interval", "per output", "all outputs right"], rows)
        counts = f"{name}: {result.tasks} tasks, {result.outputs} test outputs"
        counts += f", {result.predictions} {_unit(result)} requested"
        parts += [f"{counts}; {_selection_text(result)}; {_failures_text(result)}.", table]
    return "\n\n".join(parts)


def _unit(result: ModelResult) -> str:
    """Return what N counts."""
    return "predictions" if result.enumeration is None and result.members is None else "views"


def predictions_noun(results: Iterable[ModelResult]) -> str:
    """Return what N counts for several models: ``predictions``, ``views``, or ``predictions or views``."""
    return " or ".join(sorted(set(map(_unit, results))))


def _selection_text(result: ModelResult) -> str:
    """Return in words vote_2 as a share of pass_n, which is what two votes keep of what sampling solves."""
    if "pass_n" not in result.metrics:
        return "what sampling would have found is not known"
    share = selection_ratio(result.metrics["vote_2"].value, result.metrics["pass_n"].value)
    source = "sampling" if _unit(result) == "predictions" else "the search"
    source = source if result.members is None else f"the pool's {result.members} members"
    attempts = "two votes" if result.rule is None else "two attempts"
    return f"{source} found nothing" if share is None else f"{attempts} keep {percent(share)} of what {source} found"


def _failures_text(result: ModelResult) -> str:
    kinds = ", ".join(f"{kind} {count}" for kind, count in result.failures.items())
    made = "" if result.made == result.predictions else f" of the {result.made:,} that were made"
    every = f"prediction{made} is a grid" if _unit(result) == "predictions" else f"view{made} proposed a grid"
    return f"without a grid: {kinds}" if kinds else f"every {every}"


def metric_cells(metrics: Mapping[str, Metric] | Mapping[str, Interval], names: Sequence[str] = HEADLINE) -> list[str]:
    """Format metrics of one model with intervals, a dash for a missing one; Wilson's are marked.

    The accuracy of enumerated views is followed by the unexplored mass.
    """
    cells = []
    for name in names:
        metric = metrics.get(name)
        mark = WILSON_MARK if metric is not None and metric.method == "wilson" else ""
        cells.append("–" if metric is None else with_interval(metric, mark))
        if name == "accuracy" and (unexplored := metrics.get("unexplored")) is not None:
            cells[-1] += f" + at most {100 * unexplored.value:.1f}"
    return cells


def failure_count(result: ModelResult) -> int:
    """Return how many requested predictions have no grid, for whatever reason."""
    return sum(result.failures.values())


def summary_footnote(results: Results) -> str:
    """Return a sentence on how the values and intervals of the table were computed."""
    tasks = {result.tasks for result in results.models.values()}
    unit = predictions_noun(results.models.values())
    text = (
        f"N = {results.n} {unit} a test output, {'/'.join(map(str, sorted(tasks)))} tasks; brackets: "
        f"{100 * results.confidence:g} % intervals over tasks (BCa bootstrap, {results.resamples:,} resamples, "
        f"seed {results.seed})"
    )
    methods = {m.method for result in results.models.values() for m in result.metrics.values()}
    if "wilson" in methods:
        text += f"; {WILSON_MARK} Wilson's interval, where fewer than 5 tasks lie above 0 or below 1, or all are equal"
    if "bca-small" in methods:
        text += f"; BCa with fewer than {SMALL_SAMPLE} tasks at the higher level that Student's t asks for"
    if min(tasks) < FEW_TASKS:
        text += f". Fewer than {FEW_TASKS} tasks: read the intervals, not the values"
    return text + "."
