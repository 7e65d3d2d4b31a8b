"""Reports: the text is golden, the pictures are looked at by their pixels, and nothing depends on the clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.comparison import compare
from harness.errors import RunError
from harness.intervals import Interval
from harness.tables import difference_interval, markdown_table, p_value, percent, points, with_interval
from reports.loading import load_sections
from reports.markdown import write_report
from tests.conftest import MakeRun

GOLDEN = Path(__file__).parent / "fixtures" / "report.md"
SPEC = "toy/cross/evaluation#n=20"


def test_figures_are_written_as_the_tables_show_them() -> None:
    assert percent(0.1334) == "13.3 %"
    assert with_interval(Interval(0.133, 0.111, 0.159, "bca", 400)) == "13.3 % [11.1, 15.9]"
    assert points(-0.012) == "-1.2"
    assert p_value(0.0004) == "< 0.001"
    assert p_value(0.0768) == "0.077"
    few = compare([1.0, 0.0, 0.0], [0.0, 0.0, 0.0])[0]
    assert difference_interval(few) == "too few tasks differ"
    assert markdown_table(["a", "b"], [["x", "1"], ["yy|", "22"]]) == (
        "| a    |   b |\n| ---- | --: |\n| x    |   1 |\n| yy\\| |  22 |"
    )


def test_the_report_is_golden_and_the_same_twice(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [
        make_run("first", SPEC, {"base": 0.05, "adapter": 0.8}),
        make_run("second", "toy/copy/evaluation#n=20", {"base": 0.6, "adapter": 0.6}),
    ]
    write_report(runs, tmp_path / "one" / "report.md", closing="## Closing\n\nwords")
    write_report(runs, tmp_path / "two" / "report.md", closing="## Closing\n\nwords")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
    assert (tmp_path / "one" / "report.md").read_text() == GOLDEN.read_text()


def test_pictures_have_the_colours_of_the_tasks(make_run: MakeRun, tmp_path: Path) -> None:
    import matplotlib.image
    import numpy as np

    run = make_run("first", SPEC, {"base": 0.05, "adapter": 0.8})
    write_report([run], tmp_path / "report.md")
    tasks = matplotlib.image.imread(tmp_path / "report-tasks-1.png")
    assert tasks.shape[0] > 300
    assert tasks.shape[1] > 600
    assert len(np.unique((tasks[..., :3] * 255).astype(int).reshape(-1, 3), axis=0)) > 10
    dots = (matplotlib.image.imread(tmp_path / "report-intervals.png")[..., :3] * 255).round().astype(int)
    for colour in ((0, 114, 178), (213, 94, 0)):
        assert (dots == colour).all(-1).sum() > 50


def test_models_of_one_name_in_two_runs_are_told_apart(make_run: MakeRun) -> None:
    runs = [make_run("one", SPEC, {"m": 0.5}), make_run("two", SPEC, {"m": 0.6, "k": 0.1})]
    sections = load_sections(runs)
    assert len(sections) == 1
    assert [scores.model for scores in sections[0].scored] == ["one@m", "two@m", "k"]


def test_an_unfinished_run_is_reported_as_such(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("cut", SPEC, {"m": 0.5, "k": 0.4})
    path = run / "manifest.json"
    path.write_text(path.read_text().replace('"2026-01-01T00:01:00+00:00"', "null"))
    lines = (run / "predictions.jsonl").read_text().splitlines(keepends=True)
    (run / "predictions.jsonl").write_text("".join(lines[:50]))
    write_report([run], tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text()
    assert "**Unfinished**: cut" in text
    assert "missing" in text


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"manifest\.json is missing"):
        write_report([tmp_path], tmp_path / "report.md")
