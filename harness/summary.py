"""The table that every command shows at its end: models by metrics, with intervals."""

from __future__ import annotations

from harness.intervals import FEW_TASKS
from harness.pairs import HEADLINE
from harness.records import ModelResult, Results
from harness.tables import markdown_table, with_interval

WILSON_MARK = "†"


def summary_table(results: Results) -> str:
    """Models, best vote_2 first, by the headline metrics, with the footnote that says what the brackets are."""
    names = sorted(results.models, key=lambda name: (-results.models[name].metrics["vote_2"].value, name))
    rows = [[name, *metric_cells(results.models[name]), str(failed(results.models[name]))] for name in names]
    return markdown_table(["model", *HEADLINE, "failed"], rows) + "\n\n" + footnote(results)


def metric_cells(result: ModelResult) -> list[str]:
    """The headline metrics of one model with intervals; Wilson's are marked."""
    found = [result.metrics[name] for name in HEADLINE]
    return [with_interval(m, WILSON_MARK if m.method == "wilson" else "") for m in found]


def failed(result: ModelResult) -> int:
    """How many predictions gave no grid, whatever the reason."""
    return sum(result.failures.values())


def footnote(results: Results) -> str:
    """How the numbers were made, in one sentence or two."""
    tasks = {result.tasks for result in results.models.values()}
    text = (
        f"N = {results.n} predictions a test output, {'/'.join(map(str, sorted(tasks)))} tasks; brackets: "
        f"{100 * results.confidence:g} % intervals over tasks (BCa bootstrap, {results.resamples:,} resamples, "
        f"seed {results.seed})"
    )
    methods = {m.method for result in results.models.values() for m in result.metrics.values()}
    if "wilson" in methods:
        text += f"; {WILSON_MARK} Wilson's interval, where fewer than 5 tasks lie above 0 or below 1"
    if min(tasks) < FEW_TASKS:
        text += f". Fewer than {FEW_TASKS} tasks: read the intervals, not the values"
    return text + "."
