"""Write the first paragraph of a report: which model has the highest vote_2, and which differences are resolved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from harness.results.summary_table import failure_count, predictions_noun
from harness.results.table_format import percent, points, with_interval
from harness.scoring.headline_rule import rule_note
from harness.stats.paired_test import Comparison
from harness.voting.metrics import selection_ratio
from reports.loading.loaded_run import LoadedRun
from reports.loading.runs import Section

METRIC = "vote_2"
"""The metric that decides: two attempts per test output, as in the competition."""

_EXPLANATION = "Differences in parentheses are in points; *better* and *worse* are significant after Holm's correction."


def verdict(sections: Sequence[Section]) -> str:
    """Return in words how the models rank by METRIC: a paragraph, or a list if there are several datasets."""
    runs = [run for section in sections for run in section.runs]
    note = rule_note({f"{run.name}@{scores.model}": scores.rule for run in runs for scores in run.scored})
    rule = [] if note is None else [f"Here {note}."]
    if len(sections) > 1:
        lines = [f"- `{s.heading}` ({len(s.tasks)} tasks): {ranking_sentence(s)}" for s in sections]
        return "\n".join([" ".join([f"By {METRIC} (two attempts per test output). {_EXPLANATION}", *rule]), "", *lines])
    (section,) = sections
    text = f"On `{section.dataset}` ({len(section.tasks)} tasks, N = {section.n}), {ranking_sentence(section)}"
    parts = [
        text,
        *_sampling_sentence(section),
        _failure_sentence(section),
        *([_EXPLANATION] if section.pairs else []),
        *rule,
    ]
    return " ".join(parts)


def ranking_sentence(section: Section) -> str:
    """Return in words which model leads, and how the others compare with it or, if there is one, with the baseline."""
    values = {name: result.metrics[METRIC].value for name, result in section.results.models.items()}
    best = max(values.values())
    leaders = [name for name, value in values.items() if value == best]
    if len(values) == 1:
        return f"{_bold(leaders)} reaches a {METRIC} of {_level(section, leaders[0])}."
    if len(leaders) == len(values):
        return f"all {len(leaders)} models have the same {METRIC}, {percent(best)}."
    lead = f"{_bold(leaders)} {'has' if len(leaders) == 1 else 'share'} the highest {METRIC}"
    lead += f", {_level(section, leaders[0])}"
    if section.baseline is None:
        return f"{lead}{_compared_with_leaders(section, leaders)}."
    baseline = f"{_bold([section.baseline])} ({_level(section, section.baseline)})"
    return f"{lead}. Against {baseline}: {_compared_with_baseline(section)}."


def _compared_with_leaders(section: Section, leaders: Sequence[str]) -> str:
    """Return the other models' distances to the leaders.

    A leader is called better than a model only if the difference to *every* leader is resolved. Otherwise the text
    names the leaders from which the model is not resolved.
    """
    results = section.results.models
    others = [name for name in results if name not in leaders]
    comparisons = {name: {leader: _comparison(section, leader, name) for leader in leaders} for name in others}
    unresolved = {
        name: [leader for leader, c in rows.items() if c.verdict == "not resolved"]
        for name, rows in comparisons.items()
    }
    gaps = {name: results[leaders[0]].metrics[METRIC].value - results[name].metrics[METRIC].value for name in others}
    behind = [_with_points(name, gaps[name]) for name in others if not unresolved[name]]
    near = [name for name in others if unresolved[name]]
    near_texts = [
        _with_points(name, gaps[name])
        + (f" for {_bold(unresolved[name])}" if len(unresolved[name]) < len(leaders) else "")
        for name in near
    ]
    resolvable = _resolvable(section, [c for name in near for c in comparisons[name].values()])
    if not behind:
        text = f"the gap to {_joined(near_texts)} is" if len(near) == 1 else f"the gaps to {_joined(near_texts)} are"
        return f", but {text} not resolved{resolvable}"
    text = f": better than {_joined(behind)}"
    return f"{text}, not resolved against {_joined(near_texts)}{resolvable}" if near else text


def _compared_with_baseline(section: Section) -> str:
    """Return the models that are better, worse and not resolved, with their differences to the baseline."""
    rows = [row for row in section.pairs if row.metric == METRIC]
    parts = []
    for word in ("better", "worse", "not resolved"):
        models = [_with_points(r.model, r.comparison.delta) for r in rows if r.comparison.verdict == word]
        parts += [f"{word}: {_joined(models)}"] if models else []
    return f"{'; '.join(parts)}{_resolvable(section, [row.comparison for row in rows])}"


def _comparison(section: Section, model: str, other: str) -> Comparison:
    """Return the comparison of two models, whichever of them is its baseline."""
    return next(
        row.comparison for row in section.pairs if row.metric == METRIC and {row.model, row.baseline} == {model, other}
    )


def _resolvable(section: Section, comparisons: Iterable[Comparison]) -> str:
    """Return the largest of the smallest differences that these comparisons can resolve, in parentheses."""
    limits = [c.resolvable for c in comparisons if c.resolvable]
    return f" ({len(section.tasks)} tasks resolve about {100 * max(limits):.1f} points)" if limits else ""


def _sampling_sentence(section: Section) -> list[str]:
    """Return the best model's pass_n and the fraction of it that voting keeps; empty if pass_n is unknown."""
    name, result = max(section.results.models.items(), key=lambda item: item[1].metrics[METRIC].value)
    if "pass_n" not in result.metrics:
        return []
    pass_n = result.metrics["pass_n"].value
    ratio = selection_ratio(result.metrics[METRIC].value, pass_n)
    source = "Sampling" if result.enumeration is None else "The search"
    text = f"{source} with **{name}** finds the answer in {percent(pass_n)} (pass_n)"
    return [text + ("." if ratio is None else f", of which two attempts keep {percent(ratio)}.")]


