"""The table of a sweep: mixtures as rows, each compared with the first, and the spread over training seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from harness.core.errors import RunError
from harness.runs.schemas.sweep_record import SweepRecord, SweepRow
from harness.stats.paired_test import holm
from harness.stats.recipe_interval import recipe_interval
from harness.stats.recipes import compare_recipes
from harness.voting.metrics import METRICS
from reports.loading.runs import Section, load_sections
from reports.loading.sweep import mean_over_seeds, read_sweep, sweep_tables, tables_json
from reports.sections.sweep import sweep_section
from tests.support.runs.run_folders import MakeRun

SPEC = "toy/cross/evaluation#n=60"
SKILL = {
    "a-s0": 0.8, "a-s1": 0.78, "a-s2": 0.79,
    "b-s0": 0.79, "b-s1": 0.8, "b-s2": 0.78,
    "c-s0": 0.1, "c-s1": 0.12, "c-s2": 0.11,
}  # fmt: skip
SEEDED = SweepRecord(
    header="original datasets weight",
    rows=[
        SweepRow(label="100 %", models=["a-s0", "a-s1", "a-s2"]),
        SweepRow(label="50 %", models=["b-s0", "b-s1", "b-s2"]),
        SweepRow(label="0 %", models=["c-s0", "c-s1", "c-s2"]),
    ],
    seeds=[0, 1, 2],
)


def sweep_text(sections: Sequence[Section], record: SweepRecord) -> str:
    """Return the markdown of a sweep's tables."""
    return "\n\n".join(part for table in sweep_tables(sections, record) for part in sweep_section(table))


def test_rows_are_means_over_seeds_with_intervals_over_tasks_and_runs(make_run: MakeRun) -> None:
    runs = [make_run(name, SPEC, {name: skill}) for name, skill in SKILL.items()]
    sections = load_sections(runs)
    (section,) = sections
    text = sweep_text(sections, SEEDED)
    assert "3 mixtures, 3 training runs each" in text
    assert "**0 %** is worse than **100 %**" in text
    assert "**50 %**" not in text.split("\n\n")[1]
    assert "over tasks and training runs" in text
    known = {scores.model: scores.tasks for scores in section.scored}
    a, b, c = (np.stack([known[f"{r}-s{k}"].values_of("accuracy") for k in range(3)]) for r in "abc")
    both = mean_over_seeds([known[f"c-s{k}"] for k in range(3)])
    assert both.values_of("accuracy") == pytest.approx(c.mean(axis=0))
    expected = recipe_interval(c)
    cells = next(line for line in text.splitlines() if line.startswith("| 0 %"))
    assert f"{100 * expected.value:.1f} % [{100 * expected.low:.1f}, {100 * expected.high:.1f}]" in cells
    sd = 100 * c.mean(axis=1).std(ddof=1)
    assert f"sd {sd:.1f}" in text.split("### Training seeds")[1]
    (table,) = sweep_tables(sections, SEEDED)
    assert not table.pairs
    rows = {row.recipe: row.comparison for row in table.recipes if row.metric == "accuracy"}
    for label, values in (("50 %", b), ("0 %", c)):
        direct = compare_recipes(values, a, seed=section.seed)
        assert (rows[label].p, rows[label].low) == (direct.p, direct.low)
    assert [row.comparison.p_holm for row in table.recipes] == holm([row.comparison.p for row in table.recipes])
    assert table.family_size == len(table.recipes) == 8


def test_the_table_as_json_has_every_row_and_comparison(make_run: MakeRun) -> None:
    sections = load_sections([make_run(name, SPEC, {name: skill}) for name, skill in SKILL.items()])
    tables = sweep_tables(sections, SEEDED)
    (content,) = json.loads(json.dumps(tables_json(tables)))
    assert (content["dataset"], content["n"], content["tasks"]) == (SPEC, 4, 60)
    assert [(row["label"], len(row["models"])) for row in content["rows"]] == [("100 %", 3), ("50 %", 3), ("0 %", 3)]
    interval = tables[0].intervals[2]["accuracy"]
    shown = content["rows"][2]["metrics"]["accuracy"]
    assert (shown["value"], shown["low"], shown["high"]) == (interval.value, interval.low, interval.high)
    expected = [(row.metric, row.recipe, row.comparison.p_holm) for row in tables[0].recipes]
    assert [(r["metric"], r["recipe"], r["comparison"]["p_holm"]) for r in content["recipes"]] == expected
    assert content["adapters"] == []


