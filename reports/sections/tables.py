"""Write the tables of a report: metrics by dataset, and per dataset differences, losses in the vote, failures, cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from harness.results.comparison_table import comparison_footnote, comparison_table
from harness.results.summary_table import WILSON_MARK, failure_count, predictions_noun
from harness.results.table_format import markdown_table, percent, with_interval
from harness.runs.schemas.prediction_schema import FAILURES
from harness.runs.schemas.results_schema import ModelResult
from harness.runs.schemas.view_schema import BELOW_MIN_PROB
from harness.scoring.paired_comparison import PairedComparison
from harness.stats.nearly_alike import FEWEST_DIFFERING
from harness.voting.metrics import selection_ratio
from reports.loading.loaded_run import LoadedRun
from reports.loading.prices import GpuPrice, dollars
from reports.loading.runs import Section, all_models
from reports.loading.task_costs import has_test_time_training, task_cost, wall_seconds
from reports.loading.training import Training

UNKNOWN = "–"


def overview(sections: Sequence[Section], metric: str) -> str:
    """Return a table of one metric: datasets as rows, all models of the report as columns."""
    models = all_models(sections)
    rows = []
    any_wilson = False
    for section in sections:
        results = section.results.models
        cells = []
        for model in models:
            value = results[model].metrics.get(metric) if model in results else None
            wilson = value is not None and value.method == "wilson"
            any_wilson |= wilson
            cells.append(UNKNOWN if value is None else with_interval(value, WILSON_MARK if wilson else ""))
        rows.append([section.heading, str(len(section.tasks)), *cells])
    note = f" ({WILSON_MARK} Wilson's interval)" if any_wilson else ""
    return f"{metric}{note}:\n\n" + markdown_table(["dataset", "tasks", *models], rows)


def differences(section: Section) -> list[str]:
    """Return, as markdown, the table of comparisons and a summary of those in which too few tasks differ to test.

    The summary is by metric, and has the comparisons that are not resolved and in which fewer than FEWEST_DIFFERING
    tasks differ. The table has all others, also those in which all tasks differ alike.
    """
    if not section.pairs:
        return []
    compared = "Every pair of models" if section.baseline is None else f"Every model against **{section.baseline}**"
    about = f"{compared}. {comparison_footnote(section.pairs, section.family_size)}"
    rows: list[PairedComparison] = []
    few: list[PairedComparison] = []
    equal: list[PairedComparison] = []
    for pair in section.pairs:
        comparison = pair.comparison
        if comparison.verdict != "not resolved" or comparison.differing >= FEWEST_DIFFERING:
            rows.append(pair)
        else:
            (few if comparison.differing else equal).append(pair)
    parts = [about, *([comparison_table(rows)] if rows else [])]
    if few:
        lines = [f"- {metric}: {'; '.join(map(_won_and_lost, pairs))}" for metric, pairs in _by_metric(few).items()]
        head = f"Not resolved, and fewer than {FEWEST_DIFFERING} tasks differ (won / lost):"
        parts.append("\n".join([head, "", *lines]))
    if equal:
        counts = "; ".join(f"{metric} in {len(pairs)}" for metric, pairs in _by_metric(equal).items())
        parts.append(f"In {len(equal)} further comparisons no task differs at all: {counts}.")
    return parts


def _won_and_lost(row: PairedComparison) -> str:
    return f"{row.model} against {row.baseline} {row.comparison.won} / {row.comparison.lost}"


def _by_metric(rows: Iterable[PairedComparison]) -> dict[str, list[PairedComparison]]:
    groups: dict[str, list[PairedComparison]] = {}
    for row in rows:
        groups.setdefault(row.metric, []).append(row)
    return groups


def losses(section: Section) -> str:
    """Return a table of pass_n, vote_2, and the part of pass_n that voting, or another rule, keeps and loses.

    If some task has several test outputs, also vote_2 per output and the fraction of tasks with every output right.
    """
    results = section.results.models
    kept = "kept by the rule" if any(result.rule for result in results.values()) else "kept by the vote"
    header = ["model", "found (pass_n)", "chosen (vote_2)", kept, "lost, points"]
    several_outputs = any(result.outputs > result.tasks for result in results.values())
    header += ["vote_2 per output", "all outputs right"] if several_outputs else []
    rows = [[name, *_loss_cells(result, several_outputs)] for name, result in results.items()]
    return markdown_table(header, rows)


def _loss_cells(result: ModelResult, several_outputs: bool) -> list[str]:
    pass_n, vote_2 = result.metrics.get("pass_n"), result.metrics["vote_2"]
    ratio = None if pass_n is None else selection_ratio(vote_2.value, pass_n.value)
    cells = [UNKNOWN if pass_n is None else percent(pass_n.value), percent(vote_2.value)]
    cells.append(UNKNOWN if ratio is None else percent(ratio))
    cells.append(UNKNOWN if pass_n is None else f"{100 * (pass_n.value - vote_2.value):.1f}")
    if several_outputs:
        cells += [percent(vote_2.per_output), UNKNOWN if vote_2.strict is None else percent(vote_2.strict)]
    return cells


def failures(section: Section) -> str:
    """Return a table of the predictions without a grid, by model and kind of failure, or a sentence if all have one."""
    results = section.results.models
    made, requested = (sum(getattr(r, name) for r in results.values()) for name in ("made", "predictions"))
    if not sum(map(failure_count, results.values())):
        that = "" if made == requested else " that were made"
        if all(result.enumeration is not None for result in results.values()):
            return f"Every one of the {made:,} views{that} proposed a grid."
        return f"Every one of the {made:,} {predictions_noun(results.values())}{that} is a grid."
    kinds = [
        kind for kind in (*FAILURES, BELOW_MIN_PROB) if any(result.failures.get(kind) for result in results.values())
    ]
    rows = [
        [
            name,
            f"{result.predictions:,}",
            f"{failure_count(result):,}",
            percent(failure_count(result) / result.predictions),
        ]
        + [f"{result.failures.get(kind, 0):,}" for kind in kinds]
        for name, result in results.items()
    ]
    return markdown_table(["model", predictions_noun(results.values()), "failed", "share", *kinds], rows)


def cost(section: Section, trained: Mapping[str, Training], price: GpuPrice | None = None) -> list[str]:
    """Return a table of each model's requests, tokens, seconds and training time, and how to read it.

    Args:
        trained: training runs by model name. Models without one get a dash.
        price: adds a column with the cost of a task.
    """
    header = ["model", "requests", "tokens", "seconds", "tokens a second", "training"]
    header += [] if price is None else ["cost a task"]
    rows = []
    for model, run, name in section.models_with_runs():
        spent = run.cost.get(name)
        training = trained.get(model)
        cells = [UNKNOWN] * 4
        if spent is not None:
            speed = UNKNOWN if not spent.seconds else f"{spent.tokens / spent.seconds:,.0f}"
            cells = [f"{spent.requests:,}", f"{spent.tokens:,}", f"{spent.seconds:,.0f}", speed]
        rows.append([model, *cells, UNKNOWN if training is None else duration(training.seconds)])
        if price is not None:
            amount = price.task_dollars(run, name)
            rows[-1].append(UNKNOWN if amount is None else dollars(amount))
    about = (
        "Tokens are completion tokens. Seconds are summed over requests, many of which run at the same time, so tokens "
        "a second is the speed of one request."
    )
    notes = [about, *filter(None, map(_wall_time, section.runs))]
    return [markdown_table(header, rows), " ".join([*notes, *([] if price is None else [_price_note(section, price)])])]


def _wall_time(run: LoadedRun) -> str:
    """Return how long a run took and its throughput, or nothing if it was interrupted or its times are unknown."""
    if (seconds := wall_seconds(run)) is None:
        return ""
    tokens = sum(spent.tokens for spent in run.cost.values())
    return f"Run {run.name} took {duration(seconds)} in all, {tokens / seconds:,.0f} tokens a second."


def _price_note(section: Section, price: GpuPrice) -> str:
    """Return how the cost of a task was computed."""
    gpus = ", ".join(dict.fromkeys(str(price.used_gpus(run)) for run in section.runs))
    note = (
        f"Cost a task: the run's time on {gpus} GPU{'' if gpus == '1' else 's'} at {dollars(price.hour)} an hour, "
        "divided among its models by the seconds of their requests and among its tasks; training before the run and "
        "rescoring are not included."
    )
    if has_test_time_training(section):
        note += " With test-time training it is the time of training on a task and answering it."
    if any(task_cost(run, name).total is None for _, run, name in section.models_with_runs()):
        note += " It is unknown for runs that were interrupted, whose pauses are not recorded."
    return note


def duration(seconds: float) -> str:
    """Format seconds as ``0.4 s``, ``47 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    if 0 < seconds < 0.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
