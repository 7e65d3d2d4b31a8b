"""The table of a sweep: mixtures as rows, each compared with the first, and the spread over training seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from harness.core.errors import RunError
from harness.runs.schema import SweepRecord, SweepRow
from harness.stats.intervals import intervals
from harness.stats.paired_test import holm
from harness.voting.metrics import METRICS
from reports.loading.runs import Section, load_sections
from reports.loading.sweep import mean_over_seeds, read_sweep, sweep_tables
from reports.sections.sweep import sweep_section
from tests.support.runs.run_folders import MakeRun

SPEC = "toy/cross/evaluation#n=60"
SKILL = {"a-s0": 0.8, "a-s1": 0.7, "b-s0": 0.75, "b-s1": 0.7, "c-s0": 0.1, "c-s1": 0.15}
SEEDED = SweepRecord(
    header="original datasets weight",
    rows=[
        SweepRow(label="100 %", models=["a-s0", "a-s1"]),
        SweepRow(label="50 %", models=["b-s0", "b-s1"]),
        SweepRow(label="0 %", models=["c-s0", "c-s1"]),
    ],
    seeds=[0, 1],
)


def sweep_text(sections: Sequence[Section], record: SweepRecord) -> str:
    """Return the markdown of a sweep's tables."""
    return "\n\n".join(part for table in sweep_tables(sections, record) for part in sweep_section(table))


def test_rows_are_means_over_seeds_with_intervals_over_tasks(make_run: MakeRun) -> None:
    runs = [make_run(name, SPEC, {name: skill}) for name, skill in SKILL.items()]
    sections = load_sections(runs)
    (section,) = sections
    text = sweep_text(sections, SEEDED)
    assert "3 mixtures, 2 training runs each" in text
    assert "**0 %** is worse than **100 %**" in text
    assert "**50 %**" not in text.split("\n\n")[1]
    known = {scores.model: scores.tasks for scores in section.scored}
    both = mean_over_seeds([known["c-s0"], known["c-s1"]])
    hand = (known["c-s0"].values_of("accuracy") + known["c-s1"].values_of("accuracy")) / 2
    assert np.array_equal(both.values_of("accuracy"), hand)
    found = intervals(hand, both.denominator, section.seed)[0]
    cells = next(line for line in text.splitlines() if line.startswith("| 0 %"))
    assert f"{100 * found.value:.1f} %" in cells
    assert f"[{100 * found.low:.1f}, {100 * found.high:.1f}]" in cells
    sd = 100 * np.std([known[name].values_of("accuracy").mean() for name in ("c-s0", "c-s1")], ddof=1)
    assert f"sd {sd:.1f}" in text.split("### Training seeds")[1]


def test_single_training_runs_have_no_spread(make_run: MakeRun) -> None:
    runs = [make_run(name, SPEC, {name: skill}) for name, skill in (("a", 0.6), ("b", 0.6))]
    rows = [SweepRow(label="100 %", models=["a"]), SweepRow(label="0 %", models=["b"])]
    text = sweep_text(load_sections(runs), SweepRecord(header="w", rows=rows, seeds=[0]))
    assert "each row is one training run" in text
    assert "Training seeds" not in text
    assert "no mixture differs from 100 % by more than chance explains" in text


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
    assert one.count("Holm-corrected over these 4 comparisons") == 1
    assert both.count("Holm-corrected over the 8 comparisons of all datasets here") == 2
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