def test_paired_seeds_are_used_where_the_sweep_declares_them(make_run: MakeRun) -> None:
    sections = load_sections([make_run(name, SPEC, {name: skill}) for name, skill in SKILL.items()])
    (table,) = sweep_tables(sections, SEEDED.model_copy(update={"paired_seeds": True}))
    assert all(row.comparison.paired for row in table.recipes)
    assert "3 pairs" in "\n".join(sweep_section(table))
    assert '"paired_seeds"' not in SEEDED.model_dump_json()


def test_a_mixture_with_one_training_run_makes_the_table_one_of_adapters(make_run: MakeRun) -> None:
    sections = load_sections([make_run(name, SPEC, {name: skill}) for name, skill in SKILL.items()])
    rows = [*SEEDED.rows[:2], SweepRow(label="0 %", models=["c-s0"])]
    text = sweep_text(sections, SEEDED.model_copy(update={"rows": rows}))
    assert "3 mixtures, 1 to 3 training runs each" in text
    assert "verdicts on single adapters: nothing is known about other training runs" in text
    assert "as a mixture has one training run only" in text
    assert "sd –" in text


def test_single_training_runs_have_no_spread(make_run: MakeRun) -> None:
    runs = [make_run(name, SPEC, {name: skill}) for name, skill in (("a", 0.6), ("b", 0.6))]
    rows = [SweepRow(label="100 %", models=["a"]), SweepRow(label="0 %", models=["b"])]
    text = sweep_text(load_sections(runs), SweepRecord(header="w", rows=rows, seeds=[0]))
    assert "each row is one training run" in text
    assert "Training seeds" not in text
    assert "no difference from 100 % is resolved: the choice of tasks could explain each" in text


def test_mixtures_on_several_datasets_are_corrected_together(make_run: MakeRun) -> None:
    specs = (SPEC, "toy/copy/evaluation#n=60")
    runs = [
        make_run(f"{name}{k}", spec, {name: skill})
        for k, spec in enumerate(specs)
        for name, skill in (("a", 0.6), ("b", 0.5))
    ]
    rows = [SweepRow(label="100 %", models=["a"]), SweepRow(label="0 %", models=["b"])]
    record = SweepRecord(header="w", rows=rows, seeds=[0])
    one, both = (sweep_text(load_sections(some), record) for some in (runs[:2], runs))
    assert one.count("Holm-corrected over these 4 comparisons alone") == 1
    assert both.count("Holm-corrected over the 8 such comparisons of all datasets here alone") == 2
    comparisons = [row.comparison for table in sweep_tables(load_sections(runs), record) for row in table.pairs]
    assert [c.p_holm for c in comparisons] == holm([c.p for c in comparisons])


def test_mean_over_seeds_and_its_denominator(make_run: MakeRun) -> None:
    runs = [make_run(name, SPEC, {name: 0.5}, n=3) for name in "abcde"]
    tasks = [scores.tasks for scores in load_sections(runs)[0].scored]
    assert mean_over_seeds(tasks[:1]) is tasks[0]
    mean = mean_over_seeds(tasks)
    numerators = mean.values_of("accuracy") * mean.denominator
    assert np.allclose(numerators, numerators.round(), atol=1e-9)
    assert mean.values.shape == (len(METRICS), 60)


def test_missing_adapters_and_broken_records_are_errors(make_run: MakeRun, tmp_path: Path) -> None:
    section = load_sections([make_run("a", SPEC, {"a": 0.5})])[0]
    record = SweepRecord(header="w", rows=[SweepRow(label="x", models=["a", "z"])], seeds=[0, 1])
    with pytest.raises(RunError, match="z is in none of the runs; they have: a"):
        sweep_tables([section], record)
    (tmp_path / "sweep.json").write_text('{"rows": []}')
    with pytest.raises(RunError, match="not the record of a sweep"):
        read_sweep(tmp_path / "sweep.json")
