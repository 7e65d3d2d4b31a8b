"""The table of all tasks: what each model made of a task, and the grids that the page draws."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.core.grid import Grid, Task
from harness.core.random_stream import Stream
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder
from harness.runs.logs.prediction_log import PredictionLog
from harness.runs.schemas.manifest_schema import StopConfig
from reports.gallery.votes import section_tops
from reports.html.table_html import table_html
from reports.html.task_grids import task_grids
from reports.html.task_table import task_table
from reports.loading.runs import load_sections
from tests.support.data_samples import random_task, task_json
from tests.support.runs.run_folders import append_record, prediction_record, run_manifest, write_run

SPEC = "toy/cross/evaluation#n=6"


def other(grid: Grid, k: int) -> Grid:
    """Return a wrong grid of the same shape, another one for each k."""
    return Grid(grid.height, grid.width, bytes((cell + 1 + k) % 10 for cell in grid.cells))


def two_outputs(name: str, votes: dict[int, list[int]], log: PredictionLog, task: Task) -> None:
    """Append predictions for both test outputs of a task: 0 is the exact grid, other numbers are wrong ones."""
    for test, kinds in votes.items():
        truth = task.test[test].output
        assert truth is not None
        for sample, kind in enumerate(kinds):
            append_record(log, prediction_record(name, task, test, sample, other(truth, kind) if kind else truth))


@pytest.mark.parametrize(
    ("votes", "state"),
    [
        ({0: [0, 0, 1, 1], 1: [0, 1, 1, 0]}, "solved"),
        ({0: [0, 0, 0, 0], 1: [1, 1, 2, 2]}, "never"),
        ({0: [0, 0, 0, 0], 1: [1, 1, 1, 2]}, "never"),
        ({0: [1, 1, 1, 2], 1: [1, 1, 1, 1]}, "never"),
        ({0: [0, 0, 0, 0], 1: [1, 1, 2, 2, 0]}, "lost"),
        ({0: [1, 1, 2, 2, 0], 1: [2, 2, 1, 1, 0]}, "lost"),
    ],
)
def test_a_task_is_lost_only_if_every_output_was_proposed(
    tmp_path: Path, votes: dict[int, list[int]], state: str
) -> None:
    first, second = random_task(_stream(1), 3, name="t"), random_task(_stream(2), 3, name="u")
    task = Task("t", first.train, first.test + second.test)
    spec = tmp_path / "tasks.json"
    spec.write_text(json.dumps({"t": task_json(task)}))
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.write_manifest(run_manifest(str(spec), ["a"], 5))
    log = PredictionLog(folder.predictions_path)
    two_outputs("a", votes, log, task)
    log.commit()
    log.close()
    table = task_table(load_sections([folder.path])[0], {})
    assert [row.cells[0].state for row in table.rows] == [state]


def test_what_was_proposed_after_the_first_round_of_a_stopped_run_counts(tmp_path: Path) -> None:
    """The exact grid of the task is drawn ninth, by 12 of which the first 8 are the first round, and loses the vote."""
    task = random_task(_stream(3), 3, name="t")
    spec = tmp_path / "tasks.json"
    spec.write_text(json.dumps({"t": task_json(task)}))
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    manifest = run_manifest(str(spec), ["a"], 12)
    stop = StopConfig(rule="risk=0.2", rounds=[8, 12])
    folder.write_manifest(manifest.model_copy(update={"config": manifest.config.model_copy(update={"stop": stop})}))
    log = PredictionLog(folder.predictions_path)
    two_outputs("a", {0: [1, 1, 1, 1, 2, 2, 2, 2, 0, 1, 2, 2]}, log, task)
    log.commit()
    log.close()
    (section,) = load_sections([folder.path])
    assert [output.exact for output in section.scored[0].outputs["t"]] == [0]
    assert [row.cells[0].state for row in task_table(section, {}).rows] == ["lost"]


def _stream(seed: int) -> Stream:
    return Stream("task table", seed)


def test_the_grids_of_the_page_are_those_of_dataset_and_votes(tmp_path: Path) -> None:
    section = load_sections([write_run(tmp_path, "run", SPEC, {"a": 0.2, "b": 0.5})])[0]
    grids: list[dict[str, Any]] = task_grids(section)
    dataset = open_dataset(SPEC)
    tops = section_tops(section, section.tasks, 2)
    for index, entry in enumerate(grids):
        task = dataset.task(index)
        assert [[len(grid.split("/")) for grid in pair] for pair in entry["train"]] == [
            [pair.input.height, pair.output.height] for pair in task.train if pair.output
        ]
        for test, pair in enumerate(task.test):
            votes = tops[task.id, test]
            assert [model["n"] for model in entry["test"][test]["models"]] == [top.n for top in votes]
            for model, top in zip(entry["test"][test]["models"], votes, strict=True):
                assert [[int(c) for row in grid.split("/") for c in row] for grid, _ in model["top"]] == [
                    list(group.grid.cells) for group in top.top
                ]
            assert entry["test"][test]["pair"][1].replace("/", "") == "".join(
                map(str, (pair.output or pair.input).cells)
            )


class _Reader(HTMLParser):
    """Collects the elements of a page, and the text of script elements."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts[-1] += data


def test_names_cannot_leave_the_script_element_or_the_attributes(tmp_path: Path) -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    section = load_sections([write_run(tmp_path, "run", SPEC, {evil: 0.5, "b\" onload='x": 0.5})])[0]
    reader = _Reader()
    reader.feed(table_html(task_table(section, {}), set()))
    tags = [tag for tag, _ in reader.tags]
    assert "img" not in tags
    assert tags.count("script") == 1
    assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)
    assert json.loads(reader.scripts[0])["models"] == [evil, "b\" onload='x"]


def test_every_row_has_an_anchor_of_its_own(tmp_path: Path) -> None:
    """Ids of tasks that differ in other characters than letters and digits only have different anchors too."""
    tasks = {name: task_json(random_task(_stream(3), 3)) for name in ("a b", "a-b", "a/b", "A b")}
    spec = tmp_path / "tasks.json"
    spec.write_text(json.dumps(tasks))
    section = load_sections([write_run(tmp_path, "run", str(spec), {"a": 0.5})])[0]
    reader = _Reader()
    reader.feed(table_html(task_table(section, {}), {"tasks-1-a-b"}))
    rows = [attributes["id"] for tag, attributes in reader.tags if tag == "tr" and "id" in attributes]
    assert len(set(rows)) == len(tasks)
    assert "tasks-1-a-b" not in rows
    links = [a["href"] for tag, a in reader.tags if tag == "a" and a.get("class") == "permalink"]
    assert links == [f"#{name}" for name in rows]
