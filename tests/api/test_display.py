"""What a notebook shows: grids and tables are drawn, and no text of a run or dataset becomes an element."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.api import Run, compare, load_dataset, load_run, score
from harness.core.errors import ConfigError
from harness.core.grid import Grid
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.frames.notebook.grid_html import grid_svg
from harness.inspection.terminal_picture import PALETTE
from tests.support.commands import run_bench
from tests.support.runs.pools import write_submission
from tests.support.runs.run_folders import MakeRun

SPEC = "toy/cross/evaluation#n=3"
EVIL = "<script>alert(1)</script>\"'|&*_x_*"
DRAWN = {"b", "div", "em", "li", "p", "path", "span", "svg", "table", "tbody", "td", "th", "thead", "tr", "ul"}


class Page(HTMLParser):
    """The elements and the text of a page; every element is closed in its order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on") or name in ("href", "src")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_names_of_models_and_tasks_stay_text(make_run: MakeRun, tmp_path: Path) -> None:
    tasks = {
        f"{EVIL}{number}": {
            part: [{"input": p.input.to_rows(), "output": p.output.to_rows()} for p in pairs if p.output]
            for part, pairs in (("train", task.train), ("test", task.test))
        }
        for number, task in enumerate(iterate_tasks(open_dataset(SPEC)))
    }
    (tmp_path / "<img src=x>.json").write_text(json.dumps(tasks))
    spec = str(tmp_path / "<img src=x>.json")
    run = load_run(make_run("<i>run", spec, {EVIL: 0.5, "other": 0.5}, 4))
    shown = [run, compare(run), run.show(f"{EVIL}0"), load_dataset(spec), load_dataset(spec)[0]]
    for item in shown:
        page = Page(item._repr_html_())
        assert set(page.tags) <= DRAWN, type(item)
        assert "alert(1)" in "".join(page.words), type(item)
        assert repr(item)


def test_a_run_shows_its_table_with_intervals_and_its_warnings(make_run: MakeRun, tmp_path: Path) -> None:
    run = load_run(write_submission(tmp_path / "s.json", SPEC, right=1), "toy/cross/evaluation#n=4")
    page = Page(run._repr_html_())
    text = "".join(page.words)
    assert "of 4 tasks 1 (cross-000003) have no prediction and count as wrong" in text
    assert re.search(r"25\.0 %† \[4\.6, 69\.9\]", text)
    assert page.tags.count("tr") == 2
    rows = Page(compare(make_run("a", SPEC, {"x": 0.5, "y": 0.5}))._repr_html_()).tags.count("tr")
    assert rows == 8


@pytest.mark.parametrize("rule", ["poe", "kgmon"])
def test_a_run_without_what_its_rule_needs_says_so(make_run: MakeRun, rule: str) -> None:
    run = load_run(make_run("run", SPEC, {"m": 0.5}, 2), rule=rule)
    assert "not scored: " in repr(run)
    assert "not scored: " in run._repr_html_()


def test_a_run_without_known_outputs_says_so(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("run", SPEC, {"m": 0.5}, 2)
    tasks = list(iterate_tasks(open_dataset(SPEC)))
    unknown = {
        task.id: {
            "train": [{"input": p.input.to_rows(), "output": p.output.to_rows()} for p in task.train if p.output],
            "test": [{"input": p.input.to_rows()} for p in task.test],
        }
        for task in tasks
    }
    (tmp_path / "test.json").write_text(json.dumps(unknown))
    loaded = load_run(run, str(tmp_path / "test.json"))
    assert "not scored: of 3 tasks 3 (cross-000000" in repr(loaded)
    assert "not scored: of 3 tasks" in loaded._repr_html_()
    assert loaded.predictions["exact"].isna().all()
    assert loaded.candidates["exact"].isna().all()
    assert "exact" not in repr(loaded.show(tasks[0].id))


def test_a_grid_is_drawn_cell_by_cell() -> None:
    grid = Grid.from_rows([[1, 1, 2], [0, 1, 0]])
    svg = grid_svg(grid)
    cells = {}
    for colour, path in re.findall(r'<path fill="(#\w+)" d="([^"]*)"/>', svg):
        for x, y, width in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\d+z", path):
            cells |= {(int(y), int(x) + i): colour for i in range(int(width))}
    expected = {
        (y, x): "#{:02x}{:02x}{:02x}".format(*PALETTE[value])
        for y, row in enumerate(grid.to_rows())
        for x, value in enumerate(row)
    }
    assert cells == expected
    assert 'viewBox="0 0 3 2"' in svg


def test_a_task_is_drawn_with_the_best_candidates_of_every_model(make_run: MakeRun) -> None:
    run = load_run(make_run("run", SPEC, {"good": 1.0, "bad": 0.0}, 4, fails=0.0))
    task = run.saved.tasks[1]
    page = Page(run.show(task.id)._repr_html_())
    text = "".join(page.words)
    assert "good, test 1" in text
    assert "4 votes, exact" in text
    bad = run.candidates.query("model == 'bad' and task_id == @task.id")
    assert page.tags.count("svg") == 2 * (len(task.train) + len(task.test)) + 1 + min(3, len(bad))
    assert not bad["exact"].any()
    assert repr(run.show(task.id)).splitlines()[1] == "good, test 1: 4 votes, exact"


def test_tasks_are_arrays_by_index_and_id() -> None:
    tasks = load_dataset("arc1/evaluation")
    assert len(tasks) == len(list(tasks)) == len(tasks.frame) == 400
    shown = tasks["00576224"]
    assert shown.id == tasks[0].id == tasks.ids[0] == "00576224"
    source, target = shown.train[0]
    assert target is not None
    assert (source.shape, target.shape, len(shown.test)) == ((2, 2), (6, 6), 1)
    assert source.tolist() == shown.task.train[0].input.to_rows()
    with pytest.raises(ValueError, match="read-only"):
        source[0, 0] = 5
    assert tasks.frame.set_index("task_id").loc["00576224"].tolist() == [2, 1, 1, 6, 7]
    with pytest.raises(IndexError):
        tasks[400]


def test_a_report_is_written_or_shown(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run("run", SPEC, {"m": 0.5})
    run = load_run(path)
    report = run.report(tmp_path / "ours.html", title="Mine", tasks=("cross-000001",))
    assert report.paths == (tmp_path / "ours.html",)
    assert report._repr_html_() is None
    assert repr(report) == f"wrote {tmp_path / 'ours.html'}"
    run_bench(capsys, "report", path, "-o", tmp_path / "theirs.html", "--title", "Mine", "--tasks", "cross-000001")
    assert (tmp_path / "ours.html").read_bytes() == (tmp_path / "theirs.html").read_bytes()
    shown = run.report()
    page = shown._repr_html_()
    assert page is not None
    assert page.startswith('<iframe sandbox="allow-scripts"')
    assert page.count("<") == 2  # the report inside is an attribute
    assert shown.html is not None
    assert "arc-bench report" in shown.html
    frame: Run = load_run(write_submission(tmp_path / "s.json", SPEC, right=1), SPEC)
    with pytest.raises(ConfigError, match="a report is of runs and pools, which this is not"):
        frame.report()
    with pytest.raises(ConfigError, match="load it without @MODEL and dataset"):
        load_run(f"{path}@m").report()
    named = score(run.table(grids=True), SPEC, name=str(path))
    with pytest.raises(ConfigError, match="a report is of runs and pools, which this is not"):
        named.report()
