"""Write what candidates gain and what they cost: greedy, sampled and enumerated runs side by side, and rescoring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.data.dataset import content_digest
from harness.results.comparison_table import corrected_together
from harness.results.summary_table import metric_cells
from harness.results.table_format import difference_interval, markdown_table, points
from harness.runs.schemas.results_schema import Cost
from harness.scoring.model_scores import ModelScores
from harness.scoring.paired_comparison import PairedComparison, compare_pairs
from harness.scoring.rule_scores import rule_label
from harness.stats.paired_test import Comparison
from harness.voting.selection_rules import VOTE
from reports.loading.loaded_run import LoadedRun
from reports.loading.runs import Section
from reports.sections.candidates import rule_differences, section_rules

UNKNOWN = "–"
_GAINS = ("pass_n", "vote_2")

_ABOUT = (
    "Runs on the same tasks side by side, whatever their N: pass_n is of so many draws or views; a vote is one for "
    "each draw, or for each view and grid. greedy is the share of views whose answer at temperature 0 is exact. "
    "The accuracy of enumerated views is a lower bound, to which the unexplored mass adds at most the figure after it."
)


@dataclass(frozen=True)
class Row:
    """One model of one run."""

    section: Section
    run: LoadedRun
    name: str
    """Of the model in its run."""
    scores: ModelScores

    @property
    def label(self) -> str:
        """Return the model and its run."""
        return f"{self.run.name}@{self.name}"

    @property
    def is_greedy(self) -> bool:
        """Return whether its answers were drawn at temperature 0."""
        return self.scores.enumeration is None and self.scores.temperature == 0


def gains_section(sections: Sequence[Section]) -> list[str]:
    """Return, as markdown, the gains and costs of all runs of datasets that have a run with candidates."""
    parts: list[str] = []
    for group in _groups(sections):
        rows = _rows(group)
        differences = _differences(rows)
        heading = [f"### {group[0].dataset}"] if len(_groups(sections)) > 1 else []
        parts += [*heading, _gain_table(rows), _cost_table(rows, differences), _cost_note(differences)]
        parts += _rescoring(group)
    return ["## Candidates: gain and cost", _ABOUT, *parts] if parts else []


def _groups(sections: Sequence[Section]) -> list[list[Section]]:
    """Return the sections by their tasks, where some run of the tasks has candidates."""
    groups: dict[tuple[tuple[str, str], ...], list[Section]] = {}
    for section in sections:
        digests = tuple((task.id, content_digest(task)) for task in section.tasks)
        groups.setdefault(digests, []).append(section)
    return [group for group in groups.values() if any(run.rules for section in group for run in section.runs)]


def _rows(group: Sequence[Section]) -> list[Row]:
    return [
        Row(section, run, name, scores)
        for section in group
        for (_, run, name), scores in zip(section.models_with_runs(), section.scored, strict=True)
    ]


def _gain_table(rows: Sequence[Row]) -> str:
    """Return what each model reaches."""
    names = ("accuracy", "greedy", "pass_n", "vote_2")
    cells = []
    for row in rows:
        metrics = dict(row.section.results.models[row.scores.model].metrics)
        if row.is_greedy and "accuracy" in metrics:
            metrics["greedy"] = metrics["accuracy"]
        rule = VOTE if row.scores.rule is None else row.scores.rule.name
        cells.append([row.label, _kind(row), str(row.section.n), rule, *metric_cells(metrics, names)])
    return markdown_table(["model", "answers", "N", "rule", *names], cells, left=2)


def _kind(row: Row) -> str:
    """Return in words whether the answers of a model were enumerated, greedy or sampled."""
    config = row.run.manifest.config
    if config.search is not None:
        limit = "" if config.search.max_answers is None else f", at most {config.search.max_answers} a view"
        return f"enumerated, p ≥ {config.search.min_prob:g}{limit}"
    return "greedy" if row.is_greedy else f"sampled, temperature {config.temperature:g}"


def _differences(rows: Sequence[Row]) -> list[PairedComparison]:
    """Compare every run of a model with its first greedy run, or else its first one."""
    pairs = []
    for name in dict.fromkeys(row.name for row in rows):
        runs = [row for row in rows if row.name == name]
        baseline = next((row for row in runs if row.is_greedy), runs[0])
        pairs += [(_labelled(row), _labelled(baseline)) for row in runs if row is not baseline]
    return compare_pairs(pairs, rows[0].section.seed, _GAINS) if pairs else []


def _labelled(row: Row) -> ModelScores:
    return replace(row.scores, model=row.label)


def _cost_table(rows: Sequence[Row], differences: Sequence[PairedComparison]) -> str:
    """Return what each model cost, with its differences to the baseline of its name."""
    cells = []
    for row in rows:
        outputs = sum(map(len, row.scores.outputs.values()))
        gains = [_difference(row.label, metric, differences) for metric in _GAINS]
        cells.append([row.label, *_cost_cells(row.run.cost.get(row.name), outputs), *gains])
    header = ["model", "requests", "tokens", "tokens a test output", "seconds", *(f"{name}, points" for name in _GAINS)]
    return markdown_table(header, cells)


def _cost_cells(cost: Cost | None, outputs: int) -> list[str]:
    if cost is None:
        return [UNKNOWN] * 4
    return [f"{cost.requests:,}", f"{cost.tokens:,}", f"{cost.tokens / outputs:,.0f}", f"{cost.seconds:,.0f}"]


def _difference(label: str, metric: str, differences: Sequence[PairedComparison]) -> str:
    """Return the difference of a model to its baseline with interval and verdict; a dash for a baseline."""
    row = next((row for row in differences if (row.model, row.metric) == (label, metric)), None)
    if row is None:
        return UNKNOWN
    return _difference_text(row.comparison)


def _difference_text(comparison: Comparison) -> str:
    """Format a difference with its interval and verdict, as ``+4.2 [+1.0, +7.5], better``."""
    interval = difference_interval(comparison)
    about = interval if interval.startswith("[") else f"({interval})"
    return f"{points(comparison.delta)} {about}, {comparison.verdict}"


def _cost_note(differences: Sequence[PairedComparison]) -> str:
    note = "Requests of enumerated views are completions. Seconds are summed over requests, many of which overlap."
    if not differences:
        return note
    against = ", ".join(dict.fromkeys(row.baseline for row in differences))
    return (
        f"{note} Differences are paired by task, to {against} for the same model, and Holm-corrected over "
        f"{corrected_together(len(differences))}."
    )


def _rescoring(group: Sequence[Section]) -> list[str]:
    """Return a table of what rescoring cost and what the rules that use it gain; nothing without rescores."""
    rows = []
    for section in group:
        gains = {row.model: row.comparison for row in rule_differences(section)}
        rules = section_rules(section)
        for model, run, name in section.models_with_runs():
            rescores = run.rescores.get(name)
            if rescores is None or rescores.cost is None:
                continue
            cost = rescores.cost
            cells = [f"{run.name}@{name}", rescores.scorer or UNKNOWN, str(cost.views)]
            cells += [f"{cost.scores:,}", f"{cost.n_tokens:,}"]
            for rule in (row.rule for row in rules.get(model, ()) if row.rule.needs_rescores):
                comparison = gains[rule_label(model, rule, rules)]
                rows.append([*cells, rule.name, _difference_text(comparison)])
    if not rows:
        return []
    header = ["model", "scorer", "views", "log-probabilities", "answer tokens", "rule", "vote_2 against vote, points"]
    about = (
        "Rescoring: every candidate under the same views. Log-probabilities and answer tokens are all that the scorer "
        "computed in the run's rescores.jsonl; prompts come on top."
    )
    return [about, markdown_table(header, rows, left=2)]
