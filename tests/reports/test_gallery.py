"""The gallery: which tasks it shows and why, which grids, and the outlines of differing cells."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import RunError
from harness.core.grid import Grid
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder
from harness.runs.logs.prediction_log import PredictionLog
from reports.gallery.choose import choose_tasks, named_tasks
from reports.gallery.draw import difference_edges, task_picture
from reports.gallery.layout import BOX, COLUMNS, lay_out_task
from reports.gallery.votes import top_grids
from reports.loading.runs import load_sections
from reports.report import ReportOptions, write_report
from tests.support.runs.run_folders import MakeRun, append_record, prediction_record, run_manifest, wrong_grid

SPEC = "toy/cross/evaluation#n=6"
IDS = [f"cross-{k:06}" for k in range(6)]


def other(grid: Grid, k: int) -> Grid:
    """Return the k-th of the grids that differ from this one in every cell."""
    return Grid(grid.height, grid.width, bytes([(cell + 1 + k) % 10 for cell in grid.cells]))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two models with eight predictions per task. Each task is another case, for model a unless noted."""
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.write_manifest(run_manifest(SPEC, ["a", "b"], 8))
    log = PredictionLog(folder.predictions_path)
    dataset = open_dataset(SPEC)
    for index, name in enumerate(dataset.ids):
        task = dataset.task(index)
        truth = task.test[0].output
        assert truth is not None
        flip = lambda k, truth=truth: wrong_grid(truth, k)  # noqa: E731
        cases: dict[str, list[Grid | None]] = {
            IDS[0]: [truth] * 8,
            IDS[1]: [truth, truth, *[other(truth, 0)] * 3, *[other(truth, 1)] * 3],  # found, lost in the vote
            IDS[2]: [flip(0), flip(0), flip(0), flip(1), flip(1), flip(2), flip(2), None],  # nearly right
            IDS[3]: [other(truth, k) for k in range(8)],  # all disagree
            IDS[4]: [None] * 8,  # solved by b only
            IDS[5]: [truth] * 7 + [None],
        }
        for sample, grid in enumerate(cases[name]):
            append_record(log, prediction_record("a", task, 0, sample, grid, "grid" if grid else "unparsed"))
            second = truth if name in (IDS[0], IDS[4], IDS[5]) else other(truth, 7)
            append_record(log, prediction_record("b", task, 0, sample, second))
    log.commit()
    log.close()
    return folder.path


def test_each_category_of_instructive_task_is_chosen_with_its_reason(run: Path) -> None:
    shown = {entry.task.id: entry.reason for entry in choose_tasks(load_sections([run]), 6)}
    assert shown[IDS[1]] == "**a**: found in 2 of 8 predictions but lost in the vote (others have 3 and 3)"
    assert shown[IDS[2]].startswith("**a**: nearly right: never exact, but ")
    assert shown[IDS[3]] == "**a**: all disagree: 8 different grids in 8 answers, the most frequent with 1 vote"
    assert shown[IDS[4]] == "solved by **b**, not by **a**"
    # Tasks that both models solve come last, the hardest first.
    assert list(shown)[4:] == [IDS[5], IDS[0]]
    assert shown[IDS[5]] == "exact predictions: **a** 7 of 8, **b** 8 of 8"
    assert [entry.task.id for entry in choose_tasks(load_sections([run]), 2)] == [IDS[1], IDS[2]]


def test_tasks_are_chosen_from_each_section_in_turn(run: Path, make_run: MakeRun) -> None:
    runs = [run, make_run("other", "toy/copy/evaluation#n=20", {"m": 0.3})]
    sections = load_sections(runs)
    shown = choose_tasks(sections, 4)
    assert [entry.section.dataset for entry in shown] == [SPEC, SPEC] + ["toy/copy/evaluation#n=20"] * 2


def test_tasks_can_be_named_and_unknown_ones_are_refused(run: Path, tmp_path: Path) -> None:
    sections = load_sections([run])
    assert [entry.task.id for entry in named_tasks(sections, [IDS[3], IDS[0]])] == [IDS[3], IDS[0]]
    with pytest.raises(RunError, match=r"no run has the task zebra; tasks are named like cross-000000"):
        named_tasks(sections, [IDS[0], "zebra"])
    (page,) = write_report([run], tmp_path / "report.md", ReportOptions(tasks=(IDS[0],)))
    assert sorted(path.name for path in tmp_path.glob("report-task-*")) == [f"report-task-{IDS[0]}.png"]
    assert f"### Task {IDS[0]}" in page.read_text()


def test_top_grids_have_their_votes_and_the_rank_of_the_exact_grid(run: Path) -> None:
    sections = load_sections([run])
    lost, silent = top_grids(named_tasks(sections, [IDS[1], IDS[4]]))
    first, second = lost[IDS[1], 0]
    assert [group.count for group in first.top] == [3, 3, 2]
    assert (first.model, first.n, first.exact_rank, first.exact_votes) == ("a", 8, 3, 2)
    assert (second.exact_rank, second.exact_votes) == (None, 0)
    assert silent[IDS[4], 0][0].top == ()
    assert silent[IDS[4], 0][0].n == 8