def _failure_sentence(section: Section) -> str:
    """Return how many predictions of all models failed, and the most frequent kind of failure."""
    results = section.results.models.values()
    total, made = sum(map(failure_count, results)), sum(result.made for result in results)
    noun = predictions_noun(results)
    if not total:
        return f"None of the {made:,} {noun} failed."
    kinds = sum((Counter(result.failures) for result in results), Counter[str]())
    ((most_frequent, _),) = kinds.most_common(1)
    share = percent(total / made)
    return f"{total:,} of the {made:,} {noun} ({share}) failed, most often as `{most_frequent}`."


def unfinished_warnings(sections: Sequence[Section]) -> list[str]:
    """Return a warning for each run that is unfinished or that its deadline cut, with the number of predictions."""
    warnings = []
    for run in (run for section in sections for run in section.runs):
        if run.manifest.finished is not None:
            continue
        if run.manifest.cut_by is not None:
            warnings.append(
                f"**Cut by its deadline**: {run.name}: {run.manifest.cut_text()}. They count as wrong here; "
                f"`{_resume_command(run)} … --resume` with the options below and this run's `--out` asks for them."
            )
            continue
        missing = {s.model: s.failures.get("missing", 0) for s in run.scored}
        requested = sum(s.predictions for s in run.scored)
        parts = ", ".join(f"{name} {count:,}" for name, count in missing.items() if count)
        state = (
            f"{sum(missing.values()):,} of {requested:,} predictions are missing ({parts})" if parts else "not closed"
        )
        warnings.append(
            f"**Unfinished**: {run.name}: {state}. They count as failures here; `{_resume_command(run)} … --resume` "
            "with the options below and this run's `--out` completes the run."
        )
    return warnings


def _resume_command(run: LoadedRun) -> str:
    return "bench run" if run.manifest.config.ttt is None else "bench ttt"


def _level(section: Section, model: str) -> str:
    return with_interval(section.results.models[model].metrics[METRIC])


def _with_points(model: str, difference: float) -> str:
    return f"**{model}** ({points(difference)})"


def _bold(models: Sequence[str]) -> str:
    return _joined(f"**{model}**" for model in models)


def _joined(words: Iterable[str]) -> str:
    """Return ``a, b and c``."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
