"""The panel of the HTML page in Chromium: one task with two models side by side, its link, and the keyboard."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reports.html.task_table import TaskTable, task_table
from reports.loading.runs import Section, load_sections
from reports.report import ReportOptions, write_report
from tests.reports.test_report_page import _ROWS, EVIL, SPEC, tasks_in_state
from tests.support.chromium import Page, find_chromium, in_browser
from tests.support.runs.run_folders import write_run

pytestmark = pytest.mark.slow
_SIDES = "[...document.querySelectorAll('.side > strong')].map((e) => e.textContent)"
_HEADING = "document.querySelector('.panel h4')?.textContent"
_GRIDS = """[...document.querySelectorAll('.panel svg')].map((svg) => {
  const [width, height] = svg.getAttribute('viewBox').split(' ').slice(2).map(Number);
  const cells = [...svg.querySelectorAll('.cell')].map((cell) => cell.getAttribute('fill'));
  return [...Array(height).keys()].map((y) => cells.slice(y * width, (y + 1) * width));
})"""
_WRONG = """[...document.querySelectorAll('.side')[0].querySelectorAll('figure')]
    .map((figure) => figure.querySelectorAll('.wrong').length)"""
_READY = "document.readyState === 'complete' && !!document.querySelector('.panel h4')"
_HIDDEN = "[...document.querySelectorAll('#tasks-1 thead th')].map((cell) => cell.hidden)"


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> Section:
    """Return the section of a run of three models, of which one name is HTML."""
    find_chromium()
    folder = tmp_path_factory.mktemp("panel")
    return load_sections([write_run(folder, "run", SPEC, {"base": 0.15, EVIL: 0.45, "third": 0.3})])[0]


@pytest.fixture(scope="module")
def page(section: Section) -> Path:
    run = section.runs[0].path
    (written,) = write_report([run], run.parent / "report.html", ReportOptions(title="Panel"))
    return written


@pytest.fixture(scope="module")
def table(section: Section) -> TaskTable:
    return task_table(section, {})


def colours_of(grid: str, colours: list[str]) -> list[list[str]]:
    """Return the colours in which a grid is drawn."""
    return [[colours[int(cell)] for cell in row] for row in grid.split("/")]


def test_a_task_opens_with_two_models_side_by_side(page: Path, table: TaskTable, tmp_path: Path) -> None:
    async def steps(tab: Page) -> None:
        assert await tab.evaluate("document.querySelector('.panel').hidden")
        row = table.rows[4]
        await tab.click("#tasks-1 tbody tr:nth-child(5) td:nth-child(2)")
        assert await tab.evaluate(_HEADING) == f"Task {row.task}"
        assert await tab.evaluate(_SIDES) == ["base", EVIL]
        data = json.loads(await tab.evaluate("document.getElementById('grids-tasks-1').textContent"))
        task = data["tasks"][4]
        expected = [grid for pair in task["train"] for grid in pair]
        for test in task["test"]:
            expected += [*test["pair"], *(grid for model in test["models"][:2] for grid, _ in model["top"])]
        assert await tab.evaluate(_GRIDS) == [colours_of(grid, data["colours"]) for grid in expected]
        # Another pair of models, then one model alone.
        choose = "(async () => {{ const s = document.querySelectorAll('#controls-tasks-1 select')[{}]; s.value = '{}';"
        choose += " s.dispatchEvent(new Event('change')); }})()"
        await tab.evaluate(choose.format(0, 2))
        assert await tab.evaluate(_SIDES) == ["third", EVIL]
        await tab.evaluate(choose.format(1, ""))
        assert await tab.evaluate(_SIDES) == ["third"]
        await tab.press("Escape")
        assert await tab.evaluate("document.querySelector('.panel').hidden")
        assert tab.complaints() == []

    in_browser(tmp_path, page, steps)


def test_the_marks_of_the_attempts_are_those_of_the_scores(page: Path, table: TaskTable, tmp_path: Path) -> None:
    """Wrong cells are outlined, exact grids framed, and the line above says whether the model solved the task."""

    async def steps(tab: Page) -> None:
        for place, row in enumerate(table.rows):
            await tab.press("j")
            for side, cell in enumerate(row.cells[:2]):
                line = await tab.evaluate(f"document.querySelectorAll('.side')[{side}].querySelector('p').textContent")
                assert line.startswith("solved" if cell.solved else "not solved")
                assert ("never proposed" in line) == (not cell.proposed)
                marks = f"document.querySelectorAll('.side')[{side}].querySelectorAll('.exact').length"
                exact = await tab.evaluate(marks)
                assert exact <= 1
                if cell.solved:
                    assert exact == 1
            top = table.grids[place]["test"][0]["models"][0]["top"]
            truth = table.grids[place]["test"][0]["pair"][1]
            wrong = await tab.evaluate(_WRONG)
            same_shape = [len(g) == len(truth) and g.count("/") == truth.count("/") for g, _ in top]
            differing = [sum(a != b for a, b in zip(g, truth, strict=False)) for g, _ in top]
            assert wrong == [n if same else 0 for n, same in zip(differing, same_shape, strict=True)]
        assert tab.complaints() == []

    in_browser(tmp_path, page, steps)


def test_the_keyboard_moves_through_the_shown_tasks(page: Path, table: TaskTable, tmp_path: Path) -> None:
    async def steps(tab: Page) -> None:
        shown = tasks_in_state(table, "differing")
        await tab.click("#controls-tasks-1 input[value=differing]")
        for name in [*shown[:3], shown[3]]:
            await tab.press("j")
            assert await tab.evaluate(_HEADING) == f"Task {name}"
        await tab.press("k")
        assert await tab.evaluate(_HEADING) == f"Task {shown[2]}"
        assert await tab.evaluate("document.querySelectorAll('[aria-current]').length") == 1
        await tab.press("Escape")
        await tab.press("k")
        assert await tab.evaluate(_HEADING) == f"Task {shown[-1]}"
        await tab.press("j")  # there is no next one
        assert await tab.evaluate(_HEADING) == f"Task {shown[-1]}"
        # Keys typed into a field are text.
        await tab.evaluate("document.querySelector('#controls-tasks-1 select').focus()")
        await tab.press("k")
        assert await tab.evaluate(_HEADING) == f"Task {shown[-1]}"
        assert tab.complaints() == []

    in_browser(tmp_path, page, steps)


def test_only_the_two_chosen_models_count_if_asked(page: Path, table: TaskTable, tmp_path: Path) -> None:
    async def steps(tab: Page) -> None:
        assert await tab.evaluate(_HIDDEN) == [False] * 5
        await tab.click("#controls-tasks-1 input[type=checkbox]")
        assert await tab.evaluate(_HIDDEN) == [False, False, False, False, True]
        for state in ("lost", "differing", "never", "solved"):
            await tab.click(f"#controls-tasks-1 input[value={state}]")
            assert await tab.evaluate(_ROWS) == tasks_in_state(table, state, (0, 1))
        assert tasks_in_state(table, "differing", (0, 1)) != tasks_in_state(table, "differing")

    in_browser(tmp_path, page, steps)


def test_every_task_has_a_link_that_opens_it(page: Path, table: TaskTable, tmp_path: Path) -> None:
    async def steps(tab: Page) -> None:
        links = await tab.evaluate("[...document.querySelectorAll('#tasks-1 .permalink')].map((a) => a.hash)")
        assert len(set(links)) == len(table.rows)
        # A link to a task that the filter hides shows it.
        hidden = next(k for k, row in enumerate(table.rows) if row.task not in tasks_in_state(table, "solved"))
        await tab.click("#controls-tasks-1 input[value=solved]")
        await tab.evaluate(f"location.hash = {json.dumps(links[hidden])}")
        await tab.evaluate("new Promise((done) => setTimeout(done, 100))")
        assert await tab.evaluate(_HEADING) == f"Task {table.rows[hidden].task}"
        assert await tab.evaluate(_ROWS) == [row.task for row in table.rows]
        # The address follows the open task, and the button copies it.
        await tab.press("j")
        url = await tab.evaluate("location.href")
        assert url == page.resolve().as_uri() + links[hidden + 1]
        await tab.command("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        await tab.command("Page.bringToFront")
        await tab.press("c")
        await tab.evaluate("new Promise((done) => setTimeout(done, 100))")
        shown = "document.querySelector('.panel output').textContent"
        field = "document.querySelector('.panel output input')?.value"
        assert await tab.evaluate(shown) == "link copied" or await tab.evaluate(field) == url
        # A browser that refuses shows the link, selected.
        await tab.evaluate("navigator.clipboard.writeText = () => Promise.reject(new Error('refused'))")
        await tab.press("c")
        await tab.evaluate("new Promise((done) => setTimeout(done, 100))")
        assert await tab.evaluate(field) == url
        assert await tab.evaluate("getSelection().toString() || document.activeElement.value") == url
        assert tab.complaints() == []

    in_browser(tmp_path, page, steps)


def test_a_page_opens_at_the_task_of_its_address(page: Path, table: TaskTable, tmp_path: Path) -> None:
    async def steps(tab: Page) -> None:
        link = await tab.evaluate("document.querySelectorAll('#tasks-1 .permalink')[7].href")
        await tab.command("Page.navigate", url="about:blank")
        await tab.command("Page.navigate", url=link)
        for _ in range(100):
            if await tab.evaluate(_READY):
                break
        assert await tab.evaluate(_HEADING) == f"Task {table.rows[7].task}"
        for other in ("#nowhere%20", "#100%"):
            await tab.evaluate(f"location.hash = {json.dumps(other)}")
            assert await tab.evaluate(_HEADING) == f"Task {table.rows[7].task}"
        assert tab.complaints() == []

    in_browser(tmp_path, page, steps)
