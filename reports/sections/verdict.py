"""What the votes say, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.results.summary_table import failed
from harness.results.table_format import percent, points, with_interval
from harness.runs.schema import ModelResult
from harness.stats.paired_test import Comparison
from harness.voting.metrics import selection_ratio
from reports.loading.runs import Section

METRIC = "vote_2"
"""What decides: two attempts an output, as in the competition."""


_GAPS = "In parentheses the gap in points; *better* and *worse* are what survives Holm's correction."


def verdict(sections: Sequence[Section]) -> str:
    """One paragraph for one dataset; for several a sentence each, as a list."""
    if len(sections) == 1:
        section = sections[0]
        told = f"On `{section.dataset}` ({len(section.tasks)} tasks, N = {section.n}), {standing(section)}"
        told = f"{told} {_found_and_failed(section)}"
        if section.pairs:
            told += f" {_GAPS}"
    else:
        lines = [f"- `{s.heading}` ({len(s.tasks)} tasks): {standing(s)}" for s in sections]
        told = "\n".join([f"Two attempts an output (vote_2). {_GAPS}", "", *lines])
    return "\n\n".join([told, *unfinished(sections)])


def standing(section: Section) -> str:
    """Which model leads and by how much, or how each stands against the baseline."""
    results = section.results.models
    names = list(results)
    if len(names) == 1:
        return f"**{names[0]}** reaches a {METRIC} of {_level(section, names[0])}."
    best = max(result.metrics[METRIC].value for result in results.values())
    leaders = [name for name in names if results[name].metrics[METRIC].value == best]
    others = [name for name in names if name not in leaders]
    if not others:
        return f"all {len(names)} models have the same {METRIC}, {percent(best)}."
    lead = f"{_listed(map(_bold, leaders))} {'has' if len(leaders) == 1 else 'share'} the highest {METRIC}"
    lead += f", {_level(section, leaders[0])}"
    if section.baseline is None:
        return f"{lead}{_led(section, leaders, others)}."
    rest = [name for name in names if name != section.baseline]
    return f"{lead}. Against {_bold(section.baseline)} ({_level(section, section.baseline)}): {_against(section, rest)}"


def _led(section: Section, leaders: Sequence[str], others: Sequence[str]) -> str:
    """How far the other models are behind the leaders; *behind* is what is resolved against every one of them."""
    found = {name: {leader: _compare(section, leader, name) for leader in leaders} for name in others}
    ahead = {name: [m for m, c in rows.items() if c.verdict != "not resolved"] for name, rows in found.items()}
    behind = [name for name in others if len(ahead[name]) == len(leaders)]
    near = [name for name in others if name not in behind]
    limit = _resolvable(section, [c for name in near for c in found[name].values()])
    gaps = {name: _gap(section, leaders[0], name) for name in others}
    open_gaps = [
        f"{gaps[name]}{f' for {_listed(map(_bold, _without(leaders, ahead[name])))}' if ahead[name] else ''}"
        for name in near
    ]
    if not behind:
        text = f"the gap to {_listed(open_gaps)} is" if len(near) == 1 else f"the gaps to {_listed(open_gaps)} are"
        return f", but {text} not resolved{limit}"
    text = f": better than {_listed(gaps[name] for name in behind)}"
    return f"{text}, not resolved against {_listed(open_gaps)}{limit}" if near else text


def _without(names: Sequence[str], left_out: Sequence[str]) -> list[str]:
    return [name for name in names if name not in left_out]


def _against(section: Section, others: Sequence[str]) -> str:
    """Every other model against the baseline, by verdict."""
    rows = [row for row in section.pairs if row.metric == METRIC and row.model in others]
    told = []
    for word in ("better", "worse", "not resolved"):
        own = [f"{_bold(r.model)} ({points(r.comparison.delta)})" for r in rows if r.comparison.verdict == word]
        told += [f"{word}: {_listed(own)}"] if own else []
    return f"{'; '.join(told)}{_resolvable(section, [row.comparison for row in rows])}."


def _compare(section: Section, model: str, other: str) -> Comparison:
    """The comparison of two models, whichever of them is the baseline."""
    return next(
        row.comparison for row in section.pairs if row.metric == METRIC and {row.model, row.baseline} == {model, other}
    )


def _gap(section: Section, model: str, other: str) -> str:
    results = section.results.models
    return f"{_bold(other)} ({points(results[model].metrics[METRIC].value - results[other].metrics[METRIC].value)})"


def _resolvable(section: Section, found: Sequence[Comparison]) -> str:
    """The largest of the differences that the tasks would just resolve."""
    limits = [c.resolvable for c in found if c.resolvable]
    return f" ({len(section.tasks)} tasks resolve about {100 * max(limits):.1f} points)" if limits else ""


def _level(section: Section, model: str) -> str:
    return with_interval(section.results.models[model].metrics[METRIC])


def _found_and_failed(section: Section) -> str:
    """What sampling found and voting kept for the best model, and how much failed over all."""
    results = section.results.models
    name = max(results, key=lambda name: results[name].metrics[METRIC].value)
    best = results[name].metrics
    if "pass_n" not in best:
        return _failures(list(results.values()))
    kept = selection_ratio(best[METRIC].value, best["pass_n"].value)
    text = f"Sampling with **{name}** finds the answer in {percent(best['pass_n'].value)} (pass_n)"
    text += "." if kept is None else f", of which two attempts keep {percent(kept)}."
    return f"{text} {_failures(list(results.values()))}"


def _failures(results: Sequence[ModelResult]) -> str:
    lost, due = sum(map(failed, results)), sum(result.predictions for result in results)
    if not lost:
        return f"None of the {due:,} predictions failed."
    kinds: dict[str, int] = {}
    for result in results:
        for kind, count in result.failures.items():
            kinds[kind] = kinds.get(kind, 0) + count
    most = max(kinds, key=lambda kind: kinds[kind])
    return f"{lost:,} of the {due:,} predictions ({percent(lost / due)}) failed, most often as `{most}`."


def unfinished(sections: Sequence[Section]) -> list[str]:
    """A warning for each run that is not finished, with what is missing."""
    told = []
    for section in sections:
        for run in section.runs:
            if run.manifest.finished is not None:
                continue
            missing = {s.model: s.failures.get("missing", 0) for s in run.scored}
            due = sum(s.predictions for s in run.scored)
            parts = ", ".join(f"{name} {count:,}" for name, count in missing.items() if count)
            what = f"{sum(missing.values()):,} of {due:,} predictions are missing ({parts})" if parts else "not closed"
            told.append(
                f"**Unfinished**: {run.name}: {what}. They count as failures here; `bench run … --resume` "
                "with the options below completes the run."
            )
    return told


def _bold(name: str) -> str:
    return f"**{name}**"


def _listed(words: Iterable[str]) -> str:
    """``a, b and c``."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
