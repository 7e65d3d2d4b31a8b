"""Figures about selection rules on the same candidates: poe and kgmon beside vote and logprob."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.evidence.experiment import SEED, Draw, run_folder
from harness.results.table_format import difference_interval, markdown_table, p_value, points, with_interval
from harness.scoring.model_scores import ModelScores, score_intervals, score_model
from harness.scoring.paired_comparison import PairedComparison, compare_pairs
from harness.scoring.prediction_loader import SavedPredictions, open_predictions
from harness.scoring.rule_scores import parse_rules, score_rules
from harness.stats.bootstrap import Floats
from harness.stats.paired_test import Comparison, compare

RULES = ("vote", "logprob", "poe", "kgmon")
METRICS = ("vote_2", "vote_1")
PAIRS = (("poe", "vote"), ("poe", "logprob"), ("kgmon", "vote"), ("kgmon", "logprob"))

ByRule = dict[str, ModelScores]


def scores_by_rule(work: Path, data: str, draw: Draw) -> dict[str, ByRule]:
    """Return the scores of each adapter by rule."""
    saved = open_predictions(run_folder(work, data, draw))
    return {predictions.model: _by_rule(saved, index) for index, predictions in enumerate(saved.predictions)}


def _by_rule(saved: SavedPredictions, index: int) -> ByRule:
    """Return the scores of one model by rule."""
    predictions = saved.predictions[index]
    scores = score_model(predictions, saved.tasks, saved.n, saved.schedule)
    rescores = saved.rescores[predictions.model]
    rows = score_rules(predictions, scores, saved.tasks, parse_rules(",".join(RULES)), rescores)
    return {row.rule.name: row.scores for row in rows}


def rule_table(models: dict[str, ByRule]) -> str:
    """Return a table of vote_2 and vote_1 by rule, with what was proposed at all."""
    header = ("adapter", "metric", "proposed (pass_n)", *RULES)
    body = []
    for model, by_rule in models.items():
        rows = score_intervals([by_rule[name] for name in RULES], SEED)
        for metric in METRICS:
            body.append([model, metric, with_interval(rows[0]["pass_n"]), *(with_interval(r[metric]) for r in rows)])
    return markdown_table(header, body, left=2)


def rule_comparisons(models: dict[str, ByRule]) -> list[PairedComparison]:
    """Compare the rules that need rescores with those that do not, adapter by adapter, corrected together."""
    pairs = [
        tuple(replace(by_rule[name], model=f"{model}: {name}") for name in pair)
        for model, by_rule in models.items()
        for pair in PAIRS
    ]
    return compare_pairs([(ours, theirs) for ours, theirs in pairs], SEED, METRICS)


def pooled_table(models: dict[str, ByRule]) -> str:
    """Return a table of the same differences, averaged over the adapters of each task before tasks are compared."""
    cells = [(metric, *pair) for metric in METRICS for pair in PAIRS]
    ours = [_mean_over_adapters(models, rule, metric) for metric, rule, _ in cells]
    theirs = [_mean_over_adapters(models, rule, metric) for metric, _, rule in cells]
    denominators = [len(models) * math.lcm(*(by["vote"].tasks.denominator for by in models.values()))] * len(cells)
    results = compare(np.stack(ours), np.stack(theirs), denominators, SEED)
    header = ("metric", "of", "against", "points", "interval", "won / lost", "p (Holm)", "verdict")
    return markdown_table(header, [_cells(*cell, row) for cell, row in zip(cells, results, strict=True)], left=3)


def _mean_over_adapters(models: dict[str, ByRule], rule: str, metric: str) -> Floats:
    """Return the tasks' values of a metric, averaged over all adapters."""
    mean: Floats = np.mean([by_rule[rule].tasks.values_of(metric) for by_rule in models.values()], axis=0)
    return mean


def _cells(metric: str, rule: str, baseline: str, c: Comparison) -> list[str]:
    won = f"{c.won} / {c.lost}"
    return [metric, rule, baseline, points(c.delta), difference_interval(c), won, p_value(c.p_holm), c.verdict]
