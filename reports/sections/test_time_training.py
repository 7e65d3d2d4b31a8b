"""Write the section on test-time training: models with and without it side by side, and accuracy against cost."""

from __future__ import annotations

from collections.abc import Sequence

from harness.results.comparison_table import comparison_footnote, comparison_table
from harness.results.summary_table import WILSON_MARK
from harness.results.table_format import markdown_table, percent, with_interval
from harness.runs.schemas.results_schema import Metric
from harness.runs.schemas.task_training import ProtocolLabel, count_outcomes
from harness.scoring.paired_comparison import PairedComparison
from reports.loading.loaded_run import LoadedRun
from reports.loading.runs import Section
from reports.loading.task_costs import has_test_time_training, task_costs

_UNKNOWN = "–"
_METRICS = ("accuracy", "pass_n", "vote_2")


def test_time_training(section: Section) -> list[str]:
    """Return markdown that compares the models of a section by accuracy and cost; nothing without such training."""
    if not has_test_time_training(section):
        return []
    parts = [
        "### Test-time training",
        _cost_table(section),
        "Sorted by seconds a task, which are means over tasks: of training on the task's own train pairs, and of "
        "answering it (wall time, with loading its adapter, divided among the models of a run by the seconds of their "
        f"requests; unknown for runs that were resumed). {WILSON_MARK} Wilson's interval.",
    ]
    if pairs := _with_and_without(section):
        parts += ["Each against the model from which its training starts:", comparison_table(pairs)]
        parts.append(comparison_footnote(pairs, section.family_size))
    return [*parts, _outcomes(section), *_protocols(section)]


def _cost_table(section: Section) -> str:
    costs, results = task_costs(section), section.results.models
    order = sorted(results, key=lambda name: (costs[name].total is None, costs[name].total or 0.0))
    rows = []
    for model in order:
        cost = costs[model]
        cells = [f"{cost.train:.1f}", _UNKNOWN if cost.sample is None else f"{cost.sample:.1f}"]
        rows.append([model, *cells, *(_share(results[model].metrics.get(name)) for name in _METRICS)])
    return markdown_table(["model", "training, s a task", "answering, s a task", *_METRICS], rows)


def _share(metric: Metric | None) -> str:
    if metric is None:
        return _UNKNOWN
    return with_interval(metric, WILSON_MARK if metric.method == "wilson" else "")


def _with_and_without(section: Section) -> list[PairedComparison]:
    """Return the comparisons of models with test-time training with those from which their training starts."""
    models = section.models_with_runs()
    starts = {model: _start_models(run, models) for model, run, _ in models if run.manifest.config.ttt is not None}
    return [
        pair
        for pair in section.pairs
        if pair.metric in _METRICS
        and (pair.baseline in starts.get(pair.model, ()) or pair.model in starts.get(pair.baseline, ()))
    ]


def _start_models(run: LoadedRun, models: Sequence[tuple[str, LoadedRun, str]]) -> list[str]:
    """Return the models with the weights from which a run's training starts: the starting adapter, else the base."""
    ttt = run.manifest.config.ttt
    assert ttt is not None
    start = ttt.start or ttt.base
    hashes = [{config.name: config.hash for config in other.manifest.config.models} for _, other, _ in models]
    return [model for (model, _, name), by_name in zip(models, hashes, strict=True) if by_name.get(name) == start]


def _outcomes(section: Section) -> str:
    """Return a sentence for each model on what became of the training of its tasks."""
    lines = []
    for model, run, _ in section.models_with_runs():
        if run.manifest.config.ttt is None:
            continue
        records = run.trained_tasks
        counts = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in count_outcomes(records).items())
        others = sum(not record.own_adapter for record in records.values())
        fallback = f"; {others} answered by the starting adapter or the base" if others else ""
        lines.append(f"- **{model}**: {len(records)} of {len(run.tasks)} tasks done ({counts}){fallback}.")
    return "\n".join(lines)


def _protocols(section: Section) -> list[str]:
    """Return a table of what the models were trained on, for those whose run says so."""
    starts = _protocols_of_starts(section)
    rows: list[list[str]] = []
    leaks: list[str] = []
    for model, run, _ in section.models_with_runs():
        protocol = run.manifest.protocol
        if protocol is not None:
            rows.append([model, protocol.label, protocol.reason])
        else:
            unknown = ("not known", "bench data audit compares training data with these tasks")
            rows.append([model, *starts.get(model, unknown)])
        if protocol is not None and protocol.leaked_tasks:
            leaks.append(
                f"{run.name}: {percent(protocol.leaked_tasks / max(1, len(run.tasks)))} of the tasks have a pair in "
                "the data that the starting model was trained on; their results may be memory."
            )
    return [markdown_table(["model", "trained on", "derived from"], rows, left=3), *leaks]


def _protocols_of_starts(section: Section) -> dict[str, tuple[ProtocolLabel, str]]:
    """Return label and reason for the models from which test-time training starts: they saw the same, but for it."""
    models = section.models_with_runs()
    labels: dict[str, tuple[ProtocolLabel, str]] = {}
    for _, run, _ in models:
        if (protocol := run.manifest.protocol) is None or run.manifest.config.ttt is None:
            continue
        trained_at_test_time = protocol.label == "demonstrations of these tasks at test time"
        label: ProtocolLabel = "nothing of these tasks" if trained_at_test_time else protocol.label
        labels |= dict.fromkeys(_start_models(run, models), (label, protocol.reason))
    return labels
