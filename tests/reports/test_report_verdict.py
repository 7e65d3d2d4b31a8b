"""The report's verdict and its table of differences: what is resolved, corrected together, and put into words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.errors import RunError
from harness.results.table_format import percent, with_interval
from harness.stats.paired_test import holm
from reports.loading.runs import load_sections
from reports.sections.tables import differences
from reports.sections.verdict import verdict
from tests.support.runs.run_folders import MakeRun

SPEC = "toy/cross/evaluation#n=20"


def test_verdict_names_the_leader_and_the_resolved_differences(make_run: MakeRun) -> None:
    (section,) = load_sections([make_run("r", "toy/cross/evaluation#n=60", {"a": 0.1, "b": 0.6, "c": 0.65}, n=8)])
    text = verdict([section])
    assert "\n" not in text
    results = section.results.models
    leader = max(results, key=lambda name: results[name].metrics["vote_2"].value)
    assert f"**{leader}** has the highest vote_2, {with_interval(results[leader].metrics['vote_2'])}" in text
    assert "better than **a**" in text
    assert "not resolved against" in text
    lost = sum(sum(result.failures.values()) for result in results.values())
    assert f"{lost} of the 1,440 predictions ({percent(lost / 1440)}) failed, most often as `unparsed`" in text
    (against,) = load_sections([section.runs[0].path], baseline="a")
    assert {row.baseline for row in against.pairs} == {"a"}
    level = with_interval(results["a"].metrics["vote_2"])
    assert f"Against **a** ({level}): better: **b** (+" in verdict([against])
    with pytest.raises(RunError, match="no run has a model 'z' to be the baseline; they have: a, b, c"):
        load_sections([section.runs[0].path], baseline="z")


def test_verdict_states_the_largest_difference_that_may_stay_unresolved(make_run: MakeRun) -> None:
    solved = {"a": range(30), "b": range(5, 32), "c": range(20, 47)}
    run = solving(make_run, "r", solved)
    (section,) = load_sections([run])
    limits = [row.comparison.resolvable for row in section.pairs if row.metric == "vote_2" and row.baseline == "a"]
    assert len(set(limits)) == 2
    largest = 100 * max(limit for limit in limits if limit)
    assert f"not resolved (60 tasks resolve about {largest:.1f} points)" in verdict([section])
    (section,) = load_sections([run], baseline="a")
    assert f"not resolved: **b** (-5.0) and **c** (-5.0) (60 tasks resolve about {largest:.1f} points)." in verdict(
        [section]
    )


def solving(make_run: MakeRun, name: str, solved: dict[str, range], spec: str = "toy/cross/evaluation#n=60") -> Path:
    """Write a run in which each model solves exactly the tasks with these numbers."""
    run = make_run(name, spec, dict.fromkeys(solved, 1.0), n=1, fails=0)
    path = run / "predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if int(line["task_id"].split("-")[1]) not in solved[line["model"]]:
            line.update(outcome="unparsed", grid=None)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


@pytest.mark.parametrize("order", ["acb", "cab", "bca"])
def test_verdict_on_tied_leaders_holds_for_each_of_them(make_run: MakeRun, order: str) -> None:
    """Models a and c solve 50 tasks, b 40. Against b, a wins 10 and loses 0 (p 0.002), c wins 20 of 30 (p 0.099)."""
    solved = {"a": range(50), "b": range(40), "c": range(10, 60)}
    (section,) = load_sections([solving(make_run, "r", {name: solved[name] for name in order})])
    first, second = [name for name in order if name != "b"]
    assert f"**{first}** and **{second}** share the highest vote_2, 83.3 %" in verdict([section])
    assert "but the gap to **b** (+16.7) for **c** is not resolved" in verdict([section])
    assert "better than" not in verdict([section]).split(" Differences in parentheses")[0]
    solved["d"] = range(5)
    (section,) = load_sections([solving(make_run, "s", {name: solved[name] for name in f"{order}d"})])
    assert "better than **d** (+75.0), not resolved against **b** (+16.7) for **c** (" in verdict([section])


def test_comparisons_of_all_datasets_are_corrected_together(make_run: MakeRun) -> None:
    """Ten won and none lost is p 0.002: resolved among 4 comparisons, and not among 40."""
    specs = [f"toy/{family}/evaluation#n=60" for family in ("cross", "copy", "border", "corners", "edge")]
    solved = {"a": range(40), "b": range(50)}
    runs = [solving(make_run, spec.split("/")[1], solved if spec == specs[0] else {"a": range(9), "b": range(9)}, spec)
            for spec in specs]  # fmt: skip
    (alone,) = load_sections(runs[:1])
    assert {row.comparison.verdict for row in alone.pairs} == {"better"}
    assert "better than" in verdict([alone])
    assert "Holm-corrected over these 4 comparisons alone;" in differences(alone)[0]
    sections = load_sections([*runs, *(solving(make_run, f"{k}", {"a": range(k), "b": range(k)},
                              f"toy/cross/evaluation#n=60#seed={k}") for k in range(2, 9))])  # fmt: skip
    rows = [row.comparison for section in sections for row in section.pairs]
    assert [c.p_holm for c in rows] == holm([c.p for c in rows])
    assert {c.verdict for c in rows} == {"not resolved"}
    assert {section.family_size for section in sections} == {len(rows)} == {48}
    assert all(
        "Holm-corrected over the 48 such comparisons of all datasets here alone" in differences(s)[0] for s in sections
    )


def test_comparisons_with_few_differing_tasks_are_summarised_in_lines(make_run: MakeRun) -> None:
    (section,) = load_sections([make_run("r", SPEC, {"a": 1.0, "b": 1.0, "c": 0.9}, n=8, fails=0)])
    parts = differences(section)
    nothing = sum(not row.comparison.differing for row in section.pairs)
    assert nothing > 4
    assert any(part.startswith(f"In {nothing} further comparisons no task differs at all: ") for part in parts)
    few = next(part for part in parts if part.startswith("Not resolved, and fewer than 10 tasks differ"))
    rows = [r for r in section.pairs if r.comparison.differing and r.comparison.low is None]
    assert few.count(" against ") == len(rows) > 0
    assert nothing + len(rows) + "\n".join(parts).count("\n| accuracy") == len(section.pairs)


def test_comparisons_in_which_all_tasks_differ_alike_are_in_the_table(make_run: MakeRun) -> None:
    (section,) = load_sections([make_run("r", SPEC, {"a": 0.0, "b": 1.0}, n=8, fails=0)])
    alike = [replace(row, comparison=replace(row.comparison, verdict="not resolved")) for row in section.pairs]
    assert {row.comparison.note for row in alike} == {"all tasks differ alike"}
    text = "\n".join(differences(replace(section, pairs=tuple(alike))))
    assert text.count("| all tasks differ alike |") == len(alike) > 0
    assert "fewer than 10 tasks differ" not in text


def test_more_than_six_models_are_compared_with_the_first_only(make_run: MakeRun) -> None:
    (section,) = load_sections([make_run("r", SPEC, {f"m{k}": 0.5 for k in range(7)}, n=2)])
    assert len(section.pairs) == 6 * 4
    assert {row.baseline for row in section.pairs} == {"m0"}
    assert "Every model against **m0**." in differences(section)[0]
