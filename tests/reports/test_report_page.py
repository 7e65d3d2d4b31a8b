"""The HTML page in a headless Chromium: sorting and filtering, and no need for network or script."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from reports.html.task_table import TaskTable, task_table
from reports.loading.runs import load_sections
from reports.report import ReportOptions, write_report
from tests.support.chromium import DEAD_LINKS, Page, find_chromium, in_browser
from tests.support.runs.run_folders import write_run

SPEC = "toy/cross/evaluation#n=30"
EVIL = "<img src=http://127.0.0.1:9/x onerror=document.title='hit'>"

_HREF = "document.querySelector('#tasks-1 .permalink').href"
_ROWS = """[...document.querySelectorAll('#tasks-1 tbody tr')]
    .filter((row) => row.offsetParent !== null).map((row) => row.cells[0].textContent)"""
_UNNAMED = "[...document.querySelectorAll('input, button')].filter((e) => !(e.labels?.[0] ?? e).textContent.trim())"
_COLOURS = """(async () => {
  const counts = [];
  for (const image of document.images) {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    const data = new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
    counts.push([image.alt, image.naturalWidth, image.naturalHeight, new Set(data).size]);
  }
  return counts;
})()"""


STATES = ("solved", "unsolved", "lost", "never", "differing", "all")


def tasks_in_state(table: TaskTable, state: str, models: Sequence[int] = (0, 1, 2)) -> list[str]:
    """Return the tasks that a filter shows, by the scores of some models."""
    conditions: dict[str, Callable[[list[Any]], bool]] = {
        "all": lambda cells: True,
        "solved": lambda cells: all(cell.solved for cell in cells),
        "unsolved": lambda cells: not any(cell.solved for cell in cells),
        "lost": lambda cells: any(cell.proposed and not cell.solved for cell in cells),
        "never": lambda cells: not any(cell.proposed or cell.solved for cell in cells),
        "differing": lambda cells: len({cell.solved for cell in cells}) == 2,
    }
    return [row.task for row in table.rows if conditions[state]([row.cells[index] for index in models])]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TaskTable]:
    """Write the page of a run in which the name of one model is HTML, and return it with its task table."""
    find_chromium()
    folder = tmp_path_factory.mktemp("page")
    run = write_run(folder, "run", SPEC, {"base": 0.15, EVIL: 0.45, "third": 0.3})
    (page,) = write_report([run], folder / "report.html", ReportOptions(title="A <b>title</b>"))
    return page, task_table(load_sections([run])[0], {})


@pytest.mark.slow
def test_headings_sort_and_the_filter_filters(written: tuple[Path, TaskTable], tmp_path: Path) -> None:
    page, table = written
    ids = [row.task for row in table.rows]

    def sorted_by(column: int, descending: bool) -> list[str]:
        """Return the tasks sorted by the value of a model, equal ones by id."""
        key: Callable[[Any], float] = lambda row: row.cells[column].sort_key  # noqa: E731
        return [row.task for row in sorted(table.rows, key=key, reverse=descending)]

    async def steps(tab: Page) -> None:
        assert await tab.evaluate(_ROWS) == ids
        await tab.click("#tasks-1 th:nth-child(4) button")
        assert await tab.evaluate(_ROWS) == sorted_by(1, descending=True) != ids
        assert await tab.evaluate("document.querySelector('#tasks-1 th:nth-child(4)').ariaSort") == "descending"
        await tab.click("#tasks-1 th:nth-child(4) button")
        assert await tab.evaluate(_ROWS) == sorted_by(1, descending=False)
        # The keyboard works like the mouse.
        await tab.evaluate("document.querySelector('#tasks-1 th:nth-child(1) button').focus()")
        await tab.press("Enter")
        assert await tab.evaluate(_ROWS) == sorted(ids)
        assert await tab.evaluate("document.querySelectorAll('[aria-sort]').length") == 1
        for state in STATES:
            await tab.click(f"#controls-tasks-1 input[value={state}]")
            shown = tasks_in_state(table, state)
            assert await tab.evaluate(_ROWS) == shown
            assert await tab.evaluate("document.querySelector('#controls-tasks-1 output').textContent") == (
                f"{len(shown)} of {len(ids)} tasks"
            )
            label = await tab.evaluate(
                f"document.querySelector('#controls-tasks-1 input[value={state}]').labels[0].textContent"
            )
            assert label.endswith(f"({len(shown)})")
            assert shown or state == "never"
        assert tab.complaints() == []

    in_browser(tmp_path, page, steps)


@pytest.mark.slow
def test_the_page_is_self_contained_and_its_pictures_are_drawn(written: tuple[Path, TaskTable], tmp_path: Path) -> None:
    page, _ = written

    async def steps(tab: Page) -> None:
        pictures = await tab.evaluate(_COLOURS)
        # Intervals, differences, rates, curves, reliability, and ten tasks; grids are drawn when a task is opened.
        assert len(pictures) == 5 + 10
        for alt, width, height, colours in pictures:
            assert alt
            assert width > 700, alt
            assert height > 100, alt
            assert colours > 10, alt
        assert all(url.startswith(("file:", "data:")) for url in tab.requested())
        # HTML in a model's name is shown as text.
        assert await tab.evaluate("document.title") == "A <b>title</b>"
        assert EVIL in await tab.evaluate("document.body.textContent")
        assert await tab.evaluate("document.querySelectorAll('img:not([src^=\"data:\"])').length") == 0
        assert await tab.evaluate(f"{_UNNAMED}.length") == 0
        # Every link inside the page leads somewhere.
        assert await tab.evaluate(f"{DEAD_LINKS}.map((a) => a.hash)") == []
        assert await tab.evaluate("document.querySelectorAll('#tasks-1 a:not(.permalink)').length") == 10
        assert await tab.evaluate("document.querySelectorAll('#tasks-1 a.permalink').length") == 30
        assert tab.complaints() == []

    in_browser(tmp_path, page, steps)


@pytest.mark.slow
def test_without_script_the_page_is_complete(written: tuple[Path, TaskTable], tmp_path: Path) -> None:
    page, table = written

    async def steps(tab: Page) -> None:
        assert await tab.evaluate(_ROWS) == [row.task for row in table.rows]
        assert await tab.evaluate("document.querySelectorAll('fieldset, button, .panel').length") == 0
        text = await tab.evaluate("document.body.innerText")
        for words in ("has the highest vote_2", "Coverage and selection", "How it was made", "bench reproduce run"):
            assert words in text
        headings = await tab.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((h) => Number(h.tagName[1]))")
        assert headings[0] == 1
        assert headings.count(1) == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(headings))

    in_browser(tmp_path, page, steps, script=False)