def test_captions_state_votes_and_differences(run: Path) -> None:
    shown = named_tasks(load_sections([run]), [IDS[1], IDS[2], IDS[4]])
    captions = [
        [(p.tile.heading.strip(), p.tile.caption) for p in lay_out_task(entry.task, tops).tiles if p.tile.truth]
        for entry, tops in zip(shown, top_grids(shown), strict=True)
    ]
    cells = len(shown[0].task.test[0].output.cells)  # type: ignore[union-attr]
    assert captions[0][:3] == [("a", f"3 of 8 ✗ {cells} cells"), ("", f"3 of 8 ✗ {cells} cells"), ("", "2 of 8 ✓")]
    assert captions[1][0] == ("a", "3 of 8 ✗ 1 cell")
    assert captions[2] == [("a", "no grid in 8 predictions"), ("b", "8 of 8 ✓")]


def test_every_grid_is_drawn_within_the_picture(run: Path) -> None:
    (entry,) = shown = named_tasks(load_sections([run]), [IDS[1]])
    layout = lay_out_task(entry.task, top_grids(shown)[0])
    figure = task_picture(layout)
    (panel,) = figure.axes
    images = panel.get_images()
    pairs = [*entry.task.train, *entry.task.test]
    assert [image.get_array().tolist() for image in images[: 2 * len(pairs)]] == [
        grid.to_rows() for pair in pairs for grid in (pair.input, pair.output) if grid
    ]
    for image in images:
        left, right, bottom, top = image.get_extent()
        assert 0 < left < right < layout.width
        assert 0 < top < bottom < layout.height
        assert right - left <= BOX + 1e-9
    # One white outline for each grid with wrong cells.
    white = [c for c in panel.collections if c.get_color().tolist() == [[1.0, 1.0, 1.0, 1.0]]]
    assert len(white) == sum("cell" in placed.tile.caption for placed in layout.tiles)


def test_a_task_of_many_large_grids_keeps_every_grid_readable(tmp_path: Path) -> None:
    spec = "arc2/training#ids=" + str(tmp_path / "ids.txt")
    (tmp_path / "ids.txt").write_text("8dab14c2 ff28f65a")
    dataset = open_dataset(spec)
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    models = [f"a-rather-long-name-of-an-adapter-{k}@0123456789ab" for k in range(5)]
    folder.write_manifest(run_manifest(spec, models, 3))
    log = PredictionLog(folder.predictions_path)
    for model in models:
        for index in range(2):
            task = dataset.task(index)
            for test, pair in enumerate(task.test):
                for sample in range(3):
                    append_record(
                        log, prediction_record(model, task, test, sample, wrong_grid(pair.output or pair.input, sample))
                    )
    log.commit()
    log.close()
    shown = named_tasks(load_sections([folder.path]), dataset.ids)
    assert [(len(e.task.train), len(e.task.test)) for e in shown] == [(4, 4), (8, 3)]
    for entry, tops in zip(shown, top_grids(shown), strict=True):
        layout = lay_out_task(entry.task, tops)
        grids = [placed for placed in layout.tiles if placed.tile.grid]
        # Every example, test and truth, and the two attempts of each of the five models.
        assert len(grids) == 2 * (len(entry.task.train) + len(entry.task.test)) + 10 * len(entry.task.test)
        # The smallest cell, of a 30x30 grid, is 5.5 pixels wide at 110 dots per inch.
        assert all(placed.tile.cell * 110 > 5.4 for placed in grids)
        places = {(placed.x, placed.y) for placed in layout.tiles}
        assert len(places) == len(layout.tiles)
        assert all(placed.tile.column < COLUMNS for placed in layout.tiles)
        headings = [p.tile.heading for p in layout.tiles if p.tile.truth and p.tile.heading.strip()]
        assert len(headings) == 5 * len(entry.task.test)


@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_outlines_enclose_exactly_the_differing_cells(height: int, width: int, data: st.DataObject) -> None:
    cells = st.lists(st.integers(0, 2), min_size=height * width, max_size=height * width)
    grid, truth = (Grid(height, width, bytes(data.draw(cells))) for _ in range(2))
    edges = difference_edges(grid, truth)
    assert len(set(edges)) == len(edges)
    vertical = {(a, b) for (a, b), (c, d) in edges if a == c and d == b + 1}
    assert len(vertical) + sum(b == d and c == a + 1 for (a, b), (c, d) in edges) == len(edges)
    for i in range(height):
        inside = False  # Along a row, each vertical edge leads into or out of the differing cells.
        for j in range(width):
            inside ^= (j, i) in vertical
            assert inside == (grid.rows()[i][j] != truth.rows()[i][j])
